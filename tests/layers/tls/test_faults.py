"""Faults over TLS: what its client gets, byte by byte, and how the connection ends."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kit.tls_clients import LONG, Buffered, https, join
from sidestage import HTTPServer, StateError, TCPServer, faults

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


# Of a connection: TCP, and the tunnels of HTTP ----------------------------------------------------

BREAKS = {
    "reset_in_record": ("reset", "reset by the handler in a TLS record"),
    "close_in_record": ("end in a record", "closed by the handler in a TLS record"),
    "close_without_notify": ("end without close_notify", "closed by the handler without close_n"),
}


@pytest.mark.parametrize("size", [0, 1, 25_000, 3 << 20])
@pytest.mark.parametrize("name", BREAKS)
def test_what_a_handler_of_tcp_has_sent_comes_before_the_fault(name: str, size: int) -> None:
    sent = (BODY * 16)[:size]

    def handler(connection: Any) -> None:
        connection.recv(100)
        connection.sendall(sent)
        getattr(connection, name)()

    with TCPServer(tls=True, handler=handler) as server:
        ended = outcome(server, b"x")
        assert (bytes(ended.data), ended.how) == (sent, BREAKS[name][0])
        assert server.received[0].ended.startswith(BREAKS[name][1])
        assert BREAKS[name][1] in server.explain()
        assert not server.errors
        assert outcome(server, b"x").how == BREAKS[name][0]  # the next is served


@pytest.mark.parametrize("name", BREAKS)
def test_it_comes_though_the_client_has_sent_more(name: str) -> None:
    """What the handler has not read would make a reset of a plain close."""

    def handler(connection: Any) -> None:
        connection.sendall(b"tea")
        getattr(connection, name)()

    with TCPServer(tls=True, handler=handler) as server:
        ended = outcome(server, bytes(100_000))
        assert (bytes(ended.data), ended.how) == (b"tea", BREAKS[name][0])


@pytest.mark.parametrize("name", BREAKS)
def test_through_a_tunnel_too(name: str) -> None:
    def handler(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        request.connection.sendall(request.connection.recv(100))
        getattr(request.connection, name)()

    with HTTPServer(tls=True, handler=handler) as server:
        with Buffered(server) as client:
            client.send(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\ntea")
            ended = Ended(client)
        assert (ended.body, ended.how) == (b"tea", BREAKS[name][0])


@pytest.mark.parametrize("name", BREAKS)
def test_who_uses_the_connection_afterwards_finds_it_closed(name: str) -> None:
    found: list[type[BaseException]] = []

    def handler(connection: Any) -> None:
        getattr(connection, name)()
        for use in (lambda: connection.recv(1), lambda: connection.sendall(b"x")):
            with pytest.raises(OSError, match="has closed this connection") as caught:
                use()
            found.append(caught.type)
        getattr(connection, name)()  # twice, as with close
        connection.close()

    with TCPServer(tls=True, handler=handler) as server:
        outcome(server)
    assert len(found) == 2


def test_it_is_too_late_after_close_notify() -> None:
    def handler(connection: Any) -> None:
        connection.shutdown_write()
        for name in BREAKS:
            with pytest.raises(BrokenPipeError):
                getattr(connection, name)()

    with TCPServer(tls=True, handler=handler) as server:
        assert outcome(server).how == "close_notify"


@pytest.mark.parametrize("name", BREAKS)
def test_a_connection_without_tls_says_what_to_call(name: str) -> None:
    def handler(connection: Any) -> bytes:
        with pytest.raises(StateError, match=rf"{name}\(\) is about TLS, .* tls=True, or use"):
            getattr(connection, name)()
        return b"still open"

    with TCPServer(handler=handler) as server:
        with socket.create_connection(server.server_address, LONG) as client:
            assert client.recv(100) == b"still open"


@pytest.mark.parametrize("name", ["close_in_record", "close_without_notify"])
def test_sockets_of_python_see_it_if_they_want_to(name: str) -> None:
    def handler(connection: Any) -> None:
        connection.sendall(b"tea")
        getattr(connection, name)()

    with TCPServer(tls=True, handler=handler) as server:
        with join(server) as strict:
            assert strict.recv(100) == b"tea"
            with pytest.raises(ssl.SSLEOFError):
                strict.recv(100)
        plain = socket.create_connection(server.server_address, LONG)
        context = server.client_context()
        with context.wrap_socket(plain, server_hostname="localhost") as lenient:
            assert (lenient.recv(100), lenient.recv(100)) == (b"tea", b"")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("name", ["close", "close_in_record", "close_without_notify"])
def test_openssl_tells_it_from_an_orderly_end(name: str) -> None:
    def handler(connection: Any) -> None:
        connection.sendall(b"tea")
        getattr(connection, name)()

    with TCPServer(tls=True, handler=handler) as server:
        command = ["openssl", "s_client", "-quiet", "-CAfile", server.ca_file, "-connect"]
        done = subprocess.run(
            [*command, f"127.0.0.1:{server.port}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LONG,
            check=False,
        )
    assert done.stdout == b"tea"
    assert (b"unexpected eof" in done.stderr) == (name != "close")


def test_a_handler_of_tcp_resets_the_whole_connection() -> None:
    with TCPServer(tls=True, handler=lambda connection: connection.reset()) as server:
        with Buffered(server) as client:
            assert Ended(client).how == "reset"
