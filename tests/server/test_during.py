"""What comes to a server for a while: seen, waited for, and its errors raised."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import unittest
from collections.abc import Iterator
from typing import Any

import pytest

from kit.web import fetch, fetch_quietly
from sidestage import HTTPServer, StateError, TCPServer, WaitTimeout
from sidestage.journal import causes

WAIT = 10.0  # seconds at most for what comes at once


class Refused(Exception):
    """A handler's own."""


def refuse(request: Any) -> None:
    raise Refused(request.path)


@pytest.fixture
def no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else tells the test what handlers have raised."""
    monkeypatch.setattr(causes, "current", lambda: None)


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer() as server:
        yield server


def paths(records: list[Any]) -> list[str]:
    return [request.path for request in records]


class TestRecords:
    def test_are_those_that_came_inside(self, server: HTTPServer) -> None:
        fetch(server.url + "/before")
        with server.during() as calls:
            assert calls.received == []
            fetch(server.url + "/inside")
            assert paths(calls.received) == ["/inside"]
        fetch(server.url + "/after")
        assert paths(calls.received) == ["/inside"]
        assert calls.received.one("GET", "/inside").path == "/inside"
        assert paths(server.received) == ["/before", "/inside", "/after"]

    def test_are_waited_for(self, server: HTTPServer) -> None:
        fetch(server.url + "/before")
        with server.during() as calls:
            client = threading.Thread(target=fetch, args=(server.url + "/inside",))
            client.start()
            assert paths(calls.wait_for(1)) == ["/inside"]
            client.join()
            assert paths(calls.wait_for(lambda request: request.method == "GET")) == ["/inside"]
            with pytest.raises(WaitTimeout, match=r"1 of 2 within 0 s:\n  <HTTPRequest GET /ins"):
                calls.wait_for(2, timeout=0)

    def test_are_counted_whatever_is_dropped_or_cleared(self) -> None:
        with HTTPServer(keep=1) as server:
            fetch(server.url + "/before")
            with server.during() as calls:
                for path in ("/one", "/two"):
                    fetch(server.url + path)
                assert paths(calls.wait_for(2, timeout=0)) == ["/two"]
            assert calls.received.dropped == 1
            server.clear()
            fetch(server.url + "/after")
            assert calls.received == []

    def test_go_on_after_a_clear_inside(self, server: HTTPServer) -> None:
        for path in ("/a", "/b"):
            fetch(server.url + path)
        with server.during() as calls:
            fetch(server.url + "/inside")
            server.clear()
            fetch(server.url + "/later")
            assert paths(calls.received) == paths(calls.wait_for(1)) == ["/later"]

    def test_two_at_a_time(self, server: HTTPServer) -> None:
        with server.during() as outer:
            fetch(server.url + "/outer")
            with server.during() as inner:
                fetch(server.url + "/inner")
        assert paths(outer.received) == ["/outer", "/inner"]
        assert paths(inner.received) == ["/inner"]


class TestItsEnd:
    def test_waits_for_what_is_under_way(self, server: HTTPServer) -> None:
        go_on, done = threading.Event(), []
        server.handler = lambda request: go_on.wait(WAIT) and done.append(request.path)
        with server.during() as calls:
            client = threading.Thread(target=fetch, args=(server.url + "/slow",))
            client.start()
            calls.wait_for(1)
            threading.Timer(0.05, go_on.set).start()
        assert done == ["/slow"]
        client.join()

    def test_waits_no_longer_than_a_handler_has(self) -> None:
        go_on = threading.Event()
        with TCPServer(handler=lambda one: go_on.wait(WAIT) and None, handler_timeout=0.1) as tcp:
            with socket.create_connection(tcp.server_address):
                began = time.monotonic()
                with tcp.during():
                    pass
                assert 0.09 < time.monotonic() - began < 5
                go_on.set()

    @pytest.mark.usefixtures("no_plugin")
    def test_raises_what_a_handler_has_raised_inside_once(self, server: HTTPServer) -> None:
        server.handler = refuse
        with pytest.raises(Refused, match="/inside"):
            with server.during() as calls:
                fetch_quietly(server.url + "/inside")
        assert list(map(str, calls.errors)) == ["/inside"]
        server.raise_errors()

    @pytest.mark.usefixtures("no_plugin")
    def test_leaves_what_was_raised_outside(self, server: HTTPServer) -> None:
        server.handler = refuse
        fetch_quietly(server.url + "/before")
        with pytest.raises(Refused, match="/inside"):
            with server.during():
                fetch_quietly(server.url + "/inside")
        with pytest.raises(Refused, match="/before"):
            server.raise_errors()

    def test_leaves_the_error_of_a_request_that_came_before(self, server: HTTPServer) -> None:
        go_on = threading.Event()
        server.handler = lambda request: go_on.wait(WAIT) and refuse(request)
        client = threading.Thread(target=fetch_quietly, args=(server.url + "/before",))
        client.start()
        server.wait_for(1)
        with server.during() as calls:
            go_on.set()
            client.join()
        assert calls.errors == ()
        with pytest.raises(Refused, match="/before"):
            server.raise_errors()

    @pytest.mark.usefixtures("no_plugin")
    def test_adds_a_note_to_the_error_of_its_body(self, server: HTTPServer) -> None:
        server.handler = refuse
        with pytest.raises(KeyError) as caught:
            with server.during():
                fetch_quietly(server.url + "/inside")
                raise KeyError("mine")
        assert "Refused" in caught.value.__notes__[0]
        server.raise_errors()


class TestOnALoop:
    def test_async_with_lets_coroutine_handlers_end(self) -> None:
        async def main() -> None:
            async with HTTPServer(handler=answer) as server:
                async with server.during() as calls:
                    client = asyncio.create_task(asyncio.to_thread(fetch, server.url))
                    await calls.wait_for_async(1)
                    asyncio.get_running_loop().call_later(0.05, go_on.set)
                assert done
                await client

        async def answer(request: Any) -> None:
            await go_on.wait()
            done.append(request)

        go_on, done = asyncio.Event(), []
        asyncio.run(main())

    def test_with_raises_only_where_it_would_have_to_wait(self) -> None:
        async def main() -> None:
            async with HTTPServer(handler=lambda request: go_on.wait(WAIT) and "") as server:
                with server.during():
                    pass
                with pytest.raises(StateError, match=r"async with server\.during"):
                    with server.during() as calls:
                        client = asyncio.create_task(asyncio.to_thread(fetch, server.url))
                        await calls.wait_for_async(1)
                go_on.set()
                await client

        go_on = threading.Event()
        asyncio.run(main())


@pytest.mark.usefixtures("no_plugin")
def test_unittest_enters_it_for_a_server_of_a_class() -> None:
    class Shared(unittest.TestCase):
        @classmethod
        def setUpClass(cls) -> None:
            cls.server = cls.enterClassContext(HTTPServer(handler=refuse))

        def setUp(self) -> None:
            self.calls = self.enterContext(self.server.during())

        def test_1_guilty(self) -> None:
            fetch_quietly(self.server.url + "/guilty")

        def test_2_innocent(self) -> None:
            assert self.calls.received == []

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Shared).run(result)
    assert [test.id().rpartition(".")[2] for test, _ in result.errors] == ["test_1_guilty"]
    assert "Refused: /guilty" in result.errors[0][1]
