"""A call of an SMTP server's handler: a mail in, a reply out."""

from __future__ import annotations

import re
from typing import Any

from ...dispatch.calls import Call, Protocol
from ...dispatch.refused import Refused
from ...dispatch.run import Run
from ...errors import brief, shown
from ...journal.journal import OVERHEAD, Journal
from ...journal.record import certificate_size
from ...wire.messages import Lost, Message
from ...wire.values import plain
from .mail import Mail
from .messages import VOCABULARY, MailIn, MailReply

# RFC 5321 4.2: a code, a space (or a hyphen if lines follow), and text.
_REPLY = re.compile(r"(?:[2-5][0-9]{2}-[^\r\n]*\r\n)*[2-5][0-9]{2}(?: [^\r\n]*)?")
_MAX_TOLD = 200  # characters of an exception, in a line of 512 (RFC 5321 4.5.3.1.5)
_TEXT = 64  # bytes that each text of an envelope takes beyond its characters
_SUCCESS = "250 OK"
_FAILURE = "451 4.3.0 the handler raised "
_MAX_REPLY = 1 << 16  # characters; RFC 5321 4.5.3.1.5 lets a client expect 512 bytes a line


class SMTPCall(Call):
    """A mail and its reply."""

    request: Mail
    _lost = False  # no reply reaches the client any more

    def __init__(self, run: Run, message: MailIn, request: Mail) -> None:
        super().__init__(run, message.call, message.peer)
        self.connection = message.connection
        self.request = request

    def event(self, message: Message) -> None:
        if isinstance(message, Lost):
            self._lost = True
            if message.answered:
                self.request._note_answer(*message.answered)
                self.request._without_handler = True

    def client_gone(self) -> None:
        super().client_gone()
        self.request._note_gone()

    def broken(self, error: Exception) -> None:
        self.request._note_gone()

    def complete(self, result: object) -> None:
        try:
            reply = _checked(result)
        except (TypeError, ValueError) as error:
            raise Refused(error, result) from None
        self._reply(reply)

    def fail(self, error: BaseException) -> None:
        told = brief(error, _MAX_TOLD).encode("ascii", "backslashreplace")[:_MAX_TOLD]
        self._reply(_FAILURE + told.decode())

    def _reply(self, reply: str) -> None:
        if self._lost:
            return
        self.request._note_answer(int(reply[:3]), len(reply.encode()))
        self.run.send(MailReply(call=self.id, reply=reply))

    def describe(self) -> str:
        return f"the mail from {self.request.mail_from!r}"


def _checked(result: object) -> str:
    """The reply that a handler has returned; raises TypeError or ValueError if it is none."""
    reply = _SUCCESS if result is None else result
    if not isinstance(reply, str):
        raise TypeError(
            "the handler of an SMTP server may return None (250) or a reply such as "
            f"'550 no such user', not {type(result).__name__}: {shown(result)}"
        )
    reply = plain(reply)
    if len(reply) > _MAX_REPLY:
        raise ValueError(
            f"a reply of {len(reply):,} characters: at most {_MAX_REPLY:,} are allowed"
        )
    if not _REPLY.fullmatch(reply):
        raise ValueError(
            f"{reply!r:.200} is no SMTP reply: a code from 200 to 599, a space, and text; "
            "of several lines, '250-one\\r\\n250 two'"
        )
    return reply


def _size(message: MailIn) -> int:
    """The bytes that a mail holds."""
    envelope = (*message.mail_options, *message.rcpt_tos, *message.rcpt_options)
    texts = len(message.helo) + len(message.mail_from) + sum(map(len, envelope))
    texts += certificate_size(message.tls)
    return OVERHEAD + len(message.data) + texts + _TEXT * len(envelope)


def open_call(run: Run, message: MailIn, journal: Journal[Any]) -> SMTPCall | None:
    """Record a mail; returns its call if a handler is to run."""
    mail = Mail(message)
    journal.received(mail, _size(message))
    return SMTPCall(run, message, mail) if message.call else None


PROTOCOL = Protocol(VOCABULARY, open_call, tells_first=True)
