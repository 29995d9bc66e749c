from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestage.dispatch.calls import ClientLeft
from sidestage.errors import ServerStopped
from sidestage.journal.facts import Answer
from sidestage.journal.journal import Journal
from sidestage.pristine.waits import Clock
from sidestage.protocols.http.call import HTTPCall, open_call
from sidestage.protocols.http.messages import Request
from sidestage.protocols.http.request import FormPart, HTTPRequest
from sidestage.wire import messages as wire


class FakeRun:
    """Records the messages to the child."""

    def __init__(self, *, ended: bool = False) -> None:
        self.sent: list[wire.Message] = []
        self._ended = ended

    def send(self, *messages: wire.Message) -> None:
        if self._ended:
            raise ServerStopped("there is no child any more")
        self.sent += messages


def fake_run(*, ended: bool = False) -> Any:
    return FakeRun(ended=ended)


def message(target: str = "/", body: bytes = b"", kind: str = "", **changes: Any) -> Request:
    values: dict[str, Any] = {
        "call": 0,
        "peer": ("127.0.0.1", 1),
        "at": 1.0,
        "connection": 1,
        "method": "POST",
        "target": target,
        "http_version": "1.1",
        "headers": [("Host", "t"), *([("Content-Type", kind)] if kind else [])],
        "body": body,
        "more": False,
        "cut": 0,
    }
    return Request(**values | changes)


def record(*args: Any, **changes: Any) -> HTTPRequest:
    return HTTPRequest(message(*args, **changes))


def streamed(body: bytes = b"", keep: int = 100) -> HTTPCall:
    call = open_call(fake_run(), message(body=body, call=1, more=True), Journal(4 * keep))
    assert isinstance(call, HTTPCall)
    return call


def feed(call: HTTPCall, *chunks: bytes, end: bool = True) -> HTTPRequest:
    for chunk in chunks:
        call.event(wire.Data(call=1, data=chunk))
    if end:
        call.event(wire.End(call=1))
    return call.request


# Request line and headers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "target, path, query_string",
    [
        ("/", "/", ""),
        ("/a%20b/%C3%A9?x=%20", "/a b/é", "x=%20"),
        ("//host/path?a?b", "//host/path", "a?b"),
        ("/a#b?c", "/a", ""),
        ("/a:b[c", "/a:b[c", ""),
        ("/?next=http://other/", "/", "next=http://other/"),
        ("http://proxied:80/a?b", "/a", "b"),
        ("http://[bad?b", "/", "b"),
        ("*", "*", ""),
        ("example.org:443", "example.org:443", ""),
        ("/%ff", "/\ufffd", ""),
    ],
)
def test_path_and_query(target: str, path: str, query_string: str) -> None:
    request = record(target)
    assert (request.path, request.query_string, request.target) == (path, query_string, target)


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_any_path_is_decoded(path: str) -> None:
    assert record("/" + quote(path)).path == "/" + path


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5))))
def test_any_query_and_any_form_are_decoded(pairs: list[tuple[str, str]]) -> None:
    query = urlencode(pairs, errors="replace")
    wanted = [(name.encode(errors="replace").decode(), value.encode(errors="replace").decode())
              for name, value in pairs]  # fmt: skip
    assert list(record("/?" + query).query.pairs()) == wanted
    form = record("/", query.encode(), "application/x-www-form-urlencoded").form
    assert list(form.pairs()) == wanted


def test_names_with_several_values() -> None:
    request = record("/?a=1&b=&a=2", headers=[("X", "1"), ("y", "2"), ("x", "3")])
    assert request.query.get_all("a") == ["1", "2"]
    assert request.query["b"] == ""
    assert request.headers.get_all("X") == ["1", "3"]
    assert list(request.headers) == ["X", "y"]


def test_the_names_of_http_server() -> None:
    request = record("/x")
    assert (request.command, request.method, request.http_version) == ("POST", "POST", "1.1")
    assert request.client_address == ("127.0.0.1", 1)
    assert repr(request) == "<HTTPRequest POST /x from ('127.0.0.1', 1)>"


