"""Asks a fork server for processes, so that a start takes milliseconds.

The fork server is a process that has imported what servers need and serves nothing itself. What it
forks becomes a child of this process. Where that is impossible (not on Linux, in a sandbox), or
when the fork server has ended, ``fork`` returns ``None``, and the caller starts an interpreter.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable

from ..errors import StartError
from ..pristine import system, waits
from ..pristine.system import POLLIN
from ..pristine.waits import Deadline
from .handle import ServerProcess
from .launch import Launched, connect, end_by_pid, launch, new_pid_namespace
from .surroundings import Surroundings

_ANSWER_SECONDS = 3.0  # for the fork server to boot and to fork; 0.1 is usual
_END_SECONDS = 2.0  # for the fork server to end by itself
_NEVER = Deadline(None)
_NOTHING = "-"  # in a request, for a process that will serve none of Sidestage's own
_LONGEST_PATH = 1000  # bytes: a request has to be written in one piece

# Returns the directory that this process leaves if it is killed; empty for none. Whoever makes one
# sets it, and the fork server is told with the next request.
bequest: Callable[[], str] = str


class _Refusal(Exception):
    """The fork server gave no process; ``lasting`` if another fork server would not either."""

    def __init__(self, *, lasting: bool) -> None:
        super().__init__()
        self.lasting = lasting


def _encoded_bequest() -> str:
    path = os.fsencode(bequest())
    return path.hex() if len(path) <= _LONGEST_PATH else ""


def _end_group(group: int) -> None:
    """Kill and reap what a fork server has forked and not told: it is in its group yet.

    As long as a child is in the group, its number means no other; the fork server was just asked.
    """
    with contextlib.suppress(ChildProcessError):  # there is none, or no more
        while True:
            if not system.waitpid(-group, os.WNOHANG)[0]:
                system.killpg(group, system.signals.SIGKILL)
                system.waitpid(-group, 0)


class ForkClient:
    """The parent's end of the fork server, which it launches at the first ``fork``.

    ``surroundings`` is what the fork server has, and hands down.
    """

    def __init__(self, *, answer_seconds: float = _ANSWER_SECONDS) -> None:
        self._answer_seconds = answer_seconds
        self.process: ServerProcess | None = None
        self.surroundings: Surroundings | None = None
        self._impossible = not sys.platform.startswith("linux")
        self._said = b""
        self._asking = False
        self._owed = False  # it was asked and has not answered

    def fork(self, serves: str | None = None, deadline: Deadline = _NEVER) -> Launched | None:
        """A new process, or ``None`` if none can be forked; raises StartError.

        The fork server imports what ``serves`` names first, a protocol and its layers, once for
        all that it forks. It may take half of the time until ``deadline``: what is left is for an
        interpreter instead.
        """
        if self._impossible or self._asking:  # a signal handler has come into this call
            return None
        self._asking = True
        left = deadline.left()
        seconds = self._answer_seconds if left < 0 else min(self._answer_seconds, left / 2)
        try:
            if self.process is None:
                self._boot()
            elif not self.process.can_answer():  # killed, or stopped by a signal
                raise _Refusal(lasting=False)
            return connect(functools.partial(self._note, serves or _NOTHING, seconds))
        except _Refusal as refusal:
            self._impossible = refusal.lasting
            self.kill()
            return None
        except BaseException:  # such as Ctrl-C: a process that nobody takes may come yet
            self.kill()
            raise
        finally:
            self._asking = False

    def _boot(self) -> None:
        if new_pid_namespace():  # it would answer with a pid that is another process's here
            raise _Refusal(lasting=True)
        try:
            launched = launch("fork_server")
        except StartError:  # perhaps too few descriptors: they may suffice for a server
            raise _Refusal(lasting=False) from None
        try:
            self.process = ServerProcess(launched)
        except BaseException:
            launched.abandon()
            raise

    def _note(
        self,
        serves: str,
        seconds: float,
        commands_fd: int,
        events_fd: int,
        stderr_fd: int,
        pids: list[int],
    ) -> None:
        pids.append(self._ask(serves, commands_fd, events_fd, stderr_fd, seconds=seconds))
        self._said, self._owed = b"", False
        assert system.setpgid is not None
        try:
            # Until here it is in the group of the fork server, by which an orphan is found.
            system.setpgid(pids[0], 0)
        except ProcessLookupError:  # it has ended, and another waiter has reaped it
            pass
        except PermissionError:  # this process is in another session by now
            raise _Refusal(lasting=False) from None

    def _ask(
        self,
        serves: str,
        commands_fd: int,
        events_fd: int,
        stderr_fd: int,
        *,
        seconds: float = _ANSWER_SECONDS,
    ) -> int:
        assert self.process is not None
        request = f"{serves} {commands_fd} {events_fd} {stderr_fd} {_encoded_bequest()}\n".encode()
        self._owed = True
        try:
            system.write_pipe(self.process.launched.commands_fd, request, [])
        except OSError as error:
            if error.errno is None:  # a signal handler has raised it
                raise
            raise _Refusal(lasting=False) from None
        deadline = Deadline(seconds)
        while not self._said.endswith(b"\n"):
            if not self._hear(deadline):
                raise _Refusal(lasting=deadline.passed() and seconds >= self._answer_seconds)
        pid = int(self._said)
        if not pid:
            raise _Refusal(lasting=True)
        return pid

    def _hear(self, deadline: Deadline) -> bool:
        """Read a part of its answer; returns ``False`` at the deadline or if it has ended."""
        assert self.process is not None
        fd = self.process.launched.events_fd
        if not waits.poll_fd(fd, POLLIN, deadline.left()):
            return False
        said = system.read(fd, 64)
        self._said += said
        return bool(said)

    def kill(self) -> None:
        """Kill the fork server, and a process that it has forked and nobody has taken."""
        process = self.process
        if process is None:
            return
        try:
            process.end_now()
            while self._hear(Deadline(0.0)):
                pass
        finally:  # a signal handler may raise once more, and then nothing may be taken up again
            self.process, forgotten, self._said = None, self._said, b""
            owed, self._owed = self._owed, False
            process.close()
            if forgotten.endswith(b"\n") and (pid := int(forgotten)):
                end_by_pid(pid)
            elif owed:
                _end_group(process.launched.pid)

    def close(self) -> None:
        """End the fork server; waits two seconds at most, then kills it."""
        process, self.process = self.process, None
        if process is not None:
            ServerProcess.end_all([process], _END_SECONDS)

    def forget(self) -> None:
        """In a forked copy of this process: close the descriptors, leave the fork server alone."""
        self._asking = False
        process, self.process = self.process, None
        if process is not None:
            process.close()
