"""An asyncio transport over an accepted socket: how it reads, sends, lingers and resets.

It behaves like asyncio's own transport, but reads the first bytes in the iteration that accepts the
connection, without a task, uses one read buffer for the whole process, and sends what is written in
an iteration at its end, together.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
from typing import Any, Protocol

from ..iteration import LARGE, Iteration

HIGH_WATER = 1 << 16  # unsent bytes above which the receiver is paused
LOW_WATER = HIGH_WATER // 4
MUCH = 1 << 18  # bytes written in an iteration that are sent before its end
LINGER = 1.0  # seconds for a client to read the rest and stop sending

# Receivers copy what they keep before the next read. asyncio allocates a buffer for each read, so
# the kernel maps and unmaps 256 KiB each time.
_buffer = memoryview(bytearray(1 << 18))


class Receiver(Protocol):
    """What gets the events of one connection, like an ``asyncio.Protocol``."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called first, when a client has connected."""

    def data_received(self, data: bytes | memoryview) -> None:
        """The client has sent ``data``, which is valid until this returns.

        One piece may still come after reading was paused.
        """

    def eof_received(self) -> bool | None:
        """The client has stopped sending; returns whether to keep the connection open."""

    def pause_writing(self) -> None:
        """More than ``HIGH_WATER`` bytes wait to be sent."""

    def resume_writing(self) -> None:
        """At most ``LOW_WATER`` bytes wait to be sent again."""

    def connection_lost(self, exc: Exception | None, /) -> None:
        """The connection is closed, because of ``exc`` if it is not ``None``."""


class Transport(asyncio.Transport):
    """What a protocol writes to: asyncio's transport, and other ways to end it."""

    def close_lingering(self) -> None:
        """Send the rest and the end, and read until the client ends too, before closing.

        Closing with unread bytes would reset the connection, and the client could lose what was
        sent before (RFC 1122 4.2.2.13, RFC 2525 2.17, RFC 9112 9.6). A client that does not end has
        ``LINGER`` seconds from when all is sent. The receiver gets nothing more but
        ``connection_lost``.
        """
        raise NotImplementedError

    def reset(self) -> None:
        """Drop the connection so that the client gets a reset (RST), not an end-of-file."""
        raise NotImplementedError

    def reset_when_sent(self) -> None:
        """Reset once the client's side has all that was written; nothing is read meanwhile.

        A client that does not read holds that up until it leaves, or until this is closed.
        """
        raise NotImplementedError

    def has_unread(self) -> bool:
        """Whether the kernel has bytes of the client that were not read."""
        raise NotImplementedError


