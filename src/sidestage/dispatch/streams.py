"""The parent's ends of a call's byte streams, under flow control.

What the client sends waits in an Inflow until the handler reads it. What the handler sends leaves
through an Outflow as far as the window allows. When the client or the server goes away, both raise
an error in the handler that waits, so none waits for ever in our own I/O.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from ..pristine import system
from ..pristine.waits import Deadline, Wakeup
from ..wire.credit import SHARE
from ..wire.frames import CHUNK, WINDOW
from ..wire.messages import Ack, AckSoon, Data, End, Message
from ..wire.values import buffer as buffer_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


_SMALL = 1 << 12  # bytes; smaller pieces are joined, or they would take more than their bytes
_SOON = SHARE // 4  # bytes read between two acknowledgements, if the child asks for that


class Inflow:
    """Bytes from the client: the reader of events feeds them, the handler reads them."""

    def __init__(self, send: Callable[[Message], None], call: int) -> None:
        self._send = send
        self._call = call
        self._chunks: deque[bytes | memoryview | bytearray] = deque()
        self._guard = system.Lock()  # of the joined pieces, the bytearrays
        self._ended = False
        self._error: Exception | None = None
        self._owed = 0  # bytes read and not acknowledged yet
        self._step = WINDOW // 4  # bytes read between two acknowledgements
        self._hurried = False  # the step has just become smaller
        self._changed = Wakeup()

    def event(self, message: Data | End | AckSoon) -> None:
        """Take a message of the child."""
        match message:
            case Data():
                self.feed(message.data)
            case End():
                self.end()
            case AckSoon():
                self.hurry()

    def feed(self, data: bytes) -> None:
        """Append bytes that came."""
        if self._chunks and len(data) < _SMALL:
            self._join(data)
        else:
            self._chunks.append(data)
        self._changed.notify()

    def _join(self, data: bytes) -> None:
        with self._guard:
            last = self._chunks[-1] if self._chunks else None
            if isinstance(last, bytearray) and len(last) < CHUNK:
                last += data
            else:
                self._chunks.append(bytearray(data))

    def hurry(self) -> None:
        """Acknowledge in smaller steps from now on, starting with what was read."""
        self._step, self._hurried = _SOON, True
        self._changed.notify()

    def end(self) -> None:
        """Note that no more bytes will come."""
        self._ended = True
        self._changed.notify()

    def fail(self, error: Exception) -> None:
        """Raise ``error`` in reads, once all that has come is read; the first error counts."""
        if self._error is None:
            self._error = error
        self._changed.notify()

    def read_some(self, limit: int, deadline: Deadline, *, peek: bool = False) -> bytes:
        """Wait for bytes and return 1 to ``limit`` of them, or ``b""`` at the end.

        ``peek`` leaves them to be read again. Raises TimeoutError at the deadline, or the error
        that the stream failed with.
        """
        # Mostly something is there, or has just come; this saves two calls.
        if not self._chunks and not self._changed.wait_until(self._ready, deadline):
            raise TimeoutError("timed out")
        if self._hurried:
            self._acknowledge_hurriedly(deadline)
        if not self._chunks:
            if self._error is not None and not self._ended:  # an earlier end counts
                raise anew(self._error)
            return b""
        chunk = self._chunks[0]
        if peek:
            return bytes(chunk[:limit])
        if type(chunk) is bytes and len(chunk) <= limit:  # as most are: without a copy
            data = chunk
            self._chunks.popleft()
        else:
            data = self._take(chunk, limit)
        self._owed += len(data)
        if self._owed >= self._step:
            self._acknowledge()
        return data

    def _acknowledge_hurriedly(self, deadline: Deadline) -> None:
        """Acknowledge, and wait again: maybe nothing else has made it ready."""
        while self._hurried:
            self._hurried = False
            self._acknowledge()
            if not self._changed.wait_until(self._ready, deadline):
                raise TimeoutError("timed out")

    def _take(self, chunk: bytes | memoryview | bytearray, limit: int) -> bytes:
        if isinstance(chunk, bytearray):
            return self._take_joined(chunk, limit)
        data = bytes(chunk[:limit])
        rest = memoryview(chunk)[len(data) :]
        if rest:
            self._chunks[0] = rest
        else:
            self._chunks.popleft()
        return data

    def _take_joined(self, chunk: bytearray, limit: int) -> bytes:
        with self._guard:
            data = bytes(chunk[:limit])
            del chunk[: len(data)]
            if not chunk:
                self._chunks.popleft()
        return data

    def _ready(self) -> bool:
        return bool(self._chunks) or self._ended or self._error is not None or self._hurried

    def _acknowledge(self) -> None:
        if self._owed >= self._step and not self._ended:
            owed, self._owed = self._owed, 0
            self._send(Ack(call=self._call, size=owed))

    def left(self) -> bytes:
        """The bytes that have come and were not read."""
        return b"".join(self._chunks)


class Unacknowledged:
    """The bytes of all streams to clients that the child has not passed on."""

    def __init__(self, limit: int) -> None:
        self.limit = limit  # bytes
        self._size = 0  # bytes
        self._waiting: set[Outflow] = set()
        self._guard = system.Lock()

    def add(self, size: int) -> None:
        """Count ``size`` bytes more, or fewer."""
        with self._guard:
            self._size += size
            waiting: set[Outflow] = set()
            if self._waiting and self._size <= self.limit // 4 * 3:
                waiting, self._waiting = self._waiting, waiting
        for flow in waiting:
            flow.look()

    def has_room(self, flow: Outflow) -> bool:
        """Whether ``flow`` may use its whole window; if not, it is told to look again."""
        with self._guard:
            if self._size < self.limit:
                return True
            self._waiting.add(flow)
        return False


class Outflow:
    """Bytes to the client, at most a window of them unacknowledged.

    It has only a share of that while ``every``, of all clients, has too much.
    """

    def __init__(self, send: Callable[[Message], None], call: int, every: Unacknowledged) -> None:
        self._send = send
        self._call = call
        self._every = every
        self._hurries = False  # the child was asked to acknowledge soon
        self.sent = 0  # bytes in all
        self._unacknowledged = 0
        self._error: Exception | None = None
        self._changed = Wakeup()

    def acknowledged(self, size: int) -> None:
        """Note that the child has passed ``size`` bytes on to the client."""
        self.count(-size)
        self._changed.notify()

    def look(self) -> None:
        """Look again whether there is room."""
        self._changed.notify()

    def close(self) -> None:
        """Nothing more is sent: count no longer what is not acknowledged."""
        self.count(-self._unacknowledged)

    def fail(self, error: Exception) -> None:
        """Raise ``error`` in every write from now on; the first error counts."""
        if self._error is None:
            self._error = error
        self._changed.notify()

    def count(self, size: int) -> None:
        """Count ``size`` bytes against the window, or fewer if it is negative."""
        self._unacknowledged += size
        self._every.add(size)

    def wait_and_count(self, size: int) -> None:
        """Wait for credit, and count ``size`` bytes; raises the stream's error."""
        self._changed.wait_until(self._ready, Deadline(None))
        if self._error is not None:
            raise anew(self._error)
        self.count(size)

    def write(self, data: bytes | bytearray | memoryview, deadline: Deadline) -> None:
        """Send all of ``data``; raises TimeoutError at the deadline, or the stream's error.

        Raises TypeError if it is no bytes-like object.
        """
        if type(data) is bytes and 0 < len(data) <= CHUNK:  # most are: without a copy
            self._write_chunk(data, deadline)
        else:
            view = buffer_of("what is sent", data)
            while view:
                chunk, view = view[:CHUNK], view[CHUNK:]
                self._write_chunk(chunk, deadline)
        if self._error is not None:
            raise anew(self._error)

    def _write_chunk(self, chunk: bytes | memoryview, deadline: Deadline) -> None:
        # A stream with less than its share on the way is ready: this saves two calls.
        if self._unacknowledged >= SHARE and not self._changed.wait_until(self._ready, deadline):
            raise TimeoutError("timed out")
        if self._error is not None:
            raise anew(self._error)
        size = len(chunk)
        self._unacknowledged += size
        self._every.add(size)
        self.sent += size
        self._send(Data(call=self._call, data=cast("bytes", chunk)))  # encoded at once

    def _ready(self) -> bool:
        if self._unacknowledged < SHARE or self._error is not None:
            return True
        if self._unacknowledged >= WINDOW:
            return False
        if self._every.has_room(self):
            return True
        if not self._hurries:  # else the child keeps back acknowledgements that this waits for
            self._hurries = True
            self._send(AckSoon(call=self._call))
        return False


