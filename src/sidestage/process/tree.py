"""The descendants of a process: noted while it lives, killed once it is gone.

A signal may end the process, and then nothing connects its descendants to it any more. psutil reads
/proc through the test's ``open``. Where that is patched (pyfakefs, a mock), a helper process looks
and kills instead.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from ..errors import StartError
from ..pristine import system, waits
from ..pristine.imports import importing_once
from ..pristine.system import POLLIN
from ..pristine.waits import Deadline
from .launch import Launched, launch

if TYPE_CHECKING:
    import psutil

_HELPER_SECONDS = 2.0  # for the helper to start and look; 0.1 is usual


class ProcessTree:
    """All direct and indirect children of a process."""

    def __init__(self, pid: int, pidfd: int | None = None) -> None:
        self._pid = pid
        self._pidfd = pidfd
        self._noted: list[psutil.Process] = []
        self._helper: Launched | None = None

    def note(self, deadline: Deadline) -> None:
        """Note the current descendants; the helper, where needed, has until the deadline.

        Where /proc does not have the process, nothing is noted: its pid is a stranger's there.
        """
        if not is_in_proc(self._pid, self._pidfd):
            return
        try:
            if self._note():
                return
        except Exception as error:  # noqa: BLE001 - whatever a patched open() makes of psutil
            del error
        self._ask_helper(deadline.sooner(_HELPER_SECONDS))

    def _note(self) -> bool:
        with importing_once():  # not above: its import takes 20 ms, and few tests need it
            import psutil

        try:
            root = psutil.Process(self._pid)
            if root.ppid() != system.getpid():  # then psutil does not read the real /proc
                return False
            self._noted = root.children(recursive=True)
        except psutil.AccessDenied:  # the helper would be denied too
            pass
        return True

    def _ask_helper(self, deadline: Deadline) -> None:
        try:
            self._helper = launch("sweep", self._pid)
        except StartError:
            return
        if not waits.poll_fd(self._helper.events_fd, POLLIN, deadline.left()):
            self.forget()

    def sweep(self) -> list[int]:
        """Kill the noted processes that still run; returns their pids."""
        left = [process for process in self._noted if process.is_running()]
        for process in left:
            _kill(process)
        return [process.pid for process in left] + self._sweep_by_helper()

    def _sweep_by_helper(self) -> list[int]:
        helper = self._helper
        if helper is None:
            return []
        deadline = Deadline(_HELPER_SECONDS)
        answer = b""
        try:
            system.write(helper.commands_fd, b"k")
            while waits.poll_fd(helper.events_fd, POLLIN, deadline.left()):
                part = system.read(helper.events_fd, 4096)
                if not part:
                    break
                answer += part
        except OSError:  # it has ended, so nobody knows the pids
            pass
        self.forget()
        return [int(pid) for pid in answer.split()]

    def forget(self) -> None:
        """Drop the noted processes and end the helper."""
        self._noted = []
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.abandon()


def is_in_proc(pid: int, pidfd: int | None) -> bool:
    """Whether a child's number in /proc is ``pid``; true where no process is known by /proc.

    It is another number if /proc was mounted for another PID namespace.
    """
    try:
        if pidfd is None:  # before Linux 5.3, or not Linux
            linux = sys.platform.startswith("linux")
            return not linux or int(system.readlink("/proc/self")) == system.getpid()
        fd = system.open_file(f"/proc/self/fdinfo/{pidfd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        words = system.read(fd, 4096).split()
    finally:
        system.close(fd)
    return int(words[words.index(b"Pid:") + 1]) == pid


def _kill(process: psutil.Process) -> None:
    import psutil

    with contextlib.suppress(psutil.Error):
        process.kill()  # psutil compares pid and create time first
