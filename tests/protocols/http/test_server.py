"""HTTP servers, as seen by clients on raw sockets and by the test."""

from __future__ import annotations

import csv
import gzip
import io
import json
import socket
import struct
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any

import pytest

from kit.runs import run_of
from kit.scripts import eventually
from sidestage import HTTPRequest, HTTPServer
from sidestage import HTTPResponse as Reply

WAIT = 10.0  # seconds; no test comes near it
MIB = 1 << 20
CLOSE = "Host: t\r\nConnection: close\r\n"


class Replies(io.BytesIO):
    """The bytes of a server as a socket for http.client."""

    def makefile(self, mode: str) -> Replies:
        return self

    def close(self) -> None:
        """Do nothing: another reply may follow."""


def parse(data: bytes, *methods: str) -> list[tuple[HTTPResponse, bytes]]:
    """The replies in ``data``, one for each method; nothing may be left over."""
    stream, found = Replies(data), []
    for method in methods or ("GET",):
        reply = HTTPResponse(stream, method=method)  # type: ignore[arg-type]
        reply.begin()
        found.append((reply, reply.read()))
    assert stream.read() == b""
    return found


def connect(server: HTTPServer) -> socket.socket:
    return socket.create_connection(server.server_address[:2], timeout=WAIT)


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def talk(server: HTTPServer, data: bytes | str) -> bytes:
    """Send ``data``, stop sending, and read until the server closes."""
    with connect(server) as sock:
        sock.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


def ask(server: HTTPServer, method: str = "GET", path: str = "/", **options: Any) -> HTTPResponse:
    """Send a request on a new connection, and read the reply."""
    with closing(HTTPConnection(server.host, server.port, timeout=WAIT)) as connection:
        connection.request(method, path, **options)
        with connection.getresponse() as reply:
            reply.content = reply.read()  # type: ignore[attr-defined]
            return reply


def body_of(reply: Any) -> bytes:
    return bytes(reply.content)


def get(path: str = "/", *fields: str, version: str = "1.1") -> str:
    return (
        f"GET {path} HTTP/{version}\r\nHost: t\r\n" + "".join(f + "\r\n" for f in fields) + "\r\n"
    )


# Connections -----------------------------------------------------------------------------------


def test_a_connection_is_kept_for_the_next_request() -> None:
    with HTTPServer(handler=lambda request: request.path) as server:
        connection = HTTPConnection(server.host, server.port, timeout=WAIT)
        for path in ("/1", "/2", "/3"):
            connection.request("GET", path)
            assert connection.getresponse().read() == path.encode()
        connection.close()
        assert len({request.client_address for request in server.received}) == 1


def test_pipelined_requests_are_answered_in_order() -> None:
    """A slow first handler does not let the second overtake it on one connection."""
    paths = [f"/{n}" for n in range(100)]
    with HTTPServer(handler=lambda request: request.path) as server:
        replies = parse(talk(server, "".join(map(get, paths))), *["GET"] * 100)
    assert [body.decode() for _, body in replies] == paths


def test_many_small_pipelined_requests_are_no_large_head() -> None:
    with HTTPServer() as server:
        replies = parse(talk(server, get() * 5000), *["GET"] * 5000)
    assert {reply.status for reply, _ in replies} == {200}


def test_a_blocked_handler_delays_no_other_connection() -> None:
    release = threading.Event()

    def handler(request: HTTPRequest) -> str:
        if request.path == "/slow":
            assert release.wait(WAIT)
        return request.path

    with HTTPServer(handler=handler) as server, connect(server) as slow:
        slow.sendall(get("/slow", "Connection: close").encode())
        server.wait_for(1)
        assert body_of(ask(server, path="/quick")) == b"/quick"
        release.set()
        assert read_all(slow).endswith(b"/slow")


def test_a_handler_may_call_its_own_server() -> None:
    def handler(request: HTTPRequest) -> bytes:
        return b"inner" if request.path == "/inner" else body_of(ask(server, path="/inner"))

    with HTTPServer(handler=handler) as server:
        assert body_of(ask(server)) == b"inner"


@pytest.mark.parametrize(
    "version, field, kept",
    [
        ("1.1", "X: y", True),
        ("1.1", "Connection: close", False),
        ("1.1", "Connection: Close", False),
        ("1.0", "X: y", False),
        ("1.0", "Connection: keep-alive", True),
    ],
)
def test_the_client_decides_whether_its_connection_is_kept(
    version: str, field: str, kept: bool
) -> None:
    with HTTPServer() as server, connect(server) as sock:
        sock.sendall(get("/", field, version=version).encode())
        reply = HTTPResponse(sock)
        reply.begin()
        reply.read()
        assert reply.will_close is not kept
        if kept:
            sock.sendall(get("/", "Connection: close", version=version).encode())
            assert parse(read_all(sock))[0][0].status == 200
        assert sock.recv(1) == b""


