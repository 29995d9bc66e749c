"""HTTP in the child, driven without sockets: bytes in, messages and bytes out."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.http_child import Server, Transport, head
from sidestage.protocols.http.child import h1
from sidestage.protocols.http.messages import Respond
from sidestage.wire.frames import WINDOW
from sidestage.wire.messages import (
    Ack,
    Data,
    Diagnostic,
    End,
    Lost,
    Overdue,
)

# Parsing ---------------------------------------------------------------------------------------

bodies = st.binary(max_size=40)


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Requests as bytes, and their bodies."""
    target = "/" + draw(st.text("abc%?=&/", max_size=8))
    if draw(st.booleans()):
        body = draw(bodies)
        return head("POST", target, f"Content-Length: {len(body)}") + body, body
    chunks = [chunk for chunk in draw(st.lists(bodies, max_size=3)) if chunk]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    trailer = draw(st.sampled_from([b"", b"X-Trailer: yes\r\n"]))
    start = head("POST", target, "Transfer-Encoding: chunked")
    return start + framed + b"0\r\n" + trailer + b"\r\n", b"".join(chunks)


@given(st.lists(messages(), min_size=1, max_size=4), st.data(), st.booleans())
def test_requests_are_the_same_however_the_stream_is_split(
    stream: list[tuple[bytes, bytes]], data: st.DataObject, handled: bool
) -> None:
    whole = b"".join(message for message, _ in stream)
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=12).map(sorted))
    server = Server(handled=handled)
    server.feed(*(whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)))
    while handled and len(server.requests) < len(stream):
        server.respond(server.requests[-1])
    assert [request.body for request in server.requests] == [body for _, body in stream]
    for request, (message, _) in zip(server.requests, stream, strict=True):
        assert message.startswith(f"POST {request.target} HTTP/1.1\r\n".encode())
        fields = request.fields.split(b"\r\n")
        assert fields[0] == b"Host: t"
        assert len(fields) == 2
    assert not server.outbox.of(Diagnostic)


def test_a_request_may_come_byte_by_byte() -> None:
    server = Server()
    server.feed(*(bytes([byte]) for byte in head("POST", "/x", "Content-Length: 3") + b"abc"))
    [request] = server.requests
    assert (request.target, request.body, request.more) == ("/x", b"abc", False)


@given(st.binary(max_size=300))
def test_whatever_bytes_come_nothing_breaks(junk: bytes) -> None:
    server = Server(handled=False)
    server.feed(junk)
    if not server.transport.closed:
        server.connection.eof_received()
    assert len(server.outbox.of(Diagnostic)) <= 1


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("size, refused", [(1000, False), (70000, True)])
def test_a_head_is_refused_by_its_size_alone(size: int, complete: bool, refused: bool) -> None:
    """The size of earlier requests in the same read does not count."""
    server = Server(handled=False)
    last = head("GET", "/last", "X: " + "x" * size)[: None if complete else -4]
    server.feed(head() * 3000 + last[:10], last[10:])
    assert (b" 431 " in server.transport.out) is refused
    assert len(server.requests) == 3000 + (complete and not refused)


@pytest.mark.parametrize("size", [1, 900, 5000])
@pytest.mark.parametrize(
    "line, status",
    [
        (b"GET / HTTP/1.1", b"431"),
        (b"GET / HTTP/2.0", b"505"),
        (b"nonsense", b"400"),
        (b"GET / HTTP/1.1\r\n: x", b"400"),
    ],
)
def test_a_large_head_is_refused_alike_however_it_comes(
    line: bytes, status: bytes, size: int
) -> None:
    """For what is wrong in its beginning, else for its size."""
    large = line + b"\r\nHost: t\r\nX: " + b"x" * 1500 + b"\r\n: y\r\n\r\n"
    server = Server(handled=False, head_limit=1000)
    server.feed(*(large[at : at + size] for at in range(0, len(large), size)))
    assert server.transport.out.startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("size", [1, 900, 5000])
