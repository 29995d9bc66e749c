"""The parent's end of a channel: frames over two one-way pipes, with deadlines.

Pipes, not sockets, because tests block and patch sockets. Both descriptors are non-blocking and the
kernel times every wait, so neither a patched clock nor a stuck child can hold a caller past its
deadline. A closed or broken channel raises ChannelClosed, for readers and writers alike.

A signal handler, or a ``__del__`` that the collector runs, may come between any two lines here, and
raise, or use the same channel. So what was read or written is noted in the call of C that does it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from ..pristine import system, waits
from ..pristine.system import POLLIN, POLLOUT
from ..pristine.waits import Caller, Deadline, NotInTime, Turn, Wakeup
from ..wire.frames import (
    LARGE,
    PIPE_SIZE,
    FrameBuffer,
    ReadSize,
    WireError,
    encode,
    head_of_data,
)
from ..wire.messages import EVENTS, Data, Message

NEVER = Deadline(None)

# A pipe of two pages or more that has no space for a message holds at least a page. So a read of
# less has emptied a pipe that was not full.
_PAGE = 4096  # bytes
LEAST_PIPE = 2 * _PAGE


def _behind(frames: Any, done: int) -> memoryview | tuple[Any, ...]:
    """What is left to write of a buffer, or of two, when ``done`` bytes were written."""
    if type(frames) is not tuple:
        return memoryview(frames)[done:]
    head, data = frames
    begun = done - len(head)
    return memoryview(data)[begun:] if begun >= 0 else (head[done:], data)


class ChannelClosed(Exception):
    """The other end of the channel is gone, or this end was closed."""


def _raise_of_test(error: OSError) -> None:
    """Raise what a signal handler of the test has raised: an error of the system has a number."""
    if error.errno is None and not isinstance(error, BlockingIOError):
        raise error


class Channel:
    """Sends commands through one pipe and receives events from the other."""

    def __init__(self, events_fd: int, commands_fd: int) -> None:
        self.events_fd = events_fd
        self.commands_fd = commands_fd
        self.closed = False
        self.user = object()  # who may send; the next one is another
        self.buffer = FrameBuffer(EVENTS)
        self.small = False  # nothing can be said of how full the pipe was
        self.behind = False  # the pipe may have been full: more than was read may be on its way
        self._read_size = ReadSize()
        self._parts: list[bytes | bytearray] = []  # read, not decoded
        self._needed = 0  # bytes of parts, until there is something to decode
        self._version: object = None  # of the parts; another one once they were looked at
        self._writing = Turn()  # its holder has the size of its frame, too, and the sizes written
        self._written = Wakeup()
        assert system.set_blocking is not None
        system.set_blocking(events_fd, False)
        system.set_blocking(commands_fd, False)

    def send(
        self, *messages: Message, deadline: Deadline = NEVER, user: object | None = None
    ) -> None:
        """Write all of ``messages``; raises what ``write`` raises."""
        self.write(messages, deadline, user)

    # Its arguments are positional: to pass on any number of messages with keywords takes longer
    # than the system call.
    def write(  # noqa: C901 - likewise
        self, messages: tuple[Message, ...], deadline: Deadline = NEVER, user: object | None = None
    ) -> None:
        """Write all of ``messages``; raises ChannelClosed, or NotInTime at the deadline.

        Raises ChannelClosed too if ``user`` is given and is no longer the user of the channel, and
        what ``frames.encode`` raises, before anything is written.
        """
        first = messages[0]
        if type(first) is Data and len(first.data) >= LARGE and len(messages) == 1:
            frames: Any = head_of_data(first.call, len(first.data)), first.data
            size, done = len(frames[0]) + len(frames[1]), 0
        else:
            frames = encode(*messages)
            size, done = len(frames), 0
        writing = self._writing
        counts: list[int] = []  # not ``list[int]()``, which takes as long as the rest
        me = (system.caller_id(), size, counts)
        outer = writing.holder
        if outer is not None and outer[0] != me[0]:
            outer = None  # another thread's; else the call that this one has come into
        try:
            if outer is not None and 0 < sum(outer[2]) < outer[1]:
                raise NotInTime("the call that this one interrupts has written half a frame")
            # As in ``Turn.take``.
            writing.holder = me if writing.holder is outer else writing.holder
            if writing.holder is not me:
                self._wait_for_turn(me, deadline)
            if user is not None and user is not self.user:
                raise ChannelClosed
            if not self.closed:  # mostly all is written at once, and this saves a call
                try:
                    system.write_pipe(self.commands_fd, frames, counts)
                except OSError as error:  # ``_write_some`` finds out what is wrong
                    _raise_of_test(error)
            while (done := sum(counts)) < size:
                self._write_some(_behind(frames, done), counts, deadline)
        finally:
            # No other can be written after half a frame.
            if done < size and counts and sum(counts) < size:
                self.closed = True
            if writing.holder is me:
                writing.holder = outer
            self._written.notify_one()  # also if this was woken, and has not taken the turn

    def _wait_for_turn(self, me: Caller, deadline: Deadline) -> None:
        if not self._written.wait_until(lambda: self._writing.take(me), deadline):
            raise NotInTime("another thread is still writing to the server's process")

    def retire(self, deadline: Deadline) -> bool:
        """Take nothing more from the present user, and wait until what it writes is written.

        Returns ``False`` if it is not by the deadline, or as the caller has come into a ``send``.
        """
        writing, me = self._writing, (system.caller_id(), 0, ())
        try:
            if not writing.take(me) and (
                writing.is_mine(me)
                or not self._written.wait_until(lambda: writing.take(me), deadline)
            ):
                return False
            self.user = object()
            return True
        finally:
            if writing.holder is me:
                writing.holder = None
            self._written.notify_one()

    def _write_some(
        self, view: memoryview | tuple[Any, ...], counts: list[int], deadline: Deadline
    ) -> None:
        while not self.closed:
            try:
                system.write_pipe(self.commands_fd, view, counts)
                return
            except BlockingIOError:
                pass
            except OSError as error:
                _raise_of_test(error)
                raise ChannelClosed from error
            if not waits.poll_fd(self.commands_fd, POLLOUT, deadline.left()):
                raise NotInTime("the server's process does not read its commands")
        raise ChannelClosed

    def poll(self, deadline: Deadline, *, at_most: float | None = None) -> bool:
        """Wait for something to receive; returns ``False`` at the deadline.

        It waits ``at_most`` that many seconds.
        """
        left = deadline.left()
        if at_most is not None and not 0 <= left < at_most:
            left = at_most
        return bool(waits.poll_fd(self.events_fd, POLLIN, left))

    def receive(self) -> Sequence[Message]:
        """The events that have come so far, possibly none.

        Raises ChannelClosed at the end, and WireError.
        """
        events: list[Message] = []
        self.receive_into(events)
        return events

    # Not split: it runs for each read from a pipe.
    def receive_into(  # noqa: C901 - a part of it that is a function costs each read a call
        self, events: list[Message] | deque[Message]
    ) -> bool:
        """Append the events that have come so far; returns whether more may be there already.

        Raises ChannelClosed at the end, and WireError after what came before the broken frame.
        """
        read_size = self._read_size
        part = map(system.read, (self.events_fd,), (read_size.bytes,))
        parts = self._parts
        size = -1
        try:
            parts += part
            size = len(parts[-1])
        except BlockingIOError:
            if not parts or not self.has_left:
                return False
        except OSError as error:
            _raise_of_test(error)
            raise ChannelClosed from error
        if not size:
            raise ChannelClosed
        if size >= _PAGE:
            self.behind = True
        while True:  # a call that comes into this one may decode the same bytes first
            version, parts = self._version, self._parts
            if len(parts) == 1:
                whole = parts[0]
            elif sum(map(len, parts)) < self._needed:
                self._version = object()
                break
            else:
                whole = b"".join(parts)
            try:
                messages, at, needed = self.buffer.split(whole)
            except WireError as error:
                events.extend(error.before)
                error.before = []
                raise
            left = [whole[at:]] if at < len(whole) else []
            found = iter(messages)
            # No call in here that a signal handler could interrupt, until all is noted.
            if self._version is version:
                self._version, self._parts, self._needed = found, left, needed
                events.extend(found)
                break
        if size < PIPE_SIZE and read_size.bytes == PIPE_SIZE:
            return False  # as ``got`` says, without a call
        return size >= 0 and read_size.got(size)

    @property
    def has_left(self) -> bool:
        """Whether a call that was interrupted has left something to decode."""
        parts = self._parts
        return bool(parts) and sum(map(len, parts)) >= self._needed
