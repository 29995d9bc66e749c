"""Faults over TLS: what its client gets, byte by byte, and how the connection ends."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kit.tls_clients import LONG, Buffered, https
from sidestage import HTTPServer, TCPServer, faults

ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = bytes(range(256)) * 1000
Made = Callable[..., faults.Fault]


class Ended:
    """What a client of TLS has got, and how its connection has ended."""

    def __init__(self, client: Buffered) -> None:
        self.data = bytearray()
        self.how = "close_notify"
        try:
            while True:
                try:
                    part = client.tls.read(1 << 16)
                except ssl.SSLWantReadError:
                    client.receive()
                else:
                    if not part:
                        return
                    self.data += part
        except ConnectionResetError:
            self.how = "reset"
        except ssl.SSLEOFError:
            self.how = "end in a record" if client.is_cut else "end without close_notify"

    @property
    def body(self) -> bytes:
        return bytes(self.data).partition(b"\r\n\r\n")[2]


def outcome(server: Any, said: bytes = ASK) -> Ended:
    with Buffered(server) as client:
        client.send(said)
        return Ended(client)


def pieces() -> Iterator[bytes]:
    for start in range(0, len(BODY), 10_000):
        yield BODY[start : start + 10_000]


KINDS = [
    (faults.reset, "reset"),
    (faults.close, "close_notify"),
    (faults.reset_in_record, "reset"),
    (faults.close_in_record, "end in a record"),
    (faults.close_without_notify, "end without close_notify"),
]


@pytest.mark.parametrize("make, how", KINDS)
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("after", [None, 0, 25_000])
def test_the_reply_comes_whole_before_the_fault_and_the_rest_never(
    make: Made, how: str, after: int | None, streamed: bool
) -> None:
    def handler(request: Any) -> faults.Fault:
        return make(pieces() if streamed else BODY, after=after)

    with HTTPServer(tls=True, handler=handler) as server:
        ended = outcome(server)
        got, chunked = ended.body, b"chunked" in ended.data
        if chunked:
            got = b"".join(got.split(b"\r\n")[1::2])
        assert got == BODY[:after]
        assert ended.how == how


@pytest.mark.parametrize("make, how", KINDS)
def test_without_a_reply_nothing_comes_before(make: Made, how: str) -> None:
    with HTTPServer(tls=True) as server:
        server.expect("GET", "/").reply(make())
        ended = outcome(server)
        assert (ended.data, ended.how) == (b"", how)
        assert server.received[0].answer.fault in (
            "reset",
            "closed",
            "reset in a TLS record",
            "closed in a TLS record",
            "closed without close_notify",
        )


def test_the_next_connection_is_served_as_ever() -> None:
    with HTTPServer(tls=True) as server:
        server.expect("GET", "/").reply(faults.close_in_record()).reply("good")
        assert outcome(server).how == "end in a record"
        with https(server) as client:
            client.request("GET", "/")
            assert client.getresponse().read() == b"good"


@pytest.mark.parametrize(
    "make", [faults.reset_in_record, faults.close_in_record, faults.close_without_notify]
)
class TestWithoutTLS:
    def test_an_expectation_refuses_it_at_once(self, make: Made) -> None:
        with HTTPServer() as server:
            expectation = server.expect("GET", "/")
            with pytest.raises(ValueError, match=r"is about TLS, .* HTTPServer\(tls=True\)"):
                expectation.reply(make())
            server.clear()

    def test_a_handler_that_returns_it_has_an_error(self, make: Made) -> None:
        with HTTPServer(handler=lambda request: make("x")) as server:
            with socket.create_connection(server.server_address, LONG) as client:
                client.sendall(ASK)
                assert client.recv(100).startswith(b"HTTP/1.1 500 ")
            with pytest.raises(ValueError, match="is about TLS"):
                server.raise_errors()


def test_a_handler_of_tcp_resets_the_whole_connection() -> None:
    with TCPServer(tls=True, handler=lambda connection: connection.reset()) as server:
        with Buffered(server) as client:
            assert Ended(client).how == "reset"