def test_a_handler_may_close_the_connection() -> None:
    with HTTPServer(handler=lambda r: ("", 200, {"Connection": "close"})) as server:
        assert len(parse(talk(server, get() + get()))) == 1


def test_what_follows_close_is_no_request() -> None:
    with HTTPServer(handler=lambda request: request.path) as server:
        [(reply, body)] = parse(talk(server, get("/1", "Connection: close") + get("/2")))
        assert (reply.status, body) == (200, b"/1")
        assert "more than its last request" in server.diagnostics[0].text
        assert [request.path for request in server.received] == ["/1"]


def test_an_upgrade_is_ignored_and_no_body_is_lost() -> None:
    """What curl --http2 and Java's client send (RFC 9110 7.8)."""
    offer = "Host: t\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n"
    requests = (
        f"POST /1 HTTP/1.1\r\n{offer}Content-Length: 3\r\n\r\none"
        f"POST /2 HTTP/1.1\r\n{offer}Transfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"
        f"GET /3 HTTP/1.1\r\n{offer}\r\n" + get("/4", "Connection: close")
    )
    with HTTPServer(handler=lambda request: request.path.encode() + request.body) as server:
        replies = parse(talk(server, requests), *["POST", "POST", "GET", "GET"])
        assert [body for _, body in replies] == [b"/1one", b"/2two", b"/3", b"/4"]
        assert not server.diagnostics


def test_thousands_of_pipelined_upgrades_are_answered() -> None:
    offer = get("/", "Upgrade: h2c", "Connection: Upgrade")
    with HTTPServer() as server:
        assert len(parse(talk(server, offer * 3000), *["GET"] * 3000)) == 3000


# Where it listens ------------------------------------------------------------------------------


def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "http.sock")
    with HTTPServer(path, lambda request: request.path) as server:
        assert server.url.startswith("http+unix:") or server.url.startswith("unix:")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(WAIT)
            sock.connect(path)
            sock.sendall(get("/here", "Connection: close").encode())
            assert read_all(sock).endswith(b"/here")
        assert server.received[0].client_address == ""


def test_ipv6() -> None:
    with HTTPServer(("::1", 0), lambda request: request.client_address[0]) as server:
        assert server.url == f"http://[::1]:{server.port}"
        assert server.server_port == server.port
        assert talk(server, get()).endswith(b"::1")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_localhost_is_both_loopbacks(host: str) -> None:
    with HTTPServer(("localhost", 0), lambda request: "hello") as server:
        with socket.create_connection((host, server.port), timeout=WAIT) as sock:
            sock.sendall(get("/", "Connection: close").encode())
            assert read_all(sock).endswith(b"hello")


# What is refused -------------------------------------------------------------------------------

MALFORMED = {
    "no HTTP": "hello\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00",
    "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": "GET /\r\n\r\n",
    "a space in a name": "GET / HTTP/1.1\r\nHost: t\r\nA b: c\r\n\r\n",
    "a length that is no number": "GET / HTTP/1.1\r\nHost: t\r\nContent-Length: x\r\n\r\n",
    "two lengths": "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a length and chunks": "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n"
    "Transfer-Encoding: chunked\r\n\r\n",
    "a chunk size that is no number": "POST / HTTP/1.1\r\nHost: t\r\n"
    "Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "no Host": "GET / HTTP/1.1\r\n\r\n",
    "two Hosts": "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
}


