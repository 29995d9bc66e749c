"""The system calls and thread primitives of all parent code, out of reach of what a test patches.

Three things must stay true here. They come from second instances of the modules that implement
them, because gevent, freezegun or a mock may have patched the first. The functions of ``posix`` are
wrapped, because pyfakefs replaces those in every module in which it finds them. And no clock is a
module global, because freezegun replaces those; it leaves class attributes alone.
"""

from __future__ import annotations

import _thread
import errno
import functools
import itertools
import select
import sys
from collections import deque
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any, TypeVar, cast

from . import locks

if sys.platform == "win32":  # pragma: no cover - only so that the package imports there
    import nt as posix
else:
    import posix

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def second(module: Any) -> Any:
    """A new, unpatched instance of a module written in C; any other module as it is."""
    spec = getattr(module, "__spec__", None)
    if not isinstance(spec, ModuleSpec) or spec.loader is None:
        return module
    again = spec.loader.create_module(spec)
    if again is None:
        return module
    spec.loader.exec_module(again)
    return again


def _wrapped(function: F) -> F:
    """``function`` as an object in which pyfakefs does not recognise it."""
    return cast("F", functools.partial(function))


def _wrapped_or_none(name: str) -> Any:
    """The wrapped function of that name, or ``None`` on a platform without it."""
    function = getattr(_posix, name, None)
    return None if function is None else _wrapped(function)


_posix = second(posix)
_threads = second(_thread)
_select = second(select)


Lock: Callable[[], Any] = _threads.allocate_lock
RLock: Callable[[], Any] = _threads.RLock
if locks.AFFECTED:
    Lock, RLock = (functools.partial(locks.InterruptibleLock, make) for make in (Lock, RLock))
start_thread = _threads.start_new_thread
thread_id = _threads.get_ident
native_thread_id = getattr(_threads, "get_native_id", thread_id)
make_poll: Any = getattr(_select, "poll", None)
make_epoll: Any = getattr(_select, "epoll", None)
POLLIN: int = getattr(_select, "POLLIN", 1)
POLLOUT: int = getattr(_select, "POLLOUT", 4)

read: Callable[[int, int], bytes] = _wrapped(_posix.read)
write: Callable[[int, Any], int] = _wrapped(_posix.write)
writev: Callable[[int, Any], int] = _wrapped_or_none("writev") or write
close: Callable[[int], None] = _wrapped(_posix.close)
pipe: Callable[[], tuple[int, int]] = _wrapped(_posix.pipe)
getpid: Callable[[], int] = _wrapped(_posix.getpid)
kill: Callable[[int, int], None] = _wrapped(_posix.kill)
stat: Callable[[str], Any] = _wrapped(_posix.stat)
lstat: Callable[[str], Any] = _wrapped(_posix.lstat)
open_fd: Callable[[str, int], int] = _wrapped(_posix.open)
listdir: Callable[[str], list[str]] = _wrapped(_posix.listdir)
unlink: Callable[[str], None] = _wrapped(_posix.unlink)
umask: Callable[[int], int] = _wrapped(_posix.umask)
open_file: Callable[[str, int], int] = _wrapped(_posix.open)
create_file: Callable[[str, int, int], int] = _wrapped(_posix.open)
mkdir: Callable[[str, int], None] = _wrapped(_posix.mkdir)
rmdir: Callable[[str], None] = _wrapped(_posix.rmdir)
link: Callable[[str, str], None] = _wrapped(_posix.link)
rename: Callable[[str, str], None] = _wrapped(_posix.rename)
chmod: Callable[[str, int], None] = _wrapped(_posix.chmod)
readlink: Callable[[str], str] = _wrapped(_posix.readlink)
fstat: Callable[[int], Any] = _wrapped(_posix.fstat)
lseek: Callable[[int, int, int], int] = _wrapped(_posix.lseek)
getcwd: Callable[[], str] = _wrapped(_posix.getcwd)
waitpid: Callable[[int, int], tuple[int, int]] = _wrapped(_posix.waitpid)
waitid: Callable[..., Any] | None = _wrapped_or_none("waitid")
geteuid: Callable[[], int] | None = _wrapped_or_none("geteuid")
fchmod: Callable[[int, int], None] | None = _wrapped_or_none("fchmod")
setpgid: Callable[[int, int], None] | None = _wrapped_or_none("setpgid")
killpg: Callable[[int, int], None] = _wrapped_or_none("killpg") or kill
posix_spawn: Callable[..., int] | None = _wrapped_or_none("posix_spawn")
pread: Callable[[int, int, int], bytes] | None = _wrapped_or_none("pread")
set_blocking: Callable[[int, bool], None] | None = _wrapped_or_none("set_blocking")
getresuid: Callable[[], Any] | None = _wrapped_or_none("getresuid") or _wrapped_or_none("geteuid")
getresgid: Callable[[], Any] | None = _wrapped_or_none("getresgid") or _wrapped_or_none("getegid")
getgroups: Callable[[], list[int]] | None = _wrapped_or_none("getgroups")
getsid: Callable[[int], int] | None = _wrapped_or_none("getsid")
getpriority: Callable[[int, int], int] | None = _wrapped_or_none("getpriority")
sched_getaffinity: Callable[[int], set[int]] | None = _wrapped_or_none("sched_getaffinity")
pidfd_open: Callable[[int, int], int] | None = _wrapped_or_none("pidfd_open")
eventfd: Callable[[int, int], int] | None = _wrapped_or_none("eventfd")
eventfd_write: Callable[[int, int], None] | None = _wrapped_or_none("eventfd_write")
memfd_create: Callable[[str, int], int] | None = _wrapped_or_none("memfd_create")


