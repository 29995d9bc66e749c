"""The file of a Unix socket: who may remove it, when a server ends and when another takes its path.

Whoever removes one holds a lock on its directory meanwhile (flock(2)), so that what it has looked
at is what it removes. Nothing is written, and the lock ends with the process that holds it. Where a
directory cannot be locked, as one that may not be read, the rest is as it would be with the lock.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import functools
import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

from . import system

_TRIES = 100  # to lock a directory
_PAUSE = 10  # milliseconds between two of them

# Taken now: a test may patch them later.
_open: Any = _socket.socket
_flock: Callable[[int, int], None] = functools.partial(system.second(fcntl).flock)


class SocketFile:
    """A path just bound, with its device and inode, since another may bind the path later.

    Remove it before its socket is closed: until then no other file has its inode, and no other
    server takes it for abandoned.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = _identity(path)

    def remove(self, *, closed: bool = False) -> None:
        """Remove the file unless it is gone or has been replaced; only the first call does so.

        With ``closed``, its socket is closed, so only an abandoned file can be this one.
        """
        identity, self._identity = self._identity, None
        if identity is None or _identity(self._path) != identity:
            return
        with suppress(OSError), locked(self._path):
            if _identity(self._path) == identity and (not closed or is_abandoned(self._path)):
                system.unlink(self._path)


def take_over(path: str, bind: Callable[[], None]) -> None:
    """Bind a path that is taken: remove an abandoned socket there, and call ``bind`` again.

    Of several that want the path at once, one gets it. Raises OSError (EADDRINUSE) for the others,
    and if what is there is not an abandoned socket.
    """
    with locked(path):
        if not is_abandoned(path):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        system.unlink(path)
        bind()


def is_abandoned(path: str) -> bool:
    """Whether ``path`` is a socket that no process has open any more.

    A datagram socket connects to it, whatever kind it is: a live stream socket refuses that with
    EPROTOTYPE, and its server does not see a connection.
    """
    try:
        if not stat.S_ISSOCK(system.lstat(path).st_mode):
            return False
        probe = _open(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    except OSError:
        return False
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    finally:
        probe.close()
    return False


@contextmanager
def locked(path: str) -> Generator[None]:
    """Hold the lock on the directory of ``path``; raises OSError (EADDRINUSE) after a second.

    No process holds it longer than it takes to bind a socket.
    """
    directory = path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")
    fd = _opened(directory)
    try:
        if fd is not None:
            _lock(fd)
        yield
    finally:
        if fd is not None:
            with suppress(OSError):
                _flock(fd, fcntl.LOCK_UN)  # a forked copy of this process may have it open, too
            system.close(fd)


def _opened(directory: str) -> int | None:
    try:
        return system.open_fd(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None


def _lock(fd: int) -> None:
    for _ in range(_TRIES):
        try:
            _flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # nothing reports when it is free, and the call takes no time-out
            system.make_poll().poll(_PAUSE)
        except OSError:  # this file system has no locks
            return
        else:
            return
    raise OSError(errno.EADDRINUSE, "another process holds the lock on its directory")


def _identity(path: str) -> tuple[int, int] | None:
    if path.startswith("\0"):  # an abstract name has no file
        return None
    try:
        found = system.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
