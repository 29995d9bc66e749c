"""How our code waits: timed by the kernel, on a clock that no test can change.

No clock is a module global, because freezegun replaces those; it leaves class attributes alone.
Where gevent runs, the other greenlets of the thread go on during a wait.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import system

T = TypeVar("T")

_REALTIME_COARSE = 5  # of clock_gettime(2), on Linux
_release = operator.methodcaller("release")


def _wall_clock() -> Callable[[], float]:
    """The time of day. time-machine moves the clocks that ``time`` names, and no others."""
    own = system.second(time)
    if sys.platform != "linux":  # pragma: no cover - not on Linux
        return cast("Callable[[], float]", own.time)
    return functools.partial(own.clock_gettime, _REALTIME_COARSE)


class Clock:
    """The clocks, in seconds; class attributes, which freezegun leaves alone."""

    monotonic = staticmethod(cast("Callable[[], float]", system.second(time).monotonic))
    wall = staticmethod(_wall_clock())


LONGEST = 1e6  # seconds; the kernel's waits take at most 24 days


class NotInTime(TimeoutError):
    """A wait of ours has reached its deadline.

    A TimeoutError of another class may be one of the test, raised in this call by the handler of
    an alarm: nothing of ours may take it for its own.
    """


class Deadline:
    """A point in time on the monotonic clock, ``seconds`` from now; ``None`` is never."""

    __slots__ = ("_at", "_seconds")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._at = None if seconds is None else Clock.monotonic() + seconds

    def left(self) -> float:
        """Seconds left, at least 0.0; -1.0 for never, which the kernel takes as no limit."""
        if self._at is None:
            return -1.0
        return min(max(0.0, self._at - Clock.monotonic()), LONGEST)

    def passed(self) -> bool:
        """Whether the point in time has come."""
        return self._at is not None and Clock.monotonic() >= self._at

    def again(self) -> Deadline:
        """A new deadline with the whole time, counted from now."""
        return Deadline(self._seconds)

    def sooner(self, seconds: float) -> Deadline:
        """The earlier of this deadline and ``seconds`` from now."""
        other = Deadline(seconds)
        if self._at is None or (other._at is not None and other._at < self._at):
            return other
        return self


def _hub() -> Any:
    """gevent's hub of this thread, or ``None`` if the caller is not a greenlet that can yield."""
    local = sys.modules.get("gevent._hub_local")
    hub = None if local is None else local.get_hub_if_exists()
    return None if hub is None or sys.modules["greenlet"].getcurrent() is hub else hub


def blocking(wait: Callable[..., T], *args: Any) -> T:
    """Call ``wait``, which may block the thread; under gevent, the other greenlets go on."""
    hub = _hub()
    return wait(*args) if hub is None else _beside(hub, wait, args)


def _beside(hub: Any, wait: Callable[..., T], args: tuple[Any, ...]) -> T:
    """Wait in a new thread: the hub's pool has only ten, which also resolve names."""
    outcomes: list[tuple[Any, BaseException | None]] = []
    listening = system.Lock()

    def work() -> None:
        outcomes.append(_outcome(wait, args))
        with listening:
            if not closed:
                watcher.send()

    closed: list[bool] = []
    watcher = hub.loop.async_()
    waiter = sys.modules["gevent.hub"].Waiter(hub)
    watcher.start(waiter.switch, None)
    try:
        try:
            system.start_thread(work, ())
        except RuntimeError:  # the interpreter ends, so no greenlet would run anyway
            return wait(*args)
        waiter.get()
    finally:  # also when the greenlet is killed, or times out
        with listening:
            closed.append(True)
            watcher.close()
    result, error = outcomes[0]
    if error is not None:
        raise error
    return cast("T", result)


