"""Expectations at the ends of things: stops, removals, cancelled waits, bodies without an end."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kit.http_calls import request
from sidestage import (
    HTTPServer,
    ServerDied,
    StateError,
    UnmetExpectation,
    WaitTimeout,
    containing,
)
from sidestage.journal import causes, owners
from sidestage.wire import frames

WAIT = 10.0  # seconds at most for what comes at once


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    """A server that nobody but the test verifies."""
    monkeypatch.setattr(causes, "current", lambda: None)
    monkeypatch.setattr(owners, "current", owners.Owner)
    with HTTPServer(name="shop", stop_timeout=60.0, unexpected="reply") as server:
        yield server
        server.clear()


def send(server: HTTPServer, *lines: str) -> socket.socket:
    client = socket.create_connection((server.host, server.port), timeout=WAIT)
    client.sendall("\r\n".join([*lines, "Host: t", "Connection: close", "", ""]).encode())
    return client


def read(client: socket.socket) -> bytes:
    """What comes until the connection ends; a reset is the end as well."""
    found = b""
    with client:
        while True:
            try:
                came = client.recv(1 << 16)
            except ConnectionResetError:
                return found
            if not came:
                return found
            found += came


class Slow:
    """A ``where`` that is called and does not return, until the test lets it."""

    def __init__(self, release: threading.Event) -> None:
        self.called = threading.Event()
        self._release = release

    def __call__(self, request: Any) -> bool:
        self.called.set()
        return self._release.wait(WAIT)


def release_in_stop(server: HTTPServer, release: threading.Event) -> threading.Timer:
    """Set ``release`` once the stop has begun."""
    begun = server._lifecycle.moving

    def watch() -> None:
        while not begun():
            threading.Event().wait(0.001)
        threading.Event().wait(0.1)
        release.set()

    thread = threading.Timer(0.0, watch)
    thread.start()
    return thread


class TestAStop:
    def test_answers_those_whose_question_waits(
        self, server: HTTPServer, release: threading.Event
    ) -> None:
        slow = Slow(release)
        for name in "abc":
            server.expect("GET", f"/{name}", where=slow).reply(name)
        clients = [send(server, "GET /a HTTP/1.1")]
        assert slow.called.wait(WAIT)
        clients += [send(server, f"GET /{name} HTTP/1.1") for name in "bc"]
        watcher = release_in_stop(server, release)
        server.stop()
        watcher.join()
        assert [read(client)[-1:] for client in clients] == [b"a", b"b", b"c"]
        server.verify()

    def test_does_not_wait_for_what_is_held_meanwhile(
        self, server: HTTPServer, release: threading.Event
    ) -> None:
        slow = Slow(release)
        server.expect("GET", "/a", where=slow).hold()
        client = send(server, "GET /a HTTP/1.1")
        assert slow.called.wait(WAIT)
        watcher = release_in_stop(server, release)
        report = server.stop()
        watcher.join()
        assert (report.connections, read(client)) == ((), b"")
        with pytest.raises(UnmetExpectation, match="1 never taken"):
            server.verify()

    def test_resets_what_came_just_before_it(self, server: HTTPServer) -> None:
        server.allow("GET", "/a").hold()
        clients = [send(server, "GET /a HTTP/1.1") for _ in range(50)]
        assert server.stop().connections == ()
        assert {read(client) for client in clients} == {b""}


class TestWhatIsDeclaredWhileNothingServes:
    def test_is_said_by_the_start_and_not_kept_twice(self) -> None:
        server = HTTPServer(unexpected="reply")
        server.allow("GET", "/a").reply("a")
        for _ in range(3):
            server.allow("GET", "/b").reply("b").remove()
        table: Any = server._slot.declared
        assert table._log == []
        for _ in range(2):
            with server:
                assert [request(server, "GET", path).status for path in ("/a", "/b")] == [200, 404]
                server.clear()
                server.allow("GET", "/a")
            server.allow("GET", "/c").remove()
            assert table._log == []


class TestWhatIsRemoved:
    def test_holds_nobody_who_comes_at_that_moment(self, server: HTTPServer) -> None:
        for number in range(300):
            server.expect("GET", f"/{number}").hold()
        clients = [send(server, f"GET /{number} HTTP/1.1") for number in range(300)]
        server.clear()
        for client in clients:
            assert read(client)[:12] in (b"", b"HTTP/1.1 200")
        assert server.errors == ()


class TestAReset:
    def test_tells_of_the_requests_behind_it(self, server: HTTPServer) -> None:
        held = server.expect("GET", "/a").hold()
        server.allow("GET", "/b").reply("b")
        client = socket.create_connection((server.host, server.port), timeout=WAIT)
        one = "GET /{} HTTP/1.1\r\nHost: t\r\n\r\n"
        client.sendall("".join(map(one.format, "bab")).encode())
        held.take().reset()
        assert read(client).count(b"HTTP/1.1 200") == 1
        (diagnostic,) = server.diagnostics
        assert diagnostic.text.startswith("no answer to GET /b: ")


class TestABodyAfterAnEarlyQuestion:
    @pytest.fixture
    def server(self, server: HTTPServer) -> HTTPServer:
        server.allow("POST", "/a", text=containing("hello")).reply("by the body")
        server.allow("POST", "/a", where=lambda request: False).reply("early", early=True)
        server.handler_timeout = WAIT
        return server

    def test_is_asked_for(self, server: HTTPServer) -> None:
        client = send(server, "POST /a HTTP/1.1", "Content-Length: 5", "Expect: 100-continue")
        assert client.recv(1 << 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"hello")
        assert read(client).endswith(b"by the body")

    def test_comes_whole_though_nobody_reads_it(self, server: HTTPServer) -> None:
        assert request(server, "POST", "/a", b"hello" + bytes(6 << 20)).text == "by the body"

    def test_is_not_waited_for_beyond_what_is_kept(self, server: HTTPServer) -> None:
        server.keep = 16 << 20
        assert request(server, "POST", "/a", b"hello" + bytes(12 << 20)).status == 404


class TestAWaitThatIsCancelled:
    def test_takes_nothing_at_any_moment(self, server: HTTPServer) -> None:
        async def main() -> None:
            held = server.allow("GET", "/a").hold()
            for number in range(30):
                waiting = asyncio.create_task(held.take_async(WAIT))
                await asyncio.sleep(0.01)
                client = send(server, "GET /a HTTP/1.1")
                await asyncio.sleep(number % 6 * 0.0005)
                waiting.cancel()
                try:
                    call = await waiting
                except asyncio.CancelledError:
                    call = await held.take_async(WAIT)
                call.reply("x")
                assert (await asyncio.to_thread(read, client)).endswith(b"x")

        asyncio.run(main())


class TestWhatIsTooLarge:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A limit that takes less memory."""
        from sidestage.expectations import table

        monkeypatch.setattr(frames, "MAX_MESSAGE", 1 << 20)
        monkeypatch.setattr(table, "MAX_MESSAGE", 1 << 20)

    def test_is_refused_and_is_not_in_the_way(self, server: HTTPServer) -> None:
        with pytest.raises(ValueError, match=r"the reply has 1,\d+,\d+ bytes.*pass a callable"):
            server.allow("GET", "/a").reply(bytes(1 << 20))
        with pytest.raises(ValueError, match=r"what it looks at has .* bytes.*where="):
            server.allow("POST", "/a", body=bytes(1 << 20))
        server.allow("GET", "/b").reply("b")
        assert request(server, "GET", "/b").text == "b"

    def test_is_told_in_parts_if_only_all_of_it_is(self, server: HTTPServer) -> None:
        for number in range(5):
            server.allow("GET", f"/{number}").reply(bytes(500_000))
        server.restart()
        assert [len(request(server, "GET", f"/{n}").text) for n in range(5)] == [500_000] * 5


