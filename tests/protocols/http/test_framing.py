"""What a response says of its framing and what is sent agree, or the connection ends after it."""

from __future__ import annotations

import asyncio
import io
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Any

import aiohttp
import h11
import httpx
import pytest
import requests

from kit.raw_http import WAIT, RawClient
from sidestage import HTTPRequest, HTTPServer
from sidestage import HTTPResponse as Reply

BODY = b"hello"
Fields = list[tuple[str, str]]
Way = Callable[[HTTPRequest, int, Fields, bytes], Any]


# Ways to answer --------------------------------------------------------------------------------


def pieces(body: bytes) -> Iterator[bytes]:
    yield body[:2]
    yield b""
    yield body[2:]


def as_tuple(request: HTTPRequest, status: int, fields: Fields, body: bytes) -> Any:
    return body, status, fields


def as_text(request: HTTPRequest, status: int, fields: Fields, body: bytes) -> Any:
    return body.decode("latin-1"), status, fields


def as_generator(request: HTTPRequest, status: int, fields: Fields, body: bytes) -> Any:
    return pieces(body), status, fields


def as_file(request: HTTPRequest, status: int, fields: Fields, body: bytes) -> Any:
    return io.BytesIO(body), status, fields


def as_response(request: HTTPRequest, status: int, fields: Fields, body: bytes) -> Any:
    return Reply(body, status, fields)


def as_streamed_response(request: HTTPRequest, status: int, fields: Fields, body: bytes) -> Any:
    return Reply([body[:1], body[1:]], status, fields)


async def as_coroutine(request: HTTPRequest, status: int, fields: Fields, body: bytes) -> Any:
    return pieces(body), status, fields


def head_by_hand(request: HTTPRequest, status: int, fields: Fields) -> None:
    request.send_response(status)
    for name, value in fields:
        request.send_header(name, value)
    request.end_headers()


def by_hand(request: HTTPRequest, status: int, fields: Fields, body: bytes) -> None:
    head_by_hand(request, status, fields)
    request.wfile.write(body)


def by_hand_flushed(request: HTTPRequest, status: int, fields: Fields, body: bytes) -> None:
    head_by_hand(request, status, fields)
    for piece in pieces(body):
        request.wfile.write(piece)
        request.wfile.flush()


WAYS: list[Way] = [as_tuple, as_text, as_generator, as_file, as_response, as_streamed_response]
WAYS += [as_coroutine, by_hand, by_hand_flushed]


class Answering:
    """A handler that answers with what the test has set, and ``/next`` with ``next``."""

    def __init__(self) -> None:
        self.way: Way = as_tuple
        self.status = 200
        self.fields: Fields = []
        self.body = BODY

    def __call__(self, request: HTTPRequest) -> Any:
        if request.path == "/next":
            return "next"
        return self.way(request, self.status, self.fields, self.body)


# A client that believes what is said -----------------------------------------------------------


class Client(RawClient):
    """Reads as h11 understands what the server says."""

    def exchange(self, method: str, path: str, *fields: str, version: str = "1.1") -> bytes | None:
        """The body of the answer; ``None`` if it is broken or incomplete."""
        lines = [f"{method} {path} HTTP/{version}", "Host: t", *fields, "", ""]
        self.send("\r\n".join(lines))
        self.protocol = h11.Connection(h11.CLIENT)
        self.protocol.send(h11.Request(method=method, target=path, headers=[("Host", "t")]))
        self.protocol.send(h11.EndOfMessage())
        body = b""
        try:
            while not isinstance(event := self.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Data):
                    body += bytes(event.data)
                if isinstance(event, h11.ConnectionClosed):
                    return None
        except (h11.RemoteProtocolError, ConnectionResetError):
            return None
        return body

    def next_event(self) -> Any:
        while (event := self.protocol.next_event()) is h11.NEED_DATA:
            self.protocol.receive_data(self.sock.recv(1 << 16))
        return event

    def keeps(self) -> bool:
        """Whether the server keeps the connection: the next answer comes on it, whole."""
        if self.protocol.trailing_data[0]:
            return False  # more came than was said: this client closes
        try:
            answer = self.exchange("GET", "/next")
        except (BrokenPipeError, ConnectionResetError):
            return False
        assert answer in (None, b"next"), answer
        return answer is not None

    def ends(self) -> bool:
        try:
            while self.sock.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass
        return True


# Lengths and codings ---------------------------------------------------------------------------

