"""Starts a lean interpreter for a server: no site, none of the user's paths, no fork.

It knows nothing but how to start one. It is apart from ``process`` so that the child boots while
the parent still imports what it needs to own it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec

from ..errors import StartError
from ..pristine import system
from ..pristine.imports import importing_once

# What the child imports that is not in the standard library, dependencies of those included.
_CHILD_PACKAGES = ("msgspec", "httptools", "aiosmtpd", "attr", "public", "psutil")

_BOOT = (
    "import sys; n = int(sys.argv[1]) + 2; sys.path += sys.argv[2:n];"
    "from sidestage.child.boot import main; main('{module}', *map(int, sys.argv[n:]))"
)
_ROOT = __name__.partition(".")[0]
_FIRST_FREE = 3  # below are the standard streams, which the child gets anew

_DEV_NULL = os.devnull  # taken now: while it is active, pyfakefs may stand for another system
# A relative one, found on a relative PATH, means another file once the test changes its directory.
_executable = os.path.abspath(sys.executable) if sys.executable else ""  # noqa: PTH100 - pathlib takes 10 ms to import
_paths: list[str] = []


class Launched:
    """A process just started, with the three descriptors through which it is owned."""

    __slots__ = ("commands_fd", "events_fd", "pid", "stderr_fd")

    def __init__(self, pid: int, events_fd: int, commands_fd: int, stderr_fd: int) -> None:
        self.pid = pid
        self.events_fd = events_fd
        self.commands_fd = commands_fd
        self.stderr_fd = stderr_fd

    def abandon(self) -> None:
        """End a process that nobody will own, by signal: it may not listen to its pipe yet."""
        self.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            system.kill(self.pid, signal.SIGKILL)
            system.waitpid(self.pid, 0)

    def close(self) -> None:
        """Close the descriptors."""
        for fd in (self.commands_fd, self.events_fd, self.stderr_fd):
            system.close(fd)


def launch(module: str = "host", *arguments: int) -> Launched:
    """Start a child and return at once; raises StartError where that is not possible.

    ``module`` is the module of ``child`` whose ``main`` it runs; ``arguments`` are for that.
    """
    if system.posix_spawn is None:  # pragma: no cover - Windows
        raise StartError(
            errno.ENOSYS, f"Sidestage cannot start servers on {sys.platform}; it needs POSIX"
        )
    if not _executable:
        raise StartError(
            errno.ENOENT, "sys.executable is empty, so there is no interpreter to run a server in"
        )
    return connect(functools.partial(_spawn, module, arguments))


def connect(start: Callable[[int, int, int], int]) -> Launched:
    """A process that ``start`` makes, with its pipes; raises StartError.

    ``start`` gets the descriptors that are to be the process's commands, events and stderr, and
    returns its pid.
    """
    kept: list[int] = []
    lent: list[int] = []
    try:
        events_fd, child_events = _pipe(kept, lent)
        child_commands, commands_fd = _pipe(lent, kept)
        stderr_fd = _above_standard_streams(_unlinked_file(), kept)
        pid = start(child_commands, child_events, stderr_fd)
    except BaseException as error:
        for fd in kept:
            system.close(fd)
        if not isinstance(error, OSError):
            raise
        raise StartError(
            error.errno, f"no process could be started for the server: {error.strerror or error}"
        ) from error
    finally:
        for fd in lent:
            system.close(fd)
    return Launched(pid, events_fd, commands_fd, stderr_fd)


def _pipe(readers: list[int], writers: list[int]) -> tuple[int, int]:
    reader, writer = system.pipe()
    try:
        reader = _above_standard_streams(reader, readers)
    except OSError:
        system.close(writer)
        raise
    return reader, _above_standard_streams(writer, writers)


def _above_standard_streams(fd: int, owner: list[int]) -> int:
    """``fd``, moved out of 0-2 if the test has closed those; noted with its owner."""
    if fd < _FIRST_FREE:
        import fcntl

        low = fd
        try:
            fd = system.second(fcntl).fcntl(low, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
        finally:
            system.close(low)
    owner.append(fd)
    return fd


def _unlinked_file() -> int:
    if system.memfd_create is not None:
        return system.memfd_create("sidestage-stderr", 1)  # MFD_CLOEXEC
    import tempfile  # pragma: no cover

    fd, path = tempfile.mkstemp(prefix="sidestage-")  # pragma: no cover - not on Linux
    system.unlink(path)
    return fd


def _spawn(
    module: str, arguments: Iterable[int], commands_fd: int, events_fd: int, stderr_fd: int
) -> int:
    paths = _child_paths()
    argv = [
        _executable,
        "-I",  # neither the environment nor the working directory says what is imported
        "-S",
        "-X",
        "faulthandler",
        "-c",
        _BOOT.format(module=module),
        str(len(paths)),
        *paths,
        str(commands_fd),
        str(events_fd),
        str(system.getpid()),
        *map(str, arguments),
    ]
    assert system.posix_spawn is not None
    return system.posix_spawn(
        _executable,
        argv,
        dict(os.environ),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, _DEV_NULL, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, stderr_fd, 1),
            (os.POSIX_SPAWN_DUP2, stderr_fd, 2),
            # Onto itself: that clears close-on-exec in the child alone.
            (os.POSIX_SPAWN_DUP2, commands_fd, commands_fd),
            (os.POSIX_SPAWN_DUP2, events_fd, events_fd),
        ],
        # A group of its own: Ctrl-C at the terminal is for the test. Not a session: in the test's,
        # the kernel ends even a stopped child when the test dies (an orphaned process group).
        setpgroup=0,
        setsigmask=[],
        setsigdef=_signals_to_reset(),
    )


def _signals_to_reset() -> list[int]:
    unchangeable = {signal.SIGKILL, signal.SIGSTOP}
    return [number for number in signal.valid_signals() if number not in unchangeable]


def _child_paths() -> list[str]:
    """Where the child finds its packages; it appends them, so the standard library goes first."""
    if not _paths:
        found = [_two_up(str(sys.modules[_ROOT].__file__))]
        with importing_once():
            specs = [find_spec(name) for name in _CHILD_PACKAGES]
        for spec in specs:
            if spec is not None and spec.origin is not None:
                home = _two_up(spec.origin)
                if home not in found:
                    found.append(home)
        _paths.extend(found)
    return _paths


def _two_up(path: str) -> str:
    return os.path.dirname(os.path.dirname(os.path.realpath(path)))  # noqa: PTH120 - pathlib takes 10 ms to import
