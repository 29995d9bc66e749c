"""Faults as clients get them: what comes, how the connection ends, and what the record says."""

from __future__ import annotations

import itertools
import os
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.clients import connect
from kit.scripts import eventually
from kit.upper.servers import UpperHTTPServer
from sidestage import HTTPResponse, HTTPServer, State, faults

LONG = 30.0  # seconds; a bound for what ends at once unless it is broken
BIG = bytes(range(256)) * 8192  # more than the kernel holds of what a client does not read
FOR_EVER = 1e-6  # bytes a second

Made = Callable[[], Any]


def request(method: str = "GET", path: str = "/", *fields: str, version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: t", *fields, "", ""]
    return "\r\n".join(lines).encode()


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


def body_of(came: bytes) -> bytes:
    head, _, body = came.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 ")
    return body


def read_until(client: socket.socket, end: bytes) -> bytes:
    client.settimeout(LONG)
    came = bytearray()
    while not came.endswith(end):
        data = client.recv(1 << 16)
        assert data, came
        came += data
    return bytes(came)


def numbers() -> Iterator[bytes]:
    """A body without end."""
    for number in itertools.count():
        yield b"%d," % number


# Each fault --------------------------------------------------------------------------------------

STRIKES = [
    (lambda: faults.reset(), None, "reset", "reset"),
    (lambda: faults.reset("hello"), b"hello", "reset", "reset after 5 bytes"),
    (lambda: faults.reset("hello", after=2), b"he", "reset", "reset after 2 bytes"),
    (lambda: faults.reset("hello", after=0), b"", "reset", "reset after 0 bytes"),
    (lambda: faults.close(), None, "end", "closed"),
    (lambda: faults.close("hello"), b"hello", "end", "closed after 5 bytes"),
    (lambda: faults.close("hello", after=2), b"he", "end", "closed after 2 bytes"),
    (lambda: faults.garbage(b"\0junk\r\n"), b"\0junk\r\n", "end", "7 bytes of garbage"),
    (
        lambda: faults.garbage(b"\0", "hello"),
        b"hello\0",
        "end",
        "1 byte of garbage after 5 bytes",
    ),
    (
        lambda: faults.garbage(b"\0", "hello", after=2),
        b"he\0",
        "end",
        "1 byte of garbage after 2 bytes",
    ),
    (
        lambda: faults.chunk_error("hello"),
        b"5\r\nhello\r\nbroken chunk\r\n",
        "end",
        "broken chunk after 5 bytes",
    ),
    (
        lambda: faults.wrong_length("hello"),
        b"hello",
        "end",
        "Content-Length 1 too large after 5 bytes",
    ),
    (
        lambda: faults.reset(iter([b"he", b"", b"llo"])),
        b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "reset",
        "reset after 5 bytes",
    ),
    (
        lambda: faults.close(iter([b"he", b"llo"]), after=5),
        b"2\r\nhe\r\n3\r\nllo\r\n",
        "end",
        "closed after 5 bytes",
    ),
    (
        lambda: faults.chunk_error(iter([b"he", b"llo"])),
        b"2\r\nhe\r\n3\r\nllo\r\nbroken chunk\r\n",
        "end",
        "broken chunk after 5 bytes",
    ),
]


@pytest.mark.parametrize("made, body, end, said", STRIKES, ids=[one[3] for one in STRIKES])
def test_what_a_client_gets_and_what_the_record_says(
    made: Made, body: bytes | None, end: str, said: str
) -> None:
    with HTTPServer(handler=lambda request: made()) as server, connect(server.port) as client:
        client.sendall(request())
        came, ended = outcome(client)
        assert ended == end
        (record,) = server.received
        assert record.answer is not None
        assert record.answer.fault == said
        if " after " in said:
            assert body_of(came) == body
            assert record.answer.status == 200
        else:
            assert came == (body or b"")
            assert (record.answer.status, record.answer.size) == (None, 0)
        assert f" {said} (" in server.explain()
        assert not server.errors


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("make", [faults.reset, faults.close, faults.stall])
def test_a_large_body_is_sent_up_to_the_fault(make: Any, streamed: bool) -> None:
    """All of it, also to a client that begins to read only then: a reset overtakes nothing."""
    after = len(BIG) * 3 // 4

    def handler(request: Any) -> Any:
        body: Any = (BIG[at : at + 50_000] for at in range(0, len(BIG), 50_000))
        return make(HTTPResponse(body if streamed else BIG), after=after)

    with HTTPServer(handler=handler) as server, connect(server.port) as client:
        client.sendall(request())
        assert eventually(lambda: bool(server.received))
        if make is faults.stall:
            assert eventually(lambda: server.received[0].answer is not None)
            came = read_until(client, b"") + b""
            while len(unchunked(came, streamed)) < after:
                came += client.recv(1 << 16)
        else:
            came, ended = outcome(client)
            assert ended == ("reset" if make is faults.reset else "end")
        assert unchunked(came, streamed) == BIG[:after]


def unchunked(came: bytes, streamed: bool) -> bytes:
    """The body, out of its chunks if it is in some, as far as it has come."""
    body = body_of(came) if b"\r\n\r\n" in came else b""
    if not streamed:
        return body
    data = bytearray()
    while match := re.match(rb"([0-9a-f]+)\r\n", body):
        start, size = match.end(), int(match[1], 16)
        data += body[start : start + size]
        body = body[start + size + 2 :]
    return bytes(data)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=20), max_size=5), st.data())
