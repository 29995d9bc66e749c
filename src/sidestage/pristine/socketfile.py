"""The file of a bound Unix socket: removed when its server ends, unless another has replaced it.

The child removes it; where the child had to be killed, the parent does.
"""

from __future__ import annotations

from . import system


class SocketFile:
    """A path just bound, with its device and inode, since another may bind the path later."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = _identity(path)

    def remove(self) -> None:
        """Remove the file unless it is gone or has been replaced; only the first call does so."""
        if self._identity is not None and _identity(self._path) == self._identity:
            system.unlink(self._path)
        self._identity = None


def _identity(path: str) -> tuple[int, int] | None:
    if path.startswith("\0"):  # an abstract name has no file
        return None
    try:
        found = system.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
