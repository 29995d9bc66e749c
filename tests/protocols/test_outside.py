"""A protocol is a value: one that only the tests have is served like Sidestage's own."""

from __future__ import annotations

import ast
import os
import re
import signal
import socket
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sidestage
from kit.clients import connect, read_all, read_line
from kit.line_echo.call import Line
from kit.line_echo.messages import VOCABULARY
from kit.line_echo.server import LineEchoServer
from kit.messages import CLASSES, VOCABULARIES
from kit.runs import pid_of, pooled
from kit.scripts import eventually, gone
from kit.servers import refuses
from sidestage import (
    Diagnostic,
    ForcedStopWarning,
    HTTPServer,
    OpenConnection,
    Server,
    ServerDied,
    ServerManager,
    StartError,
    State,
    TCPServer,
)
from sidestage.process.launch import _child_paths, launch
from sidestage.process.pool import pool

LONG = 30.0  # seconds; a bound for what ends at once unless it is broken


def ask(client: socket.socket, line: str) -> str:
    client.sendall(f"{line}\n".encode())
    return read_line(client).removesuffix("\n")


def fail(line: Line) -> None:
    raise LookupError(line.line.decode())


class TestWithoutAHandler:
    def test_each_line_comes_back_and_is_recorded(self) -> None:
        with LineEchoServer() as server, connect(server.port) as client:
            address = client.getsockname()
            assert [ask(client, line) for line in ("one", "", "two")] == ["one", "", "two"]
            first, empty, second = server.wait_for(3)
        assert [line.line for line in (first, empty, second)] == [b"one", b"", b"two"]
        assert first.client_address == address
        assert first.received_at <= second.received_at
        assert first.answer is not None
        assert (first.answer.size, first.answer.seconds) == (3, 0.0)

    def test_connections_are_numbered(self) -> None:
        with LineEchoServer() as server:
            with connect(server.port) as one, connect(server.port) as two:
                assert (ask(one, "a"), ask(two, "b"), ask(one, "c")) == ("a", "b", "c")
            numbers = {line.line: line.connection_number for line in server.received}
        assert numbers == {b"a": 1, b"b": 2, b"c": 1}

    def test_a_handler_may_come_and_go_while_it_runs(self) -> None:
        with LineEchoServer() as server, connect(server.port) as client:
            server.handler = lambda line: line.line.upper()
            assert ask(client, "loud") == "LOUD"
            server.handler = None
            assert ask(client, "quiet") == "quiet"


class TestWithAHandler:
    def test_its_result_is_the_answer(self) -> None:
        with (
            LineEchoServer(handler=lambda line: line.line[::-1]) as server,
            connect(server.port) as client,
        ):
            assert ask(client, "drawer") == "reward"
            answer = server.received[0].answer
        assert answer is not None
        assert answer.size == 6
        assert answer.seconds > 0

    def test_it_may_be_a_coroutine_and_return_nothing(self) -> None:
        async def handler(line: Line) -> None:
            """Leave it to the protocol's plain success."""

        with LineEchoServer(handler=handler) as server, connect(server.port) as client:
            assert ask(client, "same") == "same"

    def test_lines_sent_at_once_are_answered_in_order(self) -> None:
        with (
            LineEchoServer(handler=lambda line: line.line + b"!") as server,
            connect(server.port) as client,
        ):
            client.sendall(b"a\nb\nc\n")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"a!\nb!\nc!\n"

    def test_connections_are_handled_at_the_same_time(self) -> None:
        together = threading.Barrier(3, timeout=LONG)

        def meet(line: Line) -> bytes:
            together.wait()
            return b"met"

        with LineEchoServer(handler=meet) as server:
            clients = [connect(server.port) for _ in range(3)]
            for client in clients:
                client.sendall(b"here\n")
            assert [read_line(client) for client in clients] == ["met\n"] * 3
            for client in clients:
                client.close()

    @pytest.mark.parametrize(
        "handler, error", [(fail, LookupError), (lambda line: "text", TypeError)]
    )
    def test_what_it_raises_is_told_to_the_client_and_fails_the_test(
        self, handler: Callable[[Line], Any], error: type[Exception]
    ) -> None:
        server = LineEchoServer(handler=handler, name="echo").start()
        with connect(server.port) as client:
            assert ask(client, "key") == f"! {error.__name__}"
        with pytest.raises(error) as caught:
            server.stop()
        assert "LineEchoServer 'echo' for the line b'key' from" in caught.value.__notes__[0]

    def test_one_that_takes_too_long_is_answered_for(self, release: threading.Event) -> None:
        def slow(line: Line) -> bytes:
            release.wait(LONG)
            return b"late"

        with (
            LineEchoServer(handler=slow, handler_timeout=0.1) as server,
            connect(server.port) as client,
        ):
            assert ask(client, "?") == "! no answer"
            assert [d.text for d in server.diagnostics] == ["no answer within 0.1 s"]
            (line,) = server.received
            release.set()
            assert ask(client, "?") == "late"  # to this line, not to the one before
            assert line.answer is not None
            assert line.answer.size == 0