LENGTH, CODING = "Content-Length", "Transfer-Encoding"
CHUNKS = b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nA: b\r\n\r\n"
SAID: dict[str, tuple[Fields, bytes, bytes | None, bool]] = {
    # What is said, the body, what the client gets of it, and whether the connection is kept.
    "nothing": ([], BODY, BODY, True),
    "the length": ([(LENGTH, "5")], BODY, BODY, True),
    "the length with zeros": ([("content-length", "005")], BODY, BODY, True),
    "the length of nothing": ([(LENGTH, "0")], b"", b"", True),
    "too small": ([(LENGTH, "3")], BODY, BODY[:3], False),
    "zero": ([(LENGTH, "0")], BODY, b"", False),
    "too large": ([(LENGTH, "9")], BODY, None, False),
    "huge": ([(LENGTH, "9" * 5000)], BODY, None, False),
    "no number": ([(LENGTH, "five")], BODY, None, False),
    "a digit of no number": ([(LENGTH, "\xb2")], BODY, None, False),
    "negative": ([(LENGTH, "-5")], BODY, None, False),
    "with a sign": ([(LENGTH, "+5")], BODY, None, False),
    "empty": ([(LENGTH, "")], BODY, None, False),
    "a list": ([(LENGTH, "5, 5")], BODY, BODY, False),
    "twice": ([(LENGTH, "5"), (LENGTH, "5")], BODY, BODY, False),
    "two lengths": ([(LENGTH, "5"), (LENGTH, "6")], BODY, None, False),
    "chunked, and it is not": ([(CODING, "chunked")], BODY, None, False),
    "chunked, without a body": ([(CODING, "chunked")], b"", None, False),
    "chunked, and it is": ([(CODING, "chunked")], CHUNKS, BODY, True),
    "Chunked, and it is": ([("transfer-encoding", " Chunked ")], CHUNKS, BODY, True),
    "chunked, without an end": ([(CODING, "chunked")], CHUNKS[:-2], None, False),
    "chunked, and more": ([(CODING, "chunked")], CHUNKS + b"x", BODY, False),
    "both": ([(CODING, "chunked"), (LENGTH, str(len(CHUNKS)))], CHUNKS, BODY, False),
    "both, and it is not": ([(CODING, "chunked"), (LENGTH, "5")], BODY, None, False),
    "gzip": ([(CODING, "gzip")], BODY, None, False),
    "identity": ([(CODING, "identity")], BODY, None, False),
    "chunked twice": ([(CODING, "chunked"), (CODING, "chunked")], CHUNKS, None, False),
    "a trailer that does not come": ([("Trailer", "X-Sum")], BODY, BODY, True),
}


@pytest.mark.parametrize("fields, body, wanted, kept", SAID.values(), ids=SAID)
def test_what_is_said_and_what_is_sent_agree_or_the_connection_ends(
    fields: Fields, body: bytes, wanted: bytes | None, kept: bool
) -> None:
    """Whatever the way to answer; the client never waits, and never reads one answer as another."""
    handler = Answering()
    handler.fields, handler.body = fields, body
    with HTTPServer(handler=handler) as server:
        for handler.way in WAYS:
            with Client(server) as client:
                assert client.exchange("GET", "/") == wanted, handler.way
                assert client.keeps() is kept, handler.way
                if not kept:
                    assert client.ends()
        told = [line for line in server.diagnostics if "the connection closes" in line.text]
        assert len(told) == (0 if kept else len(WAYS))
        assert not server.errors


@pytest.mark.parametrize("status", [200, 204, 205, 304])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_nobody_waits_whatever_the_status(version: str, method: str, status: int) -> None:
    """The connection goes on with the next answer, or it ends."""
    handler = Answering()
    handler.status = status
    keep_alive = ["Connection: keep-alive"] if version == "1.0" else []
    with HTTPServer(handler=handler) as server:
        for said, (handler.fields, handler.body, _, _) in SAID.items():
            for handler.way in WAYS:
                with Client(server) as client:
                    found = client.exchange(method, "/", *keep_alive, version=version)
                    if method == "HEAD" or status in (204, 205, 304):
                        assert not found
                    assert client.keeps() or client.ends(), (said, handler.way)
        assert not server.errors


def test_chunks_of_another_coding_keep_the_connection() -> None:
    """The handler may make them itself, for a client that knows the coding."""
    handler = Answering()
    handler.way, handler.fields, handler.body = by_hand, [(CODING, "gzip, chunked")], CHUNKS
    with HTTPServer(handler=handler) as server, RawClient(server) as client:
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        assert f"{CODING}: gzip, chunked" in client.head()
        assert client.read(len(CHUNKS)) == CHUNKS
        client.send("GET /next HTTP/1.1\r\nHost: t\r\n\r\n")
        assert client.answer() == (200, b"next")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "method, status", [("GET", 204), ("GET", 205), ("GET", 304), ("HEAD", 200)]
)
def test_an_answer_without_a_body_keeps_the_connection(way: Way, method: str, status: int) -> None:
    handler = Answering()
    handler.way, handler.status = way, status
    with HTTPServer(handler=handler) as server, Client(server) as client:
        assert client.exchange(method, "/") == b""
        assert client.keeps()
        [answer] = [record.answer for record in server.received if record.path == "/"]
        assert answer is not None
        assert answer.size == 0


def test_a_205_says_that_it_is_empty() -> None:
    """RFC 9110 15.3.6: without a length, a client would take what follows for its body."""
    with HTTPServer(handler=lambda request: ("x", 205)) as server, RawClient(server) as client:
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        assert client.answer() == (205, b"")


