"""The file that a bound Unix socket is: removed when its server is over, and only if it is its own.

The child removes it; the parent does where the child had to be killed.
"""

from __future__ import annotations

from . import system


class SocketFile:
    """A path just bound, remembered by device and inode, as another may take the path later."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = _identity(path)

    def remove(self) -> None:
        """Remove the file, unless it is gone or somebody else's."""
        if self._identity is not None and _identity(self._path) == self._identity:
            system.unlink(self._path)
        self._identity = None


def _identity(path: str) -> tuple[int, int] | None:
    if path.startswith("\0"):  # an abstract name is no file
        return None
    try:
        found = system.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
