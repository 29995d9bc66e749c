"""Test processes that are killed, interrupted or end early, and checks of what they leave.

A row starts a ``TestProcess`` that runs one function of the row's module, its body. The module is
the script of both, and ends with ``main(rows, globals())``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO, Any, TypeVar

import psutil

from kit.matrix import Rows
from kit.scripts import eventually
from kit.servers import SERVERS, Clock, ServerUnderTest, fetch

E = TypeVar("E", bound=BaseException)
Body = Callable[[ServerUnderTest], None]
Action = Callable[[], object]

FORKS = ("-W", "ignore::DeprecationWarning")  # since 3.12, forks beside a peer's thread warn

_MARK = "SIDESTAGE_TEST_PROCESS"
_BUSY = 3.0  # seconds that a busy machine may add to any limit
_SOON = 1.0 + _BUSY  # the limit for everything to be gone

# Leads a session at a terminal and runs a command as its foreground job, as shells do.
_SHELL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
job = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, setpgroup=0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
os.tcsetpgrp(0, job)
print(job, flush=True)
os._exit(os.waitstatus_to_exitcode(os.waitpid(job, 0)[1]) & 0xFF)
"""


def main(rows: Rows, functions: dict[str, Any]) -> None:
    """Run a row; after ``test-process``, run the named function with the named server."""
    if sys.argv[1] == "test-process":
        for number in (signal.SIGHUP, signal.SIGQUIT):  # ignored in a shell's background jobs
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        functions[sys.argv[2]](SERVERS[sys.argv[3]]())
    else:
        rows.main()


class TestProcess:
    """A process that runs ``body`` with a server like ``sut``.

    A mark in its environment, and so in that of all its descendants, identifies them. Its stderr
    goes to a file in the working directory, which belongs to the row.
    """

    __test__ = False  # pytest collects classes whose names begin with Test

    def __init__(self, sut: ServerUnderTest, body: Body) -> None:
        self._mark = uuid.uuid4().hex
        command = [sys.executable, sys.argv[0], "test-process", body.__name__, sut.name]
        with Path("stderr").open("ab") as stderr:
            self.popen = self._launch(command, stderr, {**os.environ, _MARK: self._mark})

    def _launch(
        self, command: list[str], stderr: IO[bytes], environment: dict[str, str]
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            process_group=0,
        )

    def read_line(self) -> str:
        """The next line that it has reported."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        assert line, Path("stderr").read_text() or "it ended without a report"
        return line.strip()

    def read_port(self) -> int:
        """The port of its server, which it reports first."""
        return int(self.read_line())

    def kill(self) -> None:
        """Send SIGKILL, and wait for the end."""
        self.popen.kill()
        self.popen.wait()

    def wait(self) -> int:
        """Wait until it ends by itself; returns the exit status."""
        return self.popen.wait()

    def assert_gone(self, *ports: int, beside: Iterable[int] = ()) -> None:
        """Soon, no marked process except ``beside`` lives, and nothing listens on ``ports``."""
        expected = set(beside)
        eventually(lambda: marked(self._mark) <= expected and all(map(is_free, ports)), _SOON)
        assert marked(self._mark) <= expected, "leaves a process behind"
        assert all(map(is_free, ports)), "leaves a port bound"


class TerminalProcess(TestProcess):
    """A test process that is the foreground job of a shell at a terminal."""

    def __init__(self, sut: ServerUnderTest, body: Body) -> None:
        super().__init__(sut, body)
        self.job = psutil.Process(int(self.read_line()))

    def _launch(
        self, command: list[str], stderr: IO[bytes], environment: dict[str, str]
    ) -> subprocess.Popen[str]:
        self._controller, terminal = pty.openpty()
        try:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _SHELL, *command],
                env=environment,
                stdin=terminal,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
        finally:
            os.close(terminal)

    def press(self, key: bytes) -> None:
        """Press a key at the terminal."""
        os.write(self._controller, key)

    def hang_up(self) -> None:
        """Close the terminal."""
        os.close(self._controller)


def marked(mark: str) -> set[int]:
    """The live processes with ``mark`` in their environment."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
    return found


