"""Has processes forked from one that is up: a start takes milliseconds then, not an interpreter's.

One process of ours is never a server but the original of others, which become children of this
one. Where that cannot be had (elsewhere than on Linux, in a sandbox), or it has ended, ``fork``
says so, and an interpreter starts as ever.
"""

from __future__ import annotations

import contextlib
import signal
import sys

from ..errors import StartError
from ..pristine import system, waits
from ..pristine.system import POLLIN
from ..pristine.waits import Deadline
from .handle import ServerProcess
from .launch import Launched, connect, launch

_ANSWER_SECONDS = 3.0  # for it to boot and to fork, which takes a tenth of one
_END_SECONDS = 2.0  # for it to see that it is not needed


class _Refusal(Exception):
    """No process came of it; ``lasting`` if it is no use to ask another."""

    def __init__(self, *, lasting: bool) -> None:
        super().__init__()
        self.lasting = lasting


class ForkClient:
    """The original, from the first process that is wanted of it to ``close``."""

    def __init__(self) -> None:
        self.process: ServerProcess | None = None
        self._impossible = not sys.platform.startswith("linux")
        self._said = b""

    def fork(self) -> Launched | None:
        """A new process; ``None`` if none can be forked. Raises StartError."""
        if self._impossible:
            return None
        try:
            if self.process is None:
                self._boot()
            return connect(self._ask)
        except _Refusal as refusal:
            self._impossible = refusal.lasting
            self.kill()
            return None
        except BaseException:  # Ctrl-C, say: what it was asked for may come yet
            self.kill()
            raise

    def _boot(self) -> None:
        try:
            launched = launch("fork_server")
        except StartError:  # no descriptors left for it, perhaps: they may do for a server
            raise _Refusal(lasting=False) from None
        try:
            self.process = ServerProcess(launched)
        except BaseException:
            launched.abandon()
            raise

    def _ask(self, commands_fd: int, events_fd: int, stderr_fd: int) -> int:
        assert self.process is not None
        request = b"%d %d %d\n" % (commands_fd, events_fd, stderr_fd)
        try:
            system.write_pipe(self.process.launched.commands_fd, request)
        except OSError:
            raise _Refusal(lasting=False) from None
        deadline = Deadline(_ANSWER_SECONDS)
        while not self._said.endswith(b"\n"):
            if not self._hear(deadline):
                raise _Refusal(lasting=deadline.passed())
        pid, self._said = int(self._said), b""
        if not pid:
            raise _Refusal(lasting=True)
        return pid

    def _hear(self, deadline: Deadline) -> bool:
        """Take in what it says; returns whether it has said anything by the deadline."""
        assert self.process is not None
        fd = self.process.launched.events_fd
        if not waits.poll_fd(fd, POLLIN, deadline.left()):
            return False
        said = system.read(fd, 64)
        self._said += said
        return bool(said)

    def kill(self) -> None:
        """End it now, and what it has forked without anybody having taken it."""
        process = self.process
        if process is None:
            return
        process.kill()
        process.wait(Deadline(_END_SECONDS))
        while self._hear(Deadline(0.0)):
            pass
        forgotten, self._said = self._said, b""
        self.close()
        if forgotten.endswith(b"\n") and (pid := int(forgotten)):
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                system.kill(pid, signal.SIGKILL)
                system.waitpid(pid, 0)

    def close(self) -> None:
        """End it, as nobody will ask it for more."""
        process, self.process = self.process, None
        if process is not None:
            ServerProcess.end_all([process], _END_SECONDS)

    def forget(self) -> None:
        """In a forked copy of this process: it is not ours."""
        process, self.process = self.process, None
        if process is not None:
            process.close()
