"""SMTP in the child (RFC 5321), based on aiosmtpd: each mail is one call or one record."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session, syntax

from ....child.net.listener import wire_address
from ....child.net.stream import Receiver
from ....child.service import Service
from ....wire.messages import Message, OpenConnection
from ..messages import VOCABULARY, MailIn, MailReply, SMTPSettings

_SUCCESS = "250 OK"
_TOO_LATE = "451 4.3.0 the handler gave no answer in time"
_IDENT = "Sidestage"
_IDLE_SECONDS = 300.0  # RFC 5321 4.5.3.2.7: at least five minutes

_addresses: dict[str, tuple[str | None, str | None]] = {}  # parsed, by a command's argument
_MAX_ADDRESSES = 1024


class SMTPService(Service):
    """Listeners whose connections speak SMTP."""

    vocabulary = VOCABULARY
    settings: SMTPSettings

    def receiver(self) -> Receiver:
        return SMTPConnection(self)

    async def reply_to(self, connection: SMTPConnection, envelope: Envelope) -> str:
        """Send a mail to the parent, or record it; returns the reply to the client."""
        if not self.handled:
            self.outbox.record(self._mail(0, connection, envelope))
            return _SUCCESS
        call = _Call(self.loop)
        connection.call = self.calls.open(call)
        self.send(self._mail(connection.call, connection, envelope))
        try:
            return await call.reply
        except TimeoutError:
            self.calls.lose(connection.call, reset=False, answered=(451, len(_TOO_LATE)))
            self.diagnose(
                connection.peer,
                f"the handler gave no answer to the mail from {envelope.mail_from!r} within "
                f"{self.config.handler_timeout} s: sent 451",
                connection.number,
            )
            return _TOO_LATE
        except asyncio.CancelledError:  # the client has left
            self.calls.lose(connection.call, reset=True)
            raise
        finally:
            self.calls.close(connection.call)
            connection.call = 0

    def _mail(self, call: int, connection: SMTPConnection, envelope: Envelope) -> MailIn:
        session = connection.session_now()
        data: Any = envelope.original_content
        return MailIn(
            call=call,
            peer=wire_address(session.peer),
            at=self.loop.time(),
            connection=connection.number,
            helo=_clean(session.host_name or ""),
            esmtp=bool(session.extended_smtp),
            mail_from=_clean(envelope.mail_from or "").replace("<>", ""),  # RFC 5321 4.5.5
            mail_options=[_clean(option) for option in envelope.mail_options],
            rcpt_tos=[_clean(address) for address in envelope.rcpt_tos],
            rcpt_options=[_clean(option) for option in envelope.rcpt_options],
            data=bytes(data or b""),
        )


class _Call:
    """A mail that waits for its reply; ``reply`` raises TimeoutError if there is none in time."""

    due: float | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.reply: asyncio.Future[str] = loop.create_future()

    def command(self, message: Message) -> None:
        assert isinstance(message, MailReply)
        if not self.reply.done():
            self.due = None
            self.reply.set_result(message.reply)

    def timed_out(self) -> None:
        if not self.reply.done():
            self.reply.set_exception(TimeoutError())


class _Hooks:
    """The hooks of aiosmtpd, which finds them by their names."""

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: SMTPConnection, session: Session, envelope: Envelope
    ) -> str:
        return await server.service.reply_to(server, envelope)

    async def handle_exception(self, error: Exception) -> str:
        return f"451 4.3.0 {type(error).__name__}"


class SMTPConnection(SMTP):
    """A client's connection, as aiosmtpd serves it."""

    def __init__(self, service: SMTPService) -> None:
        super().__init__(
            _Hooks(),
            data_size_limit=service.settings.size_limit,
            enable_SMTPUTF8=True,
            hostname="localhost",
            ident=_IDENT,
            timeout=_IDLE_SECONDS,
            loop=service.loop,
        )
        self.service = service
        self.peer: object = ""
        self.number = service.next_connection()
        self.call = 0
        self.in_data = False

    @syntax("DATA")
    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802 - aiosmtpd's name
        self.in_data = True
        try:
            await super().smtp_DATA(arg)
        finally:
            self.in_data = False
            if self.service.draining:
                self.close_if_idle()

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        # aiosmtpd's parser takes a fifth of a mail's time, and tests repeat a few addresses.
        if (found := _addresses.get(arg)) is None:
            if len(_addresses) >= _MAX_ADDRESSES:
                _addresses.clear()
            found = _addresses[arg] = super()._getaddr(arg)
        return found

    def session_now(self) -> Session:
        """The session, which aiosmtpd sets once there is a connection."""
        assert self.session is not None
        return self.session

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.peer = wire_address(transport.get_extra_info("peername"))
        self.service.joined(self)
        super().connection_made(transport)

    def data_received(self, data: bytes | memoryview) -> None:
        super().data_received(bytes(data))

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.service.left(self)

    # For the drain -----------------------------------------------------------------------------

    def call_ids(self) -> Iterable[int]:
        return (self.call,) if self.call else ()

    def describe(self) -> OpenConnection:
        state = "handler running" if self.call else "in a mail"
        return OpenConnection(client_address=wire_address(self.peer), state=state, call=self.call)

    def is_behind(self) -> bool:
        return False

    def close_if_idle(self) -> None:
        if not self.in_data and self.transport is not None:
            self._writer.write(b"421 4.3.2 the server is stopping\r\n")
            self.transport.close()

    def abort(self) -> None:
        if self.transport is not None:
            self._writer.transport.abort()


def _clean(text: str) -> str:
    """``text`` without the lone surrogates that stand for bytes that were not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


SERVICE = SMTPService
