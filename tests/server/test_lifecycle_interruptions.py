"""A start or a stop that is interrupted anywhere: the next stop ends what is left of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import pytest

from kit.fake_backend import CALLS, Call, FakeBackend, FakeHost, FakeServer, raising
from kit.interruptions import Interruption, LineTracer
from sidestage import ServerDied, StartError, State, StateError
from sidestage.server import lifecycle

Work = Callable[[FakeHost, FakeServer], object]


class Case(NamedTuple):
    """What runs undisturbed, and then what is interrupted."""

    work: Work
    prepare: Work = lambda host, server: None


def start(host: FakeHost, server: FakeServer) -> None:
    server.start()


def start_and_die(host: FakeHost, server: FakeServer) -> None:
    server.start()
    host.last.die()


def stop(host: FakeHost, server: FakeServer) -> None:
    with contextlib.suppress(ServerDied):
        server.stop()


def fail_to(call: Call, work: Work) -> Work:
    """``work`` with a backend whose ``call`` takes effect and then fails."""

    def failing(host: FakeHost, server: FakeServer) -> None:
        host.after[call] = raising(StartError(None, "expected"))
        with pytest.raises(StartError, match="expected"):
            work(host, server)

    return failing


CASES = {
    "start": Case(start),
    "start again": Case(start, lambda host, server: server.start().stop()),
    "start after a death": Case(start, start_and_die),
    "start that fails to begin": Case(fail_to("begin", start)),
    "start that fails to finish": Case(fail_to("finish", start)),
    "cancel a start": Case(
        lambda host, server: server.cancel_start(), lambda host, server: server.begin_start()
    ),
    "cancel a server that runs": Case(lambda host, server: server.cancel_start(), start),
    "stop": Case(stop, start),
    "stop between the halves of a start": Case(stop, lambda host, server: server.begin_start()),
    "stop between the halves of a stop": Case(
        stop, lambda host, server: server.start().begin_stop(1.0)
    ),
    "stop after a death": Case(stop, start_and_die),
    "stop that fails to ask": Case(fail_to("ask", stop), start),
    "stop that fails to end": Case(fail_to("end", stop), start),
}


def assert_in_order_after_a_stop(host: FakeHost, server: FakeServer) -> None:
    """A stop by the thread that was interrupted, and another start, put everything in order."""
    host.before.clear()
    host.after.clear()
    with contextlib.suppress(ServerDied):
        server.stop(timeout=0)
    assert_nothing_runs(host, server)
    assert server.start().ready.is_set()
    assert server.state is State.READY
    assert host.running() == [host.last]
    server.stop()
    assert server.state is State.STOPPED
    assert_nothing_runs(host, server)


def assert_nothing_runs(host: FakeHost, server: FakeServer) -> None:
    assert server.state in (State.NEW, State.STOPPED, State.FAILED)
    assert not server.ready.is_set()
    assert host.running() == []
    assert host.misuse == []


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_interruption_at_any_line(case: Case) -> None:
    at = 0
    while True:
        host = FakeHost()
        server = FakeServer(host)
        case.prepare(host, server)
        tracer = LineTracer(lifecycle, at)
        tracer.run(lambda host=host, server=server: case.work(host, server))
        try:
            assert_in_order_after_a_stop(host, server)
        except BaseException as error:
            server._lifecycle.drop()
            error.add_note(f"interrupted at line {at} of those that ran: {tracer.where}")
            raise
        if tracer.ended:
            break
        at += 1
    assert at > 5


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", CALLS)
def test_an_interruption_in_a_call_of_the_backend(call: Call, moment: str) -> None:
    host = FakeHost()
    server = FakeServer(host)
    if call == "abandon":
        host.after["finish"] = raising(StartError(None, "expected"))
    actions = host.before if moment == "before" else host.after
    actions[call] = raising(Interruption())
    with pytest.raises(Interruption):
        server.start().stop()
    if call != "abandon":  # an interrupted clean-up is finished by the next stop
        assert_nothing_runs(host, server)
    assert_in_order_after_a_stop(host, server)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", ["begin", "finish", "ask", "end"])
def test_a_signal_handler_may_stop_the_server(call: Call, moment: str) -> None:
    """It runs in the middle of the start or stop, and returns."""
    host = FakeHost()
    server = FakeServer(host)
    actions = host.before if moment == "before" else host.after

    def handle_signal(backend: FakeBackend) -> None:
        actions.clear()
        server.stop()

    actions[call] = handle_signal
    with contextlib.suppress(StateError, AssertionError):  # of the call that was interrupted
        server.start().stop()
    host.misuse.clear()
    assert_nothing_runs(host, server)
    assert_in_order_after_a_stop(host, server)
