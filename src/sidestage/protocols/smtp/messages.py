"""What SMTP adds to the pipe."""

from __future__ import annotations

from ...wire.messages import Address, Message, Vocabulary


class SMTPSettings(Message, frozen=True, kw_only=True):
    """What an SMTP server is to be, beside what every server is."""

    size_limit: int = 1 << 25  # bytes of a mail


class MailReply(Message, frozen=True, kw_only=True, tag=60):
    """What the client is told about its mail."""

    call: int
    reply: str


class MailIn(Message, frozen=True, kw_only=True, tag=61):
    """A mail as its DATA ended; ``call`` 0 is a record that the child has answered itself."""

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


VOCABULARY = Vocabulary(settings=SMTPSettings, commands=(MailReply,), events=(MailIn,))