@pytest.mark.parametrize("request_text", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_gets_400_and_a_diagnostic(request_text: str) -> None:
    with HTTPServer(handler=lambda request: "fine") as server:
        [(reply, _)] = parse(talk(server, request_text))
        assert (reply.status, reply.getheader("Connection")) == (400, "close")
        [diagnostic] = server.diagnostics
        assert "400 Bad Request" in diagnostic.text
        assert not server.errors


@pytest.mark.parametrize("what, text", [("TLS", "TLS handshake"), ("HTTP/2", "is HTTP/2")])
def test_what_a_client_takes_the_server_for_is_named(what: str, text: str) -> None:
    with HTTPServer() as server:
        talk(server, MALFORMED[what])
        assert text in server.diagnostics[0].text


@pytest.mark.parametrize("cut", [0, 6])
def test_a_target_that_is_not_escaped_is_told_with_the_cure(cut: int) -> None:
    """Also if the line has not ended."""
    line = "GET /é HTTP/1.1\r\nHost: t\r\n\r\n".encode()[: cut or None]
    with HTTPServer(handler=lambda request: "fine") as server:
        [(reply, _)] = parse(talk(server, line + b"\xa9" * (cut > 0)))
        assert reply.status == 400
        [diagnostic] = server.diagnostics
        assert "must percent-encode: /%C3" in diagnostic.text


def test_a_length_is_never_taken_for_another() -> None:
    """What follows would be read as the next request."""
    hidden = get("/hidden")
    for length in (f"{len(hidden):020}", f"{len(hidden):05000}"):
        with HTTPServer(handler=lambda request: request.body) as server:
            sent = f"POST / HTTP/1.1\r\n{CLOSE}Content-Length: {length}\r\n\r\n{hidden}"
            [(_, body)] = parse(talk(server, sent))
            assert body == hidden.encode()
            assert [request.path for request in server.received] == ["/"]


def test_blanks_around_a_value_are_not_part_of_it() -> None:
    with HTTPServer() as server:
        talk(server, get("/", "A: x \t", "B:\t y"))
        assert server.received[0].headers["A"] == "x"
        assert server.received[0].headers["B"] == "y"


def test_a_refusal_waits_for_the_replies_before_it() -> None:
    with HTTPServer(handler=lambda request: request.path) as server:
        good, bad = parse(talk(server, get("/1") + "junk\r\n\r\n"), "GET", "GET")
    assert (good[1], bad[0].status) == (b"/1", 400)


def test_a_version_that_is_not_spoken_gets_505() -> None:
    with HTTPServer() as server:
        assert parse(talk(server, get(version="2.0")))[0][0].status == 505


@pytest.mark.parametrize(
    "head",
    [
        get("/", "X: " + "x" * 70000),
        get("/", *["X: " + "x" * 100] * 1000),
        get("/" + "x" * 70000),
        get("/", "X: " + "x" * 70000) + get("/", "X: " + "x" * 70000),
        get("/", "X: " + "x" * 70000) + "junk\r\n\r\n",
        "GET / HTTP/1.1\r\nX: " + "x" * 70000,
    ],
    ids=["one large field", "many fields", "a long target", "twice", "and junk", "no end"],
)
def test_a_large_head_gets_431_and_a_diagnostic(head: str) -> None:
    with HTTPServer() as server:
        [(reply, _)] = parse(talk(server, head))
        assert reply.status == 431
        [diagnostic] = server.diagnostics
        assert "431" in diagnostic.text
        assert not server.received


def test_head_limit_says_what_a_large_head_is() -> None:
    with HTTPServer(head_limit=200_000) as server:
        assert parse(talk(server, get("/", "X: " + "x" * 70000)))[0][0].status == 200


def test_endless_trailers_are_refused() -> None:
    chunked = "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    with HTTPServer() as server:
        [(reply, _)] = parse(talk(server, chunked + "T: xxxxxxxxxxxxxxx\r\n" * 5000))
        assert reply.status == 431


def test_an_unfinished_request_leaves_a_diagnostic() -> None:
    with HTTPServer() as server:
        assert talk(server, "GET / HTTP/1.1\r\nHo") == b""
        assert "middle of a request" in server.diagnostics[0].text
        assert not server.received


def test_a_handler_without_an_answer_is_504() -> None:
    release = threading.Event()
    with HTTPServer(handler=lambda r: release.wait(WAIT) and None, handler_timeout=0.1) as server:
        [(reply, body)] = parse(talk(server, get("/late")))
        assert (reply.status, body) == (504, b"504 Gateway Timeout\n")
        assert "GET /late" in server.diagnostics[0].text
        release.set()
        assert eventually(lambda: not run_of(server).unfinished())
        assert not server.errors
        assert ask(server).status == 200


# Requests --------------------------------------------------------------------------------------


def test_trailers_are_not_taken_for_headers() -> None:
    chunked = f"POST / HTTP/1.1\r\n{CLOSE}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
    with HTTPServer() as server:
        talk(server, chunked + "Authorization: trailer\r\n\r\n")
        assert "Authorization" not in server.received[0].headers


def test_100_continue_comes_before_the_body() -> None:
    expecting = f"POST / HTTP/1.1\r\n{CLOSE}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    with HTTPServer(handler=lambda request: request.body) as server, connect(server) as sock:
        sock.sendall(expecting.encode())
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert parse(read_all(sock))[0][1] == b"hello"


@pytest.mark.parametrize("version, body", [("1.0", "hello"), ("1.1", "")])
def test_100_continue_is_sent_only_where_it_is_useful(version: str, body: str) -> None:
    """A client of HTTP/1.0 would not understand it, and without a body no client waits for it."""
    expecting = f"POST / HTTP/{version}\r\n{CLOSE}Expect: 100-continue\r\n"
    with HTTPServer(handler=lambda request: request.body) as server:
        got = talk(server, f"{expecting}Content-Length: {len(body)}\r\n\r\n{body}")
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("pauses", [False, True])
def test_the_record_of_a_chunked_upload_is_complete(pauses: bool) -> None:
    """Even if the handler answers before all of it has come, and never reads it."""
    answered = threading.Event()

    def chunks() -> Iterator[bytes]:
        yield b"first,"
        if pauses:
            assert answered.wait(WAIT)
        yield b"second"

    def handler(request: HTTPRequest) -> str:
        threading.Timer(0.05, answered.set).start()
        return "ok"

    with HTTPServer(handler=handler) as server:
        ask(
            server,
            "POST",
            body=chunks(),
            encode_chunked=True,
            headers={"Transfer-Encoding": "chunked"},
        )
        assert server.received[0].body == b"first,second"


def test_a_handler_reads_an_upload_as_it_comes() -> None:
    """The client's second line depends on the reply to its first."""

    def echo(request: HTTPRequest) -> Iterator[bytes]:
        yield from request.rfile

    head = f"POST / HTTP/1.1\r\n{CLOSE}Transfer-Encoding: chunked\r\n\r\n"
    with HTTPServer(handler=echo) as server, connect(server) as sock:
        sock.sendall(head.encode() + b"4\r\none\n\r\n")
        reply = HTTPResponse(sock)
        reply.begin()
        assert reply.readline() == b"one\n"
        sock.sendall(b"4\r\ntwo\n\r\n0\r\n\r\n")
        assert reply.read() == b"two\n"


def digest_of_upload(request: HTTPRequest) -> dict[str, Any]:
    total = sum(map(len, iter(lambda: request.rfile.read1(MIB), b"")))
    return {"total": total}


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("mebibytes", [1, 64])
def test_large_uploads_are_streamed(mebibytes: int, chunked: bool) -> None:
    blocks = (bytes(MIB) for _ in range(mebibytes))
    size = mebibytes * MIB
    field = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(size)}
    with HTTPServer(handler=digest_of_upload) as server:
        before = server.stats().rss
        reply = ask(server, "POST", body=blocks, headers=field, encode_chunked=chunked)
        assert json.loads(body_of(reply)) == {"total": size}
        assert server.stats().rss - before < 16 * MIB
        [request] = server.received
        assert len(request.body) + request.body_cut == size


