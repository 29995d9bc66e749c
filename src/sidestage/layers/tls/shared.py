"""An authority that several processes share, in the directory that ``SIDESTAGE_CA`` names.

Whoever is first makes it; of several at once, one does, and the others take what that has made.
The key is in the directory, so nobody else may have access to it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable

from ...errors import shown
from ...pristine import system
from .files import DIRECTORY_MODE, exists, path_of, write

NAME = "SIDESTAGE_CA"
_KEY, _CERTIFICATE = "ca-key.pem", "ca.pem"  # the first has the certificate, too
_MOST = 1 << 16  # bytes of a file
_OTHERS = 0o077  # access for group and world


def directory() -> str | None:
    """The directory, as an absolute path; ``None`` if this process shares none."""
    given = os.environ.get(NAME)
    if not given:
        return None
    return given if given.startswith("/") else f"{system.getcwd()}/{given}"


def certificate_file(place: str, certificate: bytes) -> str:
    """The path of a file with the certificate alone, which is written unless it is there.

    Where it cannot be written, as in a directory that may only be read, it is one of this process.
    """
    path = f"{place}/{_CERTIFICATE}"
    try:
        if not _has(path, certificate):
            write(path, certificate)
    except OSError:
        return path_of("ca", certificate)
    return path


def _has(path: str, content: bytes) -> bool:
    """Whether a file has just this content: one of an earlier authority may have been left."""
    try:
        fd = system.open_file(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        return system.read(fd, _MOST) == content
    finally:
        system.close(fd)


def load(place: str, make: Callable[[], bytes]) -> bytes:
    """Key and certificate of the authority in ``place``, in PEM; ``make`` makes them once.

    Raises OSError if the directory cannot be used, or somebody else might have access to it.
    """
    path = f"{place}/{_KEY}"
    _open_directory(place)
    if not exists(path):
        with contextlib.suppress(FileExistsError):  # another process was quicker
            _write_once(path, make())
    return _read(path)


def _write_once(path: str, data: bytes) -> None:
    try:
        write(path, data, replace=False)
    except FileExistsError:
        raise
    except OSError as error:
        raise OSError(
            error.errno,
            f"{NAME}: {shown(path)} cannot be written: {error.strerror}; name a directory of "
            "yours, on a file system with hard links",
        ) from error


def _open_directory(place: str) -> None:
    """Make the directory if it is not there, and refuse one that others may change."""
    try:
        with contextlib.suppress(FileExistsError):
            system.mkdir(place, DIRECTORY_MODE)
            system.chmod(place, DIRECTORY_MODE)
        found = system.stat(place)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{NAME} names {shown(place)}, which cannot be used: {error.strerror}; name a "
            "directory of yours, or one to be made in a directory that is there",
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(
            errno.ENOTDIR, f"{NAME} names {shown(place)}, which is no directory"
        )
    _refuse_others(found, place, 0o022, f"chmod 700 {place}")


def _read(path: str) -> bytes:
    try:
        fd = system.open_file(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{NAME}: {shown(path)} cannot be read, which must be a file and no link: "
            f"{error.strerror}",
        ) from error
    try:
        found = system.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, f"{NAME}: {shown(path)} must be a file: remove it")
        _refuse_others(found, path, _OTHERS, f"chmod 600 {path}")
        return system.read(fd, _MOST)
    finally:
        system.close(fd)


def _refuse_others(found: os.stat_result, path: str, modes: int, cure: str) -> None:
    """Raise PermissionError if others own what was ``found``, or have the access of ``modes``."""
    me = system.geteuid
    if me is not None and found.st_uid != me():
        raise PermissionError(
            errno.EPERM,
            f"{NAME}: {shown(path)} belongs to the user {found.st_uid}, and this process is "
            f"{me()}: name a directory of its own",
        )
    if found.st_mode & modes:
        raise PermissionError(
            errno.EPERM,
            f"{NAME}: others have access to {shown(path)} (mode "
            f"{stat.S_IMODE(found.st_mode):03o}), and could sign certificates: {cure}",
        )
