"""Ends this process when its owner has died, whatever the event loop is doing.

The pipe's end-of-file reports that too, but not while a fork of the owner holds the other end, and
not if the loop hangs. So a separate thread watches the owner. The owner is the process that started
this one: the test's.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time

_GRACE = 0.1  # seconds for the loop to see the end of the pipe and exit cleanly


class OwnerWatch:
    """Watches the owner through a pidfd, and checks the parent's pid every ``interval`` seconds.

    With ``thread=False`` nothing watches, and the process must call ``alive`` itself: the fork
    server must not have threads.
    """

    def __init__(self, owner: int, *, thread: bool = True) -> None:
        self.interval = 0.5
        self.owner = owner
        self.pidfd = _open(owner)
        if not self.alive():  # it died before the pidfd was open
            _end()
        if thread:
            threading.Thread(target=self._watch, name="owner-watch", daemon=True).start()

    def alive(self) -> bool:
        """Whether the owner is still this process's parent."""
        return os.getppid() == self.owner

    def _watch(self) -> None:
        poll = select.poll()
        if self.pidfd is not None:
            poll.register(self.pidfd, select.POLLIN)
        while True:
            if poll.poll(max(1.0, self.interval * 1000)) or not self.alive():
                time.sleep(_GRACE)
                _end()


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or before 5.3
        return None


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
