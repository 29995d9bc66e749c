"""A client's connection: an asyncio transport over an accepted socket, and batched writes.

It does what asyncio's own does, without the task and the iterations of the loop that an accepted
connection takes there until its first byte is read, and with one read buffer for the process.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Protocol

HIGH_WATER = 1 << 16  # bytes that wait to be sent, from which on more is unwelcome
LOW_WATER = HIGH_WATER // 4

# Protocols copy what they keep before anything else is read. asyncio allocates a buffer for each
# read instead, and the kernel maps and unmaps a quarter of a mebibyte each time.
_buffer = memoryview(bytearray(1 << 18))


class Receiver(Protocol):
    """A connection's protocol; its methods are called as asyncio calls those of a Protocol."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""

    def data_received(self, data: memoryview) -> None:
        """It has sent ``data``, which is valid until this returns."""

    def eof_received(self) -> bool | None:
        """It sends no more; returns whether it may still be written to."""

    def pause_writing(self) -> None:
        """Much waits to be sent."""

    def resume_writing(self) -> None:
        """The client has taken most of it."""

    def connection_lost(self, exc: Exception | None, /) -> None:
        """The connection is closed, by ``exc`` if not in good order."""


class Stream(asyncio.Transport):
    """Reads from ``sock`` for ``receiver``, and writes what that has to say."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        peername: object,
        receiver: Receiver,
    ) -> None:
        super().__init__()
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._peername = peername
        self._receiver = receiver
        self._unsent = bytearray()
        self._pressed = False  # the receiver knows that much waits
        self._reading = False
        self._ended = False  # the client sends no more
        self._eof = False  # nor do we, once all is sent
        self._closing = False
        self._lost = False  # nothing can be sent or read any more

    def start(self) -> None:
        """Hand the connection to the receiver, and read from now on."""
        self.resume_reading()
        try:
            self._receiver.connection_made(self)
        except Exception as error:  # noqa: BLE001 - told where the loop tells such things
            self._fail(error)
        if self._reading:
            self._read()  # most have sent something by now

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``peername``, ``sockname`` or ``socket``."""
        match name:
            case "peername":
                return self._peername
            case "socket":
                return self._sock
            case "sockname":
                return self._sock.getsockname()
            case _:
                return default

    # Reading -----------------------------------------------------------------------------------

    def is_reading(self) -> bool:
        """Whether what the client sends is read."""
        return self._reading

    def pause_reading(self) -> None:
        """Leave what the client sends to the kernel."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        """Read it again."""
        if not (self._reading or self._ended or self._closing):
            self._reading = True
            self._loop.add_reader(self._fd, self._read)

    def _read(self) -> None:
        try:
            size = self._sock.recv_into(_buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error)
            return
        try:
            if size:
                self._receiver.data_received(_buffer[:size])
            else:
                self._end()
        except Exception as error:  # noqa: BLE001 - told where the loop tells such things
            self._fail(error)

    def _end(self) -> None:
        self._ended = True
        self.pause_reading()
        if not self._receiver.eof_received():
            self.close()

    # Writing -----------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data`` as soon as the client takes it; nothing if the connection is lost.

        Raises RuntimeError after ``write_eof``.
        """
        if self._lost or not data:
            return
        if self._eof:
            raise RuntimeError("write() after write_eof()")
        if not self._unsent:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self._fail(error)
                return
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
            self._loop.add_writer(self._fd, self._write_more)
        self._unsent += data
        if not self._pressed and len(self._unsent) > HIGH_WATER:
            self._pressed = True
            self._receiver.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        """Send all of them."""
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be sent."""
        return len(self._unsent)

    def can_write_eof(self) -> bool:
        """Whether ``write_eof`` works: always."""
        return True

    def write_eof(self) -> None:
        """Send no more than what waits; raises OSError if the client is gone."""
        if self._closing or self._eof:
            return
        self._eof = True
        if not self._unsent:
            self._sock.shutdown(socket.SHUT_WR)

    def _write_more(self) -> None:
        try:
            del self._unsent[: self._sock.send(self._unsent)]
            if not self._unsent:
                self._loop.remove_writer(self._fd)
                if self._closing:
                    self._lose(None)
                elif self._eof:
                    self._sock.shutdown(socket.SHUT_WR)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error)
            return
        if self._pressed and len(self._unsent) <= LOW_WATER:
            self._pressed = False
            self._receiver.resume_writing()

    # The end -----------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Whether it is closed, or will be when all is sent."""
        return self._closing

    def close(self) -> None:
        """Read no more, and close when all is sent."""
        if not self._closing:
            self._closing = True
            self.pause_reading()
            if not self._unsent:
                self._lose(None)

    def abort(self) -> None:
        """Close now; what waits to be sent is not."""
        self._drop(None)

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, OSError):  # else the client is gone, or the network
            context = {"message": "a connection failed", "exception": error, "transport": self}
            self._loop.call_exception_handler(context)
        self._drop(error)

    def _drop(self, error: Exception | None) -> None:
        self._closing = True
        self.pause_reading()
        if self._unsent:
            self._unsent.clear()
            self._loop.remove_writer(self._fd)
        self._lose(error)

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._loop.call_soon(self._report_and_close, error)  # not within what the receiver does

    def _report_and_close(self, error: Exception | None) -> None:
        try:
            self._receiver.connection_lost(error)
        finally:
            self._sock.close()


class Writes:
    """The answers of one iteration of the loop, to clients.

    To wake a client that sleeps costs the kernel more than everything else in an answer. So the
    first answer of an iteration is sent at once, and the client wakes while the others are made;
    those are sent together at the end, to a client that is awake.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._first = True
        self._waiting: dict[asyncio.Transport, list[bytes]] = {}

    def begin_iteration(self) -> None:
        """What is written next is the first of its iteration."""
        self._first = True

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        """Send ``data``, after what was written to ``transport`` before."""
        if (parts := self._waiting.get(transport)) is not None:
            parts.append(data)
        elif self._first:
            self._first = False
            transport.write(data)
        else:
            if not self._waiting:
                self._loop.call_soon(self._flush_all)
            self._waiting[transport] = [data]

    def flush(self, transport: asyncio.Transport) -> None:
        """Send what waits for ``transport``, which is to be closed or written to directly."""
        if (parts := self._waiting.pop(transport, None)) and not transport.is_closing():
            transport.write(b"".join(parts))

    def _flush_all(self) -> None:
        for transport in list(self._waiting):
            self.flush(transport)


def hold(transport: asyncio.Transport, wanted: bool) -> None:
    """Stop reading from ``transport``, or start again."""
    if wanted:
        transport.pause_reading()
    else:
        transport.resume_reading()


def reset(transport: asyncio.Transport) -> None:
    """Drop the connection so that the client sees a reset (RST), not an end-of-file."""
    sock: Any = transport.get_extra_info("socket")
    if sock is not None and sock.family != getattr(socket, "AF_UNIX", None):
        linger = b"\1\0\0\0\0\0\0\0"  # struct linger {1, 0}: close discards and resets
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()