class StreamReader(io.RawIOBase):
    """A readable raw file that reads with a function like ``recv``."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._receive(len(view))
        view[: len(data)] = data
        return len(data)


class StreamWriter(io.RawIOBase):
    """A writable raw file that writes with a function like ``sendall``, without a buffer."""

    def __init__(self, send_all: Callable[[memoryview], None]) -> None:
        self._send_all = send_all

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        view = buffer_of("what is written", data)
        self._send_all(view)
        return len(view)


def open_file(
    receive: Callable[[int], bytes],
    send_all: Callable[[memoryview], None],
    mode: str,
    buffering: int | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> Any:
    """A file as of ``socket.makefile`` from functions like ``recv`` and ``sendall``.

    Raises ValueError for an unknown mode, and for a buffering that the mode does not allow.
    """
    if not mode or set(mode) - set("rwb") or set(mode) == {"b"}:
        raise ValueError(f"mode must be 'r', 'w' or 'rw', with 'b' for bytes, not {mode!r}")
    if buffering == 0 and "b" not in mode:
        raise ValueError("only a binary file can be unbuffered")
    binary = _binary_file(receive, send_all, mode, buffering)
    if "b" in mode:
        return binary
    return io.TextIOWrapper(binary, encoding, errors, newline, line_buffering=buffering == 1)


def _binary_file(
    receive: Callable[[int], bytes],
    send_all: Callable[[memoryview], None],
    mode: str,
    buffering: int | None,
) -> Any:
    reader, writer = StreamReader(receive), StreamWriter(send_all)
    size = buffering if buffering is not None and buffering > 1 else io.DEFAULT_BUFFER_SIZE
    if "r" not in mode:
        return writer if buffering == 0 else io.BufferedWriter(writer, size)
    if "w" not in mode:
        return reader if buffering == 0 else io.BufferedReader(reader, size)
    if buffering == 0:
        raise ValueError("a file for reading and writing must be buffered")
    return io.BufferedRWPair(reader, writer, size)


def anew(error: Exception) -> Exception:
    """A copy of ``error`` to raise: the stored one would keep the frames that it passes through."""
    return type(error)(*error.args)
