"""Owns one process: its exit, its signals, its tree, its stderr. It knows nothing of servers.

multiprocess supplies the process object. Its own start methods do more, which must not happen here:
they have every forked copy of the test terminate the child at exit, start a resource tracker, and
run ``__main__`` again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import StateError
from ..pristine import system, waits
from ..pristine.imports import importing_once
from ..pristine.system import POLLIN
from ..pristine.waits import Deadline
from .launch import Launched
from .process_object import BaseProcess, Popen
from .tree import ProcessTree, is_in_proc

if TYPE_CHECKING:
    import psutil

_KILLED_SECONDS = 1.0  # for a killed process to disappear, however little time is left
TAIL = 8192  # bytes of stderr shown in messages, at most

_pidfd_send_signal = getattr(signal, "pidfd_send_signal", None)
_ENDS = tuple(getattr(os, f"CLD_{how}", None) for how in ("EXITED", "KILLED", "DUMPED"))


class Gate(Protocol):
    """What waits for the pipe of a process: it is closed with that."""

    def descriptors(self) -> list[int]:
        """Those that it has."""
        ...

    def close(self) -> None:
        """Close them."""
        ...


class _Adopted(Popen):  # type: ignore[misc]  # multiprocess has no types
    """Gives multiprocess a process that was launched without it."""

    method = "sidestage"

    def _launch(self, process_obj: ServerProcess) -> None:
        self.pid = process_obj.launched.pid
        self.sentinel = process_obj.launched.events_fd


class ServerProcess(BaseProcess):  # type: ignore[misc]  # multiprocess has no types
    """A launched child: signals it, waits for it, reads its stderr, closes its descriptors."""

    _start_method = None
    _pidfds: list[int] | tuple[()] = ()
    _owns = False  # it is made, and ends its process
    gate: Gate | None = None  # that a run has left for the next

    def __init__(self, launched: Launched) -> None:
        super().__init__(name="sidestage")
        if _unreaped:
            _reap()
        pidfds: list[int] = []
        self._pidfds = pidfds
        self.launched = launched
        self.owner = system.getpid()
        # Plain numbers, not multiprocess's Connection objects: those close their number when
        # they are collected, in a forked copy too, where it may belong to something else by then.
        # The base class's start() would add it to the children that multiprocess ends at the exit
        # of any copy of this process.
        self._popen = _Adopted(self)
        self._sentinel = self._popen.sentinel
        self._pidfd = _open_pidfd(launched.pid, pidfds)
        self._root = _psutil_process(launched.pid) if self._pidfd is None else None
        self._tree = ProcessTree(launched.pid, self._pidfd)
        self._reaped = False
        self._exit_code: int | None = None
        launched.owned = self._owns = True  # at last: until here, ``launched`` ends it

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        """Kill a process that nothing refers to any more, as after an interrupted start."""
        if not self._owns:  # its ``__init__`` was interrupted
            self._close_pidfd()
            return
        if finalizing() or self.owner != system.getpid() or not self.descriptors():
            return  # when this process ends, the child sees it and ends too
        self.end_now()
        self.close()

    # Exit ------------------------------------------------------------------------------------

    def wait(self, deadline: Deadline) -> bool:
        """Wait for the process to end, and reap it; returns ``False`` at the deadline."""
        while not self.has_ended():
            if not self._wait_for_exit(deadline):
                return self.has_ended()
        return True

    def has_ended(self) -> bool:
        """Whether the process has ended; reaps it if so, and waits for nothing."""
        if not self._reaped:
            by_pidfd = self._pidfd is not None and system.waitid is not None
            try:
                self._reaped = self._reap_by_pidfd() if by_pidfd else self._reap_by_pid()
            except ChildProcessError:  # another waiter reaped it, or SIGCHLD is ignored
                self._reaped = self._gone()
        return self._reaped

    def can_answer(self) -> bool:
        """Whether it has not ended, and no signal has stopped it, as far as the kernel tells.

        It tells once that a process was stopped, and only by a pidfd.
        """
        if self._reaped or self._pidfd is None or system.waitid is None:
            return not self.has_ended()
        try:
            return not self._reap_by_pidfd(os.WSTOPPED)
        except ChildProcessError:
            return not self.has_ended()

    def _wait_for_exit(self, deadline: Deadline) -> bool:
        if self._pidfd is not None:
            return bool(waits.poll_fd(self._pidfd, POLLIN, deadline.left()))
        # Without a pidfd (not on Linux) no wait for a process's end takes a time-out. But its end
        # of the pipe closes just before.
        waits.poll_fd(self.launched.events_fd, 0, deadline.sooner(0.01).left())
        return not deadline.passed()

    def _reap_by_pidfd(self, also: int = 0) -> bool:
        """By the pidfd: unlike the pid, it cannot mean another child by now.

        Returns ``True`` too if what it ``also`` waits for has come.
        """
        assert system.waitid is not None
        pidfd = self._pidfd
        if pidfd is None:  # a signal handler has come into this call, and has ended the process
            return True
        try:
            change = system.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | also)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            return True  # the same, a moment later
        if change is None:
            return False
        if change.si_code in _ENDS:
            by_itself = change.si_code == os.CLD_EXITED
            self._reaped = True
            self._ended_with(change.si_status if by_itself else -change.si_status)
        return True

    def _reap_by_pid(self) -> bool:
        pid, status = system.waitpid(self.launched.pid, os.WNOHANG)
        if pid == self.launched.pid:
            self._ended_with(os.waitstatus_to_exitcode(status))
            return True
        return self._root is not None and not self._root.is_running()  # another has its pid

    def _ended_with(self, exit_code: int) -> None:
        self._exit_code = self._popen.returncode = exit_code

    def _gone(self) -> bool:
        if self._pidfd is not None:
            return bool(waits.poll_fd(self._pidfd, POLLIN, 0.0))
        return self._root is None or not self._root.is_running()

    @property
    def exit_code(self) -> int | None:
        """The exit status, negative for a signal; ``None`` if it runs or another reaped it."""
        return self._exit_code

    # Signals ---------------------------------------------------------------------------------

    def signal(self, number: int) -> bool:
        """Send a signal to this process, never to another that has got its pid since.

        Returns ``False`` if this process may not, as its user is another by now.
        """
        if self._reaped:
            return True
        try:
            if self._pidfd is not None and _pidfd_send_signal is not None:
                _pidfd_send_signal(self._pidfd, number)
            elif not self._gone():
                system.kill(self.launched.pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:
            return False
        return True

    def terminate(self) -> bool:
        """Ask the process to end, by SIGTERM; returns whether that is allowed."""
        return self.signal(signal.SIGTERM)

    def kill(self) -> bool:
        """Kill the process and its group, by SIGKILL; returns whether that is allowed.

        Where it is not, close its pipe, so that it ends itself within seconds.
        """
        if not self._gone():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                system.killpg(self.launched.pid, signal.SIGKILL)
        if self.signal(signal.SIGKILL):
            return True
        self.close_commands()
        self.signal(signal.SIGCONT)  # allowed to all in one session
        return False

    def end_now(self) -> None:
        """Kill the process, and reap it, which takes a moment: nobody else would."""
        self.kill()
        self.wait(Deadline(_KILLED_SECONDS))

    def snapshot(self, deadline: Deadline) -> None:
        """Note the descendants, before a signal; see ``ProcessTree.note``."""
        if not self._gone():
            self._tree.note(deadline)

    def sweep(self) -> list[int]:
        """Kill the noted descendants that still run; returns their pids."""
        return self._tree.sweep()

    # Reports -----------------------------------------------------------------------------------

    def stderr_size(self) -> int:
        """Number of bytes written to stdout and stderr so far; 0 once closed."""
        held = self.launched.stderr_fd in self.launched.held
        # The process may share its position, but that is at the end: nobody reads by it.
        return system.lseek(self.launched.stderr_fd, 0, os.SEEK_END) if held else 0

    def stderr_tail(self, since: int = 0) -> str:
        """The end of what was written there after the first ``since`` bytes, at most 8 KiB."""
        assert system.pread is not None
        end = self.stderr_size()
        start = max(since, end - TAIL)
        if start >= end:
            return ""
        tail = system.pread(self.launched.stderr_fd, end - start, start)
        return tail.decode("utf-8", "replace").strip()

    def usage(self) -> dict[str, Any]:
        """Memory (bytes), CPU time (seconds) and counts; raises psutil.Error if it has ended.

        Raises StateError where /proc does not have it.
        """
        with importing_once():
            import psutil

        if not self._gone() and not is_in_proc(self.launched.pid, self._pidfd):
            raise StateError(
                f"nothing is known of process {self.launched.pid}: /proc is missing, or is that of "
                "another PID namespace; mount it for this one (unshare --mount-proc)"
            )
        process = psutil.Process(self.launched.pid)
        with process.oneshot():
            times = process.cpu_times()
            entries = process.net_connections("all")
            return {
                "rss": process.memory_info().rss,
                "cpu_seconds": times.user + times.system,
                "fds": process.num_fds(),
                "threads": process.num_threads(),
                "connections": sum(
                    entry.status == psutil.CONN_ESTABLISHED
                    or (entry.status == psutil.CONN_NONE and bool(entry.raddr))
                    for entry in entries
                ),
            }

    # Descriptors -------------------------------------------------------------------------------

    def descriptors(self) -> frozenset[int]:
        """The descriptors that this process holds for the child."""
        gate = self.gate
        kept = () if gate is None else gate.descriptors()
        return frozenset({*self.launched.held, *self._pidfds, *kept})

    def close_commands(self) -> None:
        """Close the pipe to the child, which ends when it sees that."""
        self.launched.close_one(self.launched.commands_fd)

    def close(self) -> None:
        """Close every descriptor; may be called again, and in a forked copy.

        A process that has not ended by now is waited for later: each new one has it looked at.
        """
        self.launched.close()
        gate, self.gate = self.gate, None
        if gate is not None:
            gate.close()
        if self._owns and self.owner == system.getpid() and not self.has_ended():
            _unreaped.append(self)
        else:
            self._close_pidfd()

    def _close_pidfd(self) -> None:
        self._pidfd = None
        pidfds, self._pidfds = self._pidfds, ()
        for fd in pidfds:
            system.close_quietly(fd)

    @staticmethod
    def end_all(processes: Iterable[ServerProcess], seconds: float) -> None:
        """End idle children: close their pipes, wait up to ``seconds``, kill, reap, close.

        One that is stopped by a signal would not see the end of its pipe, and is killed at once.
        """
        ending = list(processes)
        for process in ending:
            process.close_commands()
            if not process.can_answer():
                process.kill()
        deadline = Deadline(seconds)
        for process in ending:
            if not process.wait(deadline):
                process.end_now()
            process.close()


# Killed in vain, by a user who may not, or not gone at once.
_unreaped: list[ServerProcess] = []


def _reap() -> None:
    """Reap those that have ended since they were closed."""
    for process in _unreaped.copy():
        if process.owner != system.getpid() or process.has_ended():
            _unreaped.remove(process)
            process._close_pidfd()


def _open_pidfd(pid: int, opened: list[int]) -> int | None:
    if system.pidfd_open is None:
        return None
    try:
        return system.note(opened, system.pidfd_open, pid, 0)
    except OSError as error:
        if error.errno is None:  # a signal handler has raised it
            raise
        return None


def _psutil_process(pid: int) -> psutil.Process | None:
    try:
        with importing_once():
            import psutil

        return psutil.Process(pid)
    except Exception:  # noqa: BLE001 - psutil's errors, and what a patched open() makes of it
        return None