# Connection ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked, version, said, kept",
    [
        ("", "1.1", "close", False),
        ("", "1.1", "Upgrade, CLOSE", False),
        ("", "1.1", "keep-alive", True),
        ("", "1.1", "upgrade", True),
        ("", "1.1", "closed", True),
        ("close", "1.1", "keep-alive", False),
        ("", "1.0", "keep-alive", False),
        ("keep-alive", "1.0", "keep-alive", True),
        ("keep-alive", "1.0", "upgrade", True),
        ("keep-alive", "1.0", "close", False),
    ],
)
def test_the_connection_ends_as_the_response_says(
    asked: str, version: str, said: str, kept: bool
) -> None:
    with (
        HTTPServer(handler=lambda request: ("x", 200, {"Connection": said})) as server,
        RawClient(server) as client,
    ):
        connection = f"Connection: {asked}\r\n" if asked else ""
        client.send(f"GET / HTTP/{version}\r\nHost: t\r\n{connection}\r\n")
        _, *fields = client.head()
        values = [field[12:] for field in fields if field.startswith("Connection: ")]
        members = {member.strip().lower() for value in values for member in value.split(",")}
        assert said in values
        assert ("close" in members) is not kept
        if kept:
            assert version == "1.1" or "keep-alive" in members
            assert client.read(1) == b"x"
            client.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            assert client.status() == 200
        assert client.rest() == b"x"


# CONNECT ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fields", [[], [(LENGTH, "5")], [(CODING, "chunked")], [(LENGTH, "x")]])
def test_a_2xx_to_connect_has_no_framing_and_no_body(way: Way, fields: Fields) -> None:
    """RFC 9110 9.3.6; what a handler by hand writes goes through the tunnel."""
    handler = Answering()
    handler.way, handler.fields = way, [*fields, ("X", "y")]
    with HTTPServer(handler=handler) as server, RawClient(server) as client:
        client.send("CONNECT t:80 HTTP/1.1\r\nHost: t:80\r\n\r\n")
        first, *found = client.head()
        assert first == "HTTP/1.1 200 OK"
        assert "X: y" in found
        names = {field.partition(":")[0] for field in found}
        assert names.isdisjoint({LENGTH, CODING})
        assert client.rest() in (b"", BODY)
        assert not server.errors


def test_another_answer_to_connect_is_framed() -> None:
    with HTTPServer(handler=lambda request: ("no", 403)) as server, Client(server) as client:
        client.send("CONNECT t:80 HTTP/1.1\r\nHost: t:80\r\n\r\n")
        assert client.answer() == (403, b"no")
        assert client.exchange("GET", "/") == b"no"


# Informational responses -----------------------------------------------------------------------


@pytest.mark.parametrize("name", [LENGTH, "transfer-encoding"])
def test_an_informational_response_says_nothing_of_a_body(name: str) -> None:
    """RFC 9110 8.6, RFC 9112 6.1."""

    def handler(request: HTTPRequest) -> str:
        with pytest.raises(ValueError, match="has no body"):
            request.send_informational(103, {name: "5"})
        return "done"

    with HTTPServer(handler=handler) as server, Client(server) as client:
        assert client.exchange("GET", "/") == b"done"
        assert not server.errors


# Clients ---------------------------------------------------------------------------------------


def by_http_client(url: str) -> bytes:
    with closing(HTTPConnection(url.removeprefix("http://"), timeout=WAIT)) as client:
        client.request("GET", "/")
        return client.getresponse().read()


def by_requests(url: str) -> bytes:
    return requests.get(url, timeout=WAIT).content


def by_httpx(url: str) -> bytes:
    return httpx.get(url, timeout=WAIT, trust_env=False).content


def by_aiohttp(url: str) -> bytes:
    async def get() -> bytes:
        time = aiohttp.ClientTimeout(total=WAIT)
        async with aiohttp.ClientSession(timeout=time) as client, client.get(url) as reply:
            return await reply.read()

    return asyncio.run(get())


def by_curl(url: str) -> bytes:
    command = ["curl", "-sS", "--noproxy", "*", "--max-time", str(int(WAIT)), url]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode == 28:
        raise TimeoutError
    if done.returncode:
        raise HTTPException(done.stderr)
    return done.stdout


TOLD = (HTTPException, requests.RequestException, httpx.RemoteProtocolError, aiohttp.ClientError)


@pytest.mark.parametrize(
    "client", [by_http_client, by_requests, by_httpx, by_aiohttp, by_curl], ids=lambda c: c.__name__
)
@pytest.mark.parametrize(
    "says", ["chunked, and it is not", "too large", "both, and it is not", "chunked, and it is"]
)
def test_a_real_client_is_told_at_once(client: Callable[[str], bytes], says: str) -> None:
    """It gets an error, or the body; it does not wait until its time is over."""
    handler = Answering()
    handler.fields, handler.body, wanted, _ = SAID[says]
    with HTTPServer(handler=handler) as server:
        for handler.way in (as_tuple, as_generator, by_hand_flushed):
            try:
                assert client(server.url) in (wanted, BODY)
            except TOLD as error:
                assert "timed out" not in str(error)  # noqa: PT017 - it may also be no error
                assert wanted is None
