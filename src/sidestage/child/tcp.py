"""TCP in the child: bytes to and from the parent on one call a connection, or a transcript."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ..wire.messages import (
    Ack,
    Close,
    Data,
    End,
    OpenConnection,
    Opened,
    SetOption,
    TranscriptIn,
)
from .listen import wire_address
from .service import Backpressure, CallCommand, Service, reset


class TCPService(Service):
    """Relays each connection to the parent's handler, or records it."""

    def protocol(self) -> asyncio.BaseProtocol:
        return Relayed(self) if self.handled else Recorded(self)


class _Connection(asyncio.Protocol):
    """What relayed and recorded connections share."""

    transport: asyncio.Transport

    def __init__(self, service: TCPService) -> None:
        self.service = service
        self.peer: object = ""
        self.local: object = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.peer = wire_address(transport.get_extra_info("peername"))
        self.local = wire_address(transport.get_extra_info("sockname"))
        self.service.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.service.left(self)

    def call_ids(self) -> Iterable[int]:
        return ()

    def describe(self) -> OpenConnection:
        return OpenConnection(client_address=wire_address(self.peer), state="open", call=0)

    def close_if_idle(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()


class Relayed(_Connection):
    """A connection that a handler in the parent serves."""

    def __init__(self, service: TCPService) -> None:
        super().__init__(service)
        self.flow = Backpressure(service.outbox)
        self.call = 0
        self.handler_left = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.flow.connect(self.transport)
        self.call = self.service.open_call(self)
        self.flow.start(self.call)
        self.service.outbox.send(
            Opened(call=self.call, peer=wire_address(self.peer), local=wire_address(self.local))
        )

    def data_received(self, data: bytes) -> None:
        if not self.handler_left:
            self.service.outbox.send(Data(call=self.call, data=data))
            self.flow.sent(len(data))

    def eof_received(self) -> bool:
        self.service.outbox.send(End(call=self.call))
        return not self.handler_left  # half-open: the handler may still answer

    def connection_lost(self, exc: Exception | None) -> None:
        self.service.lose_call(self.call, reset=exc is not None)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self.flow.client_blocked(True)

    def resume_writing(self) -> None:
        self.flow.client_blocked(False)

    def command(self, message: CallCommand) -> None:
        match message:
            case Data():
                self.transport.write(message.data)
                self.flow.wrote(len(message.data))
            case Ack():
                self.flow.acknowledged(message.size)
            case End():
                if not self.transport.is_closing() and self.transport.can_write_eof():
                    self.transport.write_eof()
            case Close():
                self._close(message)
            case SetOption():
                sock = self.transport.get_extra_info("socket")
                sock.setsockopt(message.level, message.name, message.value)
            case _:
                raise AssertionError(message)

    def _close(self, message: Close) -> None:
        self.handler_left = True
        self.service.close_call(self.call)
        if message.reset:
            reset(self.transport)
        else:
            self.flow.release()
            self.transport.close()

    def call_ids(self) -> Iterable[int]:
        return (self.call,)

    def describe(self) -> OpenConnection:
        state = "closing" if self.handler_left else "handler running"
        return OpenConnection(client_address=wire_address(self.peer), state=state, call=self.call)

    def close_if_idle(self) -> None:
        if self.handler_left:
            self.transport.close()


class Recorded(_Connection):
    """A connection that is read to its end and told of afterwards."""

    def __init__(self, service: TCPService) -> None:
        super().__init__(service)
        self.data = bytearray()
        self.cut = 0
        self.ended = "closed by the server"

    def data_received(self, data: bytes) -> None:
        room = max(0, self.service.record_limit - len(self.data))
        self.data += data[:room]
        self.cut += max(0, len(data) - room)

    def eof_received(self) -> None:
        self.ended = "closed by the client"

    def connection_lost(self, exc: Exception | None) -> None:
        record = TranscriptIn(
            peer=wire_address(self.peer),
            local=wire_address(self.local),
            data=bytes(self.data),
            cut=self.cut,
            ended=self.ended if exc is None else "reset by the client",
        )
        self.service.outbox.record(record)
        super().connection_lost(exc)
