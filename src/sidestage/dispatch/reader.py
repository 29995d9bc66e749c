"""Reads the events of one server's process and turns them into jobs.

Whoever needs an event reads the pipe for itself, one thread at a time. Once handler threads run,
they alone read.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from ..pristine import system, waits
from ..pristine.waits import Deadline, NotInTime, Turn, Wakeup
from ..process.channel import NEVER, Channel, ChannelClosed
from ..wire.frames import WireError
from ..wire.messages import Message
from . import stacks

Job = Callable[[], None]

_NOW = Deadline(0.0)
# A signal handler may end the turn of the thread that it has come into, which only learns of it
# once it looks up from its wait.
_LOOK_UP_SECONDS = 0.1
_BUSY_LOOK_UP_SECONDS = 0.01  # where another thread may take what this one waits for
HANDLERS: waits.Caller = (0,)  # has the turn once handler threads run


class Sink(Protocol):
    """What takes the events: the run."""

    def event(self, message: Message) -> Job | None:
        """Take an event; returns the job that it makes, if any."""
        ...

    def defect(self, error: BaseException) -> None:
        """Taking an event has failed."""

    def disconnected(self, why: str) -> None:
        """The pipe has ended: no event will come any more.

        ``why`` is what was wrong with what came; empty if nothing was.
        """


class Readers(Protocol):
    """The handler threads, as far as they read."""

    def wait_for_caller(self) -> bool:
        """Whether none of them can read before the caller goes on."""
        ...


class Reader:
    """The events of one run, and the jobs that they have made."""

    def __init__(self, channel: Channel, sink: Sink, events: Iterable[Message] = ()) -> None:
        self.channel = channel
        self.changed = Wakeup()
        self.connected = True
        self.finished = False  # no event will come any more
        self.parked = False  # a fork is under way: no job may begin
        self.jobs: deque[Job] = deque()
        self.endings: deque[Job] = deque()  # jobs that end a call: they run after the end, too
        self.unread = False  # the leader is to look for more before it gives up the lead
        self.hung_up = False  # the other end of the pipe is closed: read until its end
        self._sink = weakref.ref(sink)  # which holds this: nothing here may wait for a collection
        self._events: deque[Message] = deque(events)  # received, not taken
        self._depth = 0  # of the calls that receive and take them: one may come into another
        self.nested = False  # one has, so events may have been taken in another order
        self._reading = Turn()  # whose it is to wait for events
        self._receiving = system.RLock()  # while they are received and taken, and nobody waits
        self._heir: int | None = None  # the caller that takes over the reading
        self.readers: weakref.ref[Readers] | None = None  # the handler threads, which hold this

    # For whoever waits ---------------------------------------------------------------------------

    def wait_until(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        """Block until ``condition()`` holds; returns ``False`` at the deadline.

        Ends too when no event can come any more. While somebody is at a debugger's prompt, the
        deadline does not come, and the whole time is granted again after it.
        """
        while not self._wait(condition, deadline):
            if self.finished or not stacks.wait_while_at_prompt():
                return False
            deadline = deadline.again()
        return True

    def _wait(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        reading, me = self._reading, (system.caller_id(),)

        def wakes() -> bool:
            if condition() or self.finished:
                return True
            return not reading.locked() and self._may_read()

        while not condition():
            if self.finished:
                break
            try:
                if self._may_read() and reading.take(me):
                    in_time = self._read_until(condition, deadline)
                elif self._must_read(me):
                    in_time = self._read_inside(condition, deadline)
                else:
                    in_time = self.changed.wait_until(wakes, deadline)
            finally:
                if reading.holder is me:
                    reading.holder = None
                    self.changed.notify()
            if not in_time:
                break
        else:
            return True
        return condition()

    def _may_read(self) -> bool:
        heir = self._heir
        return heir is None or heir == system.caller_id()

    def _must_read(self, me: waits.Caller) -> bool:
        """Whether the caller keeps from reading whoever has the turn.

        A signal handler has come into a call that reads, or code of the test runs inside of one: a
        ``__del__``, a handler of logging. That call goes on only after it.
        """
        reading = self._reading
        if reading.is_mine(me) or self._receiving._is_owned():
            return True
        readers = self.readers() if reading.holder is HANDLERS and self.readers else None
        return readers is not None and readers.wait_for_caller()

    def is_inside(self) -> bool:
        """Whether the caller has come into a call that reads, which goes on after it."""
        return self._reading.is_mine((system.caller_id(),)) or bool(self._receiving._is_owned())

    def _read_until(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        holder = self._reading.holder
        if self._events or self.channel.has_left:  # by a reader that was interrupted, by Ctrl-C say
            self.read()
        while not (self.finished or condition()):
            # Else nothing may come that ends this turn, or it has ended.
            if not self._may_read() or self._reading.holder is not holder:
                return True
            if self.channel.poll(deadline, at_most=_LOOK_UP_SECONDS):
                self.read()
            elif deadline.passed():
                return False
        return True

    def _read_inside(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        """Read in the place of whoever has the turn, and cannot go on before this returns."""
        if self._events or self.channel.has_left:
            self.read()
        while not (self.finished or condition()):
            if self.channel.poll(deadline, at_most=_BUSY_LOOK_UP_SECONDS):
                self.read()
            elif deadline.passed():
                return False
        return True

    def catch_up(self, deadline: Deadline) -> bool:
        """Take all events that are in the pipe; returns ``False`` at the deadline."""
        reading, me = self._reading, (system.caller_id(),)
        try:
            if (self._may_read() and reading.take(me)) or self._must_read(me):
                while not self.finished and self.read():
                    continue
                return True
        finally:
            if reading.holder is me:
                reading.holder = None
                self.changed.notify()
        return self.changed.wait_until(self._is_up_to_date, deadline)

    def _is_up_to_date(self) -> bool:
        # In this order: what is no longer in the pipe is being taken, or was.
        return self.finished or not (self.channel.poll(_NOW) or self._depth or self._events)

    # For the handler threads ---------------------------------------------------------------------

    def hand_over(self, wake: Callable[[], None], deadline: Deadline = NEVER) -> None:
        """Have handler threads read from now on, and nobody else.

        ``wake`` asks the child for something: the answer ends the turn of a thread that reads at
        present. Raises TimeoutError if that has not ended it by the deadline.
        """
        reading, me = self._reading, (system.caller_id(),)
        if reading.take(HANDLERS):
            return
        if reading.is_mine(me):  # a signal handler has come into a wait, which finds that out
            reading.holder = HANDLERS
            return
        self._heir = me[0]
        try:
            wake()
            if not self.changed.wait_until(lambda: reading.take(HANDLERS), deadline):
                raise NotInTime("another thread is still reading from the server's process")
        finally:
            self._heir = None
            self.changed.notify()

    def take_back(self) -> None:
        """Let whoever waits read again: no handler threads could be started."""
        if self._reading.holder is HANDLERS:
            self._reading.holder = None
        self.changed.notify()

    # Its flag, and that of ``read``, are positional: keywords take longer.
    def next_job(self, any_job: bool = True) -> Job | None:
        """The next job: one that ends a call, one that was read, or one that is read now.

        Unless ``any_job``, only one that ends a call.
        """
        while True:
            if self.endings and not self.parked:
                return self.endings.popleft()
            if self.finished or self.parked:
                return None
            if self.jobs and any_job:
                return self.jobs.popleft()
            if not self.unread:
                return None
            self.unread = False
            if self.connected and (self.read(True) or self.hung_up):
                self.unread = True  # there may be more than one read gives

    # Reading -------------------------------------------------------------------------------------

    def read(self, leaves: bool = False) -> bool:
        """Receive events and take them; returns whether there may be more at once.

        With ``leaves``, the caller leaves after the last one, and notifies those who wait then: so
        they wake only once.
        """
        more = False
        with self._receiving:
            depth, events = self._depth, self._events
            self._depth = depth + 1
            if depth:
                self.nested = True
            try:
                try:
                    more = self.channel.receive_into(events)
                except ChannelClosed:
                    self.disconnect()
                except WireError as error:
                    self.disconnect(f"what it sent cannot be read: {error}")
                sink = self._sink()
                while events:
                    event = events.popleft()
                    if sink is None:  # nobody holds the run any more
                        continue
                    try:
                        job = sink.event(event)
                    except Exception as error:  # noqa: BLE001 - reported to the test; reading goes on
                        sink.defect(error)
                    else:
                        if job is not None:
                            self.jobs.append(job)
            finally:
                self._depth = depth
                if not (leaves and self.finished):
                    self.changed.notify()
        return more

    def disconnect(self, why: str = "") -> None:
        """Read no more: the pipe has ended, or ``why`` tells what is wrong with what came."""
        if not self.connected:  # this call has come into that one, which is not done
            self.finished = True
            return
        self.connected = False
        sink = self._sink()
        try:
            if sink is not None:
                sink.disconnected(why)
        finally:  # last: whoever sees it asks what had happened
            self.finished = True

    def forget(self) -> None:
        """In a forked copy: nothing will come."""
        self.finished, self.connected = True, False
        self._reading, self._receiving = Turn(), system.RLock()
