"""TCP in the child: relays each connection as one call, or records its transcript."""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable, Iterable

from ....child.net.listener import wire_address
from ....child.net.stream import Receiver, hold, reset
from ....child.service import Flag, Service
from ....wire.credit import Backpressure
from ....wire.messages import Ack, Close, Data, End, Message, OpenConnection
from ..messages import VOCABULARY, Opened, SetOption, TCPSettings, TranscriptIn

# A stop reads everything that clients had sent before it. A client may send without end, so stop
# reading after more bytes than the kernel buffers for a connection.
_KERNEL_BYTES = 1 << 24
_QUIET_ITERATIONS = 2  # of the loop without a connection or a byte: all has been read

_LINGER_SECONDS = 1.0


class TCPService(Service):
    """Relays each connection to the parent's handler, or records it."""

    vocabulary = VOCABULARY
    settings: TCPSettings

    taken = 0  # connections accepted plus bytes read
    progress: Flag  # during a drain

    def receiver(self) -> Receiver:
        return HandledConnection(self) if self.handled else RecordedConnection(self)

    async def drain(
        self, seconds: float, caller: int, announce: Callable[[bool], None]
    ) -> list[OpenConnection]:
        end = self.loop.time() + seconds
        await self._take_what_was_sent(self.loop.time() + seconds / 4, caller)
        return await super().drain(end - self.loop.time(), caller, announce)

    async def _take_what_was_sent(self, end: float, caller: int) -> None:
        self.progress = Flag()
        enough, quiet = self.taken + _KERNEL_BYTES, 0
        while quiet < _QUIET_ITERATIONS and self.taken < enough and self.loop.time() < end:
            before = self.taken
            if self._handlers_are_behind(caller):
                self.progress.clear()
                await self.progress.wait(end - self.loop.time())
                quiet = 0
            else:
                await asyncio.sleep(0)
                quiet = quiet + 1 if self.taken == before else 0

    def _handlers_are_behind(self, caller: int) -> bool:
        return any(
            isinstance(peer, HandledConnection) and peer.call != caller and peer.is_behind()
            for peer in self.peers
        )

    def progressed(self) -> None:
        """Wake a drain: a handler has read, or has finished."""
        if hasattr(self, "progress"):
            self.progress.set()


class _Connection:
    """A client's connection: what both kinds have in common."""

    transport: asyncio.Transport

    def __init__(self, service: TCPService) -> None:
        self.service = service
        self.peer: object = ""
        self.local: object = ""
        self.number = service.next_connection()
        self.opened = service.loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.peer = wire_address(transport.get_extra_info("peername"))
        self.local = wire_address(transport.get_extra_info("sockname"))
        self.service.taken += 1
        self.service.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.service.left(self)

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def call_ids(self) -> Iterable[int]:
        return ()

    def describe(self) -> OpenConnection:
        return OpenConnection(client_address=wire_address(self.peer), state="open", call=0)

    def close_if_idle(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()


class HandledConnection(_Connection):
    """A connection that a handler in the parent serves."""

    def __init__(self, service: TCPService) -> None:
        super().__init__(service)
        self.flow = Backpressure(service.send, lambda wanted: hold(self.transport, wanted))
        self.call = 0
        self.handler_left = False
        self.client_ended = False
        self._linger: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.call = self.service.calls.open(self)
        self.flow.start(self.call)
        self.service.send(
            Opened(
                call=self.call,
                peer=wire_address(self.peer),
                local=wire_address(self.local),
                at=self.opened,
                connection=self.number,
            )
        )

    def data_received(self, data: memoryview) -> None:
        self.service.taken += len(data)
        if not self.handler_left:
            self.service.send(Data(call=self.call, data=bytes(data)))
            self.flow.sent(len(data))

    def eof_received(self) -> bool:
        self.client_ended = True
        if self.handler_left:
            return False
        self.service.send(End(call=self.call))
        return True  # half-open: the handler may still answer

    def connection_lost(self, exc: Exception | None) -> None:
        if self._linger is not None:
            self._linger.cancel()
        self.service.progressed()
        self.service.calls.lose(self.call, reset=exc is not None)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self.flow.client_blocked(True)

    def resume_writing(self) -> None:
        self.flow.client_blocked(False)

    def command(self, message: Message) -> None:
        match message:
            case Data():
                if not self.transport.is_closing():
                    self.transport.write(message.data)
                self.flow.wrote(len(message.data))
            case Ack():
                self.flow.acknowledged(message.size)
                self.service.progressed()
            case End():
                self._write_eof()
            case Close():
                self._close(message)
            case SetOption():
                self._set_option(message)
            case _:
                raise AssertionError(message)

    def _close(self, message: Close) -> None:
        self.handler_left = True
        self.service.calls.close(self.call)
        self.service.progressed()
        if message.reset:
            reset(self.transport)
            return
        unread = self._has_unread()
        self.flow.release()
        if unread or self.transport.get_write_buffer_size():
            self._close_lingering()
        else:
            self.transport.close()

    def _close_lingering(self) -> None:
        """Send the rest and the end, and read for a moment until the client ends too.

        Closing with unread bytes would reset the connection, and the client could lose what was
        sent before (RFC 1122 4.2.2.13, RFC 2525 2.17).
        """
        self._write_eof()
        self._linger = self.service.loop.call_later(_LINGER_SECONDS, self._lingered)

    def _write_eof(self) -> None:
        if not self.transport.is_closing() and self.transport.can_write_eof():
            with contextlib.suppress(OSError):  # reset by the client, which reading will report
                self.transport.write_eof()

    def _lingered(self) -> None:
        if self.transport.get_write_buffer_size():
            self._close_lingering()
        else:
            self.transport.close()

    def _has_unread(self) -> bool:
        """Whether the kernel has unread bytes of the client."""
        if self.client_ended or self.transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket"), select.POLLIN)
        return bool(poll.poll(0))

    def is_behind(self) -> bool:
        """Whether the client has sent more that cannot be read before the handler reads."""
        return not self.handler_left and self.flow.paused and self._has_unread()

    def _set_option(self, message: SetOption) -> None:
        sock = self.transport.get_extra_info("socket")
        try:
            sock.setsockopt(message.level, message.name, message.value)
        except OSError as error:
            text = f"setsockopt({message.level}, {message.name}) failed: {error.strerror}"
            self.service.diagnose(self.peer, text, self.number)

    def call_ids(self) -> Iterable[int]:
        return (self.call,)

    def describe(self) -> OpenConnection:
        state = "closing" if self.handler_left else "handler running"
        return OpenConnection(client_address=wire_address(self.peer), state=state, call=self.call)

    def close_if_idle(self) -> None:
        if self.handler_left:
            self.transport.close()


class RecordedConnection(_Connection):
    """A connection without a handler, which is read to its end and then recorded."""

    def __init__(self, service: TCPService) -> None:
        super().__init__(service)
        self.data = bytearray()
        self.cut = 0
        self.ended = "closed by the server"

    def data_received(self, data: memoryview) -> None:
        self.service.taken += len(data)
        free = max(0, self.service.record_limit - len(self.data))
        self.data += data[:free]
        self.cut += max(0, len(data) - free)

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
        )
        self.service.outbox.record(record)
        super().connection_lost(exc)


SERVICE = TCPService
