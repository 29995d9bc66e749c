"""The test's process with a server's process that sends anything: an error, soon, and nothing left.

In place of a server's process, ``cat`` copies a file to the pipe for events, and ends or waits.
"""

from __future__ import annotations

import os
import random
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fuzz import pipe_messages
from fuzz.cases import Case, Fault, Target
from kit.messages import VOCABULARIES
from kit.resources import own_descriptors, own_threads
from kit.scripts import eventually
from sidestage import (
    HTTPServer,
    SidestageError,
    SMTPServer,
    TCPServer,
    UDPServer,
)
from sidestage.process import launch
from sidestage.process.fork_client import ForkClient
from sidestage.process.pool import pool
from sidestage.wire import messages
from sidestage.wire.frames import encode
from sidestage.wire.messages import WIRE_VERSION, Hello, Ready, Stopped

_SERVERS: dict[str, type[Any]] = {
    "http": HTTPServer,
    "smtp": SMTPServer,
    "tcp": TCPServer,
    "udp": UDPServer,
}
_EVENTS = tuple(kind for kind in messages.EVENTS if kind not in (Hello, Ready, Stopped))
_START, _STOP = 0.5, 0.3  # seconds


class HostileChild(Target):
    """Every call of the test's process ends, with an error of ours if with one."""

    name = "events"
    what = "events of a server's process that has gone mad"
    batch = 50
    shrinks = 0

    def __init__(self) -> None:
        super().__init__()
        self._real: Any = None
        self._before: tuple[set[str], set[str]] = (set(), set())
        self._ends = True
        self._file = Path()

    def make(self, dice: random.Random) -> Case:
        protocol = dice.choice(tuple(_SERVERS))
        kinds = (*_EVENTS, *VOCABULARIES[protocol].events * 3)
        hello = encode(
            Hello(pid=1, version=WIRE_VERSION, pipe=1 << 16),
            Ready(addresses=[("127.0.0.1", 9)]),
        )
        parts = pipe_messages.frames(dice, kinds)
        if dice.random() < 0.5:
            parts = pipe_messages.hostile(dice, parts)
        if dice.random() < 0.1:
            parts = pipe_messages.hostile(dice, (bytes(hello), *parts))
        else:
            parts = (bytes(hello), *parts)
        return Case(parts, dice.getrandbits(32), protocol)

    def begin(self) -> None:
        pool.close()
        self._real = launch._spawn, ForkClient.fork
        self._directory = tempfile.TemporaryDirectory(prefix="fuzz-")
        self._file = Path(self._directory.name, "events")
        launch._spawn = self._spawn  # type: ignore[assignment]  # other names of arguments
        ForkClient.fork = _none  # type: ignore[method-assign]

    def end(self) -> None:
        launch._spawn, ForkClient.fork = self._real  # type: ignore[method-assign]
        self._directory.cleanup()

    def _spawn(
        self,
        module: str,
        arguments: Iterable[int],
        commands: int,
        events: int,
        stderr: int,
        pids: list[int],
    ) -> None:
        wait = "" if self._ends else "; exec cat <&3 >/dev/null"
        pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", f"cat{wait}"],
            {},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, str(self._file), os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, stderr, 2),
                (os.POSIX_SPAWN_DUP2, events, 1),
                (os.POSIX_SPAWN_DUP2, commands, 3),
                (os.POSIX_SPAWN_DUP2, 1, 4),
            ],
            setpgroup=0,
        )
        pids.append(pid)

    def check(self, case: Case) -> None:
        dice = case.dice()
        self._ends = dice.random() < 0.95
        self._file.write_bytes(case.data)
        kind = _SERVERS[case.expected]
        handler = (lambda record: None) if dice.random() < 0.5 else None
        server = kind(handler=handler, start_timeout=_START, fresh=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the forced stop
            try:
                server.start()
                if self._ends:  # one that does not answer is waited for, each time
                    _look(server)
            except SidestageError as error:
                self.seen[type(error).__name__] += 1
            try:
                server.stop(_STOP)
            except SidestageError as error:
                self.seen[type(error).__name__] += 1
            except BaseExceptionGroup as group:
                if others := group.split(SidestageError)[1]:
                    raise others from None
        _look(server)
        if server.stop_report.seconds > _STOP + 1.0:
            raise Fault(f"a stop took {server.stop_report.seconds} s")

    def begin_batch(self) -> None:
        self._before = own_descriptors(), own_threads()

    def end_batch(self) -> None:
        descriptors, threads = self._before
        pool.close()  # one that says that it could not bind goes back to the pool
        if not eventually(lambda: len(own_descriptors()) <= len(descriptors)):
            raise Fault(f"descriptors are left: {own_descriptors() - descriptors}")
        if not eventually(lambda: len(own_threads()) <= len(threads)):
            raise Fault(f"threads are left: {own_threads() - threads}")


def _none(*arguments: Any, **options: Any) -> None:
    """No process is forked from a running one."""


def _look(server: Any) -> None:
    """Look at all that a test looks at."""
    assert repr(server)
    for record in server.received:
        assert repr(record)
    assert all(str(diagnostic) for diagnostic in server.diagnostics)
    assert server.errors is not None
