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


def close_quietly(fd: int) -> None:
    """Close ``fd``; one that is closed already is fine."""
    try:
        close(fd)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
