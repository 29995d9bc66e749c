"""Settings as attributes: those that take effect while the server runs, and those that cannot."""

from __future__ import annotations

import http.client
import smtplib
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from kit.fake_backend import FakeHost, FakeServer
from kit.web import fetch
from sidestage import HTTPServer, SMTPServer, StateError, TCPServer, UDPServer, classic
from sidestage.pristine.waits import Deadline

WAIT = 10.0  # seconds at most for what comes at once
SOON = 0.05  # seconds

SERVERS = [HTTPServer, SMTPServer, TCPServer, UDPServer]
FIXED: dict[str, Any] = {
    "address": ("127.0.0.1", 1),
    "poll_interval": 1,
    "fresh": True,
    "backlog": 5,
}
FIXED_OF = {
    HTTPServer: {"head_limit": 5},
    SMTPServer: {"size_limit": 5, "recipient_limit": 5},
    TCPServer: {},
    UDPServer: {},
}


class TestHandlerTimeout:
    def test_takes_effect_while_it_runs(self, release: threading.Event) -> None:
        with HTTPServer(handler=lambda request: release.wait(WAIT) and "late") as server:
            server.handler_timeout = SOON
            with pytest.raises(HTTPError, match="504"):
                fetch(server.url)
            release.set()
            server.handler_timeout = 30
            assert fetch(server.url) == b"late"

    def test_takes_effect_for_a_request_under_way(self, release: threading.Event) -> None:
        with HTTPServer(handler=lambda request: release.wait(WAIT) and "late") as server:
            client = http.client.HTTPConnection(server.host, server.port, timeout=WAIT)
            client.request("GET", "/")
            server.wait_for(1)
            server.handler_timeout = SOON
            assert client.getresponse().status == 504
            client.close()
            assert f"within {SOON} s" in server.diagnostics[0].text
            release.set()

    def test_may_end(self, release: threading.Event) -> None:
        with HTTPServer(
            handler=lambda request: release.wait(WAIT) and "late", handler_timeout=0.2
        ) as server:
            server.handler_timeout = None
            threading.Timer(0.3, release.set).start()
            assert fetch(server.url) == b"late"

    def test_of_smtp(self, release: threading.Event) -> None:
        with SMTPServer(handler=lambda mail: release.wait(WAIT) and None) as server:
            server.handler_timeout = SOON
            with smtplib.SMTP(server.host, server.port) as client:
                with pytest.raises(smtplib.SMTPDataError, match="451"):
                    client.sendmail("me@example.org", ["you@example.org"], "hello")
            release.set()

    def test_lasts_over_a_restart_and_not_to_the_next_server(
        self, release: threading.Event
    ) -> None:
        def handler(request: Any) -> str:
            release.wait(WAIT)
            return "late"

        with HTTPServer(handler=handler) as server:
            server.handler_timeout = SOON
            server.restart()
            with pytest.raises(HTTPError, match="504"):
                fetch(server.url)
            release.set()
        release.clear()
        with HTTPServer(handler=handler) as other:
            threading.Timer(4 * SOON, release.set).start()
            assert fetch(other.url) == b"late"

    def test_counts_if_it_is_set_during_the_start(self) -> None:
        host = FakeHost()
        server = FakeServer(host)
        host.after["finish"] = lambda backend: setattr(server, "handler_timeout", 7)
        with server:
            assert host.last.limits == (7, server.keep)


