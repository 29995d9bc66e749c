"""How a response leaves: whole, or piece by piece as a handler writes it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestage.dispatch.refused import Refused
from sidestage.dispatch.streams import Unacknowledged
from sidestage.protocols.http.call import HTTPCall
from sidestage.protocols.http.messages import Request, Respond
from sidestage.protocols.http.responder import Responder, respond, respond_failure
from sidestage.protocols.http.response import HTTPResponse
from sidestage.wire import messages as wire
from sidestage.wire.frames import CHUNK

REQUEST = Request(
    call=1, peer="", at=1.0, connection=1, method="GET", target="/", http_version="1.1",
    fields=b"", body=b"", more=False, cut=0,
)  # fmt: skip


class Child:
    """Accepts every message, and is never full."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.unacknowledged = Unacknowledged(1 << 30)
        run: Any = self
        self.call = HTTPCall(run, REQUEST)

    @property
    def responder(self) -> Responder:
        return self.call.responder

    def respond(self, response: HTTPResponse) -> None:
        respond(self.call, response)

    def send(self, *messages: wire.Message) -> None:
        self.sent += messages
        for message in messages:
            if isinstance(message, wire.Data):
                self.call.event(wire.Ack(call=1, size=len(message.data)))

    @property
    def head(self) -> Respond:
        [head] = [message for message in self.sent if isinstance(message, Respond)]
        assert head is self.sent[0]
        return head

    @property
    def body(self) -> bytes:
        rest = [message.data for message in self.sent if isinstance(message, wire.Data)]
        assert isinstance(self.sent[-1], wire.End) is self.head.more
        return b"".join([self.head.body, *rest])


# Whole responses -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 5 * CHUNK])
def test_bytes_are_sent_with_their_length(size: int) -> None:
    child = Child()
    child.respond(HTTPResponse(b"x" * size))
    assert child.body == b"x" * size
    assert child.head.length == size
    assert all(len(message.data) <= CHUNK for message in child.sent if hasattr(message, "data"))


@given(st.lists(st.binary(max_size=20)))
def test_an_iterator_is_sent_piece_by_piece_without_empty_ones(chunks: list[bytes]) -> None:
    """An empty chunk would be the last (RFC 9112 7.1)."""
    child = Child()
    child.respond(HTTPResponse.of(iter(chunks)))
    assert child.body == b"".join(chunks)
    assert child.head.length is None
    assert all(message.data for message in child.sent if isinstance(message, wire.Data))


def test_a_large_first_piece_is_cut() -> None:
    child = Child()
    child.respond(HTTPResponse.of(iter([b"x" * CHUNK * 3])))
    assert child.body == b"x" * CHUNK * 3


def test_a_piece_that_is_no_bytes_is_named() -> None:
    with pytest.raises(Refused, match="must give bytes, not str: 'text'"):
        Child().respond(HTTPResponse.of(iter(["text"])))


def test_an_iterator_is_closed_when_its_client_is_gone() -> None:
    closed = []

    def pieces() -> Any:
        try:
            yield b"one"
            yield b"two"
        finally:
            closed.append(True)

    child = Child()
    child.call.broken(ConnectionResetError())
    kept = pieces()
    with pytest.raises(ConnectionResetError):
        child.respond(HTTPResponse.of(kept))
    assert closed


# Piece by piece --------------------------------------------------------------------------------


def begun(*headers: tuple[str, str]) -> Child:
    child = Child()
    child.responder.begin(200, None)
    for name, value in headers:
        child.responder.header(name, value)
    child.responder.end_headers()
    return child


@given(st.lists(st.tuples(st.binary(max_size=50), st.booleans())))
def test_what_is_written_is_the_body_whenever_it_is_flushed(
    writes: list[tuple[bytes, bool]],
) -> None:
    child = begun(("X", "1"))
    for data, flush in writes:
        assert child.responder.write(data) == len(data)
        if flush:
            child.responder.flush()
    child.responder.finish()
    assert child.body == b"".join(data for data, _ in writes)
    assert (child.head.length is None) is any(flush for _, flush in writes)


def test_a_large_body_is_not_collected() -> None:
    child = begun()
    for _ in range(4):
        child.responder.write(b"x" * CHUNK)
    assert len(child.sent) > 2
    child.responder.finish()
    assert child.body == b"x" * 4 * CHUNK


def test_headers_need_not_be_ended_without_a_body() -> None:
    child = Child()
    child.responder.begin(204, None)
    child.responder.finish()
    assert (child.head.status, child.body) == (204, b"")


@pytest.mark.parametrize(
    "call, args",
    [
        ("begin", (200, None)),
        ("header", ("X", "1")),
    ],
)
def test_the_head_cannot_be_changed_after_its_end(call: str, args: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="header"):
        getattr(begun().responder, call)(*args)


def test_nothing_can_be_written_after_the_end() -> None:
    child = begun()
    child.responder.finish()
    with pytest.raises(ValueError, match="complete"):
        child.responder.write(b"x")


def test_a_failure_before_the_head_is_out_is_a_500() -> None:
    child = begun()
    child.responder.write(b"never sent")
    respond_failure(child.call, KeyError("x"))
    assert child.head.status == 500
    assert child.body == b"the handler raised KeyError: 'x'\n"


def test_a_failure_after_the_head_is_out_closes_the_connection() -> None:
    child = begun()
    child.responder.flush()
    respond_failure(child.call, KeyError("x"))
    assert child.sent[-1] == wire.Close(call=1, reset=False)
