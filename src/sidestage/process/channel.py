"""The parent's end of a channel: frames over two one-way pipes, with deadlines.

Pipes, not sockets, because tests block and patch sockets. Both descriptors are non-blocking and the
kernel times every wait, so neither a patched clock nor a stuck child can hold a caller past its
deadline. A closed or broken channel raises ChannelClosed, for readers and writers alike.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ..pristine import system, waits
from ..pristine.system import POLLIN, POLLOUT
from ..pristine.waits import Deadline
from ..wire.frames import FrameBuffer, ReadSize, WireError, encode
from ..wire.messages import EVENTS, Message

NEVER = Deadline(None)

# A pipe of two pages or more that has no space for a message holds at least a page. So a read of
# less has emptied a pipe that was not full.
_PAGE = 4096  # bytes
LEAST_PIPE = 2 * _PAGE


class ChannelClosed(Exception):
    """The other end of the channel is gone, or this end was closed."""


class Channel:
    """Sends commands through one pipe and receives events from the other."""

    def __init__(self, events_fd: int, commands_fd: int) -> None:
        self.events_fd = events_fd
        self.commands_fd = commands_fd
        self.closed = False
        self.buffer = FrameBuffer(EVENTS)
        self.small = False  # nothing can be said of how full the pipe was
        self.behind = False  # the pipe may have been full: more than was read may be on its way
        self._read_size = ReadSize()
        self._writing = system.Lock()
        assert system.set_blocking is not None
        system.set_blocking(events_fd, False)
        system.set_blocking(commands_fd, False)

    def send(self, *messages: Message, deadline: Deadline = NEVER) -> None:
        """Write all of ``messages``; raises ChannelClosed, or TimeoutError at the deadline.

        Raises what ``frames.encode`` raises, before anything is written.
        """
        frames = encode(*messages)
        if not self._writing.acquire(False) and not waits.acquire(self._writing, deadline.left()):
            raise TimeoutError("another thread is still writing to the server's process")
        try:
            written = self._write_some(frames, deadline)
            if written < len(frames):
                self._write(memoryview(frames)[written:], deadline)
        finally:
            self._writing.release()

    def _write(self, rest: memoryview, deadline: Deadline) -> None:
        try:
            while rest:
                rest = rest[self._write_some(rest, deadline) :]
        finally:  # after half a frame, no other can be written
            if rest:
                self.closed = True

    def _write_some(self, view: memoryview | bytearray, deadline: Deadline) -> int:
        while not self.closed:
            try:
                return system.write_pipe(self.commands_fd, view)
            except BlockingIOError:
                pass
            except OSError as error:
                raise ChannelClosed from error
            if not waits.poll_fd(self.commands_fd, POLLOUT, deadline.left()):
                raise TimeoutError("the server's process does not read its commands")
        raise ChannelClosed

    def poll(self, deadline: Deadline) -> bool:
        """Wait for something to receive; returns ``False`` at the deadline."""
        return bool(waits.poll_fd(self.events_fd, POLLIN, deadline.left()))

    def receive(self) -> Sequence[Message]:
        """The events that have come so far, possibly none.

        Raises ChannelClosed at the end, and WireError.
        """
        events: list[Message] = []
        self.receive_into(events)
        return events

    def receive_into(self, events: list[Message] | deque[Message]) -> bool:
        """Append the events that have come so far; returns whether more may be there already.

        Raises ChannelClosed at the end, and WireError after what came before the broken frame.
        """
        try:
            data = system.read(self.events_fd, self._read_size.bytes)
        except BlockingIOError:
            return False
        except OSError as error:
            raise ChannelClosed from error
        if not data:
            raise ChannelClosed
        if len(data) >= _PAGE:
            self.behind = True
        try:
            events.extend(self.buffer.feed(data))
        except WireError as error:
            events.extend(error.before)
            raise
        return self._read_size.got(len(data))
