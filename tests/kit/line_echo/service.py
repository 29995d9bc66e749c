"""The line-echo protocol in the server's process: each line is one call, or one record."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from sidestage.child.net.listener import wire_address
from sidestage.child.net.stream import Receiver
from sidestage.child.service import Service
from sidestage.wire.messages import Message, OpenConnection

from .messages import VOCABULARY, LineEchoSettings, LineIn, LineOut

_ANSWERED = (0, 0)  # there are no status codes: only that the child has answered


class LineEchoService(Service):
    """Listeners whose connections send lines."""

    vocabulary = VOCABULARY
    settings: LineEchoSettings

    def receiver(self) -> Receiver:
        return LineConnection(self)


class LineConnection(asyncio.Protocol):
    """A client's connection, whose lines are answered in order, one after the other."""

    transport: asyncio.Transport

    def __init__(self, service: LineEchoService) -> None:
        self.service = service
        self.number = service.next_connection()
        self.peer: object = ""
        self.call = 0
        self.size = 0  # bytes that the parent holds for it
        self.due: float | None = None  # when the handler's time ends
        self.unread = bytearray()
        self.ended = False  # the client sends no more

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.peer = transport.get_extra_info("peername")
        self.service.joined(self)

    def data_received(self, data: bytes | memoryview) -> None:
        self.unread += data
        self._go_on()

    def eof_received(self) -> bool:
        self.ended = True
        self._close_if_done()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.due = None
        self.service.calls.lose(self.call, reset=exc is not None)
        self.service.left(self)

    # Lines -------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        while not self.call and not self.transport.is_closing():
            line, newline, rest = self.unread.partition(b"\n")
            if len(line) > self.service.settings.longest:
                self._refuse()
            elif newline:
                self.unread = rest
                self._take(bytes(line))
            else:
                break
        self._close_if_done()

    def _take(self, line: bytes) -> None:
        service = self.service
        if service.handled:
            self.call = service.calls.open(self)
            service.send(self._message(line))
        else:
            service.outbox.record(self._message(line))
            self.transport.write(line + b"\n")

    def _message(self, line: bytes) -> LineIn:
        return LineIn(
            call=self.call,
            peer=wire_address(self.peer),
            at=self.service.loop.time(),
            connection=self.number,
            line=line,
        )

    def _refuse(self) -> None:
        self._diagnose(f"a line of more than {self.service.settings.longest} bytes")
        self.transport.write(b"! too long\n")
        self.transport.close()

    def _close_if_done(self) -> None:
        if self.call or self.transport.is_closing():
            return
        if self.ended and self.unread:
            self._diagnose("the connection ended within a line")
        if self.ended or (self.service.draining and not self.unread):
            self.transport.close()

    def _diagnose(self, text: str) -> None:
        self.service.diagnose(self.peer, text, self.number)

    # The call ----------------------------------------------------------------------------------

    def command(self, message: Message) -> None:
        assert isinstance(message, LineOut)
        self.service.calls.close(self.call)
        self._answer(message.line)

    def _answer(self, line: bytes) -> None:
        self.call, self.due = 0, None
        self.transport.write(line + b"\n")
        self._go_on()

    def timed_out(self) -> None:
        call = self.call
        self._diagnose(f"no answer within {self.service.config.handler_timeout} s")
        self.service.calls.lose(call, reset=False, answered=_ANSWERED)
        self._answer(b"! no answer")

    # For the drain -----------------------------------------------------------------------------

    def call_ids(self) -> Iterable[int]:
        return (self.call,) if self.call else ()

    def describe(self) -> OpenConnection:
        state = "handler running" if self.call else "within a line"
        return OpenConnection(client_address=wire_address(self.peer), state=state, call=self.call)

    def is_behind(self) -> bool:
        return False

    def close_if_idle(self) -> None:
        self._close_if_done()

    def abort(self) -> None:
        self.transport.abort()


SERVICE = LineEchoService
