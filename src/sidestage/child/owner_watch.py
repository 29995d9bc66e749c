"""Ends this process when its owner has died, whatever the event loop is doing.

The pipe's end-of-file reports that too, but not while a fork of the owner holds the other end, and
not if the loop hangs. So a separate thread watches the owner. The owner is the process that started
this one: the test's. The thread watches the pipe, too: an owner whose user has changed may only
close it.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable

_GRACE = 0.1  # seconds for the loop to see the end of the pipe and exit cleanly
_PIPE_GRACE = 3.0  # seconds for the same while the owner lives, who may have other means
_FLAGS, _EXITING = 6, 0x4  # in /proc/PID/stat, behind the name; a flag of Linux, PF_EXITING
_LONGEST = 1e6  # seconds; the kernel's waits take at most 24 days


class OwnerWatch:
    """Watches the owner through a pidfd, and checks the parent's pid every ``interval`` seconds.

    ``pipe`` is the descriptor of the pipe from the owner. With ``thread=False`` nothing watches,
    and the process must call ``alive`` itself: the fork server must not have threads.
    """

    def __init__(self, owner: int, *, thread: bool = True, pipe: int | None = None) -> None:
        self.interval = 0.5
        self._bequests: dict[str, Callable[[str], None]] = {}  # directories, and what removes them
        self._pipe = pipe
        # 0: the owner is in another PID namespace, where its number means nothing here. Then only
        # the pipe tells.
        self.owner = owner if pipe is None or os.getppid() else 0
        self.pidfd = _open(owner) if self.owner else None
        if not self.alive():  # it died before the pidfd was open
            _end()
        if thread:
            threading.Thread(target=self._watch, name="owner-watch", daemon=True).start()

    def alive(self) -> bool:
        """Whether the owner is still this process's parent."""
        return os.getppid() == self.owner

    def inherit(self, path: str) -> None:
        """Remove this directory of the owner when that has died; an empty path is none."""
        if path:
            from .bequest import remove  # now, and not at the end; most need it never

            self._bequests[path] = remove

    def settle(self) -> None:
        """Before this process ends: remove what the owner leaves, if it has died."""
        if self._bequests and self._has_died():
            for path, remove in list(self._bequests.items()):
                remove(path)

    def _has_died(self) -> bool:
        """Whether the owner has died, or is dying: its pipes are closed a moment before."""
        if not self.owner:
            return False
        if not self.alive():
            return True
        try:
            with open(f"/proc/{self.owner}/stat", "rb") as stat:  # noqa: PTH123 - no pathlib here
                fields = stat.read().rpartition(b")")[2].split()
        except OSError:  # not Linux
            time.sleep(_GRACE)
            return not self.alive()
        return bool(int(fields[_FLAGS]) & _EXITING)

    def _watch(self) -> None:
        poll = select.poll()
        if self.pidfd is not None:
            poll.register(self.pidfd, select.POLLIN)
        if self._pipe is not None:
            poll.register(self._pipe, 0)  # its end is reported all the same
        while True:
            seconds = min(max(0.001, self.interval), _LONGEST)
            ready = dict(poll.poll(seconds * 1000))
            if self._pipe is not None and list(ready) == [self._pipe] and self.alive():
                poll.unregister(self._pipe)
                if not poll.poll(_PIPE_GRACE * 1000) and self.alive():
                    os._exit(0)
            if ready or not self.alive():
                time.sleep(_GRACE)
                self.settle()
                _end()


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or before 5.3
        return None


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    os._exit(1)  # the first process of a PID namespace cannot kill itself
