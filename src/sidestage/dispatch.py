"""Reads one server's events and runs its handlers, in threads that exist only while it serves.

The thread that reads runs the handler it has read the call for, and by then the turn to read is
passed on, so that a handler which blocks, calls its own server or waits for another request
holds nobody up. A server without a handler has no thread here: who wants to know something
reads the pipe himself. Before a fork the idle threads are gone, after it they are back.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from . import debugging, pristine
from .pristine import POLLIN, Deadline, Signal
from .tracing import Tracers
from .wire.channel import Channel, ChannelClosed
from .wire.frames import WireError
from .wire.messages import Event

Job = Callable[[], None]

MAX_IDLE = 2  # threads that wait; one must, and a second saves starting one for each overlap
_DONE_SECONDS = 0.02  # for a thread whose reply is out to end; one in a handler will not
_EXIT_SECONDS = 1.0  # for idle threads to leave, which takes microseconds

_EPOLLIN, _ONESHOT, _EDGE = 1, 1 << 30, 1 << 31
_EFD_FLAGS = 0o2000000 | 0o4000  # EFD_CLOEXEC | EFD_NONBLOCK


class Sink(Protocol):
    """Who wants the events."""

    def event(self, message: Event) -> Job | None:
        """Take note of an event; returns what is to be run for it, if anything."""
        ...

    def defect(self, error: BaseException) -> None:
        """Taking note of an event has failed."""

    def disconnected(self) -> None:
        """The pipe has ended: no event will come any more."""


class Gate(Protocol):
    """Lets one thread at a time read, and the others wait for their turn."""

    def wait(self) -> bool:
        """Block until woken; returns whether the caller has the turn to read."""
        ...

    def pass_on(self) -> None:
        """Give the turn to another."""

    def wake(self) -> None:
        """Wake one waiting thread without a turn."""

    def close(self) -> None:
        """Close the descriptors; nobody waits any more."""


class EpollGate:
    """The kernel picks the thread (Linux): passing the turn on wakes nobody until there is need."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._epoll = pristine.make_epoll()
        assert pristine.eventfd is not None
        self._waker = pristine.eventfd(0, _EFD_FLAGS)
        self._epoll.register(fd, _EPOLLIN | _ONESHOT)
        self._epoll.register(self._waker, _EPOLLIN | _EDGE)

    def wait(self) -> bool:
        ready: list[tuple[int, int]] = self._epoll.poll(None, 1)
        return bool(ready) and ready[0][0] == self._fd

    def pass_on(self) -> None:
        self._epoll.modify(self._fd, _EPOLLIN | _ONESHOT)

    def wake(self) -> None:
        assert pristine.eventfd_write is not None
        pristine.eventfd_write(self._waker, 1)

    def close(self) -> None:
        self._epoll.close()
        pristine.close_quietly(self._waker)