# Bodies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, body, text",
    [
        ("", "é".encode(), "é"),
        ("text/plain; charset=latin-1", b"\xe9", "é"),
        ('text/plain; charset="UTF-16"', "é".encode("utf-16"), "é"),
    ],
)
def test_text_is_decoded_by_its_charset(kind: str, body: bytes, text: str) -> None:
    assert record("/", body, kind).text == text


def test_json() -> None:
    assert record("/", b'{"a": [1, null]}').json() == {"a": [1, None]}
    with pytest.raises(ValueError, match=r"not JSON.*b'nope'"):
        record("/", b"nope").json()


def multipart(*parts: tuple[str, str, str, bytes]) -> bytes:
    lines = b""
    for name, filename, kind, content in parts:
        shown = f'; filename="{filename}"' if filename else ""
        lines += f'--b0\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n'.encode()
        lines += (
            (f"Content-Type: {kind}\r\n" if kind else "").encode() + b"\r\n" + content + b"\r\n"
        )
    return lines + b"--b0--\r\n"


MULTIPART = "multipart/form-data; boundary=b0"


def test_a_multipart_form() -> None:
    mail = b"Subject: x\r\n\r\nbody"
    body = multipart(
        ("a", "", "", "é".encode()),
        ("up", "été.bin", "image/png", b"\0\r\n\xff"),
        ("up", "two.eml", "message/rfc822", mail),
    )
    request = record("/", body, MULTIPART)
    assert request.form["a"] == "é"
    assert request.files == {"up": ("été.bin", b"\0\r\n\xff")}
    assert request.parts[2] == FormPart("up", "two.eml", "message/rfc822", mail)


@given(st.lists(st.binary(max_size=30), max_size=3))
def test_any_content_survives_a_multipart_form(contents: list[bytes]) -> None:
    contents = [content for content in contents if b"--b0" not in content]
    body = multipart(*(("f", "x", "", content) for content in contents))
    assert [part.content for part in record("/", body, MULTIPART).parts] == contents


@pytest.mark.parametrize(
    "kind, body",
    [
        ("", b""),
        ("text/plain", b"a=b"),
        ("multipart/form-data", b"--b0--"),
        (MULTIPART, b"--b0\r\n\r\nunfinished"),
        (MULTIPART, b"nothing"),
    ],
)
def test_what_is_no_form_says_so(kind: str, body: bytes) -> None:
    with pytest.raises(ValueError, match="form"):
        _ = record("/", body, kind).form


# Bodies that are still coming ------------------------------------------------------------------


def test_the_body_waits_for_what_has_not_come() -> None:
    call = streamed(b"one,")
    timer = threading.Timer(0.02, feed, [call, b"two"])
    timer.start()
    assert call.request.body == b"one,two"
    timer.join()


@pytest.mark.parametrize("more", [False, True])
def test_file_and_whole_agree(more: bool) -> None:
    """A handler cannot notice whether a body came in one piece or as a stream."""
    call = open_call(fake_run(), message(body=b"abcdef", call=1, more=more), Journal(1000))
    assert isinstance(call, HTTPCall)
    request = feed(call) if more else call.request
    assert request.rfile.read(2) == b"ab"
    assert request.body == b"abcdef"
    assert request.rfile.read() == b"cdef"
    assert request.body == b"abcdef"


@given(st.lists(st.binary(max_size=9), max_size=6), st.integers(0, 30), st.integers(0, 30))
def test_the_record_has_the_first_bytes_and_counts_the_rest(
    chunks: list[bytes], keep: int, read: int
) -> None:
    call = streamed(keep=keep)
    request = feed(call, *filter(None, chunks))
    request.rfile.read(read)
    call.complete(None)
    whole = b"".join(chunks)
    assert request.body == whole[:keep]
    assert request.body_cut == len(whole[keep:])


def test_a_handler_that_reads_hears_that_its_client_has_left() -> None:
    call = streamed(b"some")
    call.event(wire.Lost(call=1, reset=True))
    with pytest.raises(ClientLeft):
        call.request.rfile.read()
    assert call.request.body == b"some"  # and for the record there is what came


