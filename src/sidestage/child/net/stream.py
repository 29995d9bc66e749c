"""An asyncio transport over an accepted socket, and batched writes.

It behaves like asyncio's own transport, but reads the first bytes in the iteration that accepts the
connection, without a task, and uses one read buffer for the whole process.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Protocol

HIGH_WATER = 1 << 16  # unsent bytes above which the receiver is paused
LOW_WATER = HIGH_WATER // 4

# Receivers copy what they keep before the next read. asyncio allocates a buffer for each read, so
# the kernel maps and unmaps 256 KiB each time.
_buffer = memoryview(bytearray(1 << 18))


class Receiver(Protocol):
    """What gets the events of one connection, like an ``asyncio.Protocol``."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called first, when a client has connected."""

    def data_received(self, data: memoryview) -> None:
        """The client has sent ``data``, which is valid until this returns."""

    def eof_received(self) -> bool | None:
        """The client has stopped sending; returns whether to keep the connection open."""

    def pause_writing(self) -> None:
        """More than ``HIGH_WATER`` bytes wait to be sent."""

    def resume_writing(self) -> None:
        """At most ``LOW_WATER`` bytes wait to be sent again."""

    def connection_lost(self, exc: Exception | None, /) -> None:
        """The connection is closed, because of ``exc`` if it is not ``None``."""


class Stream(asyncio.Transport):
    """The transport of one connection: ``sock`` on one side, ``receiver`` on the other."""

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
        self._paused = False  # whether the receiver was asked to stop writing
        self._reading = False
        self._ended = False  # the client has stopped sending
        self._eof = False  # shut down for writing once all is sent
        self._closing = False
        self._lost = False  # nothing can be read or written any more

    def start(self) -> None:
        """Give the connection to the receiver, and start reading."""
        self.resume_reading()
        try:
            self._receiver.connection_made(self)
        except Exception as error:  # noqa: BLE001 - reported by the loop's exception handler
            self._fail(error)
        if self._reading:
            self._read()  # most clients have sent something already

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the ``peername``, ``sockname`` or ``socket``; ``default`` for other names."""
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
        """As in ``asyncio.ReadTransport``."""
        return self._reading

    def pause_reading(self) -> None:
        """Stop reading; may be called twice."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        """Read again, unless the client has stopped sending or this is closing."""
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
        except Exception as error:  # noqa: BLE001 - reported by the loop's exception handler
            self._fail(error)

    def _end(self) -> None:
        self._ended = True
        self.pause_reading()
        if not self._receiver.eof_received():
            self.close()

    # Writing -----------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data`` now, as far as the kernel takes it, and the rest later.

        Does nothing if the connection is lost. Raises RuntimeError after ``write_eof``.
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
        if not self._paused and len(self._unsent) > HIGH_WATER:
            self._paused = True
            self._receiver.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        """Send the parts in ``list_of_data`` as one write."""
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        """How many bytes wait to be sent."""
        return len(self._unsent)

    def can_write_eof(self) -> bool:
        """Return ``True``: ``write_eof`` is always supported."""
        return True

    def write_eof(self) -> None:
        """Shut down for writing once all is sent; raises OSError if the client is gone."""
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
        if self._paused and len(self._unsent) <= LOW_WATER:
            self._paused = False
            self._receiver.resume_writing()

    # The end -----------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Whether it is closed, or will be once all is sent."""
        return self._closing

    def close(self) -> None:
        """Stop reading, and close once all is sent."""
        if not self._closing:
            self._closing = True
            self.pause_reading()
            if not self._unsent:
                self._lose(None)

    def abort(self) -> None:
        """Close now, without sending what waits."""
        self._drop(None)

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, OSError):  # an OSError means that the client or network is gone
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
            self._loop.call_soon(self._report_and_close, error)  # not while the receiver runs

    def _report_and_close(self, error: Exception | None) -> None:
        try:
            self._receiver.connection_lost(error)
        finally:
            self._sock.close()


class Writes:
    """Batches the writes of one iteration of the loop, by transport.

    Waking a sleeping client costs the kernel more than the rest of an answer. So the first write
    of an iteration is sent at once, and its client wakes while the other answers are made. Those
    are sent together at the end of the iteration.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._first = True
        self._waiting: dict[asyncio.Transport, list[bytes]] = {}

    def begin_iteration(self) -> None:
        """Send the next write at once: it is the first of its iteration."""
        self._first = True

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        """Send ``data`` to ``transport``, in the order of the writes."""
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
        """Send what waits for ``transport``; call this before closing or writing to it."""
        if (parts := self._waiting.pop(transport, None)) and not transport.is_closing():
            transport.write(b"".join(parts))

    def _flush_all(self) -> None:
        for transport in list(self._waiting):
            self.flush(transport)


def hold(transport: asyncio.Transport, wanted: bool) -> None:
    """Pause reading from ``transport`` if ``wanted``, else resume it."""
    if wanted:
        transport.pause_reading()
    else:
        transport.resume_reading()


def reset(transport: asyncio.Transport) -> None:
    """Abort the connection so that the client gets a reset (RST), not an end-of-file."""
    sock: Any = transport.get_extra_info("socket")
    if sock is not None and sock.family != getattr(socket, "AF_UNIX", None):
        linger = b"\1\0\0\0\0\0\0\0"  # struct linger {1, 0}: close discards and resets
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()