def test_large_downloads_are_streamed() -> None:
    def handler(request: HTTPRequest) -> Iterator[bytes]:
        return (bytes(MIB) for _ in range(64))

    with HTTPServer(handler=handler) as server:
        before = server.stats().rss
        assert len(body_of(ask(server))) == 64 * MIB
        assert server.stats().rss - before < 16 * MIB


def test_a_large_upload_that_waits_for_its_turn_is_held_back() -> None:
    """Behind a slow request the kernel buffers it, not the server."""
    release = threading.Event()

    def handler(request: HTTPRequest) -> str:
        if request.method == "GET":
            assert release.wait(WAIT)
            return "slow"
        return str(len(request.body))

    post = f"POST / HTTP/1.1\r\n{CLOSE}Content-Length: {8 * MIB}\r\n\r\n"
    with HTTPServer(handler=handler) as server, connect(server) as sock:
        before = server.stats().rss
        sender = threading.Thread(
            target=sock.sendall, args=(get().encode() + post.encode() + bytes(8 * MIB),)
        )
        sender.start()
        server.wait_for(1)
        assert server.stats().rss - before < 4 * MIB
        release.set()
        got = read_all(sock)
        sender.join()
    assert [body for _, body in parse(got, "GET", "POST")] == [b"slow", str(8 * MIB).encode()]


def test_the_body_is_the_same_each_time_the_handler_asks() -> None:
    """Also if it is larger than the part that ``received`` keeps."""

    def handler(request: HTTPRequest) -> list[int]:
        return [len(request.body), len(request.body), len(request.rfile.read())]

    with HTTPServer(handler=handler, keep=4 * MIB) as server:
        reply = ask(server, "POST", body=bytes(3 * MIB))
        assert json.loads(body_of(reply)) == [3 * MIB] * 3
        [request] = server.received
        assert (len(request.body), request.body_cut) == (MIB, 2 * MIB)


def test_streamed_bodies_count_for_keep() -> None:
    with HTTPServer(handler=lambda r: str(len(r.body)), keep=4 * MIB) as server:
        for _ in range(8):
            ask(server, "POST", body=bytes(MIB))
        received = server.received
        assert len(received) + received.dropped == 8
        assert sum(len(request.body) for request in received) <= 4 * MIB


# Handlers --------------------------------------------------------------------------------------


class Case:
    def method(self, request: HTTPRequest) -> str:
        return request.path


async def coroutine(request: HTTPRequest) -> str:
    return request.path


def generator(request: HTTPRequest) -> Iterator[bytes]:
    yield request.path.encode()


def test_handlers_of_every_kind() -> None:
    """Closures, lambdas, bound methods, coroutine functions and generator functions."""
    kinds: list[Callable[[HTTPRequest], Any]] = [
        Case().method,
        coroutine,
        generator,
        lambda request: request.path,
    ]
    with HTTPServer(handler=kinds[0]) as server:
        for number, handler in enumerate(kinds):
            server.handler = handler
            assert body_of(ask(server, path=f"/{number}")) == f"/{number}".encode()


