"""Why a client may have failed though no handler has: only what its error speaks of is told.

The texts are those of ``test_pytest_plugin_report.py``.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from sidestage import HTTPServer
from sidestage.pristine.waits import Clock
from sidestage.server.plight import plight

NO_HOST = b"GET / HTTP/1.1\r\n\r\n"
GET = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"


class OfAClient(Exception):
    """What a client's library may raise."""

    def __init__(self, status: int) -> None:
        super().__init__("its text says nothing")
        self.status_code = status


class ReadTimeout(Exception):
    """No library has a class in common with another."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(name="shop") as server:
        yield server


def refuse(server: HTTPServer) -> None:
    with socket.create_connection(server.server_address, timeout=10) as client:
        client.sendall(NO_HOST)
        assert client.recv(1000).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "error", [OfAClient(400), AssertionError("assert 400 == 200"), LookupError("400 Bad Request")]
)
def test_a_refusal_is_told_where_the_error_has_its_status(
    server: HTTPServer, error: Exception
) -> None:
    refuse(server)
    [line] = plight([server], error, 0.0)
    assert line == "sent 400 Bad Request: 0 Host fields, there must be one (RFC 9112 3.2)"


@pytest.mark.parametrize(
    "error", [OfAClient(500), AssertionError("assert 4000 == 200"), TimeoutError()]
)
def test_a_refusal_is_not_told_of_another_error(server: HTTPServer, error: Exception) -> None:
    refuse(server)
    assert plight([server], error, 0.0) == []


def test_a_refusal_of_an_earlier_test_is_not_told(server: HTTPServer) -> None:
    refuse(server)
    assert server.diagnostics
    assert plight([server], OfAClient(400), Clock.monotonic()) == []


@pytest.mark.parametrize("error", [TimeoutError(), ReadTimeout(), OSError("timed out")])
def test_what_waits_is_told_of_a_time_out(server: HTTPServer, error: Exception) -> None:
    release = threading.Event()
    server.handler = lambda request: release.wait(60) and None
    with socket.create_connection(server.server_address) as client:
        client.sendall(GET)
        server.wait_for(1)
        [line] = plight([server], error, 0.0)
        assert line.startswith("not answered: GET /slow: handler running for ")
        assert plight([server], AssertionError("no timeout"), 0.0) == []
        release.set()
        assert client.recv(1000)


def test_a_connection_that_is_idle_is_not_told(server: HTTPServer) -> None:
    with socket.create_connection(server.server_address) as client:
        client.sendall(GET)
        assert client.recv(1000)
        assert plight([server], TimeoutError(), 0.0) == []
