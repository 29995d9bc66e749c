"""Files that clients are told of: in a directory of this process, which it removes at its end.

Only its user may read it. A forked copy uses the directory of the original while that is there,
and never removes it. If the process is killed, a process of its servers removes it.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import hashlib
import os
import sys
from typing import NamedTuple

from ...pristine import system
from ...process import fork_client

FILE_MODE, DIRECTORY_MODE = 0o600, 0o700
_PLACES = ("TMPDIR", "TEMP", "TMP")  # as ``tempfile`` has them
_DEFAULTS = ("/tmp", "/var/tmp", "/usr/tmp")  # noqa: S108 - a directory of its own is made there


class _Directory(NamedTuple):
    """A directory, and the process that made it."""

    path: str
    owner: int


_directory: _Directory | None = None


def path_of(name: str, data: bytes) -> str:
    """The path of a file that has this content, and a name that begins with ``name``.

    Raises OSError if no file can be written.
    """
    digest = hashlib.sha256(data).hexdigest()[:16]
    path = f"{_own_directory()}/{name}-{digest}.pem"
    if not exists(path):
        write(path, data)
    return path


def to_inherit() -> str:
    """The path of this process's directory, for who is to remove it if this process is killed.

    Empty in a forked copy that uses another's, and if none can be made.
    """
    with contextlib.suppress(OSError):  # whoever wants a file is told
        _own_directory()
    return _to_inherit_now()


def _to_inherit_now() -> str:
    found = _directory
    return found.path if found is not None and found.owner == system.getpid() else ""


def exists(path: str) -> bool:
    """Whether there is such a file."""
    try:
        system.lstat(path)
    except OSError:
        return False
    return True


def write(path: str, data: bytes, *, replace: bool = True) -> None:
    """Make a file that only its user may read; whoever opens it finds all of ``data``.

    Raises FileExistsError if it is there and may not be replaced.
    """
    draft = f"{path}.{os.urandom(8).hex()}"
    fd = system.create_file(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        try:
            if system.fchmod is not None:
                system.fchmod(fd, FILE_MODE)  # whatever the umask is
            while data:
                data = data[system.write(fd, data) :]
        finally:
            system.close(fd)
        (system.rename if replace else system.link)(draft, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            system.unlink(draft)


def _own_directory() -> str:
    global _directory
    found = _directory
    if found is None or not exists(found.path):
        made = _Directory(_make_directory(), system.getpid())
        if _directory is found:
            _directory = made
            fork_client.bequest = _to_inherit_now
            _remove_at_end(made)
        else:  # another thread was quicker
            system.rmdir(made.path)
    assert _directory is not None
    return _directory.path


def _make_directory() -> str:
    asked = [os.environ[name] for name in _PLACES if os.environ.get(name)]
    error: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), _DEFAULTS[0])
    for place in (*asked, *_DEFAULTS):
        path = f"{place.rstrip('/')}/sidestage-tls-{system.getpid()}-{os.urandom(8).hex()}"
        try:
            if place.startswith("/"):
                system.mkdir(path, DIRECTORY_MODE)
                system.chmod(path, DIRECTORY_MODE)  # whatever the umask is
                return path
        except OSError as refused:
            error = refused
    raise OSError(
        error.errno,
        f"no directory for the certificates of servers can be made: {error.strerror}; "
        "set TMPDIR to one that is writable",
    )


def _remove_at_end(made: _Directory) -> None:
    atexit.register(_remove, made)
    # A process that multiprocessing has forked ends without atexit, and with finalizers of its own.
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing import util

        util.Finalize(None, _remove, (made,), exitpriority=0)


def _remove(made: _Directory) -> None:
    """Remove a directory with its files; at the end of the process that made it."""
    if made.owner != system.getpid():
        return
    with contextlib.suppress(OSError):
        for name in system.listdir(made.path):
            with contextlib.suppress(OSError):
                system.unlink(f"{made.path}/{name}")
        system.rmdir(made.path)