class TestMalformed:
    def test_the_settings_reach_the_servers_process(self) -> None:
        with LineEchoServer(longest=4) as server, connect(server.port) as client:
            address = client.getsockname()
            assert ask(client, "four") == "four"
            assert ask(client, "fives") == "! too long"
            assert read_all(client) == b""
            assert server.diagnostics == (Diagnostic(address, "a line of more than 4 bytes"),)
            assert [line.line for line in server.received] == [b"four"]

    def test_an_end_within_a_line_is_noted_with_its_connection(self) -> None:
        with LineEchoServer() as server:
            with connect(server.port) as client:
                client.sendall(b"whole\nhalf")
                client.shutdown(socket.SHUT_WR)
                assert read_all(client) == b"whole\n"
            (diagnostic,) = server.diagnostics
            assert diagnostic.text == "the connection ended within a line"
            (entry,) = (e for e in server._journal.entries() if e.kind == "diagnosed")
            assert entry.connection == 1


class TestStop:
    def test_a_line_in_progress_is_answered_through_a_stop(self, release: threading.Event) -> None:
        running = threading.Event()

        def slow(line: Line) -> bytes:
            running.set()
            release.wait(LONG)
            return b"late"

        server = LineEchoServer(handler=slow, stop_timeout=LONG).start()
        port = server.port
        with connect(port) as client:
            client.sendall(b"?\n")
            assert running.wait(LONG)
            stopper = threading.Thread(target=server.stop)
            stopper.start()
            assert eventually(lambda: refuses(port))  # so the stop has begun there, too
            release.set()
            assert read_all(client) == b"late\n"
        stopper.join(LONG)
        assert server.stop_report.clean

    def test_lines_sent_just_before_it_are_not_lost(self) -> None:
        server = LineEchoServer().start()
        with connect(server.port) as client:
            client.sendall(b"a\nb\n")
            assert server.stop().clean
            assert read_all(client) == b"a\nb\n"
        assert [line.line for line in server.received] == [b"a", b"b"]

    def test_a_half_sent_line_is_named_in_the_report(self) -> None:
        server = LineEchoServer().start()
        with connect(server.port) as client, connect(server.port) as idle:
            assert ask(client, "whole") == ask(idle, "whole") == "whole"
            client.sendall(b"half")
            report = server.stop(1.0)
            assert report.connections == (OpenConnection(client.getsockname(), "within a line"),)
        assert report.rung == "ask"
        assert "within a line" in str(report)

    @pytest.mark.filterwarnings("ignore::sidestage.LeftRunningWarning")
    def test_a_running_handler_is_named_in_the_report(self, release: threading.Event) -> None:
        running = threading.Event()

        def stuck(line: Line) -> None:
            running.set()
            release.wait(LONG)

        server = LineEchoServer(handler=stuck).start()
        with connect(server.port) as client:
            client.sendall(b"?\n")
            assert running.wait(LONG)
            report = server.stop(1.0)
            assert report.connections == (OpenConnection(client.getsockname(), "handler running"),)

    def test_a_restart_keeps_port_and_records(self) -> None:
        with LineEchoServer() as server:
            port, pid = server.port, pid_of(server)
            for line in ("before", "after"):
                with connect(port) as client:
                    assert ask(client, line) == line
                if line == "before":
                    server.restart()
            assert [line.line for line in server.received] == [b"before", b"after"]
            assert pid_of(server) != pid

    def test_a_manager_runs_it_beside_others(self) -> None:
        with ServerManager(lines=LineEchoServer(), web=HTTPServer()) as manager:
            with connect(manager["lines"].port) as client:
                assert ask(client, "hello") == "hello"
            with urllib.request.urlopen(manager["web"].url, timeout=LONG) as response:
                assert response.status == 200
            reports = manager.stop()
        assert {name: report.rung for name, report in reports.items()} == {
            "lines": "ask",
            "web": "ask",
        }

    def test_a_killed_process_fails_the_test_and_can_be_replaced(self) -> None:
        server = LineEchoServer(name="echo").start()
        os.kill(pid_of(server), signal.SIGKILL)
        with pytest.raises(ServerDied, match="'echo'"):
            server.wait_for(1, LONG)
        assert server.state is State.FAILED
        with pytest.raises(ServerDied, match="'echo'"):
            server.stop()
        with server, connect(server.port) as client:
            assert ask(client, "again") == "again"

    def test_a_forced_stop_leaves_nothing(self) -> None:
        server = LineEchoServer().start()
        pid, port = pid_of(server), server.port
        os.kill(pid, signal.SIGSTOP)
        with pytest.warns(ForcedStopWarning, match="LineEchoServer"):
            assert server.stop(0.4).rung == "kill"
        assert gone(pid)
        assert refuses(port)
        assert pid not in pooled()


