"""Another thread starts or stops a server at any moment of its start or stop."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import pytest

from kit.fake_backend import FakeHost, FakeServer
from kit.interruptions import LineTracer
from kit.scripts import eventually
from sidestage import ServerDied, State, StateError
from sidestage.server import lifecycle

Work = Callable[[FakeServer], object]


def start(server: FakeServer) -> None:
    server.start()


def stop(server: FakeServer) -> None:
    server.stop()


def restart(server: FakeServer) -> None:
    server.restart()


def look(server: FakeServer) -> None:
    assert repr(server).startswith("<FakeServer ")


class Meanwhile:
    """A thread that does ``work`` until it has done it or waits for the thread that began it."""

    def __init__(self, server: FakeServer, work: Work) -> None:
        self._server = server
        self._work = work
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with contextlib.suppress(StateError, ServerDied):  # refused, or it is what had died
            self._work(self._server)

    def begin(self) -> None:
        self._thread.start()
        assert eventually(self._has_come_as_far_as_it_can)

    def _has_come_as_far_as_it_can(self) -> bool:
        inside = self._server._lifecycle
        waits = bool(inside._moved._waiters) or inside._guard._is_owned()
        return waits or not self._thread.is_alive()

    def end(self) -> None:
        if self._thread.ident is not None:
            self._thread.join(5)
            assert not self._thread.is_alive(), "it waits for ever"


def assert_consistent(host: FakeHost, server: FakeServer) -> None:
    assert server.state not in (State.STARTING, State.STOPPING)
    assert server.ready.is_set() is (server.state is State.READY)
    alive = [backend for backend in host.running() if backend.death is None]
    assert len(alive) == (server.state is State.READY)
    assert host.misuse == []


@pytest.mark.parametrize("other", [start, stop, restart])
@pytest.mark.parametrize("work", [start, stop, restart, look])
@pytest.mark.parametrize("begun", ["stopped", "running", "dead"])
def test_another_thread_comes_at_any_line(begun: str, work: Work, other: Work) -> None:
    at = 0
    while True:
        host = FakeHost()
        server = FakeServer(host)
        if begun != "stopped":
            server.start()
        if begun == "dead":
            host.last.die()
        meanwhile = Meanwhile(server, other)
        tracer = LineTracer(lifecycle, at, meanwhile.begin)
        try:
            with contextlib.suppress(StateError, ServerDied):
                tracer.run(lambda server=server: work(server))
            meanwhile.end()
            assert_consistent(host, server)
        except BaseException as error:
            server._lifecycle.drop()
            error.add_note(f"the other came before line {at} of those that ran: {tracer.where}")
            raise
        with contextlib.suppress(ServerDied):
            server.stop()
        assert host.running() == []
        if tracer.ended:
            break
        at += 1
