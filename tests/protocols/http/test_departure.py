"""A handler that has nothing to write notices that its client or its server is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kit.raw_http import WAIT, RawClient
from sidestage import HTTPRequest, HTTPServer, ServerStopped
from sidestage import HTTPResponse as Reply

GET = "GET / HTTP/1.1\r\nHost: t\r\n\r\n"


class Turns:
    """What ends the handlers of a test that has failed, and what they ended with."""

    def __init__(self) -> None:
        self.over = threading.Event()  # the test is over, however it went
        self.ended = threading.Event()
        self.error: BaseException | None = None

    def pieces(self) -> Iterator[bytes]:
        """A first piece, and then nothing, for ever."""
        try:
            yield b"first"
            while not self.over.wait(0.001):
                yield b""
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.ended.set()

    def writes(self, turn: Callable[[], Any]) -> None:
        """The same by hand."""
        try:
            while not self.over.wait(0.001):
                turn()
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.ended.set()


@pytest.fixture
def turns() -> Iterator[Turns]:
    made = Turns()
    yield made
    made.over.set()


Handler = Callable[[HTTPRequest, Turns], Any]


def generator(request: HTTPRequest, turns: Turns) -> Any:
    return turns.pieces()


def generator_in_a_tuple(request: HTTPRequest, turns: Turns) -> Any:
    return turns.pieces(), 200, {"Content-Length": 10}


def generator_in_a_response(request: HTTPRequest, turns: Turns) -> Any:
    return Reply(turns.pieces(), trailers={"X": "y"})


async def coroutine(request: HTTPRequest, turns: Turns) -> Any:
    return turns.pieces()


def started(request: HTTPRequest) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(b"first")
    request.wfile.flush()


def flushes(request: HTTPRequest, turns: Turns) -> None:
    started(request)
    turns.writes(request.wfile.flush)


def writes_nothing(request: HTTPRequest, turns: Turns) -> None:
    started(request)
    turns.writes(lambda: request.wfile.write(b""))


def informs(request: HTTPRequest, turns: Turns) -> None:
    request.send_informational(102)
    turns.writes(lambda: request.send_informational(102))


GENERATORS: list[Handler] = [generator, generator_in_a_tuple, generator_in_a_response, coroutine]
BY_HAND: list[Handler] = [flushes, writes_nothing, informs]
with_each = pytest.mark.parametrize("handler", GENERATORS + BY_HAND, ids=lambda h: h.__name__)


@with_each
def test_a_reset_is_noticed_at_the_next_turn(handler: Handler, turns: Turns) -> None:
    with HTTPServer(handler=lambda request: handler(request, turns)) as server:
        client = RawClient(server)
        client.send(GET)
        client.line()  # the answer has begun
        client.reset()
        assert turns.ended.wait(WAIT)
        wanted = GeneratorExit if handler in GENERATORS else ConnectionResetError
        assert isinstance(turns.error, wanted)
    assert not server.errors
    assert any("the client left" in line.text for line in server.diagnostics)


@with_each
def test_a_stop_is_noticed_at_the_next_turn(handler: Handler, turns: Turns) -> None:
    """Once the time to drain is over; the stop does not wait for more."""
    with HTTPServer(handler=lambda request: handler(request, turns)) as server:
        with RawClient(server) as client:
            client.send(GET)
            client.line()
            report = server.stop(1.0)
            assert report.rung == "ask"
            assert turns.ended.wait(WAIT)
            wanted = GeneratorExit if handler in GENERATORS else ServerStopped
            assert isinstance(turns.error, wanted)
    assert not server.errors