class TestProcess:
    """What has imported code from outside serves nothing else, before or after."""

    def test_it_is_not_taken_from_the_pool_nor_given_to_it(self) -> None:
        pool.warm()
        before = pooled()
        pids = []
        for _ in range(2):
            with LineEchoServer() as server, connect(server.port) as client:
                assert ask(client, "x") == "x"
                pids.append(pid_of(server))
        assert len(set(pids)) == 2
        assert not before & set(pids)
        assert pooled() == before
        assert all(map(gone, pids))

    @pytest.mark.parametrize(
        "make", [LineEchoServer, lambda: TCPServer(fresh=True)], ids=["outside", "fresh"]
    )
    def test_nor_where_a_new_one_had_died_while_it_booted(
        self, make: Callable[[], Server[Any]]
    ) -> None:
        pool.warm()
        before = pooled()
        booting = launch()
        os.kill(booting.pid, signal.SIGKILL)
        pool._booting.append(booting)
        with make() as server:
            assert pid_of(server) not in before

    def test_a_start_that_fails_ends_it(self) -> None:
        pool.warm()
        before = pooled()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            server = LineEchoServer(taken.getsockname())
            with pytest.raises(StartError, match="port is taken"):
                server.start()
        assert pooled() == before  # the process itself is looked for after each test


class Inside(LineEchoServer):
    """The same protocol, looked for where Sidestage's own are."""

    _outside = None


class TestOffByDefault:
    def test_without_a_place_outside_there_is_no_such_protocol(self) -> None:
        pool.warm()
        before = pooled()
        with pytest.raises(StartError, match="there is no protocol 'line_echo'") as caught:
            Inside().start()
        assert caught.value.errno is not None
        assert pooled() == before  # it has imported nothing, so it may serve others

    def test_no_server_of_sidestages_loads_anything_from_outside(self) -> None:
        kinds = [getattr(sidestage, name) for name in sidestage.__all__ if "Server" in name]
        servers = [kind for kind in kinds if issubclass(kind, sidestage.Server)]
        assert len(servers) > len(VOCABULARIES)
        assert {kind._outside for kind in servers} == {None}

    def test_the_tests_are_not_where_the_servers_process_looks(self) -> None:
        assert not [path for path in _child_paths() if (Path(path) / "kit").exists()]

    def test_its_tags_are_its_own(self) -> None:
        known = {kind.__struct_config__.tag for kind in CLASSES}
        own = {kind.__struct_config__.tag for kind in (*VOCABULARY.commands, *VOCABULARY.events)}
        assert len(own) == 2
        assert not known & own


# A protocol's name elsewhere ---------------------------------------------------------------------

PACKAGE = Path(sidestage.__file__).parent

# What users import, where each protocol has its class, its fixture or its part of the show.
DOORS = {"__init__.py", "classic.py", "demo.py", "pytest_plugin.py", "plugin/table.py"}

EXCEPTIONS = {
    "server/address.py": {"http"},  # not the protocol but the scheme of URLs, as in http+unix://
}


def modules_below_the_doors() -> dict[str, str]:
    """Their sources, by their paths in the package."""
    sources = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}
    return {name: source for name, source in sources.items() if name not in DOORS}


def own_protocol(module: str) -> str:
    """The protocol whose folder a module lies in, if any."""
    folder, _, rest = module.partition("/")
    return rest.partition("/")[0] if folder == "protocols" else ""


def protocols_named(source: str) -> set[str]:
    """The protocols whose names are words in the strings of ``source``; docstrings do not count."""
    nodes = list(ast.walk(ast.parse(source)))
    statements = {node.value for node in nodes if isinstance(node, ast.Expr)}
    strings = [
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in statements
    ]
    return {word for text in strings for word in re.split(r"[\W_]+", text)} & VOCABULARIES.keys()


@pytest.mark.parametrize(
    "source, named",
    [
        ("TABLE = {'http': 1, 'ftp': 2}", {"http"}),
        ("load(f'protocols.smtp.{name}')", {"smtp"}),
        ("attribute = 'udp_server'", {"udp"}),
        ("def f():\n    '''Like http.'''", set()),
        ("kind = socket.IPPROTO_TCP", set()),
    ],
)
def test_what_counts_as_naming_a_protocol(source: str, named: set[str]) -> None:
    assert protocols_named(source) == named


def test_a_protocol_is_named_only_in_its_folder_and_the_doors() -> None:
    """So that a new protocol changes nothing else."""
    sources = modules_below_the_doors()
    assert {"child/host.py", "process/pool.py", "server/server.py"} <= sources.keys()
    others = {
        name: protocols_named(source) - {own_protocol(name)} for name, source in sources.items()
    }
    assert {name: found for name, found in others.items() if found} == EXCEPTIONS
