"""Ends this process when its owner has died, whatever the event loop is doing.

The pipe's end-of-file says so too, but not while a forked copy of the owner holds the other end,
and not to a loop that is stuck; so a thread of its own watches the owner itself.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time

_GRACE = 0.1  # seconds for the loop to see the end of the pipe and leave in good order


class OwnerWatch:
    """Watches the owner through a pidfd, and by the parent's pid every ``interval`` seconds.

    A process that is to fork has no thread for it, and looks after the owner itself.
    """

    def __init__(self, owner: int, *, thread: bool = True) -> None:
        self.interval = 0.5
        self.owner = owner
        self.pidfd = _open(owner)
        if not self.alive():  # it died before we could look
            _end()
        if thread:
            threading.Thread(target=self._watch, name="owner-watch", daemon=True).start()

    def alive(self) -> bool:
        """Whether the owner is our parent still."""
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
    except (AttributeError, OSError):  # not on Linux, or an old one
        return None


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
