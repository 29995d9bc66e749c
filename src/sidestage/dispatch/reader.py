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
from ..pristine.waits import Deadline, Wakeup
from ..process.channel import Channel, ChannelClosed
from ..wire.frames import WireError
from ..wire.messages import Message
from . import stacks

Job = Callable[[], None]

_NOW = Deadline(0.0)


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
        self._taking = False  # what was read is being taken
        self._reading = system.Lock()  # held by the thread that reads
        self._heir: int | None = None  # the caller that takes over the reading

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
        def wakes() -> bool:
            if condition() or self.finished:
                return True
            return not self._reading.locked() and self._may_read()

        while not condition():
            if self.finished:
                break
            if self._may_read() and self._reading.acquire(False):
                try:
                    in_time = self._read_until(condition, deadline)
                finally:
                    self._reading.release()
                    self.changed.notify()
            else:
                in_time = self.changed.wait_until(wakes, deadline)
            if not in_time:
                break
        else:
            return True
        return condition()

    def _may_read(self) -> bool:
        heir = self._heir
        return heir is None or heir == system.caller_id()

    def _read_until(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        if self._events:  # left by a reader that was interrupted, by Ctrl-C say
            self.read(receive=False)
            if self.finished or condition():
                return True
        while self._may_read():  # else nothing may come that ends this turn
            if not self.channel.poll(deadline):
                return False
            self.read()
            if self.finished or condition():
                return True
        return True

    def catch_up(self, deadline: Deadline) -> bool:
        """Take all events that are in the pipe; returns ``False`` at the deadline."""
        if self._may_read() and self._reading.acquire(False):
            try:
                while not self.finished and self.read():
                    continue
            finally:
                self._reading.release()
                self.changed.notify()
            return True
        return self.changed.wait_until(self._is_up_to_date, deadline)

    def _is_up_to_date(self) -> bool:
        # In this order: what is no longer in the pipe is being taken, or was.
        return self.finished or not (self.channel.poll(_NOW) or self._taking)

    # For the handler threads ---------------------------------------------------------------------

    def hand_over(self, wake: Callable[[], None]) -> None:
        """Have the caller's threads read from now on, and nobody else.

        ``wake`` asks the child for something: the answer ends the turn of a thread that reads at
        present.
        """
        if self._reading.acquire(False):
            return
        self._heir = system.caller_id()
        try:
            wake()
            waits.acquire(self._reading, -1.0)  # released only by ``take_back``
        finally:
            self._heir = None
            self.changed.notify()

    def take_back(self) -> None:
        """Let whoever waits read again: no handler threads could be started."""
        self._reading.release()
        self.changed.notify()

    def next_job(self, *, any_job: bool = True) -> Job | None:
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
            if self.connected and (self.read() or self.hung_up):
                self.unread = True  # there may be more than one read gives

    # Reading -------------------------------------------------------------------------------------

    def read(self, *, receive: bool = True) -> bool:
        """Receive events and take them; returns whether there may be more at once.

        Without ``receive``, take those that an interrupted reader has left.
        """
        more = False
        self._taking = True
        if receive:
            try:
                more = self.channel.receive_into(self._events)
            except ChannelClosed:
                self._disconnect()
            except WireError as error:
                self._disconnect(f"what it sent cannot be read: {error}")
        events, sink = self._events, self._sink()
        try:
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
            self._taking = bool(events)
            self.changed.notify()
        return more

    def _disconnect(self, why: str = "") -> None:
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
