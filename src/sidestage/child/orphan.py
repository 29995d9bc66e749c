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


class OrphanWatch:
    """Watches the owner through a pidfd, and by the parent's pid every ``interval`` seconds."""

    def __init__(self, owner: int) -> None:
        self.interval = 0.5
        self._owner = owner
        self._pidfd = _open(owner)
        if os.getppid() != owner:  # it died before we could look
            _end()
        threading.Thread(target=self._watch, name="orphan-watch", daemon=True).start()

    def _watch(self) -> None:
        poll = select.poll()
        if self._pidfd is not None:
            poll.register(self._pidfd, select.POLLIN)
        while True:
            if poll.poll(max(1.0, self.interval * 1000)) or os.getppid() != self._owner:
                time.sleep(_GRACE)
                _end()


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not on Linux, or an old one
        return None


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
