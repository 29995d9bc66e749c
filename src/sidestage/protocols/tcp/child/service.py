"""TCP in the child: relays each connection as one call, or records its transcript."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from ....child.net.listener import wire_address
from ....child.net.stream import Receiver, Transport
from ....child.service import Service
from ....wire.credit import Backpressure
from ....wire.messages import (
    Ack,
    AckSoon,
    Close,
    Data,
    End,
    Message,
    OpenConnection,
    Seen,
    SetOption,
)
from ..messages import VOCABULARY, Opened, TCPSettings, TranscriptIn

_QUOTED = 80  # bytes of what a client has sent, in a description
_SILENT = "connected, has sent nothing yet"


class TCPService(Service):
    """Relays each connection to the parent's handler, or records it."""

    vocabulary = VOCABULARY
    settings: TCPSettings

    def receiver(self) -> Receiver:
        return HandledConnection(self) if self.handled else RecordedConnection(self)


class _Connection:
    """A client's connection: what both kinds have in common."""

    transport: Transport

    def __init__(self, service: TCPService) -> None:
        self.service = service
        self.peer: object = ""
        self.local: object = ""
        self.tls: Seen | None = None
        self.number = service.next_connection()
        self.opened = service.loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Transport)
        self.transport = transport
        self.peer = wire_address(transport.get_extra_info("peername"))
        self.local = wire_address(transport.get_extra_info("sockname"))
        self.tls = transport.get_extra_info("tls")
        self.service.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.service.left(self)

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def is_behind(self) -> bool:
        return False

    def call_ids(self) -> Iterable[int]:
        return ()

    def describe(self) -> OpenConnection:
        return OpenConnection(wire_address(self.peer), "open", 0, self.number)

    def close_if_idle(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()


class HandledConnection(_Connection):
    """A connection that a handler in the parent serves."""

    flow: Backpressure | None = None  # once the handler is called
    size = 0
    due: float | None = None  # no time is counted: handlers may talk as long as they like

    def __init__(self, service: TCPService) -> None:
        super().__init__(service)
        self.call = 0
        self.handler_left = False
        self.shut_down = False  # by the handler: another of its threads may still have sent
        self._held = False  # until one more handler may run
        self._waiting = b""  # what came before that
        self._ended = False  # the client has stopped sending before that

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._begin()

    def _begin(self) -> None:
        """Call the handler, or wait until one more may run."""
        service = self.service
        if service.calls.full:
            self._held = True
            self._hold(True)
            service.calls.wait(self._begin)
            return
        self.call = service.calls.open(self, timed=False)
        self.flow = Backpressure(self.call, service.send, self._hold, service.transit)
        service.send(
            Opened(
                call=self.call,
                peer=wire_address(self.peer),
                local=wire_address(self.local),
                at=self.opened,
                connection=self.number,
                tls=self.tls,
            )
        )
        if self._held:
            self._catch_up(self.flow)

    def _catch_up(self, flow: Backpressure) -> None:
        """Pass on what has come while the connection waited for its handler."""
        self._hold(False)
        if self._waiting:
            self.service.send(Data(call=self.call, data=self._waiting))
            flow.sent(len(self._waiting))
            self._waiting = b""
        if self._ended:
            self.service.send(End(call=self.call))

    def _hold(self, wanted: bool) -> None:
        if wanted:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def data_received(self, data: bytes | memoryview) -> None:
        if self.flow is None:
            self._waiting += bytes(data)
        elif not self.handler_left:
            self.service.outbox.send_data(self.call, data)
            self.flow.sent(len(data))

    def eof_received(self) -> bool:
        if self.handler_left:
            return False
        self._ended = True
        if self.flow is not None:
            self.service.send(End(call=self.call))
        return True  # half-open: the handler may still answer

    def connection_lost(self, exc: Exception | None) -> None:
        self.service.iteration.progress.set()
        self.service.calls.forget(self._begin)
        self.service.calls.lose(self.call, reset=exc is not None)
        if self.flow is not None:
            self.flow.release()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        if self.flow is not None:
            self.flow.client_blocked(True)

    def resume_writing(self) -> None:
        if self.flow is not None:
            self.flow.client_blocked(False)

    def command(self, message: Message) -> None:
        assert self.flow is not None
        match message:
            case Data():
                if not (self.transport.is_closing() or self.shut_down):
                    self.transport.write(message.data)
                self.flow.wrote(len(message.data))
            case Ack():
                self.flow.acknowledged(message.size)
                self.service.iteration.progress.set()
            case AckSoon():
                self.flow.hurry()
            case End():
                self.shut_down = True
                with contextlib.suppress(OSError):  # reset by the client, which reading reports
                    self.transport.write_eof()
            case Close():
                self._close(message, self.flow)
            case SetOption():
                self.service.set_option(self.transport, message, self.peer, self.number)
            case _:
                raise AssertionError(message)

    def _close(self, message: Close, flow: Backpressure) -> None:
        self.handler_left = True
        if message.returned:
            self.service.calls.close(self.call)
        else:
            self.service.calls.leave(self.call)
        self.service.iteration.progress.set()
        if message.breaks:
            self.transport.get_extra_info("records").break_off(
                in_record=message.breaks == "in_record"
            )
        elif message.reset:
            self.transport.reset()
            return
        unread = self.transport.has_unread()
        flow.release()
        if message.reset:
            self.transport.reset_when_sent()
        elif unread or self.transport.get_write_buffer_size():
            self.transport.close_lingering()
        else:
            self.transport.close()

    def is_behind(self) -> bool:
        """Whether the client has sent more that cannot be read before the handler reads."""
        if self.handler_left or self.flow is None:
            return False
        return self.flow.paused and self.transport.has_unread()

    def timed_out(self) -> None:
        """No time is counted."""

    def call_ids(self) -> Iterable[int]:
        return (self.call,) if self.call else ()

    def describe(self) -> OpenConnection:
        state = "closing" if self.handler_left else "handler running"
        if self.flow is None:
            state = "waits for a handler"
        return OpenConnection(wire_address(self.peer), state, self.call, self.number)

    def close_if_idle(self) -> None:
        if self.handler_left:
            self.transport.close()
        elif self.flow is None:
            self.service.diagnose(self.peer, "the server stopped before its handler", self.number)
            self.transport.close()


class RecordedConnection(_Connection):
    """A connection without a handler, which is read to its end and then recorded."""

    def __init__(self, service: TCPService) -> None:
        super().__init__(service)
        self.data = bytearray()
        self.cut = 0
        self.ended = "closed by the server"

    def describe(self) -> OpenConnection:
        size = len(self.data) + self.cut
        state = (
            f"connected, has sent {size:,} bytes {bytes(self.data[:_QUOTED])!r}"
            if size
            else _SILENT
        )
        return OpenConnection(wire_address(self.peer), state, 0, self.number)

    def data_received(self, data: bytes | memoryview) -> None:
        free = min(len(data), self.service.record_limit - len(self.data))
        free = 0 if self.cut else self.service.unrecorded.take(free)  # the beginning is kept
        self.data += data[:free]
        self.cut += len(data) - free

    def eof_received(self) -> bool:
        self.ended = "closed by the client"
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        record = TranscriptIn(
            peer=wire_address(self.peer),
            local=wire_address(self.local),
            at=self.opened,
            connection=self.number,
            seconds=self.service.loop.time() - self.opened,
            data=bytes(self.data),
            cut=self.cut,
            ended=self.ended if exc is None else "reset by the client",
            tls=self.tls,
        )
        self.service.outbox.record(record)
        self.service.unrecorded.give(len(self.data))
        super().connection_lost(exc)


SERVICE = TCPService
