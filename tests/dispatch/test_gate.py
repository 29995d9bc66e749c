"""Where idle handler threads wait."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from kit.clients import connect
from kit.resources import own_threads
from kit.runs import run_of
from kit.scripts import eventually
from kit.stages import WAIT
from kit.web import fetch
from sidestage import HTTPServer, ServerDied
from sidestage.dispatch.gate import EpollGate, LockGate
from sidestage.process.pool import pool


@pytest.mark.parametrize("kind", [EpollGate, LockGate])
def test_waking_without_a_waiter_never_blocks(kind: type[Any]) -> None:
    reader, writer = os.pipe()
    gate = kind(reader)
    for _ in range(70_000):  # more than a pipe takes
        gate.wake()
    gate.wait()
    gate.close()
    os.close(reader)
    os.close(writer)


@pytest.fixture
def one_process() -> None:
    """So that a server's process is the one that the next gets."""
    pool.close()


def process_of(server: HTTPServer) -> Any:
    """The process that serves it, and will be idle after it."""
    process: Any = run_of(server).child.process
    return process


@pytest.mark.usefixtures("one_process")
def test_the_servers_of_a_process_wait_at_one_gate_in_turn() -> None:
    with HTTPServer(fresh=True) as first:
        process = process_of(first)
    assert process.gate is None  # nobody has had to wait
    gates = set()
    for number in range(3):
        with HTTPServer(handler=lambda request, number=number: str(number)) as server:
            assert process_of(server) is process
            assert process.gate is None  # it is in use
            assert fetch(server.url) == str(number).encode()
            assert fetch(server.url) == str(number).encode()
        gates.add(process.gate)
        assert set(process.gate.descriptors()) <= process.descriptors()
    assert len(gates) == 1
    with HTTPServer() as server:
        assert process_of(server) is process
        assert fetch(server.url) == b""
        assert {process.gate} == gates
        server.handler = lambda request: "set"
        assert fetch(server.url) == b"set"


@pytest.mark.usefixtures("one_process")
@pytest.mark.filterwarnings("ignore::sidestage.LeftRunningWarning")
def test_a_handler_that_runs_on_does_not_disturb_who_waits_there_next() -> None:
    entered, release = threading.Event(), threading.Event()

    def block(request: Any) -> None:
        entered.set()
        release.wait(WAIT)

    server = HTTPServer(fresh=True, handler=block).start()
    process = process_of(server)
    client = connect(server.port)
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert entered.wait(WAIT)
    client.close()
    server.stop()
    with HTTPServer(handler=lambda request: "next") as server:
        assert process_of(server) is process
        assert fetch(server.url) == b"next"
        before = own_threads()
        release.set()
        assert eventually(lambda: len(own_threads()) == len(before) - 1)
        assert fetch(server.url) == b"next"


@pytest.mark.usefixtures("one_process")
def test_the_gate_of_a_process_that_has_died_is_closed() -> None:
    with HTTPServer(fresh=True, handler=lambda request: "here") as server:
        process = process_of(server)
        assert fetch(server.url) == b"here"
    server = HTTPServer().start()
    assert process_of(server) is process
    assert process.gate is not None
    process.kill()
    with pytest.raises(ServerDied):
        server.stop()
    assert process.gate is None
    assert process.descriptors() == frozenset()
