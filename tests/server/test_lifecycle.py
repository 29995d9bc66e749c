"""The table of states, starts and stops in two halves, and threads that wait for each other."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kit.fake_backend import FakeBackend, FakeHost, FakeServer, Gate, raising
from kit.forks import run_in_copy
from kit.scripts import eventually
from sidestage import ServerDied, ServerManager, StartError, State, StateError, WaitTimeout
from sidestage.journal.facts import OpenConnection
from sidestage.pristine.waits import Deadline
from sidestage.server.lifecycle import MOVES

STARTABLE = {State.NEW, State.STOPPED, State.FAILED}


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def server(host: FakeHost) -> FakeServer:
    return FakeServer(host)


def in_thread(work: Callable[[], Any]) -> Future[Any]:
    """Run ``work`` in a thread of its own."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def has_waiter(server: FakeServer) -> bool:
    """Whether a thread waits for another one to have started or stopped the server."""
    return bool(server._lifecycle._moved._waiters)


# The table ---------------------------------------------------------------------------------------


class LifecycleMachine(RuleBasedStateMachine):
    """Any sequence of calls of one thread, against a model that knows only the table."""

    def __init__(self) -> None:
        super().__init__()
        self.host = FakeHost()
        self.server = FakeServer(self.host)
        self.model = State.NEW
        self.alive = False  # a backend was begun, has not ended and has not died
        self.dead = False  # it has died, and nobody has stopped it
        self.untold = False  # one that had served has died, and nothing has raised that

    def move(self, to: State) -> None:
        assert to in MOVES[self.model], "the model itself makes an illegal move"
        self.model = to

    def end(self) -> None:
        self.alive = self.dead = False

    @rule(fails=st.booleans())
    def begin_start(self, fails: bool) -> None:
        if self.model not in STARTABLE:
            with pytest.raises(StateError, match=f"started already: it is {self.model.value}"):
                self.server.begin_start()
            return
        self.end()
        self.move(State.STARTING)
        if not fails:
            self.server.begin_start()
            self.alive = True
            return
        self.host.before["begin"] = raising(StartError(None, "no"))
        with pytest.raises(StartError, match="no"):
            self.server.begin_start()
        self.move(State.FAILED)

    @rule(fails=st.booleans())
    def finish_start(self, fails: bool) -> None:
        if self.model is not State.STARTING:
            with pytest.raises(StateError, match="no start to finish"):
                self.server.finish_start()
            return
        if fails:
            self.host.after["finish"] = raising(StartError(None, "no"))
        if fails or self.dead:
            with pytest.raises(StartError):
                self.server.finish_start()
            self.host.after.clear()
            self.move(State.FAILED)
            self.end()
            return
        assert self.server.finish_start() is self.server
        self.move(State.READY)

    @rule()
    def cancel_start(self) -> None:
        self.server.cancel_start()
        if self.model in (State.STARTING, State.READY):
            self.move(State.FAILED)
            self.end()

    @rule()
    def begin_stop(self) -> None:
        begun = self.server.begin_stop(1.0)
        if self.model is State.READY or (self.model is State.FAILED and self.dead):
            assert begun
            self.move(State.STOPPING)
            return
        assert not begun
        self.finish_own_move()

    def finish_own_move(self) -> None:
        """A stop by the thread that has begun a start or a stop, and done no more."""
        if self.model is State.STARTING:
            self.move(State.FAILED)
            self.end()
        elif self.model is State.STOPPING:
            self.move(State.STOPPED)
            self.end()

    @rule()
    def finish_stop(self) -> None:
        if self.model is not State.STOPPING:
            with pytest.raises(StateError, match="no stop to finish"):
                self.server.finish_stop()
            return
        assert self.server.finish_stop().rung == ("died" if self.dead else "ask")
        self.move(State.STOPPED)
        self.end()

    @rule()
    def death(self) -> None:
        if not self.alive:
            return
        self.host.last.die()
        self.alive, self.dead = False, True
        self.untold |= self.model in (State.READY, State.STOPPING)
        if self.model is State.READY:
            self.move(State.FAILED)

    @rule()
    def restart(self) -> None:
        with pytest.raises(ServerDied) if self.untold else contextlib.nullcontext():
            self.server.restart()
        self.untold = False
        self.model, self.alive, self.dead = State.READY, True, False

    @invariant()
    def is_as_the_model_says(self) -> None:
        assert self.server.state is self.model
        assert self.server.ready.is_set() is (self.model is State.READY)

    @invariant()
    def runs_one_backend_and_ends_it_once(self) -> None:
        assert len(self.host.running()) == (self.alive or self.dead)
        assert self.host.misuse == []
        for backend in self.host.made:
            assert backend.calls.count("end") + backend.calls.count("abandon") <= 1

    def teardown(self) -> None:
        self.server._stop_quietly()
        assert self.host.running() == []