class Stream(Transport):
    """The transport of one connection: ``sock`` on one side, ``receiver`` on the other."""

    def __init__(
        self, iteration: Iteration, sock: socket.socket, peername: object, receiver: Receiver
    ) -> None:
        self._iteration = iteration
        self._loop = iteration.loop
        self._sock = sock
        self._fd = sock.fileno()
        self._peername = peername
        self._receiver = receiver
        self._written: list[bytes] = []  # in this iteration
        self._unsent = bytearray()  # what the kernel did not take
        self._paused = False  # whether the receiver was asked to stop writing
        self._reading = False
        self._ended = False  # the client has stopped sending
        self._watched = False  # for a reset, as nothing is read
        self._eof = False  # shut down for writing once all is sent
        self._closing = False
        self._lost = False  # nothing can be read or written any more
        self._resets = False  # once all is sent
        self._lingering: asyncio.TimerHandle | None = None

    def start(self, first: bytes | OSError | None) -> None:
        """Give the connection to the receiver, and what the first read gave; go on reading."""
        self.resume_reading()
        try:
            self._receiver.connection_made(self)
        except Exception as error:  # noqa: BLE001 - reported by the loop's exception handler
            self._fail(error)
        if isinstance(first, OSError):
            self._fail(first)
        elif first is not None:
            self._take(first)

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
        self._stop_reading()
        self._watch()

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._iteration.remove_reader(self._fd)

    def _watch(self) -> None:
        """Notice a reset all the same."""
        hangups = self._iteration.hangups
        if hangups is not None and not (self._watched or self._closing):
            self._watched = True
            hangups.watch(self._fd, self._was_reset)

    def _watch_no_more(self) -> None:
        hangups = self._iteration.hangups
        if hangups is not None and self._watched:
            self._watched = False
            hangups.forget(self._fd)

    def _was_reset(self) -> None:
        number = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNRESET
        self._fail(ConnectionResetError(number, os.strerror(number)))

    def resume_reading(self) -> None:
        """Read again, unless the client has stopped sending or this is closing."""
        if not (self._reading or self._ended or self._closing):
            self._watch_no_more()
            self._reading = True
            self._iteration.add_reader(self._fd, self._read)

    def _read(self) -> None:
        try:
            size = self._sock.recv_into(_buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error)
            return
        self._iteration.taken += size
        if size < LARGE:
            self._iteration.received.append((self._take, _buffer[:size].tobytes()))
        else:
            self._iteration.act_now()
            self._take(_buffer[:size])

    def _take(self, data: bytes | memoryview) -> None:
        if self._closing or self._ended:
            return
        try:
            if not data:
                self._end()
            elif self._lingering is None:
                self._receiver.data_received(data)
        except Exception as error:  # noqa: BLE001 - reported by the loop's exception handler
            self._fail(error)

    def _end(self) -> None:
        self._ended = True
        self._stop_reading()
        if self._lingering is not None or not self._receiver.eof_received():
            self.close()
        else:
            self._watch()

    def has_unread(self) -> bool:
        if self._ended or self._closing:
            return False
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    # Writing -----------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data`` now if it is the first of this iteration, or much, else at the end of it.

        Does nothing if the connection is lost. Raises RuntimeError after ``write_eof``.
        """
        if self._lost or not data:
            return
        if self._eof:
            raise RuntimeError("write() after write_eof()")
        iteration = self._iteration
        if not self._written:
            if iteration.prompt or len(data) >= MUCH:  # much is sent as it is, without a copy
                iteration.prompt = False
                iteration.outbox.flush()  # records go before answers
                self._send(data)
                return
            iteration.senders.append(self)
        self._written.append(data if isinstance(data, bytes) else bytes(data))
        if len(data) >= MUCH:
            iteration.send_now(self)

    def writelines(self, list_of_data: Any) -> None:
        """Send the parts in ``list_of_data`` as one write."""
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        """How many bytes wait to be sent."""
        return len(self._unsent) + sum(map(len, self._written))

    def can_write_eof(self) -> bool:
        """Return ``True``: ``write_eof`` is always supported."""
        return True

    def write_eof(self) -> None:
        """Shut down for writing once all is sent; raises OSError if the client is gone."""
        if self._closing or self._eof:
            return
        self._eof = True
        if not (self._unsent or self._written):
            self._sock.shutdown(socket.SHUT_WR)

    def send(self) -> None:
        """Send what was written; the iteration calls this at its end."""
        written, self._written = self._written, []
        if written and not self._lost:
            self._send(written[0] if len(written) == 1 else b"".join(written))

    def _send(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data`` as far as the kernel takes it, and keep the rest."""
        if not self._unsent:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self._fail(error)
                return
            if sent == len(data):
                if self._closing or self._eof or self._resets:
                    self._all_sent()
                return
            self._unsent += memoryview(data)[sent:]
            self._loop.add_writer(self._fd, self._write_more)
        else:
            self._unsent += data
        if not self._paused and len(self._unsent) > HIGH_WATER:
            self._paused = True
            self._receiver.pause_writing()

    def _write_more(self) -> None:
        try:
            del self._unsent[: self._sock.send(self._unsent)]
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error)
            return
        if not self._unsent:
            self._loop.remove_writer(self._fd)
            if not self._written:
                self._all_sent()
        if self._paused and len(self._unsent) <= LOW_WATER:
            self._paused = False
            self._receiver.resume_writing()

    def _all_sent(self) -> None:
        if self._resets:
            self._reset_when_taken()
        elif self._closing:
            self._lose(None)
        elif self._eof:
            with contextlib.suppress(OSError):  # the client has left: reading reports it
                self._sock.shutdown(socket.SHUT_WR)

    # The end -----------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Whether it is closed, or will be once all is sent."""
        return self._closing

    def close(self) -> None:
        """Stop reading, and close once all is sent."""
        if self._resets:
            self.reset()
        elif not self._closing:
            self._closing = True
            self._stop_reading()
            if not (self._unsent or self._written):
                self._lose(None)

    def close_lingering(self) -> None:
        if self._closing or self._lingering is not None:
            return
        if self._ended:
            self.close()
            return
        with contextlib.suppress(OSError):  # the client has left: reading reports it
            self.write_eof()
        self.resume_reading()
        self._lingering = self._loop.call_later(LINGER, self._lingered)

    def _lingered(self) -> None:
        if self._unsent:
            self._lingering = self._loop.call_later(LINGER, self._lingered)
        else:
            self.close()

    def abort(self) -> None:
        """Close now, without sending what waits."""
        self._drop(None)

    def reset(self) -> None:
        if self._written:  # what was sent before the reset may still be read
            self._iteration.send_now(self)
        if self._sock.family != getattr(socket, "AF_UNIX", None) and not self._lost:
            linger = b"\1\0\0\0\0\0\0\0"  # struct linger {1, 0}: close discards and resets
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._drop(None)

    def reset_when_sent(self) -> None:
        if self._closing or self._resets:
            return
        self._resets = True
        self.pause_reading()
        if not (self._unsent or self._written):
            self._reset_when_taken()

    def _reset_when_taken(self) -> None:
        """Reset when the kernel has nothing left: a reset drops what it has not sent."""
        if self._sock.family == getattr(socket, "AF_UNIX", None):  # there it is the client's
            self.reset()
            return
        # Have a socket with unsent bytes count as one that cannot be written.
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 1)
        self._loop.add_writer(self._fd, self.reset)

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, OSError):  # an OSError means that the client or network is gone
            context = {"message": "a connection failed", "exception": error, "transport": self}
            self._loop.call_exception_handler(context)
        self._drop(error)

    def _drop(self, error: Exception | None) -> None:
        self._closing = True
        self._stop_reading()
        if self._unsent or self._resets:
            self._unsent.clear()
            self._loop.remove_writer(self._fd)
        self._lose(error)

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._watch_no_more()
            if self._lingering is not None:
                self._lingering.cancel()
            self._iteration.soon(self._report_and_close, error)  # not while the receiver runs

    def _report_and_close(self, error: Exception | None) -> None:
        try:
            self._receiver.connection_lost(error)
        finally:
            self._sock.close()
