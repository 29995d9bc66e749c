"""A mail, as handlers get it and as ``received`` keeps it."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage

from ...journal.facts import Address
from ...journal.record import ClientRecord, Shown
from ...pristine.imports import importing_once
from .messages import MailIn

_HEAD = 1 << 16  # bytes of a mail in which its repr looks for the subject
_RECIPIENTS = 10  # that its repr names
_SUBJECT = 200  # characters of the subject in it


class Mail(ClientRecord):
    """A mail, with the envelope of its SMTP transaction (RFC 5321)."""

    _plain_success = (250, len("250 OK"))
    _message: MailIn

    def __init__(self, message: MailIn) -> None:
        self._message = message
        self._parsed: EmailMessage | None = None

    @property
    def peer(self) -> Address:
        """The client's address: ``(host, port, ...)``, or text over a Unix socket."""
        return self._message.peer

    @property
    def client_address(self) -> Address:
        """The client's address; another name for ``peer``."""
        return self._message.peer

    @property
    def helo(self) -> str:
        """The argument of HELO or EHLO."""
        return self._message.helo

    @property
    def mail_from(self) -> str:
        """The sender in the envelope; empty for a bounce."""
        return self._message.mail_from

    @property
    def mail_options(self) -> list[str]:
        """The parameters of MAIL FROM, such as ``SIZE=100`` or ``SMTPUTF8``."""
        return list(self._message.mail_options)

    @property
    def rcpt_tos(self) -> list[str]:
        """The recipients in the envelope."""
        return list(self._message.rcpt_tos)

    @property
    def rcpt_options(self) -> list[str]:
        """The parameters of the RCPT TO commands."""
        return list(self._message.rcpt_options)

    @property
    def data(self) -> bytes:
        """The mail as it came, with CRLF line ends, after removing dot-stuffing."""
        return self._message.data

    @property
    def message(self) -> EmailMessage:
        """The parsed mail, with ``\\n`` line ends in text.

        Raises ValueError, which quotes the mail, if Python's ``email`` cannot parse it.
        """
        if self._parsed is None:
            text = self.data.replace(b"\r\n", b"\n")
            try:
                parsed = email.message_from_bytes(text, policy=email.policy.default)
            except Exception as error:  # whatever broken header fields make it raise
                raise ValueError(
                    f"the mail cannot be parsed ({type(error).__name__}: {error}); `data` has its "
                    f"bytes: {text[:200]!r}"
                ) from error
            assert isinstance(parsed, EmailMessage)
            self._parsed = parsed
        return self._parsed

    @property
    def auth(self) -> str | None:
        """The authenticated user; always ``None``, because the server offers no AUTH."""
        return None

    def _content(self) -> tuple[object, ...]:
        m = self._message
        envelope = (m.mail_from, m.mail_options, m.rcpt_tos, m.rcpt_options)
        return (m.peer, m.helo, m.esmtp, *envelope, m.data)

    def __eq__(self, other: object) -> bool:
        return self._content() == other._content() if isinstance(other, Mail) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.mail_from, self.data))

    def _shown(self) -> Shown:
        with importing_once():
            from .shown import shown
        return shown(self)

    def __repr__(self) -> str:
        named = repr(self._message.rcpt_tos[:_RECIPIENTS])
        if (more := len(self._message.rcpt_tos) - _RECIPIENTS) > 0:
            named += f" and {more:,} more"
        return f"<Mail from {self.mail_from!r} to {named}: {self._subject() or 'no subject'}>"

    def _subject(self) -> str:
        """The beginning of the subject, for a repr; empty if there is none that can be read."""
        parsed = self._parsed
        try:
            if parsed is None:  # the whole may be large, and a message may show many
                head = self.data[:_HEAD].partition(b"\r\n\r\n")[0]
                parsed = email.message_from_bytes(head, policy=email.policy.default)
            return str(parsed["Subject"] or "")[:_SUBJECT]
        except Exception:  # noqa: BLE001 - whatever broken header fields make ``email`` raise
            return ""
