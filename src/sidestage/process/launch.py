"""Starts a lean interpreter for a server: no site, none of the user's paths, no fork.

It only starts the process. ``handle`` owns it, in a module of its own: so the child boots while the
parent still imports that.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec

from ..errors import StartError
from ..pristine import system
from ..pristine.imports import importing_once
from .surroundings import Surroundings

# What the child imports beyond the standard library, with the dependencies of those packages.
_CHILD_PACKAGES = ("msgspec", "httptools", "aiosmtpd", "attr", "public", "psutil")

_BOOT = (
    "import sys; n = int(sys.argv[1]) + 2; sys.path += sys.argv[2:n];"
    "from sidestage.child.boot import main; main('{module}', *map(int, sys.argv[n:]))"
)
_ROOT = __name__.partition(".")[0]
_FIRST_FREE = 3  # below are the standard streams, which the child opens or replaces

_DEV_NULL = os.devnull  # read at import: pyfakefs may pretend to be another system later
# Made absolute at import: a relative path means another file once the test changes its directory.
# glibc gives the memory of a large object back as soon as that is freed, and for the next one the
# kernel clears as many pages: for a large body, that took longer than all the rest. So a child
# keeps some memory at hand. Other C libraries do not look at these.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 22), "MALLOC_TRIM_THRESHOLD_": str(1 << 23)}

_executable = os.path.abspath(sys.executable) if sys.executable else ""  # noqa: PTH100 - pathlib takes 10 ms to import
_paths: list[str] = []


class Launched:
    """A process just started, with its pid and the three descriptors that lead to it.

    ``surroundings`` is what it was started with, where the pool is to know.
    """

    __slots__ = (
        "commands_fd",
        "events_fd",
        "held",
        "owned",
        "owner",
        "pid",
        "stderr_fd",
        "surroundings",
    )

    def __init__(self, pid: int, events_fd: int, commands_fd: int, stderr_fd: int) -> None:
        self.held = {events_fd, commands_fd, stderr_fd}  # those that are not closed yet
        self.owned = False  # by a ServerProcess, which ends it
        self.owner = system.getpid()
        self.pid = pid
        self.events_fd = events_fd
        self.commands_fd = commands_fd
        self.stderr_fd = stderr_fd
        self.surroundings: Surroundings | None = None

    def abandon(self) -> None:
        """Kill, reap and close a process that nobody will own; it may not read its pipe yet."""
        if self.owned:
            return
        self.owned = True
        self.close()
        end_by_pid(self.pid)

    def close(self) -> None:
        """Close the descriptors and leave the process alone."""
        for fd in list(self.held):
            self.close_one(fd)

    def close_one(self, fd: int) -> None:
        """Close a descriptor, unless it was closed already."""
        if fd in self.held:
            self.held.discard(fd)
            system.close_quietly(fd)

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        """End a process that nothing refers to any more, as after an interrupted start."""
        unowned = not getattr(self, "owned", True)  # it has none if ``__init__`` was interrupted
        if unowned and not finalizing() and self.owner == system.getpid():
            self.abandon()


def end_by_pid(pid: int) -> None:
    """Kill and reap a child, unless another waiter has reaped it: its pid may be a stranger's."""
    # A process that may not be killed has lost its pipe, so it ends by itself.
    with contextlib.suppress(ProcessLookupError, ChildProcessError, PermissionError):
        if not system.waitpid(pid, os.WNOHANG)[0]:
            system.kill(pid, system.signals.SIGKILL)
            system.waitpid(pid, 0)


