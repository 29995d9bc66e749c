"""A mail as a handler has it, and the reply to its client."""

from __future__ import annotations

import email
import email.policy
import re
from email.message import EmailMessage

from ...dispatch.calls import Exchange, Link
from ...errors import shown
from ...journal.facts import Address
from ...journal.journal import OVERHEAD, Records
from ...wire import messages as wire

# RFC 5321 4.2: a code, a space or a hyphen for lines to come, and text.
_REPLY = re.compile(r"(?:[2-5][0-9]{2}-[^\r\n]*\r\n)*[2-5][0-9]{2}(?: [^\r\n]*)?")
_SUCCESS = "250 OK"
_FAILURE = "451 4.3.0 the handler raised "


class Mail:
    """A mail that came, as its SMTP transaction gave it (RFC 5321)."""

    def __init__(self, message: wire.MailIn) -> None:
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

    def __eq__(self, other: object) -> bool:
        return self._message == other._message if isinstance(other, Mail) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.mail_from, self.data))

    def __repr__(self) -> str:
        subject = self.message["Subject"]
        return f"<Mail from {self.mail_from!r} to {self.rcpt_tos!r}: {subject or 'no subject'}>"


class SMTPExchange(Exchange):
    """A mail and its reply."""

    request: Mail

    def __init__(self, link: Link, call: int, request: Mail) -> None:
        super().__init__(link, call, request.peer)
        self.request = request

    def complete(self, result: object) -> None:
        reply = _SUCCESS if result is None else result
        if not isinstance(reply, str):
            raise TypeError(
                "the handler of an SMTP server may return None (250) or a reply such as "
                f"'550 no such user', not {type(result).__name__}: {shown(result)}"
            )
        if not _REPLY.fullmatch(reply):
            raise ValueError(
                f"{reply!r:.200} is no SMTP reply: a code from 200 to 599, a space, and text; "
                "of several lines, '250-one\\r\\n250 two'"
            )
        self.link.send(wire.MailReply(call=self.call, reply=reply))

    def fail(self, error: BaseException) -> None:
        self.link.send(wire.MailReply(call=self.call, reply=_FAILURE + type(error).__name__))

    def describe(self) -> str:
        return f"the mail from {self.request.mail_from!r}"


def open_smtp(
    link: Link, message: wire.MailIn, records: Records[Mail], keep: int
) -> Exchange | None:
    """Record a mail; returns its exchange if a handler is to run."""
    mail = Mail(message)
    records.add(mail, OVERHEAD + len(message.data))
    return SMTPExchange(link, message.call, mail) if message.call else None