def _outcome(wait: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    try:
        return wait(*args), None
    except BaseException as error:  # noqa: BLE001 - raised again in the greenlet that waits
        return None, error


def acquire(lock: Any, seconds: float) -> bool:
    """Acquire ``lock`` within ``seconds``, -1.0 for no limit; returns whether it was acquired."""
    return bool(lock.acquire(False)) or bool(blocking(lock.acquire, True, seconds))


def poll_fd(fd: int, events: int, seconds: float) -> int:
    """Wait in the kernel until ``fd`` has one of ``events``, at most ``seconds``; -1.0 is no limit.

    Returns the events seen, which may be a hang-up or an error, or 0 at the end of the time.
    """
    poll = system.make_poll()
    poll.register(fd, events)
    milliseconds = None if seconds < 0 else -int(-seconds * 1000 // 1)
    ready: list[tuple[int, int]]
    ready = poll.poll(0) if milliseconds == 0 else blocking(poll.poll, milliseconds)
    return ready[0][1] if ready else 0


class Turn:
    """A lock that knows its holder, for work that may wait.

    A signal handler may come into any line of the holder, and raise, or call the same code again.
    So give it back where no call can be interrupted before it takes effect::

        me = caller()
        try:
            if turn.take(me): ...
        finally:
            if turn.holder is me:
                turn.holder = None
    """

    __slots__ = ("holder",)

    def __init__(self) -> None:
        self.holder: Caller | None = None

    def take(self, me: Caller) -> bool:
        """Take it if it is free; returns whether ``me`` has it."""
        # No call is in this line: neither a signal handler nor another thread comes into it.
        self.holder = me if self.holder is None else self.holder
        return self.holder is me

    def is_mine(self, me: Caller) -> bool:
        """Whether the caller has it already, further up its stack."""
        holder = self.holder
        return holder is not None and holder[0] == me[0]

    def locked(self) -> bool:
        """Whether anybody has it."""
        return self.holder is not None


# Known by identity: one call of a thread, or greenlet. Its id comes first, then what its turn is
# about, if anything.
Caller = tuple[Any, ...]


def caller() -> Caller:
    """Who holds a turn in the calling thread, or greenlet: another one for each call."""
    return (system.caller_id(),)


class Wakeup:
    """Wakes threads that wait for a condition, without polling and whatever a test patches.

    It has no lock. A signal handler, or a ``__del__`` that the collector runs, may come at any
    moment into a thread that notifies or waits, and do so itself.
    """

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: deque[Any] = deque()

    def notify(self) -> None:
        """Have every waiting thread check its condition again."""
        waiters = self._waiters
        if not waiters:  # a thread lists itself before it checks
            return
        # In one call of C: an exception of a signal handler leaves none of them asleep.
        wakes = map(_release, iter(waiters.popleft, None))
        try:
            if len(waiters) == 1:  # mostly; to look for the next takes longer than all of this
                next(wakes)
            else:
                deque(wakes, maxlen=0)
        except IndexError:  # after the last one
            pass

    def notify_one(self) -> None:
        """Have one waiting thread check its condition again, for what only one of them can have.

        One that was woken and does not take it is to call this as well, or the others sleep on.
        """
        waiters = self._waiters
        if waiters:
            with contextlib.suppress(IndexError):  # it has left meanwhile
                next(map(_release, iter(waiters.popleft, None)))  # in one call of C, as above

    def wait_until(
        self, condition: Callable[[], bool], deadline: Deadline, *, brief: bool = False
    ) -> bool:
        """Block until ``condition()`` is true; returns ``False`` if the deadline came first.

        ``brief`` is for what takes microseconds: the other greenlets do not run meanwhile.
        """
        while not condition():
            waiter = system.Lock()
            waiter.acquire()
            woken = False
            try:
                self._waiters.append(waiter)
                if condition():
                    return True
                left = deadline.left()
                woken = bool(
                    waiter.acquire(True, left) if brief else blocking(waiter.acquire, True, left)
                )
                if not woken:
                    return condition()
            finally:
                if not woken:
                    self._withdraw(waiter)
        return True

    def _withdraw(self, waiter: Any) -> None:
        with contextlib.suppress(ValueError):  # it was woken at the last moment
            self._waiters.remove(waiter)


if TYPE_CHECKING:
    _Event = threading.Event
else:  # of another kind where it is a mock already
    _Event = threading.Event if isinstance(threading.Event, type) else object


class Event(_Event):
    """An event with nothing in it that a test could have patched when it was made."""

    def __init__(self) -> None:  # the inherited one would make a Condition and a Lock
        self.on = False
        self._changed = Wakeup()

    def is_set(self) -> bool:
        """Whether it is set."""
        return self.on

    def set(self) -> None:
        """Set it, and wake all that wait."""
        self.on = True
        self._changed.notify()

    def clear(self) -> None:
        """Clear it: whoever waits from now on blocks."""
        self.on = False

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is set; returns ``False`` after ``timeout`` seconds."""
        return self._changed.wait_until(self.is_set, Deadline(timeout))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {'set' if self.on else 'unset'}>"