# What ``signal`` is made of. That one makes enumerations, which takes half a millisecond at its
# import, and time in each call.
signals: Any = sys.modules["_signal"]
_SIGPIPE: int = getattr(signals, "SIGPIPE", 0)  # 0 where there is none, on Windows
_SIG_DFL: int = signals.SIG_DFL
_handler_of: Callable[[int], Any] = signals.getsignal
_mask: Any = getattr(signals, "pthread_sigmask", None)
_take_signal: Any = getattr(signals, "sigtimedwait", None)


# The kernel's ids of our threads that ended lately: it may still list them for a moment.
ended_threads: deque[int] = deque(maxlen=64)


def leave_thread() -> None:
    """To be called at the end of each of our threads: frees its gevent hub and notes its id."""
    local = sys.modules.get("gevent._hub_local")
    hub = None if local is None else local.get_hub_if_exists()
    if hub is not None:
        hub.destroy(destroy_loop=True)
    ended_threads.append(native_thread_id())


def caller_id() -> int:
    """The identity of the running thread, or of its greenlet where greenlets are in use."""
    greenlet = sys.modules.get("greenlet")
    return thread_id() if greenlet is None else id(greenlet.getcurrent())


def note(results: list[T], call: Callable[..., T], *arguments: Any) -> T:
    """Call a function written in C; returns what it returns, and appends it to ``results``.

    One call of C does both. So whoever is interrupted by a signal handler that raises just then
    finds it there: a descriptor to close, a process to end.
    """
    results.extend(itertools.starmap(call, (arguments,)))
    return results[-1]


def write_pipe(fd: int, data: Any, counts: list[int]) -> None:
    """Write to a pipe, and append to ``counts`` how many bytes were written.

    One call of C does both. So ``counts`` is right even if a signal handler raises just then.
    ``data`` is a buffer, or a tuple of them. Raises BrokenPipeError if nobody reads the pipe, also
    where SIGPIPE would end the process.
    """
    call = writev if type(data) is tuple else write
    if not _SIGPIPE or _handler_of(_SIGPIPE) != _SIG_DFL:  # Python ignores it by default
        counts.extend(map(call, (fd,), (data,)))
        return
    before = _mask(signals.SIG_BLOCK, [_SIGPIPE])
    try:
        counts.extend(map(call, (fd,), (data,)))
    except BrokenPipeError:
        if _SIGPIPE not in before:
            _take_signal([_SIGPIPE], 0)
        raise
    finally:
        _mask(signals.SIG_SETMASK, before)


def close_quietly(fd: int) -> None:
    """Close ``fd`` unless it is closed already."""
    try:
        close(fd)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
