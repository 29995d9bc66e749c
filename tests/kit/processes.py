"""Processes that are there to die, and what is left of them.

A victim plays a part: a function of a test module, which is itself the script that runs it. The
module ends with ``main(rows, globals())``.
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
from kit.servers import SUBJECTS, Clock, Subject

E = TypeVar("E", bound=BaseException)
Play = Callable[[Subject], None]
Act = Callable[[], object]

FORKS = ("-W", "ignore::DeprecationWarning")  # 3.12 warns if a peer's thread is there at a fork

_MARK = "SIDESTAGE_TEST_VICTIM"
_BUSY = 3.0  # seconds that a busy machine may add to anything
_SOON = 1.0 + _BUSY  # in which all must be gone

# Leads a session at a terminal, with the victim as its job in the foreground, as shells do.
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


def main(rows: Rows, plays: dict[str, Any]) -> None:
    """Run a row, or play a part: ``victim``, its name, the server."""
    if sys.argv[1] == "victim":
        for number in (signal.SIGHUP, signal.SIGQUIT):  # what runs in the background ignores them
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        plays[sys.argv[2]](SUBJECTS[sys.argv[3]]())
    else:
        rows.main()


class Victim:
    """A process that plays a part, with a mark in its environment, as in that of all it starts.

    What it says on stderr goes to a file in the working directory, which is the row's own.
    """

    def __init__(self, subject: Subject, play: Play) -> None:
        self._mark = uuid.uuid4().hex
        part = [sys.executable, play.__code__.co_filename, "victim", play.__name__, subject.name]
        with Path("stderr").open("ab") as stderr:
            self.process = self._launch(part, stderr, {**os.environ, _MARK: self._mark})

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

    def hear(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, Path("stderr").read_text() or "it ended without a word"
        return line.strip()

    def port(self) -> int:
        """The port that it says it serves on."""
        return int(self.hear())

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.process.kill()
        self.process.wait()

    def status(self) -> int:
        """How it ends, which it does by itself."""
        return self.process.wait()

    def assert_gone(self, *ports: int, beside: Iterable[int] = ()) -> None:
        """Nothing of it is left soon after, no process and no port, ``beside`` these."""
        spared = set(beside)
        eventually(lambda: marked(self._mark) <= spared and all(map(free, ports)), _SOON)
        assert marked(self._mark) <= spared, "leaves a process behind"
        assert all(map(free, ports)), "leaves a port bound"


class Terminal(Victim):
    """A victim that is the foreground job of a shell at a terminal."""

    def __init__(self, subject: Subject, play: Play) -> None:
        super().__init__(subject, play)
        self.job = psutil.Process(int(self.hear()))

    def _launch(
        self, command: list[str], stderr: IO[bytes], environment: dict[str, str]
    ) -> subprocess.Popen[str]:
        self.keys, terminal = pty.openpty()
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
        """Type a key."""
        os.write(self.keys, key)

    def hang_up(self) -> None:
        """Close the terminal."""
        os.close(self.keys)


def marked(mark: str) -> set[int]:
    """The live processes with ``mark`` in their environment."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
    return found


def free(port: int) -> bool:
    """Whether nobody listens on a port."""
    with socket.socket() as client:
        client.settimeout(1)  # where nobody accepts, the queue fills up
        return client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def own_descriptors() -> set[str]:
    """The numbers of this process's descriptors."""
    return {fd.name for fd in Path("/proc/self/fd").iterdir()}


def say(*what: object) -> None:
    """Tell whom the victim belongs to."""
    sys.stdout.write(" ".join(map(str, what)) + "\n")
    sys.stdout.flush()


def forever() -> None:
    """Wait for the end, and notice a signal that comes just before CPython waits for a lock."""
    while True:
        threading.Event().wait(0.1)


# At any moment -----------------------------------------------------------------------------------


class Strike:
    """Counts what this thread calls, and strikes a blow at one of the calls."""

    def __init__(self, blow: Act, at: int = 0) -> None:
        self.calls = 0
        self._at = at
        self._blow = blow

    def __enter__(self) -> None:
        sys.setprofile(self._note)

    def __exit__(self, *exception: object) -> None:
        sys.setprofile(None)
        if self.calls < self._at:  # there were fewer than when they were counted
            self._blow()

    def _note(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_return"):  # where the interpreter looks for signals, too
            self.calls += 1
            if self.calls == self._at:
                self._blow()


class Copies:
    """Forked copies of a test process, each struck by a blow at another moment of what it does.

    It forks because so many processes that import everything would take their time.
    """

    def __init__(self, blow: Act, moments: int = 8) -> None:
        self._blow = blow
        self._moments = moments
        self._mark = uuid.uuid4().hex

    def run(self, prepare: Act, act: Callable[[Strike], object]) -> set[int]:
        """How the copies ended; ``act`` is to enter the strike that it gets."""
        reader, writer = os.pipe()

        def count() -> None:
            counter = Strike(int)
            act(counter)
            os.write(writer, str(counter.calls).encode())

        assert _status(self._copy(prepare, count)) == 0
        calls = int(os.read(reader, 100))
        moments = [calls * (2 * n + 1) // (2 * self._moments) for n in range(self._moments)]
        copies = [
            self._copy(prepare, partial(act, Strike(self._blow, max(1, moment))))
            for moment in moments
        ]
        return {_status(copy) for copy in copies}

    def _copy(self, prepare: Act, act: Act) -> int:
        pid = os.fork()
        if pid == 0:
            os.environ[_MARK] = self._mark  # of what it starts
            os.dup2(os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
            prepare()
            act()
            sys.exit(0)
        return pid

    def assert_gone(self) -> None:
        """Nothing is left soon after."""
        assert eventually(lambda: not marked(self._mark), _SOON), "leaves a process behind"


def _status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_myself() -> None:
    """SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt_myself() -> None:
    """Ctrl-C, as the interpreter delivers it."""
    signal.raise_signal(signal.SIGINT)


# The server's process ----------------------------------------------------------------------------


def replaced(source: str) -> None:
    """Have every server's process from now on be one in which ``source`` has replaced things."""
    from kit.fake_children import host_boot
    from sidestage.process import launch

    launch._BOOT = host_boot(source)


def hit(server: Any, number: int = signal.SIGKILL) -> int:
    """Send a signal to a server's process; returns its pid."""
    pid: int = server.pid
    os.kill(pid, number)
    return pid


def dropped(client: socket.socket) -> bool:
    """Whether the connection ends, in whatever way."""
    client.settimeout(10)
    with contextlib.suppress(ConnectionResetError):
        while client.recv(65536):
            pass
    return True


# Calls -------------------------------------------------------------------------------------------


def raised(kind: type[E], call: Callable[..., object], *arguments: object) -> E:
    """What the call raises."""
    try:
        call(*arguments)
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


@contextlib.contextmanager
def in_time(seconds: float) -> Iterator[None]:
    """The block ends within ``seconds``, and what a busy machine may add."""
    began = Clock.monotonic()
    yield
    assert Clock.monotonic() - began < seconds + _BUSY, "takes too long"