def test_the_fault_strikes_at_the_byte(pieces: list[bytes], data: st.DataObject) -> None:
    body = b"".join(pieces)
    after = data.draw(st.integers(0, len(body)))
    streamed = data.draw(st.booleans())
    reply = iter(pieces) if streamed else body
    fault = faults.garbage(b"!!", reply, after=after)
    with HTTPServer(handler=lambda request: fault) as server, connect(server.port) as client:
        client.sendall(request())
        came, ended = outcome(client)
        assert ended == "end"
        assert came.endswith(b"!!")
        assert unchunked(came[:-2], streamed) == body[:after]
        answer = server.received[0].answer
        assert answer is not None
        assert answer.size == after


# Where there is no body --------------------------------------------------------------------------

MAKERS: dict[str, Made] = {
    "reset": lambda: faults.reset("hello", after=3),
    "close": lambda: faults.close("hello"),
    "garbage": lambda: faults.garbage(b"junk", "hello", after=1),
    "chunk_error": lambda: faults.chunk_error("hello"),
    "wrong_length": lambda: faults.wrong_length("hello"),
}


@pytest.mark.parametrize("method, target", [("HEAD", "/"), ("CONNECT", "t:1")])
@pytest.mark.parametrize("name", MAKERS)
def test_without_a_body_it_strikes_after_the_head(name: str, method: str, target: str) -> None:
    with HTTPServer(handler=lambda request: MAKERS[name]()) as server:
        with connect(server.port) as client:
            client.sendall(request(method, target))
            came, ended = outcome(client)
            assert ended == ("reset" if name == "reset" else "end")
            assert body_of(came) == (b"junk" if name == "garbage" else b"")
            answer = server.received[0].answer
            assert answer is not None
            assert (answer.status, answer.size) == (200, 0)


def test_a_slow_answer_to_a_head_is_over_at_once() -> None:
    with HTTPServer(handler=lambda request: faults.slow("hello", FOR_EVER)) as server:
        with connect(server.port) as client:
            client.sendall(request("HEAD") * 2)
            came = read_until(client, b"\r\n\r\n")
            while came.count(b"\r\n\r\n") < 2:
                came += client.recv(1000)
            assert came.count(b"Content-Length: 5\r\n") == 2


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body(status: int) -> None:
    with HTTPServer(handler=lambda request: faults.reset(status)) as server:
        with connect(server.port) as client:
            client.sendall(request())
            came, ended = outcome(client)
            assert (body_of(came), ended) == (b"", "reset")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_client_that_knows_no_chunks_gets_a_reset_for_a_broken_one(streamed: bool) -> None:
    def handler(request: Any) -> Any:
        return faults.chunk_error(iter([b"hello"]) if streamed else b"hello")

    with HTTPServer(handler=handler) as server, connect(server.port) as client:
        client.sendall(request(version="1.0"))
        came, ended = outcome(client)
        assert (body_of(came), ended) == (b"hello", "reset")


