"""Calls that other threads make between a check and what follows from it: each order is forced."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from kit.fake_backend import FakeBackend, FakeHost, FakeServer, Gate
from kit.processes import signal_server
from kit.runs import pid_of, run_of
from kit.scripts import eventually
from kit.web import fetch, fetch_quietly
from sidestage import (
    HTTPServer,
    Server,
    ServerDied,
    ServerManager,
    ServerStopped,
    StartError,
    State,
    TCPServer,
    WaitTimeout,
)
from sidestage.dispatch import threads
from sidestage.dispatch.gate import make_gate
from sidestage.process.channel import Channel
from sidestage.wire.messages import Idle

WAIT = 10.0  # seconds at most for what comes at once


def in_thread(work: Callable[[], object]) -> threading.Thread:
    def run() -> None:
        with contextlib.suppress(ServerDied, WaitTimeout):
            work()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def ends(*running: threading.Thread) -> bool:
    for thread in running:
        thread.join(WAIT)
    return not any(thread.is_alive() for thread in running)


class TestHandlersThatAreSet:
    def test_by_several_threads_while_the_first_is_still_set(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Threads are being started for the first one when it is unset and set again."""
        server = HTTPServer(fresh=True).start()
        entered, go = threading.Event(), threading.Event()

        def make_late(fd: int) -> Any:
            entered.set()
            assert go.wait(WAIT)
            return make_gate(fd)

        monkeypatch.setattr(threads, "make_gate", make_late)

        def setting(handler: Callable[[Any], Any] | None) -> threading.Thread:
            return in_thread(lambda: setattr(server, "handler", handler))

        first = setting(lambda request: "first")
        assert entered.wait(WAIT)
        others = [setting(None), setting(lambda request: "last")]
        assert eventually(lambda: server.handler is not None)
        go.set()
        assert ends(first, *others)
        server.handler = lambda request: "set"
        assert fetch(server.url) == b"set"
        server.handler = None
        assert fetch(server.url) == b""
        server.stop()

    @pytest.mark.parametrize("wanted", [b"late", b""])
    def test_while_another_thread_starts_the_server(self, wanted: bytes) -> None:
        """The backend has looked for a handler, and the server is not READY yet."""
        server = HTTPServer(handler=None if wanted else lambda request: "early")
        note_bound = server._note_bound

        def set_late(bound: Any) -> None:
            note_bound(bound)
            handler = (lambda request: "late") if wanted else None
            assert ends(in_thread(lambda: setattr(server, "handler", handler)))

        server._note_bound = set_late  # type: ignore[method-assign]
        with server:
            assert fetch(server.url) == wanted

    def test_while_another_thread_stops_the_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The stop comes before what handler threads wait at is there."""
        server = HTTPServer(fresh=True).start()

        def make_after_the_stop(fd: int) -> Any:
            assert ends(in_thread(server.stop))
            return make_gate(fd)

        monkeypatch.setattr(threads, "make_gate", make_after_the_stop)
        server.handler = lambda request: "next"
        monkeypatch.undo()
        assert server.state is State.STOPPED
        with server:
            assert fetch(server.url) == b"next"

    def test_when_the_process_has_died(self) -> None:
        server = HTTPServer().start()
        signal_server(server)
        server.handler = lambda request: "next"
        with pytest.raises(ServerDied):
            server.stop()
        with server:
            assert fetch(server.url) == b"next"

    def test_while_another_thread_waits_for_records(self) -> None:
        server = HTTPServer().start()
        came: list[int] = []
        waiting = in_thread(lambda: came.append(len(server.wait_for(1, timeout=WAIT))))
        assert eventually(run_of(server).reader._reading.locked)
        server.handler = lambda request: "handled"
        assert fetch(server.url) == b"handled"
        assert ends(waiting)
        assert came == [1]
        server.stop()

    def test_by_one_that_cannot_be_served_in_time(self) -> None:
        """Another thread keeps the turn: nobody waits for it without a bound."""
        host = FakeHost()
        server = FakeServer(host)
        server.start()
        server._sync_seconds = 0.05
        server._lifecycle._following.holder = (0,)
        with pytest.raises(TimeoutError, match="still setting a handler of FakeServer"):
            server.handler = lambda request: None
        assert server.handler is None
        server._lifecycle._following.holder = None
        server.stop()


class TestADeath:
    def test_while_a_handler_answers_is_told_alone_by_a_restart(self) -> None:
        entered, left = threading.Event(), threading.Event()

        def answer(connection: Any) -> None:
            entered.set()
            try:
                while True:
                    connection.sendall(bytes(100_000))
            finally:
                left.set()

        server = TCPServer(handler=answer).start()
        address = server.server_address
        with socket.create_connection(address, timeout=WAIT):
            assert entered.wait(WAIT)
            signal_server(server)
            assert left.wait(WAIT)
        with pytest.raises(ServerDied):
            server.restart()
        assert server.state is State.READY
        assert server.server_address == address
        server.stop()

    def test_is_told_with_what_handlers_have_raised(self) -> None:
        def fail(request: Any) -> Any:
            raise ValueError("expected")

        server = HTTPServer(handler=fail).start()
        fetch_quietly(server.url)
        signal_server(server)
        with pytest.raises(ExceptionGroup) as caught:
            server.restart()
        assert [type(error) for error in caught.value.exceptions] == [ServerDied, ValueError]
        assert server.state is State.READY
        server.stop()

    def test_a_restart_tells_what_handlers_have_raised_and_runs(self) -> None:
        def fail(request: Any) -> Any:
            raise ValueError("expected")

        server = HTTPServer(handler=fail).start()
        fetch_quietly(server.url)
        with pytest.raises(ValueError, match="expected"):
            server.restart()
        server.handler = lambda request: "again"
        assert fetch(server.url) == b"again"
        server.stop()

    def test_a_restart_that_cannot_start_leaves_them_to_the_next_stop(self) -> None:
        host = FakeHost()
        server = FakeServer(host)
        server.start()
        server._journal.failed(ValueError("expected"))

        def refuse(backend: FakeBackend) -> None:
            raise StartError(None, "no")

        host.before["begin"] = refuse
        with pytest.raises(StartError, match="no"):
            server.restart()
        with pytest.raises(ValueError, match="expected"):
            server.stop()

    def test_wakes_who_waits_for_records(self) -> None:
        server = HTTPServer().start()
        raised: list[BaseException] = []

        def wait() -> None:
            try:
                server.wait_for(1, timeout=WAIT)
            except ServerDied as error:
                raised.append(error)

        waiting = in_thread(wait)
        assert eventually(run_of(server).reader._reading.locked)
        signal_server(server)
        assert ends(waiting)
        assert len(raised) == 1
        with pytest.raises(ServerDied):
            server.stop()


class TestTwoStops:
    @pytest.mark.parametrize("kind", [HTTPServer, TCPServer])
    def test_at_the_same_time_both_end(self, kind: type[Server[Any]]) -> None:
        for _ in range(10):
            server = kind().start()
            assert ends(*(in_thread(server.stop) for _ in range(3)))
            assert server.state is State.STOPPED

    def test_a_stop_wakes_who_waits_for_records(self) -> None:
        server = HTTPServer().start()
        waiting = in_thread(lambda: server.wait_for(1, timeout=60))
        assert eventually(run_of(server).reader._reading.locked)
        server.stop()
        assert ends(waiting)


class TestManagers:
    def test_wait_for_a_stop_that_another_thread_makes(self) -> None:
        host, gate = FakeHost(), Gate()
        server = FakeServer(host)
        manager = ServerManager(one=server).start()
        host.before["end"] = gate
        stopping = in_thread(server.stop)
        assert gate.entered.wait(WAIT)
        reports: list[Any] = []
        whole = in_thread(lambda: reports.append(manager.stop()))
        assert eventually(lambda: bool(server._lifecycle._moved._waiters))
        assert whole.is_alive()
        gate.release()
        assert ends(stopping, whole)
        assert reports[0]["one"].rung == "ask"

    def test_stop_what_is_added_while_they_stop(self) -> None:
        host, gate = FakeHost(), Gate()
        manager = ServerManager().start()
        server = FakeServer(host)
        host.after["begin"] = gate
        adding = in_thread(lambda: manager.add("late", server))
        assert gate.entered.wait(WAIT)
        stopping = in_thread(manager.stop)
        assert eventually(lambda: not manager.started)
        gate.release()
        assert ends(adding, stopping)
        assert host.running() == []

    def test_refuse_a_name_that_another_thread_takes(self) -> None:
        first, second = FakeServer(FakeHost()), FakeServer(FakeHost())
        manager = ServerManager()

        class Late(dict[str, Any]):
            def __contains__(self, name: object) -> bool:
                self.setdefault("name", first)
                return False

        manager._servers = Late()
        with pytest.raises(ValueError, match="named 'name' already"):
            manager.add("name", second)
        assert manager["name"] is first


class TestWhatARunStillSends:
    def test_never_reaches_the_next_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A thread has found that the run goes on, and sends after its child was returned."""
        server = TCPServer().start()
        run, pid = run_of(server), pid_of(server)
        write, sent = Channel.write, list[int]()

        def stop_first(self: Channel, messages: tuple[Any, ...], *options: Any) -> None:
            if messages and type(messages[0]).__name__ == "Idle" and not sent:
                sent.append(1)
                assert ends(in_thread(server.stop))
            write(self, messages, *options)

        monkeypatch.setattr(Channel, "write", stop_first)
        with pytest.raises(ServerStopped):
            run.send(Idle())
        with TCPServer() as after:
            assert pid_of(after) == pid