class TestWhere:
    def test_that_returns_an_awaitable_is_an_error(self, server: HTTPServer) -> None:
        async def where(request: Any) -> bool:
            return False

        server.allow("GET", "/a", where=functools.partial(where)).reply("a")
        assert request(server, "GET", "/a").status == 500
        with pytest.raises(TypeError, match=r"where must say at once.*coroutine"):
            server.raise_errors()


class TestWhatHasNoEffect:
    def test_is_an_error(self, server: HTTPServer) -> None:
        with pytest.raises(TypeError, match="early must be True or False, not 'no'"):
            server.expect("GET", "/a").reply("a", early="no")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="never to be met"):
            server.expect("GET", "/b", times=0).hold()
        with pytest.raises(StateError, match=r"expect GET /c .* holds no calls to take"):
            server.expect("GET", "/c").take()
        with pytest.raises(TypeError, match="a path is text"):
            server.take("GET", re.compile("/a"))  # type: ignore[arg-type]


def test_what_another_thread_declares_is_in_no_order(server: HTTPServer) -> None:
    with server.in_order():
        server.expect("GET", "/1")
        with ThreadPoolExecutor(1) as other:
            other.submit(server.allow, "GET", "/health").result()
            other.submit(server.expect, "GET", "/0").result()
        server.expect("GET", "/2")
    assert [request(server, "GET", f"/{n}").status for n in ("1", "health", "2", "0")] == [200] * 4
    server.verify()


def test_after_a_death_there_is_only_that(server: HTTPServer) -> None:
    server.expect("GET", "/a")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises((ServerDied, WaitTimeout)):
        server.wait_for(1, timeout=WAIT)
    with pytest.raises(ServerDied):
        server.verify()
    with pytest.raises(ServerDied):
        server.stop()
    server.verify()


class TestWhatCameBefore:
    """Before an expectation was declared, nothing could meet it."""

    def unmet(self, server: HTTPServer) -> str:
        with pytest.raises(UnmetExpectation) as caught:
            server.verify()
        return str(caught.value).partition("\n")[2]

    def test_is_told_as_that(self, server: HTTPServer) -> None:
        request(server, "GET", "/tea")
        server.expect("GET", "/tea")
        assert self.unmet(server) == (
            "no request came after it was declared; before that came:\n"
            "  GET /tea\n"
            "    all that it looks at holds"
        )

    def test_is_not_told_beside_what_came_after_it(self, server: HTTPServer) -> None:
        request(server, "GET", "/tea")
        server.expect("GET", "/tea")
        request(server, "GET", "/tee")
        assert self.unmet(server).splitlines()[:2] == ["what came:", "  GET /tee"]

    def test_is_not_told_of_another_test(self, server: HTTPServer) -> None:
        request(server, "GET", "/tea")
        expectation = server.expect("GET", "/tea")
        test = causes.Test("test_other")
        expectation._entry.spec = expectation._entry.spec._replace(owner=owners.Owner(test))
        assert self.unmet(server) == "no request came"