def launch(module: str = "host", *arguments: int) -> Launched:
    """Start a child and return at once; raises StartError where that is not possible.

    It runs ``main`` of the given module of ``child``, with ``arguments`` among its parameters.
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


def connect(start: Callable[[int, int, int, list[int]], None]) -> Launched:
    """Make the pipes and have ``start`` make the process; raises StartError.

    ``start`` gets the process's own descriptors for commands, events and stderr, and a list to note
    its pid in.
    """
    opened: list[int] = []
    pids: list[int] = []
    try:
        events_fd, child_events = _pipe(opened)
        child_commands, commands_fd = _pipe(opened)
        stderr_fd = _above_standard_streams(_unlinked_file(opened), opened)
        start(child_commands, child_events, stderr_fd, pids)
        launched = Launched(pids[0], events_fd, commands_fd, stderr_fd)
    except BaseException as error:
        _close(opened)
        for pid in pids:
            end_by_pid(pid)
        # Without a number it is none of the system's: a signal handler of the test has raised it.
        if not isinstance(error, OSError) or error.errno is None:
            raise
        raise StartError(
            error.errno,
            f"no process could be started for the server: {error.strerror or error}"
            f"{_cause(error.errno)}",
        ) from error
    _close([child_commands, child_events])
    return launched


def _cause(number: int | None) -> str:
    """What a test may have done to itself that lets it start no process."""
    if number in (errno.ENOENT, errno.EACCES, errno.ENOTDIR):
        return (
            f"; with its present user and root directory, this process has to be able to run "
            f"{_executable}"
        )
    if number == errno.ENOMEM and new_pid_namespace():
        return "; the new PID namespace of this process ended together with its first process"
    if number == errno.EAGAIN:
        return "; the limit for the number of processes is reached (ulimit -u)"
    return ""


def new_pid_namespace() -> bool:
    """Whether new processes have other process ids than those by which this one knows them."""
    try:
        own = system.readlink("/proc/thread-self/ns/pid")
    except OSError:  # not Linux, or no /proc
        return False
    try:
        return system.readlink("/proc/thread-self/ns/pid_for_children") != own
    except OSError:  # its first process is still to come
        return True


def _close(opened: list[int]) -> None:
    for fd in opened:
        system.close_quietly(fd)


def _pipe(opened: list[int]) -> tuple[int, int]:
    before = len(opened)
    made = itertools.chain.from_iterable(itertools.starmap(system.pipe, ((),)))
    opened.extend(made)  # in one call of C, as in ``system.note``
    reader, writer = opened[before:]
    return _above_standard_streams(reader, opened), _above_standard_streams(writer, opened)


def _above_standard_streams(fd: int, opened: list[int]) -> int:
    """``fd``, moved above 0-2 if the test has closed one of those."""
    if fd >= _FIRST_FREE:
        return fd
    import fcntl

    moved = system.note(opened, system.second(fcntl).fcntl, fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    opened.remove(fd)
    system.close(fd)
    return moved


def _unlinked_file(opened: list[int]) -> int:
    if system.memfd_create is not None:
        return system.note(opened, system.memfd_create, "sidestage-stderr", 1)  # MFD_CLOEXEC
    import tempfile  # pragma: no cover

    fd, path = tempfile.mkstemp(prefix="sidestage-")  # pragma: no cover - not on Linux
    opened.append(fd)
    system.unlink(path)
    return fd


def _spawn(
    module: str,
    arguments: Iterable[int],
    commands_fd: int,
    events_fd: int,
    stderr_fd: int,
    pids: list[int],
) -> None:
    numbers = (commands_fd, events_fd, system.getpid(), *arguments)
    assert system.posix_spawn is not None
    spawn = functools.partial(
        system.posix_spawn,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, _DEV_NULL, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, stderr_fd, 1),
            (os.POSIX_SPAWN_DUP2, stderr_fd, 2),
            # Onto itself, which clears close-on-exec in the child alone.
            (os.POSIX_SPAWN_DUP2, commands_fd, commands_fd),
            (os.POSIX_SPAWN_DUP2, events_fd, events_fd),
        ],
        # A group of its own, so that Ctrl-C at the terminal reaches only the test. Not a session:
        # in the test's, the kernel ends even a stopped child when the test dies, as its group is
        # orphaned then.
        setpgroup=0,
        setsigmask=[],
        setsigdef=_signals_to_reset(),
    )
    system.note(pids, spawn, _executable, _command_line(module, numbers), _environment())


def _environment() -> dict[str, str]:
    return {**_MALLOC, **os.environ}


def _command_line(module: str, numbers: Iterable[int]) -> list[str]:
    paths = _child_paths()
    return [
        _executable,
        "-I",  # neither the environment nor the working directory affects what is imported
        "-S",
        "-X",
        "faulthandler",
        "-c",
        _BOOT.format(module=module),
        str(len(paths)),
        *paths,
        *map(str, numbers),
    ]


def _signals_to_reset() -> list[int]:
    unchangeable = {system.signals.SIGKILL, system.signals.SIGSTOP}
    return [number for number in system.signals.valid_signals() if number not in unchangeable]


def _child_paths() -> list[str]:
    """Directories of the child's packages; it appends them, so the standard library goes first."""
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