def is_free(port: int) -> bool:
    """Whether nothing listens on a port."""
    with socket.socket() as client:
        client.settimeout(1)  # if nothing accepts, the backlog fills up
        return client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def report(*what: object) -> None:
    """Write a line to the process that started this one."""
    sys.stdout.write(" ".join(map(str, what)) + "\n")
    sys.stdout.flush()


def wait_forever() -> None:
    """Wait to be ended, 0.1 s at a time.

    CPython does not notice a signal that comes just before it waits for a lock.
    """
    while True:
        threading.Event().wait(0.1)


def serve(sut: ServerUnderTest) -> None:
    """Start the server, and make sure that it answers."""
    sut.start(str)
    fetch(sut.port)


def serve_until_killed(sut: ServerUnderTest) -> None:
    """The body of a test process that only serves."""
    serve(sut)
    report(sut.port)
    wait_forever()


# At any moment -----------------------------------------------------------------------------------


class CallTrigger:
    """Counts the function calls of this thread, and runs ``fault`` at call number ``at``."""

    def __init__(self, fault: Action, at: int = 0) -> None:
        self.calls = 0
        self._at = at
        self._fault = fault

    def __enter__(self) -> None:
        sys.setprofile(self._note)

    def __exit__(self, *exception: object) -> None:
        sys.setprofile(None)
        if self.calls < self._at:  # this time there were fewer calls
            self._fault()

    def _note(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_return"):  # the interpreter looks for signals there, too
            self.calls += 1
            if self.calls == self._at:
                self._fault()


class ForkedCopies:
    """Forked copies of this process; ``fault`` strikes each at a different moment of an action.

    They are forks because starting new interpreters, with all their imports, would take too long.
    """

    def __init__(self, fault: Action, moments: int = 8) -> None:
        self._fault = fault
        self._moments = moments
        self._mark = uuid.uuid4().hex

    def run(self, prepare: Action, action: Callable[[CallTrigger], object]) -> set[int]:
        """Prepare and act in each copy; returns the exit statuses.

        ``action`` enters the trigger it gets around the calls to be counted.
        """
        reader, writer = os.pipe()

        def count() -> None:
            counter = CallTrigger(int)
            action(counter)
            os.write(writer, str(counter.calls).encode())

        assert _status(self._copy(prepare, count)) == 0
        calls = int(os.read(reader, 100))
        moments = [calls * (2 * n + 1) // (2 * self._moments) for n in range(self._moments)]
        copies = [
            self._copy(prepare, partial(action, CallTrigger(self._fault, max(1, moment))))
            for moment in moments
        ]
        return {_status(copy) for copy in copies}

    def _copy(self, prepare: Action, action: Action) -> int:
        pid = os.fork()
        if pid == 0:
            os.environ[_MARK] = self._mark  # descendants inherit it
            os.dup2(os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
            prepare()
            action()
            sys.exit(0)
        return pid

    def assert_gone(self) -> None:
        """Soon, no process that the copies started is left."""
        assert eventually(lambda: not marked(self._mark), _SOON), "leaves a process behind"


def _status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_own_process() -> None:
    """Send this process SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt_own_process() -> None:
    """Send this process SIGINT, as Ctrl-C does."""
    signal.raise_signal(signal.SIGINT)


# The server's process ----------------------------------------------------------------------------


def patch_host(source: str) -> None:
    """Patch the host of every server's process started from now on with ``source``."""
    from kit.fake_children import patched_boot
    from sidestage.process import launch

    launch._BOOT = patched_boot(source)


def signal_server(server: Any, number: int = signal.SIGKILL) -> int:
    """Send a signal to a server's process; returns its pid."""
    pid: int = server.pid
    os.kill(pid, number)
    return pid


def connection_ends(client: socket.socket) -> bool:
    """Read until the connection ends, by a close or a reset."""
    client.settimeout(10)
    with contextlib.suppress(ConnectionResetError):
        while client.recv(65536):
            pass
    return True


# Calls -------------------------------------------------------------------------------------------


def raised(kind: type[E], call: Callable[..., object], *arguments: object) -> E:
    """The exception that the call raises, which must be of this kind."""
    try:
        call(*arguments)
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Assert that the block ends within ``seconds``, plus what a busy machine may add."""
    began = Clock.monotonic()
    yield
    assert Clock.monotonic() - began < seconds + _BUSY, "takes too long"
