"""A short-lived process that finds the descendants of another process and kills them on request.

It reads /proc itself, so patches in the test's process do not mislead it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil

from .owner_watch import OwnerWatch


def main(commands_fd: int, events_fd: int, watch: OwnerWatch, root: int) -> None:
    """Find the descendants of ``root``, write a space, and kill those left after one byte is read.

    The answer is their pids, separated by spaces. If the pipe ends instead of that byte, the owner
    is gone and nothing is killed.
    """
    family: list[psutil.Process] = []
    # Else psutil reads of one process and kills another: /proc is of another PID namespace.
    ours = str(Path("/proc/self").readlink()) == str(os.getpid())
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(root).children(recursive=True) if ours else []
    os.write(events_fd, b" ")
    if not os.read(commands_fd, 1):
        return
    left = [process for process in family if process.is_running()]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    os.write(events_fd, " ".join(str(process.pid) for process in left).encode())
