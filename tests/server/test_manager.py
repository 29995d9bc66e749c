"""Several servers that start and stop together."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
import warnings
from typing import Any

import pytest

from kit.web import fetch
from sidestage import (
    ForcedStopWarning,
    HTTPServer,
    Server,
    ServerDied,
    ServerManager,
    SMTPServer,
    StartError,
    State,
    StateError,
    TCPServer,
    UDPServer,
)

WAIT = 10.0  # seconds at most for what comes at once


def states(manager: ServerManager) -> set[State]:
    return {server.state for server in manager.values()}


def poke(server: Server[Any]) -> None:
    """Let the handler of a TCP server run once, and wait until it has run."""
    with socket.create_connection(server.server_address) as client:
        try:
            client.recv(1)
        except ConnectionResetError:
            return


def fail(*arguments: Any) -> None:
    raise ValueError("a handler's own")


class TestLookup:
    def test_by_name_in_the_order_given(self) -> None:
        api, mail = HTTPServer(), SMTPServer()
        manager = ServerManager(api=api, mail=mail)
        assert manager["api"] is api
        assert list(manager) == ["api", "mail"]
        assert list(manager.values()) == [api, mail]
        assert len(manager) == 2
        assert "api" in manager
        assert "other" not in manager

    def test_names_that_are_no_identifiers(self) -> None:
        server = HTTPServer()
        assert ServerManager({"the api": server})["the api"] is server

    def test_an_unknown_name_raises_with_the_known_ones(self) -> None:
        with pytest.raises(KeyError, match="no server is named 'apo'; there are: 'api'"):
            ServerManager(api=HTTPServer())["apo"]

    def test_servers_are_called_by_their_names(self) -> None:
        named = HTTPServer(name="mine")
        manager = ServerManager(api=HTTPServer(), other=named)
        assert manager["api"].describe() == "HTTPServer 'api'"
        assert named.describe() == "HTTPServer 'mine'"

    def test_the_repr_shows_the_states(self) -> None:
        assert repr(ServerManager(api=TCPServer())) == "<ServerManager [<TCPServer 'api' NEW>]>"

    def test_pytest_does_not_collect_it(self) -> None:
        assert ServerManager.__test__ is False


class TestBadInput:
    def test_a_name_that_is_taken(self) -> None:
        manager = ServerManager(api=HTTPServer())
        with pytest.raises(ValueError, match="a server named 'api' already"):
            manager.add("api", TCPServer())
        assert isinstance(manager["api"], HTTPServer)

    @pytest.mark.parametrize("nothing", [None, "http", HTTPServer, 80])
    def test_what_is_no_server(self, nothing: Any) -> None:
        with pytest.raises(TypeError, match="'api' must be a server"):
            ServerManager(api=nothing)

    @pytest.mark.parametrize("timeout, error", [(-1, ValueError), ("1", TypeError)])
    def test_a_timeout(self, timeout: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="timeout"):
            ServerManager().stop(timeout)


class TestStart:
    def test_all_are_ready(self) -> None:
        manager = ServerManager(http=HTTPServer(), smtp=SMTPServer(), udp=UDPServer())
        with manager as entered:
            assert entered is manager
            assert states(manager) == {State.READY}
            assert len({server.pid for server in manager.values()}) == 3
        assert states(manager) == {State.STOPPED}

    def test_without_servers(self) -> None:
        with ServerManager() as manager:
            assert manager.stop() == {}

    def test_twice(self) -> None:
        with ServerManager(api=HTTPServer()) as manager:
            with pytest.raises(StateError, match="runs already"):
                manager.start()
            assert states(manager) == {State.READY}

    def test_again_after_a_stop(self) -> None:
        manager = ServerManager(api=HTTPServer())
        for _ in range(2):
            with manager:
                assert states(manager) == {State.READY}

    def test_add_while_they_run_starts_it(self) -> None:
        with ServerManager() as manager:
            server = manager.add("api", HTTPServer())
            assert server.state is State.READY
        assert server.state is State.STOPPED

    def test_add_before_does_not(self) -> None:
        assert ServerManager().add("api", HTTPServer()).state is State.NEW

    def test_one_that_cannot_be_added_is_not_there(self) -> None:
        with ServerManager(api=HTTPServer()) as manager:
            with pytest.raises(StartError):
                manager.add("other", HTTPServer(manager["api"].server_address))
            assert list(manager) == ["api"]

    @pytest.mark.parametrize("position", [0, 1, 2])
    def test_one_that_fails_stops_the_others(self, position: int) -> None:
        with TCPServer() as taken:
            servers = [TCPServer(name=f"good {n}") for n in range(2)]
            servers.insert(position, TCPServer(taken.server_address))
            manager = ServerManager({str(n): server for n, server in enumerate(servers)})
            with pytest.raises(StartError):
                manager.start()
        assert servers[position].state is State.FAILED
        assert {s.state for s in servers} <= {State.FAILED, State.STOPPED}
        assert all(server.pid is None for server in servers)
        with manager:
            assert states(manager) == {State.READY}

    def test_one_that_runs_already_is_left_alone(self) -> None:
        with TCPServer() as running:
            manager = ServerManager(fine=TCPServer(), running=running, later=TCPServer())
            with pytest.raises(StateError, match="started already"):
                manager.start()
            assert running.state is State.READY
            assert manager["later"].state is State.NEW


class TestStop:
    def test_returns_a_report_for_each(self) -> None:
        manager = ServerManager(api=HTTPServer(), mail=SMTPServer()).start()
        reports = manager.stop()
        assert {name: report.rung for name, report in reports.items()} == {
            "api": "ask",
            "mail": "ask",
        }

    def test_before_the_start(self) -> None:
        assert ServerManager(api=HTTPServer()).stop()["api"].rung == "none"

    def test_one_that_was_stopped_already(self) -> None:
        with ServerManager(api=HTTPServer(), mail=SMTPServer()) as manager:
            manager["api"].stop()
            assert manager.stop()["mail"].rung == "ask"

    def test_several_that_are_stuck_share_one_deadline(self) -> None:
        manager = ServerManager({str(n): TCPServer() for n in range(4)}).start()
        for server in manager.values():
            assert server.pid is not None
            os.kill(server.pid, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.warns(ForcedStopWarning) as caught:
            reports = manager.stop(0.8)
        assert time.monotonic() - began < 2.4  # one after another they would take 3.2
        assert {report.rung for report in reports.values()} == {"kill"}
        assert len(caught) == 4

    def test_one_that_is_stuck_does_not_keep_the_others_from_an_orderly_end(self) -> None:
        manager = ServerManager(stuck=TCPServer(), fine=TCPServer()).start()
        assert manager["stuck"].pid is not None
        os.kill(manager["stuck"].pid, signal.SIGSTOP)
        with pytest.warns(ForcedStopWarning, match="stuck"):
            assert manager.stop(1.0)["fine"].rung == "ask"

    def test_under_errors_for_warnings_all_are_stopped_and_nothing_is_lost(self) -> None:
        manager = ServerManager(stuck=TCPServer(handler=fail), fine=TCPServer()).start()
        poke(manager["stuck"])
        assert len(manager["stuck"].errors) == 1
        assert manager["stuck"].pid is not None
        os.kill(manager["stuck"].pid, signal.SIGSTOP)
        with warnings.catch_warnings(), pytest.raises(BaseExceptionGroup) as caught:
            warnings.simplefilter("error")
            manager.stop(0.2)
        assert [type(e) for e in caught.value.exceptions] == [ForcedStopWarning, ValueError]
        assert states(manager) == {State.STOPPED}


class TestErrors:
    def test_one_is_raised_as_itself(self) -> None:
        with (
            pytest.raises(ValueError, match="a handler's own") as caught,
            ServerManager(bad=TCPServer(handler=fail), good=TCPServer()) as manager,
        ):
            poke(manager["bad"])
        assert "TCPServer 'bad'" in caught.value.__notes__[0]
        assert states(manager) == {State.STOPPED}

    def test_several_are_a_group(self) -> None:
        manager = ServerManager({str(n): TCPServer(handler=fail) for n in range(3)}).start()
        for server in list(manager.values())[:2]:
            poke(server)
        with pytest.raises(ExceptionGroup, match="2 servers") as caught:
            manager.stop()
        assert [type(error) for error in caught.value.exceptions] == [ValueError] * 2

    def test_a_death_is_one(self) -> None:
        manager = ServerManager(api=TCPServer(), mail=SMTPServer()).start()
        assert manager["api"].pid is not None
        os.kill(manager["api"].pid, signal.SIGKILL)
        with pytest.raises(ServerDied, match="'api'"):
            manager.stop()
        assert manager["mail"].state is State.STOPPED

    def test_they_do_not_hide_a_failing_body(self) -> None:
        with (
            pytest.raises(KeyError) as caught,
            ServerManager(bad=TCPServer(handler=fail)) as manager,
        ):
            poke(manager["bad"])
            raise KeyError("the body's own")
        assert "a handler's own" in caught.value.__notes__[0]


class TestAsync:
    def test_it_is_an_async_context_manager(self) -> None:
        async def main() -> None:
            async with ServerManager(api=HTTPServer(), mail=SMTPServer()) as manager:
                assert states(manager) == {State.READY}
            assert states(manager) == {State.STOPPED}

        asyncio.run(main())

    def test_coroutine_handlers_run_on_the_callers_loop(self) -> None:
        async def main() -> bool:
            async def handler(request: Any) -> str:
                return str(asyncio.get_running_loop() is loop)

            loop = asyncio.get_running_loop()
            async with ServerManager(api=HTTPServer(handler=handler)) as manager:
                return await asyncio.to_thread(fetch, manager["api"].url) == b"True"

        assert asyncio.run(main())

    def test_the_loop_goes_on_during_a_stop(self) -> None:
        entered, release = threading.Event(), threading.Event()

        def handler(connection: Any) -> None:
            entered.set()
            release.wait(WAIT)

        async def main() -> None:
            manager = ServerManager(slow=TCPServer(handler=handler))
            async with manager:
                client = asyncio.create_task(asyncio.to_thread(poke, manager["slow"]))
                await asyncio.to_thread(entered.wait, WAIT)
                asyncio.get_running_loop().call_soon(release.set)
            await client

        asyncio.run(main())
        assert release.is_set()

    def test_an_error_is_raised_at_its_end(self) -> None:
        async def main() -> None:
            async with ServerManager(bad=TCPServer(handler=fail)) as manager:
                await asyncio.to_thread(poke, manager["bad"])

        with pytest.raises(ValueError, match="a handler's own"):
            asyncio.run(main())
