"""Removes the directory of files that a test process leaves when it is killed."""

from __future__ import annotations

import contextlib
import os

_NAME = "sidestage-"  # how its name begins


def remove(path: str) -> None:
    """Remove such a directory of this user with its files; anything else is left alone.

    It is opened first, so that what was looked at is what loses its files. Does not raise: several
    processes may do this at once.
    """
    if not os.path.basename(path).startswith(_NAME):  # noqa: PTH119 - no pathlib in a child
        return
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_uid != os.geteuid():
                return
            for name in os.listdir(fd):  # noqa: PTH208 - of the opened one
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=fd)
        finally:
            os.close(fd)
        os.rmdir(path)  # noqa: PTH106 - no pathlib in a child