@pytest.mark.parametrize(
    "body, status",
    [
        (b"1;" + b"x" * 1500 + b"\r\n", b"431"),
        (b"1;" + b"x" * 1500 + b"\0\r\n", b"431"),
        (b"1;\0" + b"x" * 1500 + b"\r\n", b"400"),
        (b"0\r\nX: " + b"x" * 1500 + b"\r\n: y\r\n\r\n", b"431"),
        (b"0\r\n: y\r\nX: " + b"x" * 1500 + b"\r\n\r\n", b"400"),
    ],
)
def test_large_lines_in_a_body_are_refused_alike_however_they_come(
    body: bytes, status: bytes, size: int
) -> None:
    server = Server(handled=False, head_limit=1000)
    server.feed(head("POST", "/", "Transfer-Encoding: chunked"))
    server.feed(*(body[at : at + size] for at in range(0, len(body), size)))
    assert server.transport.out.startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(
    "data",
    [
        head("POST", "/", "Transfer-Encoding: chunked") + b"0\r\n" + b"x" * 60_000,
        head("POST", "/", "Transfer-Encoding: chunked") + b"0\r\n" + b"x: y\r\n" * 10_000,
        head("POST", "/", "Transfer-Encoding: chunked") + b"1;" + b"\t" * 60_000,
        head("GET", "/", "X: y" + "\t" * 60_000 + "z"),
        head("GET", "/", "X: y" + "\t " * 30_000 + "\0"),
        head("GET", "/", "x" * 60_000),
        head("GET", "/", "Transfer-Encoding: " + "," * 60_000),
        head("GET", "/" + "%" * 60_000),
    ],
)
def test_no_bytes_take_long(data: bytes) -> None:
    """Everything takes time in proportion to its length: a hundredth of a second, not minutes."""
    server = Server(handled=False, head_limit=1 << 17)
    began = time.process_time()
    server.feed(data[:-1], data[-1:])
    assert time.process_time() - began < 2.0


# Bodies ----------------------------------------------------------------------------------------


def test_a_small_body_is_waited_for_only_for_a_moment() -> None:
    server = Server()
    server.feed(head("POST", "/", "Content-Length: 6") + b"abc")
    assert not server.requests
    server.loop.fire()
    [request] = server.requests
    assert (request.body, request.more) == (b"abc", True)
    server.feed(b"def")
    assert [message.data for message in server.outbox.of(Data)] == [b"def"]
    assert len(server.outbox.of(End)) == 1


@pytest.mark.parametrize("before", [b"", head()])
def test_a_malformed_body_ends_the_wait_for_it(before: bytes) -> None:
    server = Server(handled=False)
    server.feed(before + head("POST", "/", "Transfer-Encoding: chunked") + b"3\r\nab")
    (waiting,) = server.loop.timers
    server.feed(b"c\r\nzz\r\n")
    assert b"HTTP/1.1 400 " in server.transport.out
    assert waiting.cancelled


@pytest.mark.parametrize("blank", [" ", "\t", " \t", "\t ", " \t \t"])
def test_blanks_around_a_coding_do_not_matter(blank: str) -> None:
    server = Server(handled=False)
    server.feed(
        head("POST", "/", f"Transfer-Encoding:{blank}chunked{blank}") + b"1\r\nx\r\n0\r\n\r\n"
    )
    [request] = server.requests
    assert request.body == b"x"
    assert request.fields.endswith(blank.encode())


def test_a_refusal_is_diagnosed_when_it_is_sent() -> None:
    server = Server()
    server.feed(head() + b"\0")
    assert not server.outbox.of(Diagnostic)
    server.respond(server.requests[0])
    [diagnostic] = server.outbox.of(Diagnostic)
    assert diagnostic.text.startswith("sent 400 Bad Request: ")
    assert b"HTTP/1.1 400 " in server.transport.out


def test_a_refusal_that_cannot_be_sent_is_diagnosed_as_that() -> None:
    """The response before it has closed the connection."""
    server = Server()
    server.feed(head() + b"\0")
    server.service.command(
        Respond(
            call=server.requests[0].call,
            status=200,
            reason="OK",
            headers=(("Connection", "close"),),
            body=b"",
            length=0,
            more=False,
        )
    )
    [diagnostic] = server.outbox.of(Diagnostic)
    assert diagnostic.text.startswith("too late to send 400 Bad Request: ")
    assert b"HTTP/1.1 400 " not in server.transport.out


def test_a_client_is_not_read_while_the_handler_does_not_read() -> None:
    server = Server()
    server.feed(head("POST", "/", f"Content-Length: {WINDOW * 3}"), bytes(WINDOW))
    [request] = server.requests
    assert not server.transport.reading
    server.service.command(Ack(call=request.call, size=WINDOW))
    assert server.transport.reading