def test_what_was_streamed_counts_as_kept() -> None:
    journal: Journal[HTTPRequest] = Journal(5000)
    for number in range(1, 11):
        call = open_call(fake_run(), message(call=number, more=True), journal)
        assert isinstance(call, HTTPCall)
        feed(call, bytes(1000))
        call.complete(None)
    received = journal.records()
    assert 0 < sum(len(request.body) for request in received) <= 5000
    assert len(received) + received.dropped == 10


# The answer ------------------------------------------------------------------------------------


def write_by_hand(request: HTTPRequest) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(b"done")


def raise_value_error(request: HTTPRequest) -> None:
    raise ValueError("as a handler does")


def test_an_answered_request_cannot_be_answered_again() -> None:
    call = HTTPCall(fake_run(), message(call=1))
    call.complete("done")
    with pytest.raises(ValueError, match="has been answered"):
        call.request.send_response(200)


@pytest.mark.parametrize(
    "change, ended, handler",
    [
        pytest.param({}, False, lambda request: "done", id="returned"),
        pytest.param({}, False, write_by_hand, id="written"),
        pytest.param({}, False, raise_value_error, id="raised"),
        pytest.param({"more": True}, False, lambda request: iter([b"a", b"b"]), id="streams"),
        pytest.param({}, True, raise_value_error, id="after the run"),
    ],
)
def test_an_answered_call_and_its_record_are_gone_at_once(
    change: dict[str, Any], ended: bool, handler: Callable[[HTTPRequest], Any]
) -> None:
    """Without the garbage collector, which would make many requests slow."""
    journal: Journal[HTTPRequest] = Journal(1000)
    call = open_call(fake_run(ended=ended), message(call=1, **change), journal)
    assert isinstance(call, HTTPCall)
    if change:
        feed(call, b"x")
    request = call.request
    call_gone, request_gone = weakref.ref(call), weakref.ref(request)
    gc.disable()
    try:
        with contextlib.suppress(ServerStopped):
            try:
                call.complete(handler(request))
            except ValueError as error:
                call.fail(error)
        del call
        assert call_gone() is None
        del request, journal
        assert request_gone() is None
    finally:
        gc.enable()


class TestTheAnswerOnTheRecord:
    def answered(self, handler: Callable[[HTTPRequest], Any], **change: Any) -> Answer | None:
        call = HTTPCall(fake_run(), message(call=1, **change))
        try:
            call.complete(handler(call.request))
        except ValueError as error:
            call.fail(error)
        return call.request.answer

    @pytest.mark.parametrize(
        "handler, status, size",
        [
            (lambda request: "done", 200, 4),
            (lambda request: ("no", 404), 404, 2),
            (lambda request: 204, 204, 0),
            (lambda request: iter([b"ab", b"", b"cde"]), 200, 5),
            (write_by_hand, 200, 4),
            (raise_value_error, 500, len("the handler raised ValueError: as a handler does\n")),
        ],
    )
    def test_has_status_size_and_time(
        self, handler: Callable[[HTTPRequest], Any], status: int, size: int
    ) -> None:
        came = Clock.monotonic()
        answer = self.answered(handler, at=came)
        assert answer is not None
        assert (answer.status, answer.size) == (status, size)
        assert 0 <= answer.seconds == answer.at - came < 30

    def test_is_there_before_the_client_has_it(self) -> None:
        answers: list[Answer | None] = []
        run = fake_run()
        call = HTTPCall(run, message(call=1))
        run.send = lambda *messages: answers.append(call.request.answer)
        call.complete("done")
        assert [answer and answer.size for answer in answers] == [4]

    def test_is_the_one_that_the_server_gave_when_the_handler_took_too_long(self) -> None:
        call = HTTPCall(fake_run(), message(call=1))
        call.event(wire.Lost(call=1, reset=False, answered=504))
        call.complete("too late")
        assert call.request.answer is not None
        assert call.request.answer.status == 504

    def test_is_none_while_there_is_none(self) -> None:
        assert HTTPCall(fake_run(), message(call=1)).request.answer is None

    def test_is_plain_success_without_a_handler(self) -> None:
        assert record("/").answer == Answer(at=1.0, status=200, size=0, seconds=0.0)


def test_a_record_cannot_be_answered() -> None:
    with pytest.raises(ValueError, match="has been answered"):
        record("/").wfile.write(b"x")