def test_over_a_unix_socket_a_reset_is_an_end(tmp_path: Path) -> None:
    handler: Any = lambda request: faults.reset("hello", after=2)  # noqa: E731
    with HTTPServer(tmp_path / "socket", handler=handler) as server:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.fspath(server.server_address))
            client.sendall(request())
            came, _ = outcome(client)
            assert body_of(came) == b"he"


def test_layers_see_what_is_sent_before_a_fault() -> None:
    handler: Any = lambda request: faults.reset(b"hello", after=2)  # noqa: E731
    with UpperHTTPServer(handler=handler) as server, connect(server.port) as client:
        client.sendall(request())
        came, ended = outcome(client)
        assert came.endswith(b"\r\n\r\nHE")
        assert ended == "reset"


# Generators --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [faults.reset, faults.close])
def test_a_body_without_end_is_asked_for_no_more_than_it_needs(make: Any) -> None:
    asked: list[int] = []

    def body() -> Iterator[bytes]:
        try:
            for number in itertools.count():
                asked.append(number)
                yield b"12345"
        finally:
            asked.append(-1)

    with HTTPServer(handler=lambda request: make(body(), after=12)) as server:
        with connect(server.port) as client:
            client.sendall(request())
            came, _ = outcome(client)
            assert unchunked(came, streamed=True) == b"123451234512"[:10] + b"12"
        assert eventually(lambda: asked == [0, 1, 2, -1])


def test_a_body_that_is_too_short_for_its_fault_is_an_error_of_the_handler() -> None:
    def too_short(request: Any) -> Any:
        return faults.stall(iter([b"hello"]), after=9)

    with HTTPServer(handler=too_short) as server, connect(server.port) as client:
        client.sendall(request())
        came, _ = outcome(client)  # which is told that it is not complete
        assert body_of(came) == b"5\r\nhello\r\n"
        (error,) = server.errors
        assert "after=9 is never reached: the body has 5 bytes" in str(error)
        assert "too_short (test_faults_served.py:" in str(error)
        server.clear()


def test_a_fault_is_no_body_and_no_part_of_a_tuple() -> None:
    def handler(request: Any) -> Any:
        return faults.reset(), 200

    with HTTPServer(handler=handler) as server, connect(server.port) as client:
        client.sendall(request())
        assert client.recv(1000).startswith(b"HTTP/1.1 500 ")
        assert "no response can be made of Fault faults.reset()" in str(server.errors[0])
        server.clear()


# The connection ----------------------------------------------------------------------------------


def test_what_came_before_is_answered_and_what_came_behind_is_not() -> None:
    def handler(request: Any) -> Any:
        return faults.reset("half", after=2) if request.path == "/2" else request.path

    with HTTPServer(handler=handler) as server, connect(server.port) as client:
        client.sendall(b"".join(request("GET", f"/{number}") for number in (1, 2, 3, 4)))
        came, ended = outcome(client)
        assert ended == "reset"
        assert b"\r\n\r\n/1HTTP/1.1 200 OK\r\n" in came
        assert came.endswith(b"\r\n\r\nha")
        assert [record.path for record in server.received] == ["/1", "/2"]
        (told,) = server.diagnostics
        assert told.text == (
            "no answer to GET /3 (and 1 more): the connection ends on purpose with GET /2, which "
            "came before"
        )


@pytest.mark.parametrize("make", [faults.reset, faults.close, faults.stall])
def test_a_fault_in_the_middle_of_an_upload(make: Any) -> None:
    """The client is cut off, or waits; the record has what had come, and nobody waits for more."""
    with HTTPServer(handler=lambda request: make(), stop_timeout=LONG) as server:
        with connect(server.port) as client:
            client.sendall(request("POST", "/", "Content-Length: 1000000") + b"x" * 100_000)
            assert eventually(lambda: any(one.answer is not None for one in server.received))
            (record,) = server.received
            assert len(record.body) <= 100_000
            if make is not faults.stall:
                outcome(client)
            report = server.stop()
            assert report.rung == "ask"


