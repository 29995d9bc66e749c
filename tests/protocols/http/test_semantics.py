"""What is beyond a request and its response: any method, 1xx, expectations, trailers, upgrades."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest

from kit.raw_http import WAIT, RawClient
from sidestage import HTTPRequest, HTTPServer
from sidestage import HTTPResponse as Reply

MIB = 1 << 20
LARGE = 200_000  # bytes, more than what is passed on in one piece

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def head(line: str, *fields: str, version: str = "1.1") -> str:
    return "\r\n".join([f"{line} HTTP/{version}", "Host: t", *fields, "", ""])


def chunked(*pieces: bytes, trailers: str = "") -> bytes:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return framed + f"0\r\n{trailers}\r\n".encode()


def curl(*arguments: str, stdin: bytes = b"") -> bytes:
    command = ["curl", "-sS", "--noproxy", "*", "--max-time", "20", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def describe(request: HTTPRequest) -> bytes:
    return f"{request.method} {request.path} ".encode() + request.body


# Methods ---------------------------------------------------------------------------------------

METHODS = ["PURGE", "QUERY", "x!y", "get", "M-SEARCH", "!#$%&'*+-.^_`|~09", "PRI"]


@pytest.mark.parametrize("method", METHODS)
def test_any_token_is_a_method(method: str) -> None:
    with HTTPServer(handler=describe) as server:
        with closing(HTTPConnection(server.host, server.port, timeout=WAIT)) as client:
            for body in (None, b"body"):
                client.request(method, "/x", body)
                wanted = f"{method} /x ".encode() + (body or b"")
                assert client.getresponse().read() == wanted
        assert [request.method for request in server.received] == [method] * 2
        assert not server.diagnostics


@pytest.mark.parametrize("handled", [True, False])
def test_any_method_may_follow_a_chunked_body(handled: bool) -> None:
    post = head("POST /0", "Transfer-Encoding: chunked").encode() + chunked(b"one", b"two")
    with HTTPServer(handler=describe if handled else None) as server, RawClient(server) as client:
        client.send(post + "".join(head(f"{method} /x") for method in METHODS).encode() + post)
        answers = [client.answer()[1] for _ in range(len(METHODS) + 2)]
        if handled:
            others = [f"{method} /x ".encode() for method in METHODS]
            assert answers == [b"POST /0 onetwo", *others, b"POST /0 onetwo"]
        assert [request.method for request in server.received] == ["POST", *METHODS, "POST"]
        assert not server.diagnostics


# Informational responses -----------------------------------------------------------------------

HINT = [("Link", "</x>; rel=preload"), ("Link", "</y>; rel=preload")]


def test_an_informational_response_comes_before_the_final_one() -> None:
    """While the handler still runs."""
    seen = threading.Event()

    def handler(request: HTTPRequest) -> str:
        request.send_informational(103, HINT)
        assert seen.wait(WAIT)
        request.send_informational(102)
        return "done"

    with HTTPServer(handler=handler) as server, RawClient(server) as client:
        client.send(head("GET /") * 2)
        for _ in range(2):
            links = [f"Link: {value}" for _, value in HINT]
            assert client.head() == ["HTTP/1.1 103 Early Hints", *links]
            seen.set()
            assert client.head() == ["HTTP/1.1 102 Processing"]
            assert client.answer() == (200, b"done")
        answer = server.received[0].answer
        assert answer is not None
        assert (answer.status, answer.size) == (200, 4)


def test_an_informational_response_goes_with_one_by_hand() -> None:
    def handler(request: HTTPRequest) -> None:
        request.send_informational(103, {"Link": "</x>"})
        request.send_response(201)
        request.end_headers()
        request.wfile.write(b"made")

    with HTTPServer(handler=handler) as server, RawClient(server) as client:
        client.send(head("GET /"))
        assert client.head() == ["HTTP/1.1 103 Early Hints", "Link: </x>"]
        assert client.answer() == (201, b"made")


def test_http_1_0_gets_no_informational_response() -> None:
    def handler(request: HTTPRequest) -> str:
        request.send_informational(103, HINT)
        return "done"

    with HTTPServer(handler=handler) as server, RawClient(server) as client:
        client.send(head("GET /", version="1.0"))
        assert client.answer() == (200, b"done")
        assert client.rest() == b""


def inform_with(*arguments: Any) -> Callable[[HTTPRequest], None]:
    return lambda request: request.send_informational(*arguments)


def inform_after_send_response(request: HTTPRequest) -> None:
    request.send_response(200)
    request.send_informational(103)


def inform_after_the_head(request: HTTPRequest) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.flush()
    request.send_informational(103)


def inform_in_a_stream(request: HTTPRequest) -> Iterator[bytes]:
    yield b"first"
    request.send_informational(103)


@pytest.mark.parametrize(
    "handler, error, status",
    [
        pytest.param(inform_with(101), ValueError, 500, id="101"),
        pytest.param(inform_with(99), ValueError, 500, id="99"),
        pytest.param(inform_with(200), ValueError, 500, id="200"),
        pytest.param(inform_with("103"), TypeError, 500, id="text"),
        pytest.param(inform_with(103, {"A\r\n": "b"}), ValueError, 500, id="no name"),
        pytest.param(inform_with(103, {"A": "b\r\nC: d"}), ValueError, 500, id="a line end"),
        pytest.param(inform_after_send_response, ValueError, 500, id="after send_response"),
        pytest.param(inform_after_the_head, ValueError, 200, id="after the head"),
        pytest.param(inform_in_a_stream, ValueError, 200, id="in a stream"),
    ],
)
def test_what_is_no_informational_response_is_an_error(
    handler: Callable[[HTTPRequest], Any], error: type[Exception], status: int
) -> None:
    with (
        pytest.raises(error, match=r"informational|status|name|line end"),
        HTTPServer(handler=handler) as server,
        RawClient(server) as client,
    ):
        client.send(head("GET /"))
        assert client.status() == status
        assert b"HTTP/1.1" not in (client.read(10) if status == 500 else client.rest())


# Expectations ----------------------------------------------------------------------------------

EXPECT = "Expect: 100-continue"
CONTINUE = ["HTTP/1.1 100 Continue"]
FRAMINGS = {
    "a length": ("Content-Length: 5", b"hello"),
    "chunks": ("Transfer-Encoding: chunked", chunked(b"hel", b"lo")),
}
with_each_framing = pytest.mark.parametrize("field, body", FRAMINGS.values(), ids=FRAMINGS)


@with_each_framing
@pytest.mark.parametrize("status", [413, 200])
def test_a_handler_that_does_not_read_needs_no_body(field: str, body: bytes, status: int) -> None:
    """Its client is not told to send one, and the connection ends: it may send one or not."""
    with (
        HTTPServer(handler=lambda request: ("no need", status)) as server,
        RawClient(server) as client,
    ):
        client.send(head("POST /", EXPECT, field))
        first, *fields = client.head()
        assert first.split()[1] == str(status)
        assert "Connection: close" in fields
        assert client.rest() == b"no need"
        [request] = server.received
        assert (request.body, request.body_cut) == (b"", 0)
        assert not server.errors


@pytest.mark.parametrize("field", [f"{EXPECT} ", f"{EXPECT}\t, x", f"{EXPECT}\r\nExpect: x"])
def test_an_expectation_may_be_one_of_several(field: str) -> None:
    """With blanks around it."""
    with HTTPServer(handler=lambda request: request.body) as server, RawClient(server) as client:
        client.send(head("POST /", field, "Content-Length: 5"))
        assert client.head() == CONTINUE
        client.send("hello")
        assert client.answer() == (200, b"hello")


def read_body(request: HTTPRequest) -> bytes:
    return request.body


def read_file(request: HTTPRequest) -> bytes:
    return request.rfile.read()


def read_trailers(request: HTTPRequest) -> bytes:
    assert request.trailers == {}
    return request.body


def ask_by_hand(request: HTTPRequest) -> bytes:
    request.send_informational(100)
    return request.rfile.read()


@with_each_framing
@pytest.mark.parametrize("handler", [read_body, read_file, read_trailers, ask_by_hand, None])
def test_a_client_is_told_to_send_the_body_that_is_read(
    field: str, body: bytes, handler: Callable[[HTTPRequest], bytes] | None
) -> None:
    """Also without a handler. Once, and the connection is kept."""
    with HTTPServer(handler=handler) as server, RawClient(server) as client:
        for _ in range(2):
            client.send(head("POST /", EXPECT, field))
            assert client.head() == CONTINUE
            client.send(body)
            assert client.answer() == (200, b"hello" if handler else b"")
        assert [request.body for request in server.received] == [b"hello"] * 2
        assert not server.diagnostics


def test_the_handler_runs_before_the_body_is_asked_for() -> None:
    asked = threading.Event()

    def handler(request: HTTPRequest) -> bytes:
        assert asked.wait(WAIT)
        return request.body

    with HTTPServer(handler=handler) as server, RawClient(server) as client:
        client.send(head("POST /x", EXPECT, "Content-Length: 5"))
        [request] = server.wait_for(1)
        assert request.path == "/x"
        asked.set()
        assert client.head() == CONTINUE
        client.send("hello")
        assert client.answer() == (200, b"hello")


@pytest.mark.parametrize("size", [5, LARGE])
def test_a_client_that_does_not_wait_is_answered_too(size: int) -> None:
    body = b"x" * size
    with HTTPServer(handler=read_body) as server, RawClient(server) as client:
        client.send(head("POST /", EXPECT, f"Content-Length: {size}").encode() + body)
        first = client.head()
        if first == CONTINUE:  # the body was not there yet
            first = client.head()
        assert first[0] == "HTTP/1.1 200 OK"
        assert client.read(size) == body


def test_the_connection_is_kept_if_the_body_came_without_being_asked_for() -> None:
    with HTTPServer(handler=lambda request: request.path) as server, RawClient(server) as client:
        client.send(head("POST /1", EXPECT, "Content-Length: 5") + "hello" + head("GET /2"))
        assert client.answer() == (200, b"/1")
        assert client.answer() == (200, b"/2")


@pytest.mark.parametrize("handled", [True, False])
def test_http_1_0_is_not_told_to_continue(handled: bool) -> None:
    handler = read_body if handled else None
    with HTTPServer(handler=handler) as server, RawClient(server) as client:
        client.send(head("POST /", EXPECT, "Content-Length: 5", version="1.0"))
        client.send("hello")
        assert client.answer() == (200, b"hello" if handled else b"")


@pytest.mark.parametrize("handled", [True, False])
def test_nothing_is_asked_for_before_its_turn(handled: bool) -> None:
    """An earlier response on the connection comes first."""
    turn = threading.Event()

    def handler(request: HTTPRequest) -> bytes:
        assert turn.wait(WAIT)
        return request.body

    with HTTPServer(handler=handler) as server, RawClient(server) as client:
        client.send(head("GET /") + head("POST /", EXPECT, "Content-Length: 5"))
        server.wait_for(1)
        if not handled:
            server.handler = None
        turn.set()
        assert client.answer() == (200, b"")
        assert client.head() == CONTINUE
        client.send("hello")
        assert client.answer() == (200, b"hello" if handled else b"")


@needs_curl
@pytest.mark.parametrize("handled", [True, False])
def test_curl_waits_for_100_continue_with_a_large_body(handled: bool) -> None:
    body = b"x" * 2 * MIB
    expecting = ("-H", EXPECT, "--expect100-timeout", "15", "--data-binary", "@-", "-i")
    with HTTPServer(handler=read_body if handled else None) as server:
        answer = curl(*expecting, server.url, stdin=body)
        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
        assert answer.partition(b" 200 OK")[2].endswith(b"\r\n\r\n" + (body if handled else b""))
        assert server.received[0].body == body
        assert not server.diagnostics


@needs_curl
def test_curl_does_not_send_what_is_refused() -> None:
    expecting = ("-H", EXPECT, "--expect100-timeout", "15", "--data-binary", "@-", "-i")
    with HTTPServer(handler=lambda request: ("too large", 413)) as server:
        answer = curl(*expecting, "-w", "%{size_upload}", server.url, stdin=bytes(2 * MIB))
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert answer.endswith(b"\r\n\r\ntoo large0")


# Trailers of requests --------------------------------------------------------------------------

SUM = "X-Sum: 1\r\nx-sum:2\r\nAuthorization: none\r\n"


@pytest.mark.parametrize("size", [3, LARGE])
@pytest.mark.parametrize("first", ["body", "rfile", "trailers", "nothing"])
def test_the_trailers_of_a_request_are_not_its_headers(size: int, first: str) -> None:
    """Whatever the handler reads first."""
    found: list[Any] = []

    def handler(request: HTTPRequest) -> str:
        if first == "nothing" or request.method == "GET":
            return ""
        if first == "rfile":
            request.rfile.read()
        else:
            getattr(request, first)
        found.append(request.trailers)
        return str(len(request.body))

    start = head("POST /", "Transfer-Encoding: chunked", "Trailer: X-Sum").encode()
    with HTTPServer(handler=handler) as server, RawClient(server) as client:
        client.send(start)
        client.send(chunked(b"x" * size, trailers=SUM) + head("GET /").encode())
        assert client.answer() == (200, str(size).encode() if first != "nothing" else b"")
        assert client.answer()[0] == 200
        assert not server.errors
        request, following = server.received
        for trailers in (*found, request.trailers):
            assert trailers.get_all("X-Sum") == ["1", "2"]
            assert trailers["authorization"] == "none"
        assert "Authorization" not in request.headers
        assert "X-Sum" not in request.headers
        assert following.trailers == {}


@pytest.mark.parametrize("size", [0, 3, LARGE])
def test_trailers_are_recorded_without_a_handler(size: int) -> None:
    start = head("POST /", "Transfer-Encoding: chunked").encode()
    pieces = [b"x" * size] if size else []
    with HTTPServer() as server, RawClient(server) as client:
        client.send(start + chunked(*pieces, trailers=SUM))
        assert client.answer() == (200, b"")
        [request] = server.received
        assert request.trailers.pairs() == (
            ("X-Sum", "1"),
            ("x-sum", "2"),
            ("Authorization", "none"),
        )
        assert "X-Sum" not in request.headers
        assert len(request.body) == size


@pytest.mark.parametrize("body", [b"", b"abc"])
def test_most_requests_have_no_trailers(body: bytes) -> None:
    with HTTPServer(handler=lambda r: str(len(r.trailers))) as server:
        with closing(HTTPConnection(server.host, server.port, timeout=WAIT)) as client:
            client.request("POST", "/", body)
            assert client.getresponse().read() == b"0"


@pytest.mark.parametrize("size", [3, LARGE])
def test_trailers_that_are_no_fields_are_refused(size: int) -> None:
    start = head("POST /", "Transfer-Encoding: chunked").encode()
    with HTTPServer() as server, RawClient(server) as client:
        client.send(start + chunked(b"x" * size, trailers="A : b\r\n"))
        assert client.status() == 400
        assert "trailers" in server.diagnostics[0].text


# Trailers of responses -------------------------------------------------------------------------


def of_an_iterator(request: HTTPRequest) -> Reply:
    return Reply(iter([b"a", b"b"]), trailers={"X-Sum": "1"})


def of_bytes(request: HTTPRequest) -> Reply:
    return Reply(b"ab", trailers=[("X-Sum", "1")])


def of_text(request: HTTPRequest) -> Reply:
    return Reply("ab", trailers={"X-Sum": "1"})


def of_a_callable(request: HTTPRequest) -> Reply:
    sent: list[bytes] = []

    def body() -> Iterator[bytes]:
        for piece in (b"a", b"b"):
            sent.append(piece)
            yield piece

    return Reply(body(), trailers=lambda: {"X-Sum": str(len(sent) - 1)})


def by_hand(request: HTTPRequest) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(b"a")
    request.send_trailer("X-Sum", 1)
    request.wfile.write(b"b")


def by_hand_flushed(request: HTTPRequest) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(b"a")
    request.wfile.flush()
    request.wfile.write(b"b")
    request.send_trailer("X-Sum", "1")


with_trailers = pytest.mark.parametrize(
    "handler", [of_an_iterator, of_bytes, of_text, of_a_callable, by_hand, by_hand_flushed]
)


@with_trailers
def test_the_trailers_of_a_response_follow_its_body(handler: Callable[..., Any]) -> None:
    with HTTPServer(handler=handler) as server, RawClient(server) as client:
        client.send(head("GET /"))
        for version in ("1.1", None):
            fields = client.head()
            assert "Transfer-Encoding: chunked" in fields
            assert not any(field.startswith("Content-Length") for field in fields)
            assert not any(field.startswith("X-Sum") for field in fields)
            body = b""
            while size := int(client.line(), 16):
                body += client.read(size)
                assert client.line() == b"\r\n"
            assert body == b"ab"
            assert client.head() == ["X-Sum: 1"]
            if version:  # and the connection is kept
                client.send(head("GET /"))
        answer = server.received[0].answer
        assert answer is not None
        assert answer.size == 2


@with_trailers
def test_http_1_0_gets_no_trailers(handler: Callable[..., Any]) -> None:
    with HTTPServer(handler=handler) as server, RawClient(server) as client:
        client.send(head("GET /", version="1.0"))
        fields = client.head()
        assert not any(field.startswith("Transfer-Encoding") for field in fields)
        assert client.rest() == b"ab"


@with_trailers
def test_a_response_to_head_has_no_trailers(handler: Callable[..., Any]) -> None:
    with HTTPServer(handler=handler) as server, RawClient(server) as client:
        client.send(head("HEAD /") + head("HEAD /", "Connection: close"))
        assert client.status() == 200
        assert client.status() == 200
        assert client.rest() == b""


@needs_curl
def test_curl_gets_the_trailers() -> None:
    with HTTPServer(handler=of_an_iterator) as server:
        answer = curl("-D", "-", server.url)
        assert b"X-Sum: 1\r\n" in answer
        assert answer.partition(b"\r\n\r\n")[2].startswith(b"ab")


NO_TRAILERS = ["Content-Length", "transfer-encoding", "Host", "Content-Type", "Trailer"]


@pytest.mark.parametrize("name", NO_TRAILERS)
def test_a_field_that_must_come_first_is_no_trailer(name: str) -> None:
    with pytest.raises(ValueError, match=r"must be in the headers"):
        Reply(iter([b"a"]), trailers={name: "1"})

    def handler(request: HTTPRequest) -> None:
        request.send_response(200)
        request.end_headers()
        with pytest.raises(ValueError, match=r"must be in the headers"):
            request.send_trailer(name, "1")
        request.wfile.write(b"done")

    with HTTPServer(handler=handler) as server, RawClient(server) as client:
        client.send(head("GET /"))
        assert client.answer() == (200, b"done")


@pytest.mark.parametrize("name", NO_TRAILERS)
def test_a_callable_that_gives_no_trailers_breaks_the_response(name: str) -> None:
    """The client sees that it is not complete."""

    def handler(request: HTTPRequest) -> Reply:
        return Reply(iter([b"a"]), trailers=lambda: {name: "1"})

    with (
        pytest.raises(ValueError, match=r"must be in the headers"),
        HTTPServer(handler=handler) as server,
        RawClient(server) as client,
    ):
        client.send(head("GET /"))
        assert client.status() == 200
        assert client.rest() == b"1\r\na\r\n"


@pytest.mark.parametrize(
    "pair", [("A\r\nB", "c"), ("", "c"), ("A", "b\r\nC: d"), ("A", "\0"), ("A", "\u2603")]
)
def test_a_trailer_that_would_break_the_protocol_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"must|no name"):
        Reply(iter([b"a"]), trailers=[pair])


def test_trailers_need_chunks() -> None:
    with pytest.raises(ValueError, match="Content-Length"):
        Reply(b"a", headers={"content-length": "1"}, trailers={"X": "1"})


def trailer_before_send_response(request: HTTPRequest) -> None:
    request.send_trailer("X", "1")


def trailer_before_end_headers(request: HTTPRequest) -> None:
    request.send_response(200)
    request.send_trailer("X", "1")


@pytest.mark.parametrize("handler", [trailer_before_send_response, trailer_before_end_headers])
def test_a_trailer_goes_after_the_headers(handler: Callable[[HTTPRequest], None]) -> None:
    with (
        pytest.raises(ValueError, match="send_trailer goes"),
        HTTPServer(handler=handler) as server,
        RawClient(server) as client,
    ):
        client.send(head("GET /"))
        assert client.status() == 500


# Upgrades --------------------------------------------------------------------------------------

OFFERS = {
    "websocket": ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
    "h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAA"),
    "without Connection": ("Upgrade: foo/2",),
}


@pytest.mark.parametrize("handled", [True, False])
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_an_offer_to_upgrade_is_ignored(offer: tuple[str, ...], handled: bool) -> None:
    """With a body too, whatever the method; what follows is HTTP."""
    requests = [
        head("GET /1", *offer).encode(),
        head("POST /2", *offer, "Content-Length: 5").encode() + b"hello",
        head("x!y /3", *offer, "Transfer-Encoding: chunked").encode() + chunked(b"he", b"llo"),
        head("PUT /4", *offer, f"Content-Length: {LARGE}").encode() + b"x" * LARGE,
        head("GET /5").encode(),
    ]
    with HTTPServer(handler=describe if handled else None) as server, RawClient(server) as client:
        client.send(b"".join(requests))
        answers = [client.answer() for _ in requests]
        assert {status for status, _ in answers} == {200}
        if handled:
            assert [body for _, body in answers[:3]] == [
                b"GET /1 ",
                b"POST /2 hello",
                b"x!y /3 hello",
            ]
        assert [request.path for request in server.received] == ["/1", "/2", "/3", "/4", "/5"]
        assert [len(request.body) for request in server.received] == [0, 5, 5, LARGE, 0]
        assert not server.diagnostics
