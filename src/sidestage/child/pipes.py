"""The size of the pipes to the parent: what one holds goes from process to process at once."""

from __future__ import annotations

import contextlib
import fcntl

from ..wire.frames import LARGE_PIPE_SIZE

_SET_SIZE: int | None = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux


def enlarge(fd: int) -> None:
    """Have the pipe hold more, now that it was full.

    Not from the beginning: Linux counts the sizes of all of a user's pipes, and once they are too
    many MiB it gives nobody more.
    """
    if _SET_SIZE is not None:
        with contextlib.suppress(OSError):  # it has been given too much already
            fcntl.fcntl(fd, _SET_SIZE, LARGE_PIPE_SIZE)