@pytest.mark.parametrize("make", [faults.reset, faults.close])
def test_a_client_that_asks_before_its_body_gets_the_fault_alone(make: Any) -> None:
    with HTTPServer(handler=lambda request: make()) as server, connect(server.port) as client:
        client.sendall(request("POST", "/", "Expect: 100-continue", "Content-Length: 5"))
        came, ended = outcome(client)
        assert (came, ended) == (b"", "reset" if make is faults.reset else "end")


def test_others_are_served_while_one_is_stalled_and_one_is_slow() -> None:
    answers = {"/stall": faults.stall(), "/slow": faults.slow("hello", FOR_EVER)}
    with HTTPServer(handler=lambda request: answers.get(request.path, "ok")) as server:
        with connect(server.port) as stalled, connect(server.port) as slow:
            stalled.sendall(request("GET", "/stall"))
            slow.sendall(request("GET", "/slow"))
            assert b"Content-Length: 5\r\n\r\n" in read_until(slow, b"\r\n\r\n")
            with connect(server.port) as other:
                other.sendall(request())
                read_until(other, b"\r\n\r\nok")


# Stall -------------------------------------------------------------------------------------------


def stalled(server: HTTPServer) -> bool:
    """Whether the server has a connection that is stalled."""
    return ": stalled on purpose for " in server.explain()


def nothing_comes(client: socket.socket) -> bool:
    readable, _, _ = select.select([client], [], [], 0)
    return not readable


@pytest.mark.parametrize("reply", [None, "hello"])
def test_a_stalled_client_waits_until_the_server_stops(reply: str | None) -> None:
    def handler(request: Any) -> Any:
        return faults.stall() if reply is None else faults.stall(reply, after=2)

    server = HTTPServer(handler=handler, stop_timeout=LONG).start()
    try:
        with connect(server.port) as client:
            client.sendall(request())
            if reply is not None:
                assert body_of(read_until(client, b"he")) == b"he"
            assert eventually(lambda: stalled(server))
            assert nothing_comes(client)
            (record,) = server.received
            assert record.answer is not None
            assert record.answer.fault == ("stalled" if reply is None else "stalled after 2 bytes")
            began = time.monotonic()
            report = server.stop()
            assert report.rung == "ask"
            assert not report.connections
            assert time.monotonic() - began < LONG / 2  # it has not waited for the client
            assert outcome(client) == (b"", "end")
    finally:
        server.stop()


@pytest.mark.parametrize("leave", ["close", "shutdown", "reset"])
def test_a_stall_ends_when_the_client_leaves(leave: str) -> None:
    with HTTPServer(handler=lambda request: faults.stall()) as server:
        client = connect(server.port)
        client.sendall(request())
        assert eventually(lambda: stalled(server))
        if leave == "shutdown":
            client.shutdown(socket.SHUT_WR)
            assert outcome(client) == (b"", "end")
        elif leave == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert eventually(lambda: not stalled(server))
        assert "open now" not in server.explain()


def test_a_whole_answer_and_then_silence() -> None:
    """As of a server that hangs between two requests: the second on the connection waits."""
    with HTTPServer(handler=lambda request: faults.stall("hello")) as server:
        with connect(server.port) as client:
            client.sendall(request())
            read_until(client, b"\r\n\r\nhello")
            client.sendall(request("GET", "/second"))
            server._sync()
            assert stalled(server)
            assert nothing_comes(client)
            assert len(server.received) == 1


# Slow --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size, rate", [(10, 50), (3000, 10_000), (3, 4.5)])
def test_a_slow_body_is_no_faster_than_its_rate(size: int, rate: float) -> None:
    with HTTPServer(handler=lambda request: faults.slow("x" * size, rate)) as server:
        with connect(server.port) as client:
            began = time.monotonic()
            client.sendall(request())
            read_until(client, b"\r\n\r\n" + b"x" * size)
            assert time.monotonic() - began >= size / rate * 0.99
            answer = server.received[0].answer
            assert answer is not None
            assert answer.fault == f"{size:,} bytes at {rate:,g} bytes/s"
            client.sendall(request("GET", "/next"))  # it was a good answer, so it is kept alive
            read_until(client, b"\r\n\r\n" + b"x" * size)


