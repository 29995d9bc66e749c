"""The child's end of the pipe to the parent. A parent that does not read never blocks the loop.

Messages sent in one iteration of the loop are written together at its end: a burst of requests
takes one system call here and wakes the parent once. Frames wait in a queue while the pipe is full.
That queue needs a limit: without a handler, nothing reads the pipe until the test looks at
``received``. Beyond the limit the oldest records are dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections import deque

from ..wire.frames import CHUNK, LARGE_PIPE_SIZE, START, add_to, encode, finish
from ..wire.messages import Dropped, Message

_SET_SIZE: int | None = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux


class Outbox:
    """Collects messages; each ``flush`` writes as much as the pipe takes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        self.limit = 1 << 26  # bytes of records that may wait
        self._loop = loop
        self._fd = fd
        self._batch = bytearray(START)  # what was sent since the last flush
        self._count = 0  # messages in it
        self._records = 0  # in the batch; if not 0, it contains nothing but records
        self._head = memoryview(b"")  # the frames being written
        self._enlarged = False  # whether the pipe was made larger
        self._queue: deque[tuple[bytearray, int]] = deque()  # frames, and how many are records
        self._size = 0  # bytes in the queue
        self._dropped = 0
        os.set_blocking(fd, False)

    def send(self, message: Message) -> None:
        """Send a message that is never dropped; raises what ``frames.add_to`` raises."""
        if self._records:
            self.flush()
        add_to(self._batch, message)
        self._count += 1
        if len(self._batch) > CHUNK:
            self.flush()

    def record(self, message: Message) -> None:
        """Send a record, which is dropped if too many bytes of records wait.

        Raises what ``frames.add_to`` raises.
        """
        if self._count > self._records:
            self.flush()
        add_to(self._batch, message)
        self._count += 1
        self._records += 1
        # The records of one batch are dropped together, so keep batches small.
        if len(self._batch) > min(CHUNK, self.limit // 4):
            self.flush()

    def flush(self) -> None:
        """Write the messages added since the last flush."""
        if not self._count:
            return
        batch, records = self._batch, self._records
        finish(batch, self._count)
        self._batch, self._count, self._records = bytearray(START), 0, 0
        if self._head:
            self._wait(batch, records)
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

    def _wait(self, batch: bytearray, records: int) -> None:
        """Put a frame behind those that the pipe has not taken."""
        self._queue.append((batch, records))
        self._size += len(batch)
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
                dropped, self._dropped = self._dropped, 0
                self._head = memoryview(encode(Dropped(count=dropped)))
            elif self._queue:
                frames, _ = self._queue.popleft()
                self._size -= len(frames)
                self._head = memoryview(frames)
            else:
                self._loop.remove_writer(self._fd)
                return
            self._write()

    def _shed(self) -> None:
        kept: list[tuple[bytearray, int]] = []
        while self._size > self.limit and self._queue:
            frames, records = self._queue.popleft()
            if records:
                self._size -= len(frames)
                self._dropped += records
            else:
                kept.append((frames, records))
        self._queue.extendleft(reversed(kept))


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
