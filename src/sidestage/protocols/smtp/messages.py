"""The settings and messages of SMTP, which both processes know."""

from __future__ import annotations

from ...wire.messages import Address, Message, Seen, Vocabulary


class SMTPSettings(Message, frozen=True, kw_only=True):
    """What an SMTP server has beyond the settings of every server."""

    size_limit: int = 1 << 25  # bytes of a mail
    recipient_limit: int = 10_000  # of a mail


class MailReply(Message, frozen=True, kw_only=True, tag=60):
    """The reply to a mail: a code, a space and text."""

    call: int
    reply: str


class MailIn(Message, frozen=True, kw_only=True, tag=61):
    """A mail. With ``call`` 0 the child has answered it itself, and it is only recorded."""

    call: int
    peer: Address
    at: float  # seconds on the monotonic clock, when its DATA ended
    connection: int  # its number in this run
    helo: str
    esmtp: bool
    mail_from: str
    mail_options: list[str]
    rcpt_tos: list[str]
    rcpt_options: list[str]
    data: bytes
    tls: Seen | None = None


VOCABULARY = Vocabulary(settings=SMTPSettings, commands=(MailReply,), events=(MailIn,))
