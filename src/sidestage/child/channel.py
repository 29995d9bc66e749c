"""The child's ends of the pipes; a parent that does not read never blocks the loop.

Messages sent in one iteration of the loop are written together at its end, so that a burst of
requests is one system call here and one wake-up there. What the pipe does not take waits here. Any
number of records may wait, because a server without a handler has nobody reading until the test
looks: past the limit the oldest are dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections import deque

from ..wire.frames import CHUNK, LARGE_PIPE_SIZE, Frame, encode
from ..wire.messages import Dropped, Message

_SET_SIZE: int | None = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux


class Outbox:
    """Writes messages to the pipe, with every ``flush`` as far as it has room."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        self.limit = 1 << 26  # bytes of records that may wait
        self._loop = loop
        self._fd = fd
        self._batch = Frame()  # what was sent since the last flush
        self._records = 0  # of the batch, which has nothing but records then
        self._head = memoryview(b"")  # the frames being written
        self._enlarged = False  # the pipe
        self._queue: deque[tuple[bytearray, int]] = deque()  # frames, and how many are records
        self._size = 0  # bytes in the queue
        self._dropped = 0
        os.set_blocking(fd, False)

    def send(self, message: Message) -> None:
        """Pass on what must not be lost."""
        if self._records:
            self.flush()
        self._add(message)

    def record(self, message: Message) -> None:
        """Pass on a record; those are bounded."""
        if self._batch and not self._records:
            self.flush()
        self._records += 1
        self._add(message)

    def _add(self, message: Message) -> None:
        self._batch.add(message)
        # Records of one batch are shed together, so it is to be a small part of what may wait.
        if len(self._batch) > (min(CHUNK, self.limit // 4) if self._records else CHUNK):
            self.flush()

    def flush(self) -> None:
        """Write what was sent since the last time."""
        if self._batch:
            batch, records = self._batch, self._records
            self._batch, self._records = Frame(), 0
            self._put(batch.whole(), records)

    def _put(self, frames: bytearray, records: int) -> None:
        if self._head:
            self._queue.append((frames, records))
            self._size += len(frames)
            if self._size > self.limit:
                self._shed()
            return
        self._head = memoryview(frames)
        self._write()
        if self._head:
            self._loop.add_writer(self._fd, self._write_queue)

    def _write(self) -> None:
        try:
            while self._head:
                self._head = self._head[os.write(self._fd, self._head) :]
        except BlockingIOError:
            if not self._enlarged:
                self._enlarged = True
                enlarge(self._fd)
                self._write()
        except BrokenPipeError:  # the parent is gone, and so are we in a moment
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


def enlarge(fd: int) -> None:
    """Have the pipe hold more, now that it was full.

    Not from the beginning: Linux counts the sizes of all of a user's pipes, and once they are too
    many MiB it gives nobody more.
    """
    if _SET_SIZE is not None:
        with contextlib.suppress(OSError):  # it has been given too much already
            fcntl.fcntl(fd, _SET_SIZE, LARGE_PIPE_SIZE)
