"""What the child's loop hears of, and what the iteration receives from by itself."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator

import pytest

from sidestage.child.channel import Outbox
from sidestage.child.host import _Selector
from sidestage.child.iteration import Iteration


class Stage:
    """A loop, a pipe with commands, and a connection; ``steps`` is what was called, in order."""

    def __init__(self, *, idle: bool) -> None:
        self._idle = idle  # the loop has nothing to do
        self.steps: list[str] = []
        self.selector = _Selector()
        self.loop = asyncio.SelectorEventLoop(self.selector)
        self._nowhere = os.open(os.devnull, os.O_WRONLY)
        self.iteration = Iteration(self.loop, Outbox(self.loop, self._nowhere))
        self.selector.iteration = self.iteration
        self.iteration.read_commands = self._read_commands
        self.commands, self.test = os.pipe()
        self.ours, self.client = socket.socketpair()
        self.loop.add_reader(self.commands, self.iteration.act)
        self.selector.last = self.selector.get_key(self.commands)

    def _read_commands(self) -> None:
        self.loop.stop()
        if self.selector.has_commands:
            self.steps.append(os.read(self.commands, 100).decode())

    def noting(self, step: str) -> Callable[[], None]:
        return lambda: self.steps.append(step)

    def receive(self) -> None:
        self.steps.append(self.ours.recv(100).decode())

    def turn(self) -> None:
        """Run one iteration, which has something to do."""
        if not self._idle:
            self.loop.call_soon(lambda: None)
        self.loop.run_forever()

    def close(self) -> None:
        self.loop.close()
        for sock in (self.ours, self.client):
            sock.close()
        for fd in (self.commands, self.test, self._nowhere):
            os.close(fd)


@pytest.fixture(params=["epoll", "any"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what Linux has, and as on other systems."""
    if request.param == "any":
        monkeypatch.setattr("sidestage.child.host._HAS_EPOLL", False)


@pytest.fixture(params=["idle", "busy"])
def stage(request: pytest.FixtureRequest, system: None) -> Iterator[Stage]:
    stage = Stage(idle=request.param == "idle")
    yield stage
    stage.close()


def test_what_was_received_waits_for_the_commands(stage: Stage) -> None:
    stage.iteration.add_reader(stage.ours.fileno(), stage.receive)
    os.write(stage.test, b"command")
    stage.client.sendall(b"received")
    stage.turn()
    assert stage.steps == ["received", "command"]


def test_the_iteration_receives_without_commands(stage: Stage) -> None:
    stage.iteration.add_reader(stage.ours.fileno(), stage.receive)
    stage.client.sendall(b"received")
    stage.turn()
    assert stage.steps == ["received"]


def test_commands_that_come_alone_are_read(stage: Stage) -> None:
    os.write(stage.test, b"command")
    stage.turn()
    assert stage.steps == ["command"]


def test_nothing_is_received_from_what_was_removed(stage: Stage) -> None:
    stage.iteration.add_reader(stage.ours.fileno(), stage.receive)
    stage.iteration.remove_reader(stage.ours.fileno())
    stage.client.sendall(b"received")
    os.write(stage.test, b"command")
    stage.turn()
    assert stage.steps == ["command"]


def test_what_can_be_read_and_written_is_both(stage: Stage) -> None:
    stage.iteration.add_reader(stage.ours.fileno(), stage.receive)
    stage.loop.add_writer(stage.ours.fileno(), stage.noting("written"))
    stage.client.sendall(b"received")
    stage.turn()
    assert sorted(stage.steps) == ["received", "written"]


def test_the_end_of_a_client_is_received(stage: Stage) -> None:
    stage.iteration.add_reader(stage.ours.fileno(), stage.receive)
    stage.client.close()
    stage.turn()
    assert stage.steps == [""]


def test_the_loop_has_its_own_readers(stage: Stage) -> None:
    stage.loop.add_reader(stage.ours.fileno(), stage.receive)
    os.write(stage.test, b"command")
    stage.client.sendall(b"received")
    stage.turn()
    assert stage.steps == ["received", "command"]


def test_what_the_loop_is_told_to_do_soon_waits_for_nothing(stage: Stage) -> None:
    stage.iteration.add_reader(stage.ours.fileno(), stage.receive)
    stage.iteration.soon(stage.noting("soon"))
    stage.turn()
    assert stage.steps == ["soon"]


def test_what_goes_wrong_ends_nothing(stage: Stage) -> None:
    failures: list[object] = []
    stage.loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
    error = RuntimeError("no")

    def fail() -> None:
        stage.loop.stop()
        raise error

    stage.iteration.read_commands = fail
    os.write(stage.test, b"command")
    stage.turn()
    assert failures == [error]