def test_a_body_that_waited_for_its_turn_is_under_flow_control_too() -> None:
    server = Server()
    server.feed(head(), head("POST", "/", f"Content-Length: {WINDOW * 3}"), bytes(WINDOW))
    assert not server.transport.reading  # held back behind the first request
    server.respond(server.requests[0])
    assert not server.transport.reading  # and now because the parent has not consumed it
    server.service.command(Ack(call=server.requests[1].call, size=WINDOW))
    assert server.transport.reading


def test_too_many_pipelined_requests_are_not_read() -> None:
    server = Server()
    server.feed(head() * (h1.PIPELINE + 2))
    assert not server.transport.reading
    for _ in range(3):
        server.respond(server.requests[-1])
    assert server.transport.reading


def test_pipelined_requests_with_many_bytes_are_not_read() -> None:
    server = Server()
    server.feed(head(), *(head("GET", "/", "X: " + "x" * 60_000) for _ in range(4)))
    assert not server.transport.reading
    for _ in range(3):
        server.respond(server.requests[-1])
    assert server.transport.reading


@pytest.mark.parametrize("handled", [True, False])
def test_what_was_read_with_too_many_requests_is_kept_for_later(handled: bool) -> None:
    server = Server(handled=handled)
    if not handled:
        server.connection.pause_writing()
    count = 10 * h1.PIPELINE
    server.feed(head() * count + head("POST", "/", "Content-Length: 3") + b"abc")
    assert len(server.connection.queue) <= h1.PIPELINE + 1
    if handled:
        for number in range(count + 1):
            server.respond(server.requests[number])
    else:
        server.connection.resume_writing()
    assert len(server.requests) == count + 1
    assert server.requests[-1].body == b"abc"
    assert server.transport.reading


@pytest.mark.parametrize("handled", [True, False])
def test_a_client_that_does_not_read_its_answers_gets_no_more_of_them(handled: bool) -> None:
    server = Server(handled=handled)
    server.connection.pause_writing()
    server.feed(head())
    assert not server.requests
    server.connection.resume_writing()
    assert len(server.requests) == 1


def test_a_client_that_leaves_instead_of_reading_is_forgotten() -> None:
    server = Server()
    server.connection.pause_writing()
    server.feed(head() * 3)
    server.connection.connection_lost(None)
    assert not server.requests
    assert not server.service.peers


def test_unfinished_bodies_share_what_is_kept_and_give_it_back() -> None:
    server = Server(handled=False, keep=1000)
    other = h1.HTTPConnection(server.service)
    other.connection_made(Transport())
    for connection in (server.connection, other) * 2:
        connection.data_received(head("POST", "/", "Content-Length: 600"))
        connection.data_received(bytes(600))
    assert [request.cut for request in server.requests] == [350] * 4  # a quarter is kept of each
    server.service.unrecorded.take(900)
    for connection in (server.connection, other):
        connection.data_received(head("POST", "/", "Content-Length: 600"))
        connection.data_received(bytes(599))
    server.connection.connection_lost(None)
    other.data_received(bytes(1))
    assert server.requests[-1].cut == 600
    assert server.service.unrecorded.take(1000) == 100


class TestNoHandlerFree:
    """More requests than may be under way."""

    @staticmethod
    def full() -> Server:
        server = Server()
        server.service.calls.full = True
        return server

    @staticmethod
    def free(server: Server) -> None:
        server.service.calls.full = False
        server.service.calls._admit()

    def test_a_request_waits(self) -> None:
        server = self.full()
        server.feed(head("GET", "/1") + head("GET", "/2"))
        assert not server.requests
        self.free(server)
        assert [request.target for request in server.requests] == ["/1"]

    def test_one_waits_no_longer_than_for_a_handler(self) -> None:
        server = self.full()
        server.feed(head("GET", "/", "Connection: close"))
        server.loop.fire()
        assert server.transport.out.startswith(b"HTTP/1.1 504 ")
        [told] = server.outbox.of(Diagnostic)
        assert told.text == "sent 504 Gateway Timeout: no handler was free within 30.0 s"
        self.free(server)
        assert not server.requests

    def test_a_client_that_leaves_waits_no_more(self) -> None:
        server = self.full()
        server.feed(head())
        server.connection.connection_lost(None)
        self.free(server)
        server.loop.fire()
        assert not server.requests
        assert not server.transport.out

    def test_an_upload_is_held_back_meanwhile(self) -> None:
        server = self.full()
        server.feed(head("POST", "/", "Content-Length: 9000000"), bytes(100_000))
        assert not server.transport.reading
        self.free(server)
        assert server.transport.reading
        assert len(server.requests[0].body) == 100_000

    def test_without_a_handler_nothing_waits(self) -> None:
        server = self.full()
        server.service.handled = False
        server.feed(head())
        assert len(server.requests) == 1