TestTable = LifecycleMachine.TestCase


# Messages ----------------------------------------------------------------------------------------


def test_messages_name_the_server_and_its_state(host: FakeHost) -> None:
    server = FakeServer(host, name="api")
    with pytest.raises(
        StateError, match=r"^FakeServer 'api' has no start to finish: call begin_start"
    ):
        server.finish_start()
    with pytest.raises(
        StateError, match=r"^FakeServer 'api' has no stop to finish: call begin_stop"
    ):
        server.finish_stop()
    with server, pytest.raises(StateError) as caught:
        server.start()
    assert str(caught.value) == (
        "FakeServer 'api' is started already: it is READY; `with` starts a server itself: "
        "write `with server:`, not `with server.start():`"
    )


def test_a_stop_that_waits_in_vain_says_so(host: FakeHost, server: FakeServer) -> None:
    gate = host.before["finish"] = Gate()
    start = in_thread(server.start)
    assert gate.entered.wait(5)
    with pytest.raises(StateError) as caught:
        server.stop(timeout=0)
    assert str(caught.value) == "another thread has not finished with FakeServer yet"
    gate.release()
    start.result(5)
    server.stop()


def test_a_start_that_fails_raises_what_the_backend_raises_and_can_be_repeated(
    host: FakeHost, server: FakeServer
) -> None:
    host.before["finish"] = raising(StartError(13, "not allowed", address="here"))
    with pytest.raises(StartError, match="not allowed") as caught:
        server.start()
    assert caught.value.errno == 13
    assert host.running() == []
    with server:
        assert server.server_address == ("127.0.0.1", 4321)


def test_what_the_stop_has_dropped_is_in_the_diagnostics(
    host: FakeHost, server: FakeServer
) -> None:
    host.connections = (OpenConnection(client_address=("127.0.0.1", 9), state="reading"),)
    server.start()
    assert server.stop().connections == host.connections
    assert [str(diagnostic) for diagnostic in server.diagnostics] == [
        "127.0.0.1:9: dropped by the stop: reading"
    ]


# Death -------------------------------------------------------------------------------------------


def test_a_death_fails_the_server_and_is_raised_once(host: FakeHost, server: FakeServer) -> None:
    server.start()
    host.last.die()
    assert server.state is State.FAILED
    with pytest.raises(ServerDied):
        server.stop()
    assert server.stop().rung == "died"


def test_a_server_that_dies_as_it_starts_is_not_ready(host: FakeHost, server: FakeServer) -> None:
    host.after["finish"] = lambda backend: backend.die()
    server.start()
    assert not server.ready.is_set()
    assert server.state is State.FAILED
    with pytest.raises(ServerDied):
        server.stop()
    assert host.running() == []


def test_a_wait_for_requests_ends_with_the_server(host: FakeHost, server: FakeServer) -> None:
    server.start()
    waiting = in_thread(lambda: server.wait_for(1, timeout=30))
    assert eventually(lambda: bool(host.last._changed._waiters))
    server.stop()
    with pytest.raises(WaitTimeout, match="and it is STOPPED"):
        waiting.result(5)


# Threads -----------------------------------------------------------------------------------------


def test_a_second_stop_waits_for_the_first_and_returns_its_report(
    host: FakeHost, server: FakeServer
) -> None:
    gate = host.before["end"] = Gate()
    server.start()
    first = in_thread(server.stop)
    assert gate.entered.wait(5)
    second = in_thread(server.stop)
    assert eventually(lambda: has_waiter(server))
    assert server._lifecycle._state is State.STOPPING
    gate.release()
    assert second.result(5) is first.result(5)
    assert host.last.calls == ["begin", "finish", "ask", "end"]


