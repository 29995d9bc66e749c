"""The primitives that all parent code uses, out of reach of what a test patches.

Three things must stay true here. They come from second instances of the modules that implement
them, because the first ones may be patched already: by gevent, by freezegun, by a mock. The
functions of ``posix`` are wrapped, because pyfakefs replaces those in every module that it finds
them in. And no clock is a module global, because freezegun rewrites those; it leaves class
attributes alone.
"""

from __future__ import annotations

import _thread
import errno
import functools
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any, TypeVar, cast

if sys.platform == "win32":  # pragma: no cover - only so that the package imports there
    import nt as posix
else:
    import posix

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def second(module: Any) -> Any:
    """Another instance of a module that is written in C, as it was before anybody patched it."""
    spec = getattr(module, "__spec__", None)
    if not isinstance(spec, ModuleSpec) or spec.loader is None:
        return module
    again = spec.loader.create_module(spec)
    if again is None:
        return module
    spec.loader.exec_module(again)
    return again


def _kept(function: F) -> F:
    """``function`` as an object that pyfakefs does not know for a function of the system."""
    return cast("F", functools.partial(function))


def _kept_if_any(name: str) -> Any:
    """A function that not every platform has."""
    function = getattr(_posix, name, None)
    return None if function is None else _kept(function)


_posix = second(posix)
_threads = second(_thread)
_select = second(select)


class Clock:
    """The monotonic clock, in seconds, as a class attribute: see above."""

    monotonic = staticmethod(cast("Callable[[], float]", second(time).monotonic))


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


Lock = _threads.allocate_lock
RLock = _threads.RLock
start_thread = _threads.start_new_thread
thread_id = _threads.get_ident
native_thread_id = getattr(_threads, "get_native_id", thread_id)
make_poll: Any = getattr(_select, "poll", None)
make_epoll: Any = getattr(_select, "epoll", None)
POLLIN: int = getattr(_select, "POLLIN", 1)
POLLOUT: int = getattr(_select, "POLLOUT", 4)

read: Callable[[int, int], bytes] = _kept(_posix.read)
write: Callable[[int, Any], int] = _kept(_posix.write)
close: Callable[[int], None] = _kept(_posix.close)
pipe: Callable[[], tuple[int, int]] = _kept(_posix.pipe)
getpid: Callable[[], int] = _kept(_posix.getpid)
kill: Callable[[int, int], None] = _kept(_posix.kill)
stat: Callable[[str], Any] = _kept(_posix.stat)
listdir: Callable[[str], list[str]] = _kept(_posix.listdir)
fstat: Callable[[int], Any] = _kept(_posix.fstat)
unlink: Callable[[str], None] = _kept(_posix.unlink)
getcwd: Callable[[], str] = _kept(_posix.getcwd)
waitpid: Callable[[int, int], tuple[int, int]] = _kept(_posix.waitpid)
waitid: Callable[..., Any] | None = _kept_if_any("waitid")
killpg: Callable[[int, int], None] = _kept_if_any("killpg") or kill
posix_spawn: Callable[..., int] | None = _kept_if_any("posix_spawn")
pread: Callable[[int, int, int], bytes] | None = _kept_if_any("pread")
set_blocking: Callable[[int, bool], None] | None = _kept_if_any("set_blocking")
pidfd_open: Callable[[int, int], int] | None = _kept_if_any("pidfd_open")
eventfd: Callable[[int, int], int] | None = _kept_if_any("eventfd")
eventfd_write: Callable[[int, int], None] | None = _kept_if_any("eventfd_write")
memfd_create: Callable[[str, int], int] | None = _kept_if_any("memfd_create")


_SIGPIPE: int = getattr(signal, "SIGPIPE", 0)  # 0 is none, on Windows
# Not that of ``signal``, which makes a member of an enumeration of each, at some cost.
_handler_of = cast("Callable[[int], Any]", sys.modules["_signal"].getsignal)
_mask: Any = getattr(signal, "pthread_sigmask", None)
_take_signal: Any = getattr(signal, "sigtimedwait", None)


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
    listening = Lock()

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
            start_thread(work, ())
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


# The kernel's ids of threads of ours that have ended lately: it may list them for a moment more.
ended_threads: deque[int] = deque(maxlen=64)


def leave_thread() -> None:
    """Let go of what gevent keeps for a thread that is about to end, and note that it does."""
    local = sys.modules.get("gevent._hub_local")
    hub = None if local is None else local.get_hub_if_exists()
    if hub is not None:
        hub.destroy(destroy_loop=True)
    ended_threads.append(native_thread_id())


def caller_id() -> int:
    """What tells apart those that run at the same time: the thread, or the greenlet if any."""
    greenlet = sys.modules.get("greenlet")
    return thread_id() if greenlet is None else id(greenlet.getcurrent())


def acquire(lock: Any, seconds: float) -> bool:
    """Acquire ``lock``, waiting at most so many seconds; -1.0 waits without end."""
    return bool(lock.acquire(False)) or bool(blocking(lock.acquire, True, seconds))


def write_pipe(fd: int, data: Any) -> int:
    """Write to a pipe; one that nobody reads is an error, also where SIGPIPE ends the process."""
    if _sigpipe_is_harmless():
        return write(fd, data)
    before = _mask(signal.SIG_BLOCK, [_SIGPIPE])
    try:
        return write(fd, data)
    except BrokenPipeError:
        if _SIGPIPE not in before:
            _take_signal([_SIGPIPE], 0)
        raise
    finally:
        _mask(signal.SIG_SETMASK, before)


def _sigpipe_is_harmless() -> bool:
    return not _SIGPIPE or _handler_of(_SIGPIPE) != signal.SIG_DFL


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