def test_a_large_head_is_held_no_longer_than_until_it_is_passed_on() -> None:
    server = Server()
    server.feed(head("HEAD", "/", "X: " + "x" * 60_000))
    assert len(server.requests[0].fields) > 60_000
    held = server.connection.queue[0].head
    assert held is not None
    assert (held.fields, held.method) == (b"", "HEAD")
    server.respond(server.requests[0], b"none of it")
    assert server.transport.out.endswith(b"\r\n\r\n")


def test_what_follows_a_connect_is_bounded() -> None:
    """Until it is answered nobody knows whether it is HTTP, so it has to wait here."""
    server = Server()
    server.feed(head("CONNECT", "t:80"))
    assert server.transport.reading
    for _ in range(64):
        if server.transport.reading:
            server.feed(bytes(WINDOW // 16))
    assert not server.transport.reading
    server.respond(server.requests[0], more=True)
    came = sum(len(message.data) for message in server.outbox.of(Data))
    server.service.command(Ack(call=server.requests[0].call, size=came))
    assert server.transport.reading


def test_what_is_left_of_an_upload_after_the_reply_is_bounded() -> None:
    """The client sees the end of the connection, but may go on sending while it lingers."""
    server = Server()
    server.feed(head("POST", "/", "Content-Length: 9000000"))
    server.respond(server.requests[0])
    assert not server.transport.lingering
    server.feed(bytes(h1.IGNORED_BODY))
    assert not server.transport.lingering
    server.feed(bytes(1))
    assert server.transport.lingering
    assert not server.transport.closed
    assert len(server.outbox.of(Lost)) == 1


# Responses -------------------------------------------------------------------------------------


def test_head_and_body_leave_in_one_write() -> None:
    """With two writes, some systems would delay the second (Nagle's algorithm)."""
    server = Server()
    writes: list[bytes] = []
    server.transport.write = writes.append  # type: ignore[method-assign]
    server.feed(head())
    server.respond(server.requests[0], b"hello")
    assert len(writes) == 1
    assert writes[0].endswith(b"\r\n\r\nhello")


def test_a_late_reply_does_not_reach_the_next_request() -> None:
    server = Server()
    server.feed(head("GET", "/1") + head("GET", "/2"))
    first = server.requests[0]
    server.respond(first, b"1")
    server.respond(first, b"late")
    server.respond(server.requests[1], b"2")
    assert b"late" not in server.transport.out
    assert server.transport.out.endswith(b"2")


def test_a_request_without_an_answer_is_given_up() -> None:
    server = Server(handler_timeout=1.0)
    server.feed(head())
    server.loop.fire()  # the parent is asked, and does not answer in time
    (asked,) = server.outbox.of(Overdue)
    assert not server.transport.out
    server.service.calls.postponed(asked.token, wanted=True)
    server.loop.fire()
    assert not server.transport.out
    server.service.calls.postponed(server.outbox.of(Overdue)[1].token)
    assert server.transport.out.startswith(b"HTTP/1.1 504 ")
    assert [message.call for message in server.outbox.of(Lost)] == [server.requests[0].call]
    server.respond(server.requests[0], b"late")
    assert b"late" not in server.transport.out


def test_a_parent_without_handlers_at_work_ends_what_waits_for_them() -> None:
    server = Server()
    server.feed(head())
    server.service.draining = True
    server.service.idle()
    assert server.transport.closed


@pytest.mark.parametrize(
    "data, state",
    [
        (b"", "connected, has sent nothing yet"),
        (b"GET / HTTP/1", "connected, has sent 12 bytes of a request, waiting for the rest"),
        (
            head("POST", "/x", "Content-Length: 3") + b"a",
            "POST /x: has sent 1 of 3 bytes of the body, waiting for the rest",
        ),
        (head("GET", "/x"), "GET /x: handler running for 0.0 s"),
    ],
)
def test_a_connection_describes_its_state(data: bytes, state: str) -> None:
    server = Server()
    server.feed(data)
    assert server.connection.describe().state == state


def test_an_incomplete_response_is_described_as_such() -> None:
    server = Server()
    server.feed(head())
    server.respond(server.requests[0], b"part", more=True)
    assert server.connection.describe().state.startswith("GET /: response not complete")
