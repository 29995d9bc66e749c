"""What a stop cuts off looks cut to a client of TLS: it has no close_notify."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest

from kit.clients import SECONDS
from kit.scripts import eventually
from kit.secured import connect
from sidestage import HTTPServer, faults

REQUEST = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"


@pytest.mark.parametrize(
    "fault, begun",
    [
        (lambda: faults.stall(), "stalled"),
        (lambda: faults.stall("hello", after=2), "stalled"),
        (lambda: faults.slow("hello", 1e-6), "bytes/s"),
    ],
    ids=["stalled at once", "stalled within", "slow"],
)
def test_an_answer_that_would_never_end(fault: Callable[[], Any], begun: str) -> None:
    server = HTTPServer(handler=lambda request: fault(), tls=True).start()
    with connect((server.host, server.port), SECONDS) as client:
        client.sendall(REQUEST)
        assert eventually(lambda: begun in server.explain())
        assert server.stop().rung == "ask"
        with pytest.raises(ssl.SSLEOFError):
            while client.recv(1000):
                pass


def test_a_connection_that_says_nothing_more_has_ended_in_order() -> None:
    server = HTTPServer(tls=True).start()
    with connect((server.host, server.port), SECONDS) as idle:
        with connect((server.host, server.port), SECONDS) as client:
            client.sendall(REQUEST)
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
            assert server.stop().clean
            assert client.recv(1000) == b""
        assert idle.recv(1000) == b""