class TestKeep:
    def test_drops_what_is_too_much_at_once(self) -> None:
        with HTTPServer() as server:
            for number in range(5):
                fetch(f"{server.url}/{number}")
            server.keep = 2 * 1000
            assert [request.path for request in server.received] == ["/2", "/3", "/4"]
            assert server.received.dropped == 2
            server.keep = 1 << 20
            for number in range(5, 9):
                fetch(f"{server.url}/{number}")
            assert len(server.received) == 7

    def test_bounds_what_the_process_keeps_of_a_body(self) -> None:
        with HTTPServer() as server:
            for keep, kept in ((4000, 1000), (1 << 20, 2000)):
                server.keep = keep
                client = http.client.HTTPConnection(server.host, server.port, timeout=WAIT)
                client.request("POST", "/", body=b"x" * 2000)
                assert client.getresponse().status == 200
                client.close()
                assert len(server.received[-1].body) == kept

    def test_makes_room_for_what_waits_in_the_process(self) -> None:
        with HTTPServer(keep=1000) as server:
            server.keep = 1 << 26
            client = http.client.HTTPConnection(server.host, server.port, timeout=WAIT)
            for _ in range(60):  # more than the pipe holds, which nobody reads meanwhile
                client.request("POST", "/", body=b"x" * 60_000)
                client.getresponse().read()
            client.close()
            assert len(server.received) == 60
            assert server.received.dropped == 0


@pytest.mark.filterwarnings("ignore::sidestage.LeftRunningWarning")
def test_a_stop_timeout_takes_effect(release: threading.Event) -> None:
    with TCPServer(handler=lambda one: release.wait(WAIT) and None) as server:
        with socket.create_connection(server.server_address):
            while not server._lifecycle.backend.under_way():
                server.wait_for(0)
            server.stop_timeout = 0.2
            assert server.stop().seconds < 2
        release.set()


@pytest.mark.parametrize("kind", SERVERS)
def test_what_cannot_change_while_it_runs_says_so(kind: Any) -> None:
    with kind() as server:
        for name, value in {**FIXED, **FIXED_OF[kind]}.items():
            before = getattr(server, name)
            with pytest.raises(
                StateError, match=rf"^{name} cannot change while {kind.__name__} at .* stop it fir"
            ):
                setattr(server, name, value)
            assert getattr(server, name) == before


@pytest.mark.parametrize("kind", SERVERS)
def test_it_counts_from_the_next_start(kind: Any) -> None:
    server = kind()
    for name, value in {**FIXED, **FIXED_OF[kind], "address": ("127.0.0.2", 0)}.items():
        setattr(server, name, value)
        assert getattr(server, name) == value
    with server:
        assert server.host == "127.0.0.2"
    if kind is HTTPServer:
        server.head_limit = 5
        with server, pytest.raises(HTTPError, match="431"):
            fetch(server.url)


def test_one_that_has_died_may_change() -> None:
    host = FakeHost()
    server = FakeServer(host).start()
    host.last.die()
    server.backlog = 7
    assert server.backlog == 7
    server._lifecycle.begin_stop(Deadline(0))
    server._lifecycle.finish_stop()


@pytest.mark.parametrize(
    "name, wrong, said",
    [
        ("handler_timeout", -1, "handler_timeout must be at least 0"),
        ("stop_timeout", "5", "stop_timeout must be a number of seconds"),
        ("keep", 1.5, "keep must be an int"),
        ("backlog", 0, "backlog must be at least 1"),
        ("head_limit", 0, "head_limit must be at least 1"),
        ("address", 8080, "address must be"),
        ("name", 8080, "name must be str or None, not 8080"),
        ("fresh", "no", "fresh must be True or False, not 'no'"),
    ],
)
def test_a_wrong_value_is_refused_and_changes_nothing(name: str, wrong: Any, said: str) -> None:
    server = HTTPServer()
    before = getattr(server, name)
    with pytest.raises((TypeError, ValueError), match=said):
        setattr(server, name, wrong)
    assert getattr(server, name) == before


def test_the_options_take_effect_in_each_class(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "name": "mine",
        "handler_timeout": None,
        "start_timeout": 7.0,
        "stop_timeout": 3.0,
        "keep": 1000,
        "fresh": True,
        "backlog": 5,
    }
    address = {"TestUnixStreamServer": tmp_path / "a", "TestUnixDatagramServer": tmp_path / "b"}
    for kind in [*SERVERS, *(getattr(classic, name) for name in classic.__all__)]:
        place = address.get(kind.__name__, ("127.0.0.1", 0))
        server = kind(place, lambda *arguments: None, **options)
        assert {name: getattr(server, name) for name in options} == options
