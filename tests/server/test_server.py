"""The server: states, starts, stops from anywhere, errors, records, waits."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import gc
import os
import signal
import smtplib
import socket
import threading
import time
import urllib.request
import warnings
import weakref
from types import SimpleNamespace
from typing import Any

import pytest

from kit.resources import own_threads
from kit.runs import run_of
from kit.scripts import all_gone, eventually, gone, run_script
from kit.web import fetch
from sidestage import (
    ForcedStopWarning,
    HTTPServer,
    Server,
    ServerDied,
    SMTPServer,
    StartError,
    StartTimeout,
    State,
    StateError,
    TCPServer,
    UDPServer,
    WaitTimeout,
)
from sidestage.backends.ladder import Ladder
from sidestage.journal.journal import OVERHEAD
from sidestage.pristine.waits import Deadline

KINDS: list[type[Server[Any]]] = [HTTPServer, SMTPServer, TCPServer, UDPServer]


def say_something(server: Server[Any]) -> None:
    match server:
        case HTTPServer():
            fetch(server.url)
        case SMTPServer():
            with smtplib.SMTP(*server.server_address) as mailer:
                mailer.sendmail("a@example.org", "b@example.org", "Subject: hello")
        case TCPServer():
            with socket.create_connection(server.server_address) as client:
                client.sendall(b"hello")
        case _:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"hello", server.server_address)


def in_thread(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("kind", KINDS)
class TestLifecycle:
    def test_passes_through_its_states(self, kind: type[Server[Any]]) -> None:
        server = kind()
        assert server.state is State.NEW
        assert server.start() is server
        assert server.state is State.READY
        assert server.ready.is_set()
        server.stop()
        assert server.state is State.STOPPED
        assert not server.ready.is_set()

    def test_runs_in_another_process(self, kind: type[Server[Any]]) -> None:
        with kind() as server:
            assert server.pid is not None
            assert server.stats().rss > 0
        assert server.pid is None

    def test_knows_where_it_is_bound(self, kind: type[Server[Any]]) -> None:
        with kind() as server:
            assert server.server_address == ("127.0.0.1", server.port)
            assert server.url == f"{kind.scheme}://127.0.0.1:{server.port}"
            assert server.host == "127.0.0.1"
            assert repr(server) == f"<{kind.__name__} READY {server.url} pid={server.pid}>"

    def test_takes_the_proposals_arguments(self, kind: type[Server[Any]]) -> None:
        with kind(("127.0.0.1", 0), lambda request: None, 0.01) as server:
            assert server.poll_interval == 0.01

    def test_stop_before_start_and_twice(self, kind: type[Server[Any]]) -> None:
        server = kind()
        assert server.stop().rung == "none"
        server.start()
        first = server.stop()
        assert first.rung == "ask"
        assert server.stop() == first

    def test_starts_again_after_a_stop(self, kind: type[Server[Any]]) -> None:
        server = kind()
        for _ in range(3):
            with server:
                assert server.state is State.READY

    def test_restarts_on_the_same_port(self, kind: type[Server[Any]]) -> None:
        with kind() as server:
            port = server.port
            assert server.restart().port == port

    def test_cannot_start_twice(self, kind: type[Server[Any]]) -> None:
        with kind() as server, pytest.raises(StateError, match="started already"):
            server.start()

    def test_a_start_inside_with_says_what_to_write(self, kind: type[Server[Any]]) -> None:
        server = kind()
        with pytest.raises(StateError, match=r"write `with server:`, not `with server.start"):
            with server.start():
                pass
        assert server.state is State.READY
        server.stop()

    def test_works_as_an_async_context_manager(self, kind: type[Server[Any]]) -> None:
        async def main() -> None:
            async with kind() as server:
                assert server.state is State.READY
            assert server.state is State.STOPPED

        asyncio.run(main())

    def test_a_cancelled_start_leaves_nothing(self, kind: type[Server[Any]]) -> None:
        server = kind(fresh=True)

        async def main() -> None:
            starting = asyncio.ensure_future(server.__aenter__())
            await asyncio.sleep(0)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting

        asyncio.run(main())
        assert server.state is State.STOPPED

    def test_a_port_that_was_taken_before_the_restart_is_named(
        self, kind: type[Server[Any]]
    ) -> None:
        server = kind().start()
        server.stop()
        with kind(server.server_address), pytest.raises(StartError) as caught:
            server.restart()
        assert caught.value.address == server.server_address
        assert str(server.server_address) in str(caught.value)

    def test_a_taken_port_is_a_start_error(self, kind: type[Server[Any]]) -> None:
        with kind() as server:
            other = kind(server.server_address, name="late")
            with pytest.raises(StartError, match=f"^{kind.__name__} 'late' cannot") as caught:
                other.start()
            assert caught.value.errno == errno.EADDRINUSE
            assert other.state is State.FAILED
        with other:
            assert other.state is State.READY


class TestStop:
    def test_from_a_handler(self) -> None:
        reports = []
        server = TCPServer(handler=lambda connection: reports.append(server.stop()))
        server.start()
        with socket.create_connection(server.server_address) as client:
            assert client.recv(1) == b""
        server.stop()
        assert [report.rung for report in reports] == ["ask"]
        assert reports[0].seconds < 2

    def test_from_a_coroutine_handler(self) -> None:
        reports = []

        async def handler(connection: Any) -> None:
            reports.append(server.stop())

        server = TCPServer(handler=handler)
        server.start()
        with socket.create_connection(server.server_address) as client:
            assert client.recv(1) == b""
        server.stop()
        assert [report.rung for report in reports] == ["ask"]
        assert reports[0].seconds < 2

    def test_from_another_thread(self) -> None:
        server = HTTPServer().start()
        in_thread(server.stop).join()
        assert server.state is State.STOPPED

    def test_beside_a_start_takes_its_time_once(self) -> None:
        with TCPServer() as server:
            pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)  # in the pool
        server = TCPServer(start_timeout=3.0, backlog=16)  # not as it has bound ahead

        def start() -> None:
            with pytest.raises(StartTimeout):
                server.start()

        starts = in_thread(start)
        assert eventually(lambda: server.state is State.STARTING)
        began = time.monotonic()
        with pytest.raises(StateError, match="another thread"):
            server.stop(1.0)
        assert time.monotonic() - began < 2.5  # the start takes 3
        starts.join()

    def test_from_two_threads_at_once(self) -> None:
        entered, release = threading.Event(), threading.Event()

        def handler(request: Any) -> None:
            entered.set()
            release.wait()

        server = HTTPServer(handler=handler).start()
        client = in_thread(lambda: fetch(server.url))
        entered.wait()
        reports: list[Any] = []
        threads = [in_thread(lambda: reports.append(server.stop(10))) for _ in range(2)]
        release.set()
        for thread in [*threads, client]:
            thread.join()
        assert len(reports) == 2
        assert reports[0] == reports[1]

    @pytest.mark.filterwarnings("ignore::sidestage.LeftRunningWarning")
    def test_a_handler_that_never_returns_does_not_delay_it(self) -> None:
        entered, release = threading.Event(), threading.Event()

        def handler(connection: Any) -> None:
            entered.set()
            release.wait()

        server = TCPServer(handler=handler).start()
        with socket.create_connection(server.server_address) as client:
            entered.wait()
            began = time.monotonic()
            report = server.stop(1.0)
            assert time.monotonic() - began < 5  # of 1.0
            name = client.getsockname()
        release.set()
        assert report.rung == "ask"
        assert [tuple(c.client_address) for c in report.connections] == [name]
        assert "handler running" in report.connections[0].state
        assert "handler running" in server.diagnostics[0].text
        assert not report.clean

    def test_wakes_waiters(self) -> None:
        server = TCPServer().start()
        outcome: list[Any] = []

        def wait() -> None:
            try:
                server.wait_for(1, timeout=30)
            except WaitTimeout as error:
                outcome.append(error)

        thread = in_thread(wait)
        server.stop()
        thread.join(10)
        assert len(outcome) == 1

    def test_of_a_server_that_drains_lets_exchanges_finish(self) -> None:
        entered, release = threading.Event(), threading.Event()

        def handler(request: Any) -> str:
            entered.set()
            release.wait()
            return "done"

        server = HTTPServer(handler=handler).start()
        bodies: list[bytes] = []
        client = in_thread(lambda: bodies.append(fetch(server.url)))
        entered.wait()
        stopper = in_thread(server.stop)
        release.set()
        client.join()
        stopper.join()
        assert bodies == [b"done"]

    def test_a_negative_timeout_is_refused(self) -> None:
        with HTTPServer() as server, pytest.raises(ValueError, match="timeout"):
            server.stop(-1)

    @pytest.mark.parametrize("handler", [None, lambda connection: None])
    def test_a_server_never_stopped_warns_and_ends(self, handler: Any) -> None:
        server: TCPServer | None = TCPServer(handler=handler).start()
        assert server is not None
        pid = server.pid
        with pytest.warns(ResourceWarning, match="never stopped"):
            server = None
            gc.collect()
        assert pid is not None
        assert all_gone([pid])

    @pytest.mark.parametrize("handler", ["None", "lambda request: None"])
    def test_a_server_never_stopped_at_the_end_of_the_process_says_nothing(
        self, handler: str
    ) -> None:
        printed = run_script(f"""
            from sidestage import HTTPServer
            server = HTTPServer(handler={handler}).start()
            print(server.pid)
        """)
        assert all_gone([int(printed)])

    @pytest.mark.parametrize("handler", [None, lambda request: None])
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_stopped_server_without_references_is_freed_at_once(
        self, kind: type[Server[Any]], handler: Any
    ) -> None:
        """With all that it has received, and without the garbage collector."""
        gc.disable()
        try:
            server = kind(handler=handler).start()
            say_something(server)
            kept = (server, server.wait_for(1)[0])
            gone = [weakref.ref(one) for one in kept]
            server.stop()
            del kept, server
            assert [one() for one in gone] == [None, None]
        finally:
            gc.enable()


class TestErrors:
    def test_a_failing_assert_is_raised_at_exit(self) -> None:
        def handler(request: Any) -> None:
            assert request.path == "/other"

        with (
            pytest.raises(AssertionError) as caught,
            HTTPServer(handler=handler) as server,
            pytest.raises(urllib.error.HTTPError),
        ):
            fetch(server.url + "/path")
        assert "GET /path" in caught.value.__notes__[0]
        assert len(server.errors) == 1

    def test_several_are_a_group(self) -> None:
        def handler(datagram: Any) -> None:
            raise ValueError(datagram.packet)

        server = UDPServer(handler=handler).start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"1", server.server_address)
            client.sendto(b"2", server.server_address)
        server.wait_for(2)
        with pytest.raises(ExceptionGroup) as caught:
            server.stop()
        assert sorted(str(e) for e in caught.value.exceptions) == ["b'1'", "b'2'"]

    def test_they_are_raised_once(self) -> None:
        server = TCPServer(handler=lambda connection: 1 / 0).start()
        with socket.create_connection(server.server_address) as client:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        with pytest.raises(ZeroDivisionError):
            server.stop()
        server.stop()

    def test_they_do_not_hide_a_failing_body(self) -> None:
        with pytest.raises(KeyError) as caught, HTTPServer(handler=lambda r: 1 / 0) as server:
            with pytest.raises(urllib.error.HTTPError):
                fetch(server.url)
            raise KeyError("the body's own")
        note = caught.value.__notes__[0]
        assert "ZeroDivisionError" in note
        assert "the body's own" not in note

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), pytest.fail.Exception()])
    def test_base_exceptions_too(self, error: BaseException) -> None:
        def handler(request: Any) -> None:
            raise error

        server = HTTPServer(handler=handler).start()
        with pytest.raises(urllib.error.HTTPError):
            fetch(server.url)
        with pytest.raises(type(error)):
            server.stop()


class TestHandlers:
    def greet(self, request: Any) -> str:
        return f"{type(self).__name__}"

    def test_a_bound_method_runs_in_this_process(self) -> None:
        with HTTPServer(handler=self.greet) as server:
            assert fetch(server.url) == b"TestHandlers"

    def test_sees_the_context_of_the_start(self) -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
        variable.set("set")
        with HTTPServer(handler=lambda request: variable.get()) as server:
            assert fetch(server.url) == b"set"

    def test_may_call_their_own_server(self) -> None:
        def handler(request: Any) -> bytes:
            return b"inner" if request.path == "/inner" else fetch(server.url + "/inner")

        with HTTPServer(handler=handler) as server:
            assert fetch(server.url) == b"inner"

    def test_block_without_delaying_others(self) -> None:
        together = threading.Barrier(8)
        with HTTPServer(handler=lambda request: str(together.wait(10))) as server:
            threads = [in_thread(lambda: fetch(server.url)) for _ in range(8)]
            for thread in threads:
                thread.join()
            assert len(server.received) == 8

    def test_coroutines_run_on_the_loop_of_the_start(self) -> None:
        async def main() -> bool:
            loop = asyncio.get_running_loop()
            same: list[bool] = []

            async def handler(request: Any) -> str:
                await asyncio.sleep(0)
                same.append(asyncio.get_running_loop() is loop)
                return "ok"

            async with HTTPServer(handler=handler) as server:
                await asyncio.to_thread(fetch, server.url)
            return same == [True]

        assert asyncio.run(main())

    def test_coroutines_have_a_loop_without_one(self) -> None:
        async def handler(request: Any) -> str:
            await asyncio.sleep(0)
            return "ok"

        with HTTPServer(handler=handler) as server:
            assert fetch(server.url) == b"ok"

    @pytest.mark.filterwarnings("ignore::sidestage.LeftRunningWarning")
    def test_a_coroutine_that_comes_after_the_stop_is_cancelled(self) -> None:
        entered, release = threading.Event(), threading.Event()
        run: list[str] = []

        async def work() -> None:
            run.append("begun")

        def handler(connection: Any) -> Any:
            entered.set()
            assert release.wait(10)
            return work()

        before = own_threads()
        server = TCPServer(handler=handler).start()
        with socket.create_connection(server.server_address):
            assert entered.wait(10)
            server.stop(1.0)
        release.set()
        assert eventually(lambda: own_threads() <= before, 10)
        assert run == []

    def test_a_coroutine_that_comes_while_a_fork_is_under_way_waits(self) -> None:
        entered, release = threading.Event(), threading.Event()
        bodies: list[bytes] = []

        async def work() -> str:
            return "ok"

        def handler(request: Any) -> Any:
            entered.set()
            assert release.wait(10)
            return work()

        before = own_threads()
        with HTTPServer(handler=handler) as server:
            client = in_thread(lambda: bodies.append(fetch(server.url)))
            assert entered.wait(10)
            others = {*before, str(client.native_id)}
            run_of(server).park()
            release.set()
            assert eventually(lambda: own_threads() <= others, 10)
            run_of(server).resume()
            client.join(10)
        assert bodies == [b"ok"]

    def test_can_be_set_and_taken_away_between_the_halves_of_a_start(self) -> None:
        server = HTTPServer(handler_timeout=1.0)
        for handler, body in [(lambda request: "handled", b"handled"), (None, b"")]:
            server.begin_start()
            server.handler = handler
            try:
                assert fetch(server.finish_start().url) == body
            finally:
                server.stop()

    def test_can_be_set_and_taken_away_while_it_runs(self) -> None:
        with HTTPServer() as server:
            assert fetch(server.url) == b""
            server.handler = lambda request: "first"
            assert fetch(server.url) == b"first"
            server.handler = lambda request: "second"
            assert fetch(server.url) == b"second"
            server.handler = None
            assert fetch(server.url) == b""
            assert len(server.received) == 4


class TestRecords:
    def test_remain_after_the_stop(self) -> None:
        with HTTPServer() as server:
            fetch(server.url + "/one")
        assert [request.path for request in server.received] == ["/one"]

    def test_are_bounded_and_the_loss_is_counted(self) -> None:
        with UDPServer(keep=10 * (100 + OVERHEAD)) as server:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                for number in range(30):
                    client.sendto(bytes([number]) * 100, server.server_address)
            server.wait_for(30)
            received = server.received
            with pytest.raises(WaitTimeout, match=r"received 30 of 31 .* \(20 of them dropped"):
                server.wait_for(31, timeout=0.01)
        assert received.dropped == 20
        assert [datagram.packet[0] for datagram in received] == list(range(20, 30))

    def test_a_wait_that_times_out_reports_what_came(self) -> None:
        with HTTPServer() as server:
            fetch(server.url + "/only")
            with pytest.raises(WaitTimeout, match="GET /only") as caught:
                server.wait_for(2, timeout=0.05)
        assert caught.value.expected == 2
        assert len(caught.value.received) == 1

    @pytest.mark.parametrize("handler", [None, lambda request: None])
    def test_a_wait_ends_when_it_is_there(self, handler: Any) -> None:
        with HTTPServer(handler=handler) as server:
            thread = in_thread(lambda: fetch(server.url))
            assert len(server.wait_for(1, timeout=10)) == 1
            thread.join()


class TestBadInput:
    @pytest.mark.parametrize(
        "options",
        [
            {"address": ("127.0.0.1", 65536)},
            {"address": ("127.0.0.1", -1)},
            {"poll_interval": -1},
            {"handler_timeout": -1},
            {"start_timeout": float("nan")},
            {"keep": -1},
            {"backlog": 0},
            {"address": "/" + "x" * 200},
        ],
    )
    def test_values_out_of_range(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"must|may"):
            TCPServer(**options)

    @pytest.mark.parametrize(
        "options",
        [
            {"address": ("127.0.0.1", "80")},
            {"address": ("127.0.0.1", True)},
            {"address": (127, 80)},
            {"address": 80},
            {"handler": "no function"},
            {"poll_interval": "1"},
            {"keep": 1.5},
        ],
    )
    def test_values_of_a_wrong_type(self, options: dict[str, Any]) -> None:
        with pytest.raises(TypeError, match="must"):
            TCPServer(**options)

    def test_a_host_that_does_not_resolve(self) -> None:
        with pytest.raises(StartError, match=r"TCPServer 'api' cannot .* does not resolve"):
            TCPServer(("no-such-host.invalid", 0), name="api").start()

    @pytest.mark.parametrize("name", ["port", "url", "server_address", "host"])
    def test_an_address_before_the_start(self, name: str) -> None:
        with pytest.raises(StateError, match="start"):
            getattr(HTTPServer(), name)

    def test_stats_of_nothing(self) -> None:
        with pytest.raises(StateError, match="no process"):
            HTTPServer().stats()


def test_warnings_as_errors_do_not_hide_a_forced_stop() -> None:
    """The warning is raised, and the server is stopped nevertheless."""
    import os
    import signal

    server = TCPServer().start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ForcedStopWarning):
            server.stop(0.2)
    assert server.state is State.STOPPED


@pytest.mark.parametrize("timeout", [1.0, 5.0, 60.0])
def test_a_drain_gets_half_of_a_stop_and_the_answer_some_time(timeout: float) -> None:
    """The server's process drains for half of the time-out, and must answer a moment later."""
    asked: list[tuple[float, float]] = []

    class Run:
        death = None
        child = SimpleNamespace(process=None)

        def ask_to_stop(self, drain: float, deadline: Deadline, *, ahead: bool = False) -> None:
            asked.append((drain, deadline.left()))

    run: Any = Run()
    Ladder(run, timeout).ask()
    ((drain, given_up),) = asked
    assert timeout / 2 <= drain <= 0.75 * timeout
    assert given_up - drain > 0.2  # seconds, of 0.3: this test takes some, too


def test_one_that_has_died_starts_again_though_nobody_has_looked() -> None:
    server = TCPServer().start()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: gone(pid))
    server.start()
    assert server.pid != pid
    with pytest.raises(ServerDied, match=str(pid)):
        server.stop()


def test_one_that_was_refused_can_be_shown() -> None:
    """pytest shows it above the error."""
    assert repr(HTTPServer.__new__(HTTPServer)) == "<HTTPServer that was never made>"
