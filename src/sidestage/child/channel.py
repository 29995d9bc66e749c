"""The child's end of the pipe to the parent. A parent that does not read never blocks the loop.

Messages sent in one iteration of the loop are written together at its end: a burst of requests
takes one system call here and wakes the parent once. Frames wait in a queue while the pipe is full.
That queue needs a limit: without a handler, nothing reads the pipe until the test looks at
``received``. Beyond the limit the oldest records and notes are dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections import Counter, deque
from collections.abc import Callable
from typing import Literal, NamedTuple

from ..wire.frames import (
    CHUNK,
    LARGE,
    LARGE_PIPE_SIZE,
    START,
    add_to,
    encode,
    finish,
    head_of_data,
)
from ..wire.messages import Data, Diagnostic, Dropped, LogLine, Message

_SET_SIZE: int | None = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux


Kind = Literal["kept", "records", "diagnostics", "log"]


class _Waiting(NamedTuple):
    """Frames that the pipe has not taken: messages of one kind."""

    frames: bytearray
    kind: Kind
    messages: int


class Outbox:
    """Collects messages; each ``flush`` writes as much as the pipe takes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        self.limit = 1 << 26  # bytes that may wait, beside what is never dropped
        self._loop = loop
        self._fd = fd
        self._batch = bytearray(START)  # what was sent since the last flush
        self._count = 0  # messages in it
        self._kind: Kind = "kept"  # of all messages in it
        self._head = memoryview(b"")  # the frames being written
        self._enlarged = False  # whether the pipe was made larger
        self._queue: deque[_Waiting] = deque()
        self._size = 0  # bytes in the queue that may be dropped
        self._dropped: Counter[Kind] = Counter()
        self.sheds = False  # records were dropped in this run
        self.has_dropped: Callable[[], None] = _nothing  # called once that was told
        os.set_blocking(fd, False)

    def send(self, message: Message) -> None:
        """Send a message that is never dropped; raises what ``frames.add_to`` raises."""
        if self._kind != "kept":
            self._begin("kept")
        size = add_to(self._batch, message)
        self._count += 1
        if size > CHUNK:
            self.flush()

    def send_data(self, call: int, data: bytes | memoryview) -> None:
        """Send a piece of a call's stream, and keep no reference to it."""
        if len(data) < LARGE:
            self.send(Data(call=call, data=bytes(data)))
            return
        self.flush()
        if self._head:  # the pipe is full, so it has to be copied
            self.send(Data(call=call, data=bytes(data)))
            return
        head = head_of_data(call, len(data))
        try:
            written = os.writev(self._fd, (head, data))
        except (BlockingIOError, BrokenPipeError):  # ``_write`` finds out which
            written = 0
        if written < len(head) + len(data):
            taken = max(0, written - len(head))
            self._head = memoryview(head[written:] + bytes(data[taken:]))
            self._write()
            if self._head:
                self._loop.add_writer(self._fd, self._write_queue)

    def record(self, message: Message) -> None:
        """Send a record, which is dropped if too many bytes wait.

        Raises what ``frames.add_to`` raises.
        """
        self._add(message, "records")

    def add_encoded(self, message: bytes, *, kept: bool) -> None:
        """As ``send`` does if it is ``kept``, and else as ``record``, with a ``Repeated``."""
        kind: Kind = "kept" if kept else "records"
        if self._kind != kind:
            self._begin(kind)
        self._batch += message
        self._count += 1
        size = len(self._batch)
        if size > CHUNK or (size > self.limit // 4 and not kept):
            self.flush()

    def note(self, message: Diagnostic | LogLine) -> None:
        """Send a diagnostic or a line of the log, which is dropped if too many bytes wait."""
        self._add(message, "diagnostics" if isinstance(message, Diagnostic) else "log")

    def _add(self, message: Message, kind: Kind) -> None:
        if self._kind != kind:
            self._begin(kind)
        size = add_to(self._batch, message)
        self._count += 1
        # The messages of one batch are dropped together, so keep batches small.
        if size > CHUNK or size > self.limit // 4:
            self.flush()

    def _begin(self, kind: Kind) -> None:
        self.flush()
        self._kind = kind

    def flush(self) -> None:
        """Write the messages added since the last flush."""
        if not self._count:
            return
        batch, count = self._batch, self._count
        finish(batch, count)
        self._batch, self._count = bytearray(START), 0
        if self._head:
            self._wait(_Waiting(batch, self._kind, count))
            return
        try:
            written = os.write(self._fd, batch)
        except (BlockingIOError, BrokenPipeError):  # ``_write`` finds out which
            written = 0
        if written < len(batch):
            self._head = memoryview(batch)[written:]
            self._write()
            if self._head:
                self._loop.add_writer(self._fd, self._write_queue)

    def _wait(self, new: _Waiting) -> None:
        """Put frames behind those that the pipe has not taken.

        Small ones are joined, or they would take more than their bytes. What is dropped is dropped
        together, so little of that.
        """
        if new.kind != "kept":
            self._size += len(new.frames)
        last = self._queue[-1] if self._queue else None
        most = CHUNK if new.kind == "kept" else min(CHUNK, self.limit // 64)
        if (
            last is not None
            and last.kind == new.kind
            and len(last.frames) + len(new.frames) <= most
        ):
            last.frames.extend(new.frames)
            new = last._replace(messages=last.messages + new.messages)
            self._queue.pop()
        self._queue.append(new)
        if self._size > self.limit:
            self._shed()

    def _write(self) -> None:
        try:
            while self._head:
                self._head = self._head[os.write(self._fd, self._head) :]
        except BlockingIOError:
            if not self._enlarged:
                self._enlarged = True
                enlarge(self._fd)
                self._write()
        except BrokenPipeError:  # the parent is gone; this process ends in a moment
            self._head = memoryview(b"")

    def _write_queue(self) -> None:
        self._write()
        while not self._head:
            if self._dropped:
                lost, self._dropped = self._dropped, Counter()
                dropped = Dropped(count=lost["records"], diagnostics=lost["diagnostics"])
                self._head = memoryview(encode(dropped))
                if dropped.count:
                    self.has_dropped()
            elif self._queue:
                waiting = self._queue.popleft()
                if waiting.kind != "kept":
                    self._size -= len(waiting.frames)
                self._head = memoryview(waiting.frames)
            else:
                self._loop.remove_writer(self._fd)
                return
            self._write()

    def _shed(self) -> None:
        kept: list[_Waiting] = []
        while self._size > self.limit and self._queue:
            waiting = self._queue.popleft()
            if waiting.kind == "kept":
                kept.append(waiting)
            else:
                self._size -= len(waiting.frames)
                self._dropped[waiting.kind] += waiting.messages
                self.sheds |= waiting.kind == "records"
        self._queue.extendleft(reversed(kept))


def _nothing() -> None:
    """Nobody wants to know."""


def capacity(fd: int) -> int:
    """How many bytes a pipe holds; 0 if that cannot be known."""
    ask: int | None = getattr(fcntl, "F_GETPIPE_SZ", None)  # Linux
    return 0 if ask is None else int(fcntl.fcntl(fd, ask))


def enlarge(fd: int) -> None:
    """Make a pipe that was full larger.

    Pipes start small: Linux limits the total size of a user's pipes (pipe(7),
    pipe-user-pages-soft).
    """
    if _SET_SIZE is not None:
        with contextlib.suppress(OSError):  # the limit is reached
            fcntl.fcntl(fd, _SET_SIZE, LARGE_PIPE_SIZE)
