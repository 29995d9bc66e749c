"""The threads that run one server's handlers; they exist only while it serves.

One thread leads: it reads events and runs the handlers for them, one after another, with no other
thread to contend with for the GIL. Another waits for the next event; when one comes while the
leader is in a handler, it watches. A handler that does not return within a fraction of a
millisecond loses the lead to it, so that one which blocks, calls its own server or waits for
another request holds nobody up. Before a fork the idle threads end, after it they are back.
Beyond a number of handlers, no more begin until some have returned; the pipe is read all the same.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from ..pristine import system
from ..pristine.waits import Deadline, Wakeup
from ..process import fork_hooks
from ..process.channel import NEVER
from . import stacks
from .gate import Gate, make_gate
from .reader import Job, Reader
from .stacks import Tracers

MAX_IDLE = 2  # threads that wait; one must, and a second saves starting one for each overlap
_PATIENCE = 0.0005  # seconds that a handler may take before another thread takes over
_LONG_PATIENCE = 0.004  # the same while handlers keep returning; every look costs them time
_EXIT_SECONDS = 1.0  # for idle threads to leave, which takes microseconds


class Keeper(Protocol):
    """What has a gate from one run to the next: to make one takes six system calls."""

    gate: Gate | None


class HandlerThreads:
    """The handler threads of one run; there are none before ``start``.

    They take the gate of ``keeper``, if it has one, and leave theirs to it.
    """

    def __init__(
        self,
        reader: Reader,
        most: int,
        full: Callable[[int], None],
        keeper: Keeper | None = None,
    ) -> None:
        self._reader = reader
        self._keeper = keeper
        self._most = most  # handlers at a time
        self._full = full  # told their number when more would have to run
        self._held = False  # whether jobs wait for that
        self._awaited = 0  # handlers that are coroutines
        self._guard = system.RLock()
        self._gate: Gate | None = None
        self._closed = False
        self._left = False  # the gate has to be closed by one of these threads
        self._idle = 0  # threads at the gate
        self._watching = 0
        self._threads: set[int] = set()
        self._starting: dict[object, list[int]] = {}  # threads that are there, and do not run yet
        self._leader: int | None = None
        self._busy = False  # the leader runs a handler
        self._begun = 0  # handlers that leaders have run
        self._eager = False  # a handler has just blocked, and more wait: lose no time
        self._job: Job | None = None  # of the leader
        self._stuck: dict[int, Job] = {}  # threads in a handler that have lost the lead
        self._bell = Wakeup()  # for those that watch, when they are to leave
        reader.readers = weakref.ref(self)

    def start(self, wake: Callable[[], None], deadline: Deadline = NEVER) -> None:
        """Run handlers in threads from now on; does nothing after ``close``.

        ``wake`` and ``deadline`` are as in ``Reader.hand_over``. One thread at a time may call it.
        """
        if self._gate is not None or self._closed:
            return
        try:
            self._reader.hand_over(wake, deadline)
            if self._open_gate():
                self._start_thread()
        except BaseException:
            if not (self._starting or self._threads):
                self._close_gate()
                self._reader.take_back()
            raise

    def _open_gate(self) -> bool:
        """Make the gate; returns ``False`` if ``close`` has come first."""
        with fork_hooks.launch_lock:
            gate: Gate | None
            try:
                gate = self._take_gate() or make_gate(self._reader.channel.events_fd)
            except OSError:
                if self._closed:  # the descriptor may be closed by now, or another one
                    return False
                raise
            with self._guard:
                if not self._closed:
                    self._gate, gate = gate, None  # whoever takes it from there has it
        if gate is None:
            return self._gate is not None
        gate.close()
        return False

    def _take_gate(self) -> Gate | None:
        keeper = self._keeper
        if keeper is None:
            return None
        gate, keeper.gate = keeper.gate, None
        return gate

    def _leave_gate(self) -> None:
        """Keep the gate, at which nobody waits and which is of use, else close it."""
        with self._guard:
            gate, keeper = self._gate, self._keeper
            # The keeper has one if a signal handler has come into a stop, and started a server.
            if gate and not gate.ended and keeper is not None and keeper.gate is None:
                self._gate, keeper.gate = None, gate
        self._close_gate()

    def _close_gate(self) -> None:
        with self._guard:
            gate, self._gate = self._gate, None
        if gate is not None:
            gate.close()

    def wait_for_caller(self) -> bool:
        """Whether none of them can read before the caller goes on."""
        return self.is_outside_handler() or not (self._threads or self._begin())

    def is_outside_handler(self) -> bool:
        """Whether the caller runs in one of these threads, but not in a handler.

        That is code of the test that runs inside of ours: a ``__del__``, a handler of logging.
        """
        me = system.thread_id()
        if me not in self._threads or me in self._stuck:
            return False
        return not (self._busy and self._leader == me)

    @property
    def running(self) -> bool:
        """Whether there are threads."""
        return self._gate is not None

    def run_soon(self, job: Job) -> None:
        """Have a handler thread run ``job``, which ends a call."""
        reader = self._reader
        reader.endings.append(job)
        if not reader.finished or self._gate is None:
            self._wake()
            return
        try:
            reader.endings.remove(job)  # the threads leave
        except ValueError:  # but one has seen it
            return
        self._start_thread(job)

    # One thread ----------------------------------------------------------------------------------

    def _start_thread(self, job: Job | None = None) -> None:
        token = object()
        begun: list[int] = []
        try:
            self._starting[token] = begun
            system.note(begun, system.start_thread, self._work, (token, job))
        except BaseException:
            if not begun:
                self._starting.pop(token, None)
            raise

    def _work(self, token: object, job: Job | None) -> None:
        me = system.thread_id()
        with self._guard:
            self._threads.add(me)
            self._starting.pop(token, None)
        self._reader.changed.notify()
        try:
            tracers = Tracers()
            if job is not None:
                tracers.follow()
                with self._guard:
                    self._stuck[me] = job
                job()
                del job
                with self._guard:
                    self._stuck.pop(me, None)
            self._lead_or_watch(me, tracers)  # there may be something already
            while self._idle < MAX_IDLE and self._wait_for_turn():
                self._lead_or_watch(me, tracers)
        finally:
            self._leave(me)

    def _leave(self, me: int) -> None:
        _forget_dummy(me)
        system.leave_thread()
        with self._guard:
            self._threads.discard(me)
            if self._gate is not None and self._idle and self._leaving():
                self._gate.wake()  # the next one, so that all leave
        self._reader.changed.notify()

    def _leaving(self) -> bool:
        return self._reader.finished or self._reader.parked

    def _wait_for_turn(self) -> bool:
        """Wait at the gate; returns whether there may be something to do."""
        reader = self._reader
        with self._guard:
            gate = self._gate
            if gate is None or reader.finished or reader.parked:  # since this thread looked
                return False
            self._idle += 1
        try:
            gate.wait()
        finally:
            with self._guard:
                self._idle -= 1
                last = self._left and not self._idle
            if last:
                self._close_gate()
        if gate.ended:
            reader.hung_up = True
        return not (reader.finished or reader.parked)  # type: ignore[redundant-expr]  # by others

    def _lead_or_watch(self, me: int, tracers: Tracers) -> None:
        with self._guard:
            leads = self._leader is None
            # The gate reports once that there is something to read; a thread that leads already
            # has to look again.
            self._reader.unread = True
            if leads:
                self._leader = me
            else:
                self._watching += 1
        if leads or self._watch(me):
            try:
                self._lead(me, tracers)
            finally:
                with self._guard:
                    if self._leader == me:
                        self._leader = None
                        self._busy, self._job = False, None

    def _lead(self, me: int, tracers: Tracers) -> None:
        """Run what is read, until there is nothing more or another thread has taken over."""
        reader = self._reader
        while True:
            # As ``_has_room`` says, without a call.
            while (
                job := reader.next_job(len(self._stuck) + self._awaited < self._most)
            ) is not None:
                with self._guard:
                    self._begun += 1
                    self._busy, self._job = True, job
                    alone = not (self._watching or self._starting) and bool(
                        not self._idle or reader.jobs or reader.endings or reader.unread
                    )
                if alone:
                    self._call_watcher()
                tracers.follow()
                job()
                del job
                with self._guard:
                    if self._leader != me:
                        self._stuck.pop(me, None)
                        if self._held and self._gate is not None:
                            self._gate.wake()  # one that leads: this one has been away
                        return
                    self._busy, self._job = False, None
            with self._guard:
                self._eager = False
                if not (reader.unread or reader.jobs or self._held):
                    self._leader = None
                    return
                held, self._held = self._held, bool(reader.jobs) and not self._has_room()
                more = reader.unread or (reader.jobs and not self._held)
                if not more or self._leaving():
                    self._leader = None
            if self._held and not held:
                self._full(self._most)
            if self._leader != me:
                return

    def at_work(self) -> dict[Any, int]:
        """The threads that are in a handler, by the calls that they run."""
        with self._guard:
            jobs = dict(self._stuck)
            if self._leader is not None and self._job is not None:
                jobs[self._leader] = self._job
        # The end of a coroutine's call is a part of a method of the call.
        return {
            getattr(getattr(job, "func", None), "__self__", job): thread
            for thread, job in jobs.items()
        }

    def _has_room(self) -> bool:
        """Whether one more handler may begin."""
        return len(self._stuck) + self._awaited < self._most

    def began_awaiting(self) -> None:
        """A handler's coroutine runs."""
        with self._guard:
            self._awaited += 1

    def ended_awaiting(self) -> None:
        """It has ended; the caller leads, or runs what ends a call after the end."""
        with self._guard:
            self._awaited -= 1

    def _call_watcher(self) -> None:
        """Before a handler: see to it that a thread is there that can take over."""
        wanted = False
        with self._guard:
            if not self._idle:
                wanted = not (self._starting or self._leaving())
            elif self._gate is not None:
                self._gate.wake()  # without more to do, the next event will wake one
        if wanted:
            with contextlib.suppress(RuntimeError):  # no thread can be had: then one by one
                self._start_thread()

    def _more_is_there(self) -> bool:
        """Whether the leader still has something to run, or to read."""
        reader = self._reader
        return bool(reader.jobs or reader.endings or reader.unread)

    # Taking over ---------------------------------------------------------------------------------

    def _watch(self, me: int) -> bool:
        """Watch the leader; returns whether its handler blocks, and the caller leads now."""
        patience = _PATIENCE
        while True:
            seen = self._begun
            if not (self._eager and self._busy and self._reader.jobs):
                self._bell.wait_until(self._leaving, Deadline(patience), brief=True)
            with self._guard:
                blocks = self._busy and self._begun == seen
                if self._leaving() or not (blocks or self._more_is_there()):
                    self._watching -= 1
                    return False
                eager = self._eager and self._busy and self._reader.jobs
                if blocks or self._leader is None or eager:
                    self._take_over(me)
                    return True
            patience = min(2 * patience, _LONG_PATIENCE)

    def _take_over(self, me: int) -> None:
        self._watching -= 1
        if self._leader is not None:  # else an error has ended it
            assert self._job is not None
            self._stuck[self._leader] = self._job
        self._leader = me
        self._busy, self._job = False, None
        self._eager = True

    def _wake(self) -> None:
        with self._guard:  # so that the gate is not closed meanwhile
            if self._gate is not None:
                self._gate.wake()

    # The end, and forks --------------------------------------------------------------------------

    def finish(self) -> None:
        """The last event has come: the thread that reads must stop."""
        self._reader.finished = True

    def close(self) -> None:
        """Let the idle threads go; those in a handler leave when it returns."""
        comes_into_us: bool = self._guard._is_owned()
        with self._guard:
            self._closed = True
        if not self._reader.finished:
            self._reader.finished = True
            self._reader.changed.notify()
        self._settle()
        with self._guard:
            self._left = self._idle > 0  # to the last one that waits at it
        if not self._left and not comes_into_us:  # else it is in use, and closed with this object
            self._leave_gate()

    def _settle(self) -> None:
        """Wait until the only threads left are in a handler."""
        if self._gate is not None and not self._all_work():
            self._wake()
            if self._watching:
                self._bell.notify()
            # One that this very call has come into cannot leave, nor can what waits for it.
            held_up = self.is_outside_handler() or self._guard._is_owned()
            seconds = 0.0 if held_up else _EXIT_SECONDS
            self._reader.changed.wait_until(self._all_work, Deadline(seconds), brief=True)

    def _all_work(self) -> bool:
        with self._guard:
            working = len(self._stuck) + (self._leader is not None and self._busy)
            return len(self._threads) == working and not (self._starting and self._begin())

    def _begin(self) -> bool:
        """Whether a thread was started and has not begun to run."""
        return any(self._starting.values())

    def wait_for_threads(self) -> None:
        """Let threads begin that were started."""
        self._reader.changed.wait_until(
            lambda: not self._begin(), Deadline(_EXIT_SECONDS), brief=True
        )

    def park(self) -> None:
        """Before a fork: let the idle threads end, and those that are just done with a handler."""
        self._reader.parked = True
        self._settle()
        stacks.let_end(self._others, self._reader.changed)

    def _others(self) -> set[int]:
        with self._guard:
            return self._threads - {system.thread_id()}

    def resume(self) -> None:
        """After a fork: have a thread again."""
        self._reader.parked = False
        if self._gate is not None and not self._reader.finished:
            self._start_thread()

    def forget(self) -> None:
        """In a forked copy: close the descriptors; there are no threads."""
        self._guard = system.RLock()
        self._close_gate()


def _forget_dummy(ident: int) -> None:
    """Remove what ``threading`` notes of a thread that it did not start but was asked about.

    Python 3.13 does so itself.
    """
    active: dict[int, Any] = getattr(threading, "_active", {})
    if isinstance(active.get(ident), getattr(threading, "_DummyThread", ())):
        active.pop(ident, None)