class LockGate:
    """Any POSIX: the turn is a lock, and its holder polls."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._turn = pristine.Lock()
        self._waker, self._wake_end = pristine.pipe()
        assert pristine.set_blocking is not None
        pristine.set_blocking(self._wake_end, False)
        self._poll = pristine.make_poll()
        self._poll.register(fd, POLLIN)
        self._poll.register(self._waker, POLLIN)

    def wait(self) -> bool:
        self._turn.acquire()
        ready = [fd for fd, _ in self._poll.poll()]
        if self._waker in ready:
            pristine.read(self._waker, 1)
        elif self._fd in ready:
            return True
        self._turn.release()
        return False

    def pass_on(self) -> None:
        self._turn.release()

    def wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full of wake-ups that nobody has taken yet
            pristine.write(self._wake_end, b"\0")

    def close(self) -> None:
        pristine.close_quietly(self._waker)
        pristine.close_quietly(self._wake_end)


def make_gate(fd: int) -> Gate:
    """The best gate of this platform."""
    if pristine.make_epoll is not None and pristine.eventfd is not None:
        return EpollGate(fd)
    return LockGate(fd)


class Dispatcher:
    """One server's reader and its handler threads."""

    def __init__(self, channel: Channel, sink: Sink) -> None:
        self.changed = Signal()
        self.connected = True
        self.finished = False  # no event will come any more
        self._channel = channel
        self._sink = sink
        self._jobs: deque[Job] = deque()
        self._events: deque[Event] = deque()  # received, not taken
        self._guard = pristine.Lock()
        self._pumping = pristine.Lock()
        self._gate: Gate | None = None
        self._parked = False
        self._heir: int | None = None  # who takes the reading over
        self._idle = 0
        self._threads: set[int] = set()
        self._starting: set[object] = set()
        self._working = 0  # threads that run a handler

    # Without threads ---------------------------------------------------------------------------

    def wait_until(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        """Block until ``condition()`` holds; returns ``False`` at the deadline.

        Ends too when no event can come any more. While somebody is at a debugger's prompt, the
        deadline does not come, and the whole time is granted again after it.
        """
        while not self._wait(condition, deadline):
            if self.finished or not debugging.wait_until_left():
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
        return self._heir is not None and self._heir != pristine.caller_id()

    def _pump(self, over: Callable[[], bool], deadline: Deadline) -> bool:
        self._take_all()  # what a reader has left that was interrupted, by Ctrl-C say
        while not over():
            if not self._channel.poll(deadline):
                return False
            self._take_events()
            if self._yields():
                break
        return True

    def _take_events(self) -> None:
        try:
            self._events.extend(self._channel.receive())
        except (ChannelClosed, WireError):
            self._disconnect()
        self._take_all()

    def _take_all(self) -> None:
        try:
            while self._events:
                self._take(self._events.popleft())
        finally:
            self.changed.notify()

    def _take(self, event: Event) -> None:
        try:
            job = self._sink.event(event)
        except Exception as error:  # noqa: BLE001 - told to the test; the reader must go on
            self._sink.defect(error)
        else:
            if job is not None:
                self._jobs.append(job)

    def _disconnect(self) -> None:
        self.connected = False
        try:
            self._sink.disconnected()
        finally:  # last: who sees it asks what had happened
            self.finished = True

    # With threads ------------------------------------------------------------------------------

    def start_threads(self, confirm: Callable[[], None]) -> None:
        """Run calls in threads from now on; ``confirm`` has the child send them.

        Another thread may be reading for itself: the answer that ``confirm`` waits for ends its
        turn, and this one takes the reading over.
        """
        if self._gate is not None:
            confirm()
            return
        self._heir = pristine.caller_id()
        try:
            confirm()
            pristine.acquire(self._pumping, -1.0)  # and never released
            self._gate = make_gate(self._channel.events_fd)
        finally:
            self._heir = None
            self.changed.notify()
        self._start_thread()
        self.changed.notify()

    @property
    def threaded(self) -> bool:
        """Whether threads run."""
        return self._gate is not None

    def run_soon(self, job: Job) -> None:
        """Have a handler thread run ``job``."""
        self._jobs.append(job)
        self._wake()

    def _start_thread(self) -> None:
        token = object()
        with self._guard:
            self._starting.add(token)
        try:
            pristine.start_thread(self._work, (token,))
        except BaseException:
            with self._guard:
                self._starting.discard(token)
            raise

    def _work(self, token: object) -> None:
        ident = pristine.thread_id()
        with self._guard:
            self._starting.discard(token)
            self._threads.add(ident)
        try:
            tracers = Tracers()
            while (job := self._next_job()) is not None:
                self._see_to_a_follower()
                tracers.follow()
                self._count_working(1)
                job()
                del job
                self._count_working(-1)
                if self._idle >= MAX_IDLE:
                    break
        finally:
            _forget_dummy(ident)
            pristine.leave_thread()
            with self._guard:
                self._threads.discard(ident)
            if self._shall_leave():
                self._wake()  # the next one, so that all leave
            self.changed.notify()

    def _count_working(self, more: int) -> None:
        with self._guard:
            self._working += more

    def _next_job(self) -> Job | None:
        while not self._parked:
            try:
                job = self._jobs.popleft()
            except IndexError:
                if self.finished:
                    break
                self._wait_for_turn()
                continue
            if self._jobs:
                self._wake()
            return job
        return None

    def _shall_leave(self) -> bool:
        return self.finished or self._parked

    def _wait_for_turn(self) -> None:
        with self._guard:
            gate = self._gate
            if gate is None or self._shall_leave():  # since this thread looked
                return
            self._idle += 1
        try:
            if gate.wait():
                try:
                    if self.connected:
                        self._take_events()
                finally:  # at the end of the pipe too, so that the others see it
                    gate.pass_on()
        finally:
            with self._guard:  # only now: close() must not close the gate under us
                self._idle -= 1

    def _see_to_a_follower(self) -> None:
        """Somebody must be able to read while this thread runs a handler."""
        if self._idle == 0 and not self._starting and not self._shall_leave():
            with contextlib.suppress(RuntimeError):  # no thread to be had: then one by one
                self._start_thread()

    def _wake(self) -> None:
        with self._guard:  # so that the gate is not closed meanwhile
            if self._gate is not None:
                self._gate.wake()

    # The end, and forks ------------------------------------------------------------------------

    def finish(self) -> None:
        """The last event has come: who reads shall stop."""
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
            self.changed.wait_until(self._all_work, Deadline(_EXIT_SECONDS), brief=True)

    def _all_work(self) -> bool:
        with self._guard:
            return not self._starting and len(self._threads) == self._working

    def park(self) -> None:
        """Before a fork: let the idle threads end, and those that are just done with a handler."""
        self._parked = True
        self._settle()
        if self._threads:
            self.changed.wait_until(self._nobody_else, Deadline(_DONE_SECONDS), brief=True)

    def _nobody_else(self) -> bool:
        with self._guard:
            return not self._threads - {pristine.thread_id()}

    def resume(self) -> None:
        """After a fork: have a reader again."""
        self._parked = False
        if self._gate is not None and not self.finished:
            self._start_thread()

    def forget(self) -> None:
        """In a forked copy: close the descriptors; there are no threads."""
        gate, self._gate = self._gate, None
        self.finished, self.connected = True, False
        self._guard = pristine.Lock()
        if gate is not None:
            gate.close()


def _forget_dummy(ident: int) -> None:
    """Remove what ``threading`` notes of a thread that it did not start but was asked about.

    Python 3.13 does so itself.
    """
    active: dict[int, Any] = getattr(threading, "_active", {})
    if isinstance(active.get(ident), getattr(threading, "_DummyThread", ())):
        active.pop(ident, None)