TEXT, JSON, BINARY = "text/plain; charset=utf-8", "application/json", "application/octet-stream"
RESULTS: dict[str, tuple[Any, int, bytes, str | None]] = {
    "str": ("é", 200, "é".encode(), TEXT),
    "bytes": (b"\0\xff", 200, b"\0\xff", BINARY),
    "bytearray": (bytearray(b"x"), 200, b"x", BINARY),
    "large bytes": (b"x" * 300_000, 200, b"x" * 300_000, BINARY),
    "dict": ({"a": [1]}, 200, b'{"a": [1]}', JSON),
    "list": ([1, None], 200, b"[1, null]", JSON),
    "int": (418, 418, b"", None),
    "body and status": (("gone", 410), 410, b"gone", TEXT),
    "no body and status": ((None, 404), 404, b"", None),
    "own type": (("<p>", 200, {"Content-Type": "text/html"}), 200, b"<p>", "text/html"),
    "headers as pairs": (("x", 200, [("Content-Type", "a/b")]), 200, b"x", "a/b"),
    "None": (None, 200, b"", None),
    "response": (Reply("x", 201, {"Content-Type": "a/b"}), 201, b"x", "a/b"),
    "response with iterable": (Reply([b"x", b"", b"y"]), 200, b"xy", None),
}


@pytest.mark.parametrize("result, status, body, kind", RESULTS.values(), ids=RESULTS)
def test_what_a_handler_returns_is_the_reply(
    result: Any, status: int, body: bytes, kind: str | None
) -> None:
    with HTTPServer(handler=lambda request: result) as server:
        reply = ask(server)
        assert (reply.status, body_of(reply)) == (status, body)
        assert reply.getheader("Content-Type") == kind


def test_an_iterator_is_sent_in_chunks_as_it_gives_them() -> None:
    turn = threading.Event()

    def handler(request: HTTPRequest) -> Iterator[bytes]:
        yield b"first"
        assert turn.wait(WAIT)
        yield b"second"

    with HTTPServer(handler=handler) as server, connect(server) as sock:
        sock.sendall(get("/", "Connection: close").encode())
        reply = HTTPResponse(sock)
        reply.begin()
        assert reply.getheader("Transfer-Encoding") == "chunked"
        assert reply.read1() == b"first"
        turn.set()
        assert reply.read() == b"second"


NONSENSE = {
    "object": object(),
    "float": 1.5,
    "bool": True,
    "set": {1},
    "tuple of four": ("", 200, {}, 1),
    "bool as status": ("", True),
    "not JSON": {"a": object()},
    "list of bytes": [b"x"],
}


@pytest.mark.parametrize("result", NONSENSE.values(), ids=NONSENSE)
def test_a_result_that_is_no_reply_is_500_and_a_type_error(result: Any) -> None:
    with pytest.raises(TypeError, match=r"may return str, bytes, a dict or list") as caught:
        with HTTPServer(handler=lambda request: result) as server:
            assert ask(server).status == 500
    assert "GET /" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    "result",
    [
        ("", 200, {"X": "a\r\nInjected: yes"}),
        ("", 200, {"X\r\nInjected": "yes"}),
        ("", 200, {"X": "a\0b"}),
        ("", 200, {"": "x"}),
        ("", 200, {"X": "\u2603"}),
        99,
        1000,
    ],
)
def test_a_reply_that_would_break_the_protocol_is_refused(result: Any) -> None:
    with (
        pytest.raises(ValueError, match=r"must|no name"),
        HTTPServer(handler=lambda r: result) as server,
    ):
        reply = ask(server)
        assert reply.status == 500
        assert reply.getheader("Injected") is None


def test_one_error_is_raised_as_itself() -> None:
    error = KeyError("mine")

    def handler(request: HTTPRequest) -> None:
        raise error

    with pytest.raises(KeyError) as caught, HTTPServer(handler=handler) as server:
        reply = ask(server, path="/broken")
        assert reply.status == 500
        assert b"KeyError" in body_of(reply)
        assert server.errors == (error,)
    assert caught.value is error
    assert "GET /broken" in error.__notes__[0]


def test_several_errors_are_raised_as_a_group() -> None:
    def handler(request: HTTPRequest) -> None:
        raise ValueError(request.path)

    with pytest.raises(ExceptionGroup) as caught, HTTPServer(handler=handler) as server:
        for path in ("/1", "/2"):
            ask(server, path=path)
    assert [str(error) for error in caught.value.exceptions] == ["/1", "/2"]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize("error", [Unprintable(), ValueError("\ud800"), ValueError("x" * 5000)])
def test_the_client_gets_500_whatever_the_error_says(error: Exception) -> None:
    def handler(request: HTTPRequest) -> None:
        raise error

    with pytest.raises(type(error)), HTTPServer(handler=handler) as server:
        assert ask(server).status == 500