def test_the_state_during_a_stop_does_not_wait_for_the_backend(
    host: FakeHost, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = host.before["end"] = Gate()
    server.start()
    asked: list[FakeBackend] = []
    monkeypatch.setattr(FakeBackend, "sync", lambda backend, deadline: asked.append(backend))
    stopping = in_thread(server.stop)
    assert gate.entered.wait(5)
    assert server.state is State.STOPPING
    assert asked == []
    gate.release()
    stopping.result(5)


@pytest.mark.parametrize("call", ["begin", "finish"])
def test_a_stop_during_a_start_waits_for_it(host: FakeHost, server: FakeServer, call: Any) -> None:
    gate = host.before[call] = Gate()
    start = in_thread(server.start)
    assert gate.entered.wait(5)
    stop = in_thread(server.stop)
    assert eventually(lambda: has_waiter(server))
    gate.release()
    assert start.result(5) is server
    assert stop.result(5).rung == "ask"
    assert host.last.calls == ["begin", "finish", "ask", "end"]
    assert server.state is State.STOPPED


def test_a_stop_during_a_start_that_fails_has_nothing_to_stop(
    host: FakeHost, server: FakeServer
) -> None:
    gate = Gate()

    def fail(backend: object) -> None:
        gate(host.last)
        raise StartError(None, "no")

    host.after["finish"] = fail
    start = in_thread(server.start)
    assert gate.entered.wait(5)
    stop = in_thread(server.stop)
    assert eventually(lambda: has_waiter(server))
    gate.release()
    assert stop.result(5).rung == "none"
    assert isinstance(start.exception(5), StartError)
    assert host.running() == []


@pytest.mark.parametrize("call", ["finish", "end"])
def test_a_start_beside_a_start_or_a_stop_is_refused(
    host: FakeHost, server: FakeServer, call: Any
) -> None:
    gate = host.before[call] = Gate()
    moving = in_thread(lambda: server.start().stop())
    assert gate.entered.wait(5)
    with pytest.raises(StateError, match=r"already: it is (STARTING|STOPPING)"):
        server.start()
    gate.release()
    assert moving.result(5).rung == "ask"
    assert len(host.made) == 1


def test_a_stop_gives_the_backend_what_the_wait_for_the_start_has_left(
    host: FakeHost, server: FakeServer
) -> None:
    server.start()
    assert server._lifecycle.begin_stop(Deadline(0.0))
    assert host.last.seconds == 0.0
    server.finish_stop()


def test_a_handler_that_stops_its_server_during_a_stop_does_not_wait(
    host: FakeHost, server: FakeServer
) -> None:
    gate = host.before["end"] = Gate()
    server.start()
    stop = in_thread(server.stop)
    assert gate.entered.wait(5)
    host.last.handler_threads.add(threading.get_ident())
    assert server.stop().rung == "underway"
    gate.release()
    assert stop.result(5).rung == "ask"


def test_a_handler_that_has_begun_a_stop_may_call_for_another(
    host: FakeHost, server: FakeServer
) -> None:
    server.start()
    host.last.handler_threads.add(threading.get_ident())
    assert server.begin_stop(1.0)
    assert server.stop().rung == "underway"
    assert server.finish_stop().rung == "ask"


def test_servers_that_start_together_all_begin_before_one_is_waited_for() -> None:
    first, second = FakeHost(), FakeHost()
    first.before["finish"] = lambda backend: second.last.calls.append("ask")
    with ServerManager(a=FakeServer(first), b=FakeServer(second)):
        assert second.last.calls == ["begin", "ask", "finish"]


# Forked copies -----------------------------------------------------------------------------------


def test_a_start_in_a_forked_copy_is_refused(server: FakeServer) -> None:
    def work() -> None:
        with pytest.raises(StateError, match=r"FakeServer belongs to process \d+, of which this"):
            server.start()
        assert server.state is State.NEW

    run_in_copy(work)


def test_a_stop_in_a_forked_copy_does_nothing(host: FakeHost, server: FakeServer) -> None:
    def work() -> None:
        assert server.stop().rung == "foreign"
        assert host.last.calls == ["begin", "finish"]

    with server:
        run_in_copy(work)
    assert host.last.calls == ["begin", "finish", "ask", "end"]
