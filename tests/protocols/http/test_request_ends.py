"""A handler that ends its client's connection by hand: ``request.reset`` and ``request.close``."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from kit.clients import connect
from kit.http_requests import record
from kit.scripts import eventually
from sidestage import HTTPServer, faults

LONG = 30.0  # seconds; a bound for what ends at once unless it is broken
GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
BIG = b"0123456789" * 200_000  # more than the kernel holds of what a client does not read
ENDS = {"reset": "reset", "close": "end"}
with_each = pytest.mark.parametrize("name", ENDS)


def outcome(client: socket.socket) -> tuple[bytes, str]:
    """What comes until the connection ends, and how it ends."""
    client.settimeout(LONG)
    came = bytearray()
    try:
        while data := client.recv(1 << 16):
            came += data
    except ConnectionResetError:
        return bytes(came), "reset"
    return bytes(came), "end"


@with_each
def test_in_place_of_a_response(name: str) -> None:
    with HTTPServer(handler=lambda request: getattr(request, name)()) as server:
        with connect(server.port) as client:
            client.sendall(GET)
            assert outcome(client) == (b"", ENDS[name])
        answer = server.received[0].answer
        assert answer is not None
        said = "reset" if name == "reset" else "closed"
        assert (answer.status, answer.size, answer.fault) == (None, 0, said)
        assert f"GET / -> {said} (" in server.explain()


@with_each
def test_from_a_coroutine(name: str) -> None:
    async def handler(request: Any) -> None:
        getattr(request, name)()

    with HTTPServer(handler=handler) as server, connect(server.port) as client:
        client.sendall(GET)
        assert outcome(client) == (b"", ENDS[name])


@with_each
@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_within_a_response_what_was_written_is_sent_before(
    name: str, flushed: bool, version: str
) -> None:
    """All of it, also to a client that begins to read only then."""

    def handler(request: Any) -> None:
        request.send_response(201)
        request.end_headers()
        request.wfile.write(BIG)
        if flushed:
            request.wfile.flush()
        request.wfile.write(b"the end")
        getattr(request, name)()

    with HTTPServer(handler=handler) as server, connect(server.port) as client:
        client.sendall(GET.replace(b"1.1", version.encode()))
        assert eventually(lambda: bool(server.received))
        came, ended = outcome(client)
        assert ended == ENDS[name]
        assert came.startswith(b"HTTP/1.1 201 Created\r\n")
        end = b"\r\n7\r\nthe end\r\n" if version == "1.1" else b"9the end"
        assert came.endswith(end)
        assert len(came) > len(BIG)
        assert eventually(lambda: server.received[0].answer is not None)
        answer = server.received[0].answer
        assert answer is not None
        assert (answer.status, answer.size) == (201, len(BIG) + 7)
        assert answer.fault.endswith(" after 2,000,007 bytes")


@with_each
def test_a_response_whose_headers_have_not_ended_is_not_sent(name: str) -> None:
    def handler(request: Any) -> None:
        request.send_response(200)
        request.send_header("A", "b")
        getattr(request, name)()

    with HTTPServer(handler=handler) as server, connect(server.port) as client:
        client.sendall(GET)
        assert outcome(client) == (b"", ENDS[name])


@with_each
@pytest.mark.parametrize("result", ["text", {}, faults.close()], ids=["text", "dict", "fault"])
def test_what_the_handler_returns_then_is_an_error(name: str, result: object) -> None:
    def handler(request: Any) -> object:
        getattr(request, name)()
        return result

    with HTTPServer(handler=handler) as server, connect(server.port) as client:
        client.sendall(GET)
        assert outcome(client) == (b"", ENDS[name])
        assert eventually(lambda: bool(server.errors))
        text = str(server.errors[0])
        assert "a handler that has ended its connection must return None, not" in text
        assert "test_request_ends.py:" in text
        server.clear()


@with_each
def test_what_the_handler_raises_then_is_told_to_the_test_alone(name: str) -> None:
    def handler(request: Any) -> None:
        getattr(request, name)()
        raise KeyError("afterwards")

    with HTTPServer(handler=handler) as server, connect(server.port) as client:
        client.sendall(GET)
        assert outcome(client) == (b"", ENDS[name])
        assert eventually(lambda: bool(server.errors))
        assert isinstance(server.errors[0], KeyError)
        answer = server.received[0].answer
        assert answer is not None
        assert answer.status is None
        server.clear()


@with_each
@pytest.mark.parametrize(
    "use",
    [
        lambda request: request.reset(),
        lambda request: request.close(),
        lambda request: request.send_response(200),
        lambda request: request.wfile.write(b"x"),
        lambda request: request.send_error(500),
    ],
    ids=["reset", "close", "send_response", "write", "send_error"],
)
def test_nothing_can_be_sent_then(name: str, use: Any) -> None:
    raised: list[Exception] = []

    def handler(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        getattr(request, name)()
        request.wfile.flush()  # of nothing, as a file that is closed twice
        with pytest.raises(ValueError, match=r"is complete|ended already") as caught:
            use(request)
        raised.append(caught.value)

    with HTTPServer(handler=handler) as server, connect(server.port) as client:
        client.sendall(GET)
        came, ended = outcome(client)
        assert ended == ENDS[name]
        assert came.count(b"HTTP/1.1") == 1
        assert eventually(lambda: bool(raised))


@with_each
def test_it_is_too_late_once_the_request_was_answered(name: str) -> None:
    with pytest.raises(ValueError, match="has been answered"):
        getattr(record(), name)()
    kept: list[Any] = []
    with HTTPServer(handler=lambda request: kept.append(request)) as server:
        with connect(server.port) as client:
            client.sendall(GET)
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
            assert eventually(lambda: kept[0].answer is not None)
            assert eventually(lambda: kept[0]._call is None)
            with pytest.raises(ValueError, match="has been answered"):
                getattr(kept[0], name)()


@with_each
def test_in_the_middle_of_an_upload(name: str) -> None:
    """The handler reads what has come and no more: nobody waits for the rest."""
    bodies: list[int] = []

    def handler(request: Any) -> None:
        request.rfile.read(5)
        getattr(request, name)()
        bodies.append(len(request.body))

    with HTTPServer(handler=handler) as server, connect(server.port) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n")
        client.sendall(b"x" * 100_000)
        outcome(client)
        assert eventually(lambda: bool(bodies))
        assert 5 <= bodies[0] <= 100_000
        assert 5 <= len(server.received[0].body) <= 100_000


@with_each
def test_a_stop_does_not_wait_for_a_client_that_does_not_read(name: str) -> None:
    def handler(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(BIG)
        request.wfile.flush()
        getattr(request, name)()

    with HTTPServer(handler=handler, stop_timeout=2) as server, connect(server.port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(GET)
        assert eventually(lambda: any(one.answer is not None for one in server.received))
        if name == "reset":  # a close delivers what was written, as after every answer
            assert server.stop().rung == "ask"


def test_over_a_unix_socket_a_reset_is_an_end(tmp_path: Path) -> None:
    with HTTPServer(tmp_path / "socket", handler=lambda request: request.reset()) as server:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(server.server_address))
            client.sendall(GET)
            came, _ = outcome(client)
            assert came == b""


@with_each
def test_a_tunnel_ends_too(name: str) -> None:
    def handler(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        request.connection.sendall(b"welcome")
        getattr(request, name)()

    with HTTPServer(handler=handler) as server, connect(server.port) as client:
        client.sendall(b"CONNECT t:1 HTTP/1.1\r\nHost: t:1\r\n\r\n")
        came, ended = outcome(client)
        assert ended == ENDS[name]
        if name == "close":
            assert came.endswith(b"\r\n\r\nwelcome")
