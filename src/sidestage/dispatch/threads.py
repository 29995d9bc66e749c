"""Reads one server's events and runs its handlers, in threads that exist only while it serves.

One thread leads: it reads and runs what it has read, one handler after another, with no other
thread to contend with for the interpreter lock. Another waits for the next event; when one comes
while the leader is in a handler, it watches. A handler that does not return within a fraction of
a millisecond loses the lead to it, so that one which blocks, calls its own server or waits for
another request holds nobody up. A server without a handler has no thread here: who wants to know
something reads the pipe himself. Before a fork the idle threads are gone, after it they are back.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ..pristine import system, waits
from ..pristine.waits import Deadline, Wakeup
from ..process.channel import Channel, ChannelClosed
from ..wire.frames import WireError
from ..wire.messages import Event
from . import stacks
from .gate import Gate, make_gate
from .stacks import Tracers

Job = Callable[[], None]

MAX_IDLE = 2  # threads that wait; one must, and a second saves starting one for each overlap
_PATIENCE = 0.0005  # seconds that a handler may take before another thread takes over
_LONG_PATIENCE = 0.004  # the same while handlers keep returning; every look costs them time
_EXIT_SECONDS = 1.0  # for idle threads to leave, which takes microseconds


class Sink(Protocol):
    """Who wants the events."""

    def event(self, message: Event) -> Job | None:
        """Take note of an event; returns what is to be run for it, if anything."""
        ...

    def defect(self, error: BaseException) -> None:
        """Taking note of an event has failed."""

    def disconnected(self) -> None:
        """The pipe has ended: no event will come any more."""


class Dispatcher:
    """One server's reader and its handler threads."""

    def __init__(self, channel: Channel, sink: Sink) -> None:
        self.changed = Wakeup()
        self.connected = True
        self.finished = False  # no event will come any more
        self._channel = channel
        self._sink_ref = weakref.ref(sink)  # it keeps this, and neither is to wait for a collection
        self._jobs: deque[Job] = deque()
        self._endings: deque[Job] = deque()  # jobs that end a call: they run after the end, too
        self._events: deque[Event] = deque()  # received, not taken
        self._guard = system.Lock()
        self._pumping = system.Lock()
        self._gate: Gate | None = None
        self._parked = False
        self._heir: int | None = None  # who takes the reading over
        self._idle = 0  # threads at the gate
        self._watching = 0
        self._threads: set[int] = set()
        self._starting: set[object] = set()
        self._leader: int | None = None
        self._leads_on = False  # the leader is to look for more before it leaves the lead
        self._busy = False  # the leader runs a handler
        self._begun = 0  # handlers that leaders have run
        self._eager = False  # a handler has just blocked, and more wait: lose no time
        self._stuck: set[int] = set()  # threads in a handler that have lost the lead
        self._bell = Wakeup()  # for those that watch, when they are to leave

    # Without threads ---------------------------------------------------------------------------

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
        def over() -> bool:
            return condition() or self.finished

        while not over():
            if self._may_pump() and self._pumping.acquire(False):
                try:
                    in_time = self._pump(over, deadline)
                finally:
                    self._pumping.release()
                    self.changed.notify()
            else:
                in_time = self.changed.wait_until(lambda: over() or self._may_pump(), deadline)
            if not in_time:
                break
        return condition()

    def _may_pump(self) -> bool:
        return self._gate is None and not self._yields() and not self._pumping.locked()

    def _yields(self) -> bool:
        """Whether another thread than the caller is to have the reading."""
        return self._heir is not None and self._heir != system.caller_id()

    def _pump(self, over: Callable[[], bool], deadline: Deadline) -> bool:
        self._take_all()  # what a reader has left that was interrupted, by Ctrl-C say
        while not over():
            if not self._channel.poll(deadline):
                return False
            self._take_events()
            if self._yields():
                break
        return True

    def _take_events(self) -> bool:
        """Take what has come; returns whether there may be more."""
        try:
            more = self._channel.receive_into(self._events)
        except (ChannelClosed, WireError):
            more = False
            self._disconnect()
        self._take_all()
        return more

    def _take_all(self) -> None:
        try:
            while self._events:
                self._take(self._events.popleft())
        finally:
            self.changed.notify()

    def _take(self, event: Event) -> None:
        sink = self._sink_ref()
        if sink is None:  # nobody holds it any more: nobody wants to know
            return
        try:
            job = sink.event(event)
        except Exception as error:  # noqa: BLE001 - told to the test; the reader must go on
            sink.defect(error)
        else:
            if job is not None:
                self._jobs.append(job)

    def _disconnect(self) -> None:
        self.connected = False
        sink = self._sink_ref()
        try:
            if sink is not None:
                sink.disconnected()
        finally:  # last: who sees it asks what had happened
            self.finish()

    # With threads ------------------------------------------------------------------------------

    def start_threads(self, confirm: Callable[[], None]) -> None:
        """Run calls in threads from now on; ``confirm`` has the child send them.

        Another thread may be reading for itself: the answer that ``confirm`` waits for ends its
        turn, and this one takes the reading over.
        """
        if self._gate is not None:
            confirm()
            return
        self._heir = system.caller_id()
        try:
            confirm()
            waits.acquire(self._pumping, -1.0)  # and never released, unless this fails
            try:
                self._gate = make_gate(self._channel.events_fd)
                self._start_thread()
            except BaseException:
                gate, self._gate = self._gate, None
                if gate is not None:
                    gate.close()
                self._pumping.release()
                raise
        finally:
            self._heir = None
            self.changed.notify()

    @property
    def threaded(self) -> bool:
        """Whether threads run."""
        return self._gate is not None

    def run_soon(self, job: Job) -> None:
        """Have a handler thread run ``job``, which ends a call."""
        with self._guard:
            late = self.finished and self._gate is not None  # the threads leave
            if not late:
                self._endings.append(job)
        if late:
            self._start_thread(job)
        else:
            self._wake()

    def _start_thread(self, job: Job | None = None) -> None:
        token = object()
        with self._guard:
            self._starting.add(token)
        try:
            system.start_thread(self._work, (token, job))
        except BaseException:
            with self._guard:
                self._starting.discard(token)
            raise

    def _work(self, token: object, job: Job | None) -> None:
        me = system.thread_id()
        with self._guard:
            self._starting.discard(token)
            self._threads.add(me)
        self.changed.notify()
        try:
            tracers = Tracers()
            if job is not None:
                tracers.follow()
                job()
            self._lead_or_watch(me, tracers)  # there may be something already
            while self._idle < MAX_IDLE and not self._shall_leave():
                if self._wait_for_turn():
                    self._lead_or_watch(me, tracers)
        finally:
            _forget_dummy(me)
            system.leave_thread()
            with self._guard:
                self._threads.discard(me)
            if self._shall_leave():
                self._wake()  # the next one, so that all leave
            self.changed.notify()

    def _shall_leave(self) -> bool:
        return self.finished or self._parked

    def _wait_for_turn(self) -> bool:
        """Wait at the gate; returns whether there may be something to do."""
        with self._guard:
            gate = self._gate
            if gate is None or self._shall_leave():  # since this thread looked
                return False
            self._idle += 1
        try:
            gate.wait()
        finally:
            with self._guard:  # only now: close() must not close the gate under us
                self._idle -= 1
        return True

    def _lead_or_watch(self, me: int, tracers: Tracers) -> None:
        with self._guard:
            leads = self._leader is None
            if leads:
                self._leader = me
            else:
                self._leads_on = True
                self._watching += 1
        if leads or self._watch(me):
            try:
                self._lead(me, tracers)
            finally:
                with self._guard:
                    if self._leader == me:
                        self._leader = None
                        self._busy = False

    def _lead(self, me: int, tracers: Tracers) -> None:
        """Read and run, until there is nothing more or another thread has taken over."""
        while True:
            self._read_more()
            while (job := self._next_job()) is not None:
                self._begin()
                tracers.follow()
                job()
                del job
                if not self._end(me):
                    return
            with self._guard:
                self._eager = False
                if not self._leads_on or self._shall_leave():
                    self._leader = None
                    return
                self._leads_on = False

    def _next_job(self) -> Job | None:
        if self._endings and not self._parked:
            return self._endings.popleft()
        if self._jobs and not self._shall_leave():
            return self._jobs.popleft()
        return None

    def _more_is_there(self) -> bool:
        """Whether the leader has still to run something, or to read: nobody else would.

        The gate tells once of what there is to read, and whom it told has left that to the leader.
        """
        return bool(self._jobs or self._endings or self._leads_on)

    def _read_more(self) -> None:
        gate = self._gate
        if gate is None or not self.connected or self._shall_leave():
            return
        if self._take_events() or gate.ended:
            self._leads_on = True  # there may be more than one reading gives

    def _begin(self) -> None:
        """Before a handler: somebody must be there who can take over."""
        wanted = False
        with self._guard:
            self._begun += 1
            self._busy = True
            more = self._more_is_there()
            if self._idle and not self._watching and more and self._gate is not None:
                self._gate.wake()  # without more, the next event will wake one
            elif not self._idle and not self._watching and not self._starting:
                wanted = not self._shall_leave()
        if wanted:
            with contextlib.suppress(RuntimeError):  # no thread to be had: then one by one
                self._start_thread()

    def _end(self, me: int) -> bool:
        """After a handler; returns whether this thread leads still."""
        with self._guard:
            if self._leader == me:
                self._busy = False
                return True
            self._stuck.discard(me)
            return False

    def _watch(self, me: int) -> bool:
        """Look after the leader; returns whether its handler blocks, and the caller leads now."""
        patience = _PATIENCE
        while True:
            seen = self._begun
            if not (self._eager and self._busy and self._jobs):
                self._bell.wait_until(self._shall_leave, Deadline(patience), brief=True)
            with self._guard:
                blocks = self._busy and self._begun == seen
                if self._shall_leave() or not (blocks or self._more_is_there()):
                    self._watching -= 1
                    return False
                if blocks or self._leader is None or (self._eager and self._busy and self._jobs):
                    self._take_over(me)
                    return True
            patience = min(2 * patience, _LONG_PATIENCE)

    def _take_over(self, me: int) -> None:
        self._watching -= 1
        if self._leader is not None:  # else an error has ended it
            self._stuck.add(self._leader)
        self._leader = me
        self._busy = False
        self._eager = True

    def _wake(self) -> None:
        with self._guard:  # so that the gate is not closed meanwhile
            if self._gate is not None:
                self._gate.wake()

    # The end, and forks ------------------------------------------------------------------------

    def finish(self) -> None:
        """The last event has come: who reads shall stop."""
        with self._guard:  # what ends a call meanwhile is seen by the one who reads, or sees this
            self.finished = True

    def close(self) -> None:
        """Let the idle threads go; those in a handler leave when it returns."""
        self.finished = True
        self.changed.notify()
        self._settle()
        with self._guard:
            gate, self._gate = self._gate, None
        if gate is not None:
            gate.close()

    def _settle(self) -> None:
        """Wait until the only threads left are in a handler."""
        if self._gate is not None:
            self._wake()
            self._bell.notify()
            self.changed.wait_until(self._all_work, Deadline(_EXIT_SECONDS), brief=True)

    def _all_work(self) -> bool:
        with self._guard:
            working = len(self._stuck) + (self._leader is not None and self._busy)
            return not self._starting and len(self._threads) == working

    def wait_for_threads(self) -> None:
        """Let those begin that were started."""
        self.changed.wait_until(lambda: not self._starting, Deadline(_EXIT_SECONDS), brief=True)

    def park(self) -> None:
        """Before a fork: let the idle threads end, and those that are just done with a handler."""
        self._parked = True
        self._settle()
        stacks.let_end(self._others, self.changed)

    def _others(self) -> set[int]:
        with self._guard:
            return self._threads - {system.thread_id()}

    def resume(self) -> None:
        """After a fork: have a reader again."""
        self._parked = False
        if self._gate is not None and not self.finished:
            self._start_thread()

    def forget(self) -> None:
        """In a forked copy: close the descriptors; there are no threads."""
        gate, self._gate = self._gate, None
        self.finished, self.connected = True, False
        self._guard = system.Lock()
        if gate is not None:
            gate.close()


def _forget_dummy(ident: int) -> None:
    """Remove what ``threading`` notes of a thread that it did not start but was asked about.

    Python 3.13 does so itself.
    """
    active: dict[int, Any] = getattr(threading, "_active", {})
    if isinstance(active.get(ident), getattr(threading, "_DummyThread", ())):
        active.pop(ident, None)
