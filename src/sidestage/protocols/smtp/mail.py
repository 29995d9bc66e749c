"""A mail as a handler has it, and as it is kept in ``received``."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage

from ...journal.facts import Address, Answer
from .messages import MailIn


class Mail:
    """A mail that came, as its SMTP transaction gave it (RFC 5321)."""

    _answered: tuple[float, int, int] | None = None  # when, code, bytes of the reply

    def __init__(self, message: MailIn) -> None:
        self._message = message
        self._parsed: EmailMessage | None = None

    @property
    def peer(self) -> Address:
        """The client's address."""
        return self._message.peer

    @property
    def client_address(self) -> Address:
        """The client's address; another name for ``peer``."""
        return self._message.peer

    @property
    def helo(self) -> str:
        """The name that the client gave with HELO or EHLO."""
        return self._message.helo

    @property
    def mail_from(self) -> str:
        """The sender of the envelope; empty for a bounce."""
        return self._message.mail_from

    @property
    def mail_options(self) -> list[str]:
        """The parameters of MAIL FROM, such as ``SIZE=100`` or ``SMTPUTF8``."""
        return list(self._message.mail_options)

    @property
    def rcpt_tos(self) -> list[str]:
        """The recipients of the envelope."""
        return list(self._message.rcpt_tos)

    @property
    def rcpt_options(self) -> list[str]:
        """The parameters of the RCPT TO commands."""
        return list(self._message.rcpt_options)

    @property
    def data(self) -> bytes:
        """The mail as it came, with CRLF line ends and without dot-stuffing."""
        return self._message.data

    @property
    def message(self) -> EmailMessage:
        """The mail parsed: headers, text with ``\\n`` line ends, attachments."""
        if self._parsed is None:
            text = self.data.replace(b"\r\n", b"\n")
            parsed = email.message_from_bytes(text, policy=email.policy.default)
            assert isinstance(parsed, EmailMessage)
            self._parsed = parsed
        return self._parsed

    @property
    def auth(self) -> str | None:
        """Who the client has authenticated as; ``None``, as the server offers no AUTH."""
        return None

    @property
    def tls(self) -> bool:
        """Whether the mail came over TLS; ``False``, as the server offers no STARTTLS."""
        return False

    @property
    def received_at(self) -> float:
        """When its DATA ended, in seconds on the monotonic clock."""
        return self._message.at

    @property
    def connection_number(self) -> int:
        """The number of its connection among those of this run of the server, from 1."""
        return self._message.connection

    @property
    def answer(self) -> Answer | None:
        """How it was answered: code, size of the reply, time; ``None`` if it was not (yet)."""
        came = self._message.at
        if self._answered is not None:
            at, status, size = self._answered
            return Answer(at=at, status=status, size=size, seconds=at - came)
        if not self._message.call:  # by the server's process, with plain success
            return Answer(at=came, status=250, size=len("250 OK"), seconds=0.0)
        return None

    def _content(self) -> tuple[object, ...]:
        m = self._message
        envelope = (m.mail_from, m.mail_options, m.rcpt_tos, m.rcpt_options)
        return (m.peer, m.helo, m.esmtp, *envelope, m.data)

    def __eq__(self, other: object) -> bool:
        return self._content() == other._content() if isinstance(other, Mail) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.mail_from, self.data))

    def __repr__(self) -> str:
        subject = self.message["Subject"]
        return f"<Mail from {self.mail_from!r} to {self.rcpt_tos!r}: {subject or 'no subject'}>"
