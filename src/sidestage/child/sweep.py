"""A short-lived process that looks for the descendants of another, and kills them when told to.

It sees /proc as it is, whatever the test's process has put in its place.
"""

from __future__ import annotations

import contextlib
import os

import psutil

from .owner_watch import OwnerWatch


def main(commands_fd: int, events_fd: int, watch: OwnerWatch, root: int) -> None:
    """Note the descendants of ``root``, say so, and kill what is left of them on a word.

    What comes back is a space, then the pids of those that were killed. When the owner is gone,
    nothing is killed.
    """
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(root).children(recursive=True)
    os.write(events_fd, b" ")
    if not os.read(commands_fd, 1):
        return
    left = [process for process in family if process.is_running()]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    os.write(events_fd, " ".join(str(process.pid) for process in left).encode())