@pytest.mark.parametrize(
    "error, reason",
    [
        (AssertionError("want csv"), "AssertionError: want csv"),
        (KeyError(), "KeyError"),
        (ValueError("\n  first\r\nsecond: 2"), "ValueError: first"),
        (ValueError("caf\xe9 \u2603\0"), "ValueError: caf\\xe9 \\u2603?"),
        (Unprintable(), "Unprintable: (its text cannot be had: ValueError)"),
        (ValueError("x" * 5000), "ValueError: " + "x" * 188),
        (ValueError("\u2603" * 5000), "ValueError: " + ("\\u2603" * 32)[:188]),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_the_client_is_told_in_the_reason(error: Exception, reason: str) -> None:
    def handler(request: HTTPRequest) -> None:
        raise error

    with pytest.raises(type(error)), HTTPServer(handler=handler) as server:
        assert ask(server).reason == reason


def broken_generator(request: HTTPRequest) -> Iterator[bytes]:
    yield b"part"
    raise LookupError("midway")


def test_a_generator_that_raises_midway_breaks_the_reply() -> None:
    """The client has the first part, and sees that it is not complete."""
    with pytest.raises(LookupError, match="midway"):
        with HTTPServer(handler=broken_generator) as server:
            with pytest.raises(IncompleteRead) as caught:
                ask(server)
    assert caught.value.partial == b"part"


def test_a_reply_that_ends_with_the_connection_is_broken_by_a_reset() -> None:
    """Otherwise a client of HTTP/1.0 would take what it got for the whole body."""
    with pytest.raises(LookupError, match="midway"):
        with HTTPServer(handler=broken_generator) as server, connect(server) as sock:
            sock.sendall(get(version="1.0").encode())
            with pytest.raises(ConnectionResetError):
                read_all(sock)


def test_a_generator_that_raises_at_once_is_500() -> None:
    def handler(request: HTTPRequest) -> Iterator[bytes]:
        raise LookupError("at once")
        yield b""

    with pytest.raises(LookupError, match="at once"), HTTPServer(handler=handler) as server:
        assert ask(server).status == 500


# By hand, as with http.server ------------------------------------------------------------------


def by_hand(request: HTTPRequest) -> None:
    request.send_response(201, "Made")
    request.send_header("X-Number", 1)
    request.send_header("X-Number", 2)
    request.end_headers()
    request.wfile.write(b"hello, ")
    request.wfile.write(b"world")


def test_a_reply_written_by_hand() -> None:
    with HTTPServer(handler=by_hand) as server:
        reply = ask(server)
        assert (reply.status, reply.reason, body_of(reply)) == (201, "Made", b"hello, world")
        assert reply.msg.get_all("X-Number") == ["1", "2"]
        assert reply.getheader("Content-Length") == "12"


@pytest.mark.parametrize("length", [None, 12])
def test_a_flush_sends_what_was_written(length: int | None) -> None:
    turn = threading.Event()

    def handler(request: HTTPRequest) -> None:
        request.send_response(200)
        if length is not None:
            request.send_header("Content-Length", length)
        request.end_headers()
        request.wfile.write(b"hello, ")
        request.wfile.flush()
        assert turn.wait(WAIT)
        request.wfile.write(b"world")

    with HTTPServer(handler=handler) as server, connect(server) as sock:
        sock.sendall(get().encode())
        reply = HTTPResponse(sock)
        reply.begin()
        assert reply.read(7) == b"hello, "
        turn.set()
        assert reply.read() == b"world"
        assert not reply.will_close


def test_send_error_is_a_whole_reply() -> None:
    with HTTPServer(handler=lambda r: r.send_error(404, "Lost", "look elsewhere")) as server:
        reply = ask(server)
        assert (reply.status, reply.reason) == (404, "Lost")
        assert body_of(reply) == b"404 Lost\nlook elsewhere\n"


def late_body(request: HTTPRequest) -> None:
    request.wfile.write(b"no head yet")


def late_header(request: HTTPRequest) -> None:
    request.send_header("X", "1")


def both_ways(request: HTTPRequest) -> str:
    by_hand(request)
    return "and more"


@pytest.mark.parametrize(
    "handler, error", [(late_body, ValueError), (late_header, ValueError), (both_ways, TypeError)]
)
def test_a_reply_out_of_order_is_an_error(
    handler: Callable[[HTTPRequest], Any], error: type[Exception]
) -> None:
    with pytest.raises(error), HTTPServer(handler=handler) as server:
        assert ask(server).status == 500


# Framing ---------------------------------------------------------------------------------------

BODILESS = {
    "HEAD": ("HEAD", "hello"),
    "HEAD of an iterator": ("HEAD", lambda: iter([b"hello", b"world"])),
    "HEAD with a large body": ("HEAD", b"x" * 300_000),
    "204 with a body": ("GET", ("body", 204)),
    "204 with an iterator": ("GET", lambda: (iter([b"one", b"two"]), 204)),
    "204 with a large body": ("GET", (b"x" * 300_000, 204)),
    "304 with an iterator": ("GET", lambda: (iter([b"one", b"two"]), 304)),
    "304 with a body": ("GET", ("body", 304)),
}


@pytest.mark.parametrize("method, result", BODILESS.values(), ids=BODILESS)
def test_replies_without_a_body_have_none(method: str, result: Any) -> None:
    """The next reply on the connection follows immediately."""

    def handler(request: HTTPRequest) -> Any:
        if request.path == "/next":
            return "next"
        return result() if callable(result) else result

    first = f"{method} / HTTP/1.1\r\nHost: t\r\n\r\n"
    with HTTPServer(handler=handler) as server:
        replies = parse(talk(server, first + get("/next")), method, "GET")
    assert [body for _, body in replies] == [b"", b"next"]


def test_a_response_to_head_has_the_length_of_the_body() -> None:
    with HTTPServer(handler=lambda request: "hello") as server:
        assert ask(server, "HEAD").getheader("Content-Length") == "5"


def test_204_has_no_length() -> None:
    """RFC 9110 8.6 does not allow one."""
    with HTTPServer(handler=lambda request: 204) as server:
        assert ask(server).getheader("Content-Length") is None


@pytest.mark.parametrize("result", [b"12345", iter([b"12", b"345"])], ids=["bytes", "iterator"])
@pytest.mark.parametrize("length", ["3", "9", "x"])
def test_a_wrong_length_is_sent_and_the_connection_closed(result: Any, length: str) -> None:
    """The client neither waits for missing bytes nor reads extra bytes as a reply."""
    chunks = list(result) if not isinstance(result, bytes) else None
    reply = Reply(
        result if chunks is None else iter(chunks or [b"12345"]), 200, {"Content-Length": length}
    )
    with HTTPServer(handler=lambda request: reply) as server, connect(server) as sock:
        sock.sendall(get().encode())
        head, _, body = read_all(sock).partition(b"\r\n\r\n")
    assert f"Content-Length: {length}".encode() in head
    assert body in (b"12345", b"")


def test_an_iterator_with_its_right_length_keeps_the_connection() -> None:
    def handler(request: HTTPRequest) -> Reply:
        return Reply(iter([b"12", b"345"]), 200, {"Content-Length": "5"})

    with HTTPServer(handler=handler) as server:
        replies = parse(talk(server, get() * 2), "GET", "GET")
    assert [body for _, body in replies] == [b"12345"] * 2


def test_http_1_0_gets_no_chunks() -> None:
    with HTTPServer(handler=lambda r: iter([b"one", b"two"])) as server:
        [(reply, body)] = parse(talk(server, get("/", "Connection: keep-alive", version="1.0")))
        assert (body, reply.getheader("Transfer-Encoding")) == (b"onetwo", None)


def test_a_reply_has_a_date() -> None:
    with HTTPServer() as server:
        assert str(ask(server).getheader("Date")).endswith(" GMT")


# Clients that leave ----------------------------------------------------------------------------


def test_an_early_reply_to_an_unfinished_upload() -> None:
    """The client stops sending when it has the answer, and its connection is closed."""
    post = f"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {64 * MIB}\r\n\r\n"
    with HTTPServer(handler=lambda request: ("too large", 413)) as server, connect(server) as sock:
        sock.sendall(post.encode() + bytes(100_000))
        reply = HTTPResponse(sock)
        reply.begin()
        assert (reply.status, reply.read()) == (413, b"too large")


def test_a_client_that_sends_on_after_an_early_reply_gets_it_still() -> None:
    with HTTPServer(handler=lambda request: ("too large", 413)) as server:
        assert ask(server, "POST", body=bytes(8 * MIB)).status == 413


def test_a_client_that_leaves_midway_wakes_the_handler() -> None:
    woken = threading.Event()

    def handler(request: HTTPRequest) -> None:
        try:
            request.rfile.read()
        except ConnectionError:
            woken.set()
            raise

    with HTTPServer(handler=handler) as server:
        with connect(server) as sock:
            sock.sendall(f"POST / HTTP/1.1\r\n{CLOSE}Content-Length: {MIB}\r\n\r\nsome".encode())
            server.wait_for(1)
        assert woken.wait(WAIT)
        assert eventually(lambda: len(server.diagnostics) == 2)
        assert server.received[0].body == b"some"
        assert not server.errors


def test_a_client_that_leaves_during_the_reply_ends_it() -> None:
    """The handler's generator is closed, and the test gets no error."""
    closed = threading.Event()

    def handler(request: HTTPRequest) -> Iterator[bytes]:
        try:
            while True:
                yield bytes(MIB)
        finally:
            closed.set()

    with HTTPServer(handler=handler) as server:
        with connect(server) as sock:
            sock.sendall(get().encode())
            assert sock.recv(100)
        assert closed.wait(WAIT)
        assert eventually(lambda: bool(server.diagnostics))
        assert not server.errors


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("size", [10, 5 * MIB])
def test_a_reply_after_the_client_has_left_is_no_error(size: int, reset: bool) -> None:
    left = threading.Event()

    def handler(request: HTTPRequest) -> bytes:
        assert left.wait(WAIT)
        return bytes(size)

    with HTTPServer(handler=handler) as server:
        before = server.stats().connections
        with connect(server) as sock:
            sock.sendall(get().encode())
            server.wait_for(1)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if reset:
            assert eventually(lambda: server.stats().connections == before)
        left.set()
    assert not server.errors


# Switching and stopping ------------------------------------------------------------------------


def test_without_a_handler_requests_are_recorded_and_answered_200() -> None:
    with HTTPServer() as server:
        reply = ask(server, "PUT", "/x?y=1", body=b"data")
        assert (reply.status, body_of(reply)) == (200, b"")
        [request] = server.received
    assert (request.method, request.path, request.body) == ("PUT", "/x", b"data")


def test_the_handler_may_be_replaced_while_the_server_runs() -> None:
    answers = []
    with HTTPServer(handler=lambda request: "first") as server:
        connection = HTTPConnection(server.host, server.port, timeout=WAIT)
        for handler in (server.handler, lambda r: "second", None, lambda r: "third"):
            server.handler = handler
            connection.request("GET", "/")
            answers.append(connection.getresponse().read())
        connection.close()
        assert len(server.received) == 4
    assert answers == [b"first", b"second", b"", b"third"]


def test_an_idle_client_does_not_hold_up_the_stop() -> None:
    with HTTPServer() as server, connect(server) as idle, connect(server) as half:
        idle.sendall(get().encode())
        half.sendall(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nhalf")
        assert idle.recv(1000)
        server.wait_for(1)
        report = server.stop()
        assert (report.rung, report.connections) == ("ask", ())
        assert report.seconds < 3  # a drain lasts 3.75


def test_a_handler_at_work_may_finish_before_the_stop() -> None:
    stopping = threading.Event()

    def handler(request: HTTPRequest) -> str:
        assert stopping.wait(WAIT)
        return "finished"

    with HTTPServer(handler=handler) as server, connect(server) as sock:
        sock.sendall(get().encode())
        server.wait_for(1)
        threading.Timer(0.1, stopping.set).start()
        assert server.stop().rung == "ask"
        assert parse(read_all(sock))[0][1] == b"finished"


def test_a_handler_that_waits_for_its_client_does_not_hold_up_the_stop() -> None:
    waiting = threading.Event()

    def handler(request: HTTPRequest) -> bytes:
        request.rfile.read(4)
        waiting.set()
        return request.rfile.read()

    with HTTPServer(handler=handler) as server, connect(server) as sock:
        sock.sendall(f"POST / HTTP/1.1\r\n{CLOSE}Content-Length: {MIB}\r\n\r\nhalf".encode())
        assert waiting.wait(WAIT)
        report = server.stop()
        assert (report.rung, report.seconds < 3) == ("ask", True)
        assert server.received[0].body == b"half"


@pytest.mark.filterwarnings("ignore::sidestage.LeftRunningWarning")
def test_a_stuck_handler_is_named_by_the_report() -> None:
    release = threading.Event()
    with (
        HTTPServer(handler=lambda r: release.wait(WAIT) and None) as server,
        connect(server) as sock,
    ):
        sock.sendall(get("/stuck").encode())
        server.wait_for(1)
        report = server.stop(timeout=1.0)
        release.set()
    [left] = report.connections
    assert left.client_address == server.received[0].client_address
    assert left.state.startswith("GET /stuck: handler running")


def test_what_the_standard_library_wraps_around_a_file_works() -> None:
    """Text, archives and the like; closing them closes no connection."""

    def write(request: HTTPRequest) -> None:
        request.send_response(200)
        request.end_headers()
        if request.path == "/text":
            with io.TextIOWrapper(request.wfile, "utf-8", newline="") as text:
                csv.writer(text).writerows([["a", "b"], ["c", "ü"]])
        elif request.path == "/gzip":
            with gzip.GzipFile(fileobj=request.wfile, mode="wb") as archive:
                archive.write(b"text")
        else:
            with zipfile.ZipFile(request.wfile, "w") as files:
                files.writestr("a.txt", "text")

    with HTTPServer(handler=write) as server:
        assert body_of(ask(server, path="/text")).decode() == "a,b\r\nc,ü\r\n"
        assert gzip.decompress(body_of(ask(server, path="/gzip"))) == b"text"
        content = io.BytesIO(body_of(ask(server, path="/zip")))
        assert zipfile.ZipFile(content).read("a.txt") == b"text"
