"""The descendants of a process: noted before a signal can part them from it, killed after.

psutil reads /proc through what the test's process has for ``open``. Where that does not show what
is true (pyfakefs, a mock), a process of its own looks and kills instead.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ..errors import StartError
from ..pristine import system, waits
from ..pristine.imports import importing_once
from ..pristine.system import POLLIN
from ..pristine.waits import Deadline
from .launch import Launched, launch

if TYPE_CHECKING:
    import psutil

_HELPER_SECONDS = 2.0  # for the helper to start and look; a twentieth of that is usual


class ProcessTree:
    """All that a process has started, and what that has started."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._noted: list[psutil.Process] = []
        self._helper: Launched | None = None

    def note(self, deadline: Deadline) -> None:
        """Note who is there now; what cannot be learnt by the deadline is not waited for."""
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
            if root.ppid() != system.getpid():  # then what psutil reads is not what is true
                return False
            self._noted = root.children(recursive=True)
        except psutil.AccessDenied:  # to the one or the other: nobody else may look either
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
        """Kill those that were noted and live on; returns their pids."""
        left = [process for process in self._noted if process.is_running()]
        for process in left:
            _kill(process)
        return [process.pid for process in left] + self._helpers_sweep()

    def _helpers_sweep(self) -> list[int]:
        helper = self._helper
        if helper is None:
            return []
        deadline = Deadline(_HELPER_SECONDS)
        said = b""
        try:
            system.write(helper.commands_fd, b"k")
            while waits.poll_fd(helper.events_fd, POLLIN, deadline.left()):
                part = system.read(helper.events_fd, 4096)
                if not part:
                    break
                said += part
        except OSError:  # it has ended, and what it knew with it
            pass
        self.forget()
        return [int(pid) for pid in said.split()]

    def forget(self) -> None:
        """Let go of who was noted, and of the helper."""
        self._noted = []
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.abandon()


def _kill(process: psutil.Process) -> None:
    import psutil

    with contextlib.suppress(psutil.Error):
        process.kill()  # psutil compares pid and create time first
