"""The primitives that all parent code uses, taken before a test can patch them.

Two things must stay true here. Nothing comes through a name that tests patch: the functions of
``os`` are taken from the module that implements it, and what gevent has replaced comes from the
originals that it saved. And no clock is a module global, because freezegun rewrites those in
every module it finds; it leaves class attributes alone.
"""

from __future__ import annotations

import _thread
import errno
import select
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

if sys.platform == "win32":  # pragma: no cover - only so that the package imports there
    import nt as posix
else:
    import posix


def _original(module: Any, name: str) -> Any:
    """``module.name`` as it was before gevent patched it, if gevent did."""
    gevent = sys.modules.get("gevent.monkey")
    saved: dict[str, dict[str, Any]] = getattr(gevent, "saved", {})
    found = saved.get(module.__name__, {}).get(name)
    return found if found is not None else getattr(module, name, None)


def _real_monotonic() -> Callable[[], float]:
    """The clock, also where freezegun has replaced it before this module was imported."""
    freezegun = sys.modules.get("freezegun.api")
    real: Callable[[], float] = getattr(freezegun, "real_monotonic", time.monotonic)
    return real


class Clock:
    """The monotonic clock, in seconds, as a class attribute: see above."""

    monotonic = staticmethod(_real_monotonic())


LONGEST = 1e6  # seconds; the kernel's waits take no more than 24 days


class Deadline:
    """A point in time on the monotonic clock; ``None`` seconds is never."""

    __slots__ = ("_at",)

    def __init__(self, seconds: float | None) -> None:
        self._at = None if seconds is None else Clock.monotonic() + seconds

    def left(self) -> float:
        """Seconds left to wait, at least 0; ``-1.0``, as the kernel has it, for never."""
        if self._at is None:
            return -1.0
        return min(max(0.0, self._at - Clock.monotonic()), LONGEST)

    def passed(self) -> bool:
        """Whether it is over."""
        return self._at is not None and Clock.monotonic() >= self._at

    def sooner(self, seconds: float) -> Deadline:
        """The earlier of this deadline and ``seconds`` from now."""
        other = Deadline(seconds)
        if self._at is None or (other._at is not None and other._at < self._at):
            return other
        return self


Lock = _original(_thread, "allocate_lock")
RLock = _original(_thread, "RLock")
start_thread = _original(_thread, "start_new_thread")
thread_id = _original(_thread, "get_ident")
native_thread_id = getattr(_thread, "get_native_id", thread_id)
make_poll = _original(select, "poll")
make_epoll = _original(select, "epoll")
POLLIN: int = getattr(select, "POLLIN", 1)
POLLOUT: int = getattr(select, "POLLOUT", 4)

# gevent replaces some names of `os`, never those of the module behind it.
read = posix.read
write = posix.write
close = posix.close
pipe = posix.pipe
getpid = posix.getpid
kill = posix.kill
stat = posix.stat
listdir = posix.listdir
fstat = posix.fstat
unlink = posix.unlink
getcwd = posix.getcwd
waitpid: Callable[[int, int], tuple[int, int]] = posix.waitpid
killpg: Callable[[int, int], None] = getattr(posix, "killpg", posix.kill)
pread: Callable[[int, int, int], bytes] | None = getattr(posix, "pread", None)
set_blocking: Callable[[int, bool], None] | None = getattr(posix, "set_blocking", None)
pidfd_open: Callable[[int, int], int] | None = getattr(posix, "pidfd_open", None)
eventfd: Callable[[int, int], int] | None = getattr(posix, "eventfd", None)
eventfd_write: Callable[[int, int], None] | None = getattr(posix, "eventfd_write", None)
memfd_create: Callable[[str, int], int] | None = getattr(posix, "memfd_create", None)


def _hub() -> Any:
    """gevent's hub of this thread, if the caller is a greenlet that can leave it the thread."""
    local = sys.modules.get("gevent._hub_local")
    hub = None if local is None else local.get_hub_if_exists()
    return None if hub is None or sys.modules["greenlet"].getcurrent() is hub else hub


def blocking(wait: Callable[..., T], *args: Any) -> T:
    """Call what may block the thread; where gevent runs, the other greenlets go on meanwhile."""
    hub = _hub()
    if hub is None:
        return wait(*args)
    done: T = hub.threadpool.apply(wait, args)
    return done


def _at_once(wait: Callable[..., T], *args: Any) -> T:
    return wait(*args)


def leave_thread() -> None:
    """Let go of what gevent keeps for a thread that is about to end."""
    local = sys.modules.get("gevent._hub_local")
    hub = None if local is None else local.get_hub_if_exists()
    if hub is not None:
        hub.destroy(destroy_loop=True)


def caller_id() -> int:
    """What tells apart those that run at the same time: the thread, or the greenlet if any."""
    greenlet = sys.modules.get("greenlet")
    return thread_id() if greenlet is None else id(greenlet.getcurrent())


def acquire(lock: Any, seconds: float) -> bool:
    """Acquire ``lock``, waiting at most so many seconds; -1.0 waits without end."""
    return bool(lock.acquire(False)) or bool(blocking(lock.acquire, True, seconds))


def poll_fd(fd: int, events: int, seconds: float) -> int:
    """Wait in the kernel until ``fd`` has one of ``events``; -1.0 seconds waits without end.

    Returns the events seen (which may be a hang-up or an error), 0 when the time ran out.
    """
    poll = make_poll()
    poll.register(fd, events)
    milliseconds = None if seconds < 0 else -int(-seconds * 1000 // 1)
    ready: list[tuple[int, int]]
    ready = poll.poll(0) if milliseconds == 0 else blocking(poll.poll, milliseconds)
    return ready[0][1] if ready else 0


def close_quietly(fd: int) -> None:
    """Close ``fd``; one that is closed already is fine."""
    try:
        close(fd)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise


class Signal:
    """Wakes threads that wait for a condition: kernel-timed, never polling, safe under patches."""

    __slots__ = ("_guard", "_waiters")

    def __init__(self) -> None:
        self._guard = Lock()
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
            waiter = Lock()
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