def test_a_slow_generator() -> None:
    with HTTPServer(
        handler=lambda request: faults.slow(iter([b"hello ", b"there"]), 200)
    ) as server:
        with connect(server.port) as client:
            client.sendall(request())
            came = read_until(client, b"0\r\n\r\n")
            assert unchunked(came, streamed=True) == b"hello there"


def test_a_slow_body_without_end_is_not_made_in_advance() -> None:
    made = 0

    def body() -> Iterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield b"x" * 100_000

    with HTTPServer(handler=lambda request: faults.slow(body(), 10), stop_timeout=LONG) as server:
        with connect(server.port) as client:
            client.sendall(request())
            read_until(client, b"\r\n\r\n")
            before = -1
            while before != made:  # as much as fits into the window
                before = made
                server._sync()
                client.settimeout(LONG)
                client.recv(1)
            assert made * 100_000 < 1 << 24
            assert server.stop().rung == "ask"


def test_a_stop_cuts_a_slow_answer_off() -> None:
    server = HTTPServer(
        handler=lambda request: faults.slow("hello", FOR_EVER), stop_timeout=LONG
    ).start()
    try:
        with connect(server.port) as client:
            client.sendall(request())
            read_until(client, b"\r\n\r\n")
            assert "response at 1e-06 bytes/s, 5 bytes left" in server.explain()
            began = time.monotonic()
            report = server.stop()
            assert (report.rung, report.connections) == ("ask", ())
            assert time.monotonic() - began < LONG / 2
            assert outcome(client) == (b"", "end")
    finally:
        server.stop()


def test_a_client_that_leaves_a_slow_answer_ends_it() -> None:
    with HTTPServer(handler=lambda request: faults.slow("hello" * 1000, 100)) as server:
        client = connect(server.port)
        client.sendall(request())
        read_until(client, b"\r\n\r\n")
        client.close()
        assert eventually(lambda: "open now" not in server.explain())
        assert not server.errors


@pytest.mark.parametrize("name", ["stall", "slow"])
def test_a_handler_that_returns_it_while_the_server_stops(name: str) -> None:
    """The stop waits for the handler, and not for the fault."""
    made = faults.stall("hello") if name == "stall" else faults.slow("hello", FOR_EVER)

    began = threading.Event()

    def handler(request: Any) -> Any:
        began.set()
        assert eventually(lambda: server.state is State.STOPPING)
        return made

    server = HTTPServer(handler=handler, stop_timeout=LONG).start()
    with connect(server.port) as client:
        client.sendall(request())
        assert began.wait(LONG)
        report = server.stop()
        assert (report.rung, report.connections) == ("ask", ())
        came, _ = outcome(client)
        assert body_of(came) == (b"hello" if name == "stall" else b"")


def test_an_iterator_in_answer_to_a_connect_makes_no_tunnel() -> None:
    handler: Any = lambda request: faults.garbage(b"junk", iter([b"hello"]))  # noqa: E731
    with HTTPServer(handler=handler) as server, connect(server.port) as client:
        client.sendall(request("CONNECT", "t:1") + b"into the tunnel")
        came, ended = outcome(client)
        assert (body_of(came), ended) == (b"junk", "end")
        assert not server.errors


LAST = (b"lo", b"he", b"\0", b"0\r\n\r\n")  # of what comes below


@pytest.mark.parametrize(
    "make",
    [
        lambda: faults.close("hello"),
        lambda: faults.close(iter([b"hel", b"lo"])),
        lambda: faults.close("hello", after=2),
        lambda: faults.garbage(b"\0", "hello"),
        lambda: faults.wrong_length("hello"),
    ],
)
def test_the_end_comes_with_the_last_bytes(make: Made) -> None:
    """Or it would be chance whether a pool that looks for it asks again on this connection."""
    with HTTPServer(handler=lambda request: make()) as server:
        for _ in range(20):
            with connect(server.port) as client:
                client.settimeout(LONG)
                client.sendall(request())
                while not client.recv(1 << 16).endswith(LAST):
                    pass
                client.setblocking(False)
                assert client.recv(1) == b""  # it raises if the end is not there yet
