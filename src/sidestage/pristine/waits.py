"""How code of ours waits: by the kernel's time, on a clock that no test can move.

No clock is a module global, because freezegun rewrites those; it leaves class attributes alone. And
where gevent runs, a wait leaves the thread to the other greenlets.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from . import system

T = TypeVar("T")


class Clock:
    """The monotonic clock, in seconds, as a class attribute: see above."""

    monotonic = staticmethod(cast("Callable[[], float]", system.second(time).monotonic))


LONGEST = 1e6  # seconds; the kernel's waits take no more than 24 days


class Deadline:
    """A point in time on the monotonic clock; ``None`` seconds is never."""

    __slots__ = ("_at", "_seconds")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._at = None if seconds is None else Clock.monotonic() + seconds

    def left(self) -> float:
        """Seconds left to wait, at least 0; ``-1.0``, as the kernel has it, for never."""
        if self._at is None:
            return -1.0
        return min(max(0.0, self._at - Clock.monotonic()), LONGEST)

    def passed(self) -> bool:
        """Whether it is over."""
        return self._at is not None and Clock.monotonic() >= self._at

    def again(self) -> Deadline:
        """As many seconds from now as this one was from its beginning."""
        return Deadline(self._seconds)

    def sooner(self, seconds: float) -> Deadline:
        """The earlier of this deadline and ``seconds`` from now."""
        other = Deadline(seconds)
        if self._at is None or (other._at is not None and other._at < self._at):
            return other
        return self


def _hub() -> Any:
    """gevent's hub of this thread, if the caller is a greenlet that can leave it the thread."""
    local = sys.modules.get("gevent._hub_local")
    hub = None if local is None else local.get_hub_if_exists()
    return None if hub is None or sys.modules["greenlet"].getcurrent() is hub else hub


def blocking(wait: Callable[..., T], *args: Any) -> T:
    """Call what may block the thread; where gevent runs, the other greenlets go on meanwhile."""
    hub = _hub()
    return wait(*args) if hub is None else _beside(hub, wait, args)


def _beside(hub: Any, wait: Callable[..., T], args: tuple[Any, ...]) -> T:
    """Wait in a thread made for it: the ten of the hub's pool are for looking up names, too."""
    results: list[T] = []
    errors: list[BaseException] = []
    listening = system.Lock()

    def work() -> None:
        try:
            results.append(wait(*args))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            errors.append(error)
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
    finally:  # also where the greenlet is killed, or its time is over
        with listening:
            closed.append(True)
            watcher.close()
    if errors:
        raise errors[0]
    return results[0]


def _at_once(wait: Callable[..., T], *args: Any) -> T:
    return wait(*args)


def acquire(lock: Any, seconds: float) -> bool:
    """Acquire ``lock``, waiting at most so many seconds; -1.0 waits without end."""
    return bool(lock.acquire(False)) or bool(blocking(lock.acquire, True, seconds))


def poll_fd(fd: int, events: int, seconds: float) -> int:
    """Wait in the kernel until ``fd`` has one of ``events``; -1.0 seconds waits without end.

    Returns the events seen (which may be a hang-up or an error), 0 when the time ran out.
    """
    poll = system.make_poll()
    poll.register(fd, events)
    milliseconds = None if seconds < 0 else -int(-seconds * 1000 // 1)
    ready: list[tuple[int, int]]
    ready = poll.poll(0) if milliseconds == 0 else blocking(poll.poll, milliseconds)
    return ready[0][1] if ready else 0


class Wakeup:
    """Wakes threads that wait for a condition: kernel-timed, never polling, safe under patches."""

    __slots__ = ("_guard", "_waiters")

    def __init__(self) -> None:
        self._guard = system.Lock()
        self._waiters: list[Any] = []

    def notify(self) -> None:
        """Let every waiter look at its condition again."""
        if not self._waiters:  # a waiter enlists before it looks, so an unseen one will look
            return
        with self._guard:
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.release()

    def wait_until(
        self, condition: Callable[[], bool], deadline: Deadline, *, brief: bool = False
    ) -> bool:
        """Block until ``condition()`` is true; returns ``False`` when the deadline came first.

        ``brief`` is for what takes microseconds: no other greenlet needs to run meanwhile.
        """
        block = _at_once if brief else blocking
        while not condition():
            waiter = system.Lock()
            waiter.acquire()
            with self._guard:
                self._waiters.append(waiter)
            if condition():
                self._withdraw(waiter)
                return True
            if not block(waiter.acquire, True, deadline.left()):
                self._withdraw(waiter)
                return condition()
        return True

    def _withdraw(self, waiter: Any) -> None:
        with self._guard:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
