"""Chunked bodies, in whatever pieces they come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestage.protocols.http.child.chunks import Chunks
from sidestage.protocols.http.rules import Refused

LIMIT = 1000


def decode(
    stream: bytes, *cuts: int, views: bool = False, limit: int = LIMIT
) -> tuple[bytes, bytes, bytes]:
    """The body, the trailers and what follows, of a stream that is cut into pieces."""
    chunks, body = Chunks(limit), b""
    for start, end in zip((0, *cuts), (*cuts, len(stream)), strict=True):
        piece = stream[start:end]
        pieces, rest = chunks.feed(memoryview(piece) if views else piece)
        assert all(pieces)
        body += b"".join(pieces)
        if rest is not None:
            return body, chunks.trailers, bytes(rest) + stream[end:]
    raise AssertionError("the body is not complete")


def byte_by_byte(stream: bytes) -> tuple[bytes, bytes, bytes]:
    return decode(stream, *range(1, len(stream)))


sizes = st.sampled_from(["%x", "%X", "%04x", "00%x"])
extensions = st.sampled_from([b"", b";a", b";a=b;c", b' ;a="\t;x"', b"\t; a = b", b";\xe9"])
trailers = st.lists(st.sampled_from([b"A: b", b"X-Sum:1", b"C:"]), max_size=3)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, bytes, bytes]:
    """A chunked body as bytes, the body itself, and its trailers."""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=30), max_size=4))
    framed = b""
    for piece in [*pieces, b""]:
        size = (draw(sizes) % len(piece)).encode()
        framed += size + draw(extensions) + b"\r\n" + piece + (b"\r\n" if piece else b"")
    fields = draw(trailers)
    end = b"".join(field + b"\r\n" for field in fields) + b"\r\n"
    return framed + end, b"".join(pieces), b"\r\n".join(fields)


@given(bodies(), st.binary(max_size=10), st.data(), st.booleans())
def test_a_body_is_the_same_however_it_is_split(
    made: tuple[bytes, bytes, bytes], follows: bytes, data: st.DataObject, views: bool
) -> None:
    framed, body, fields = made
    stream = framed + follows
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    assert decode(stream, *cuts, views=views) == (body, fields, follows)
    assert byte_by_byte(stream) == (body, fields, follows)


@given(bodies(), st.data())
def test_a_body_is_complete_with_its_last_byte(
    made: tuple[bytes, bytes, bytes], data: st.DataObject
) -> None:
    framed, body, _ = made
    end = data.draw(st.integers(0, len(framed) - 1))
    chunks = Chunks(LIMIT)
    pieces, rest = chunks.feed(framed[:end])
    assert rest is None
    assert body.startswith(b"".join(pieces))
    assert chunks.feed(framed[end:])[1] == b""


def test_a_piece_is_passed_on_before_its_chunk_is_complete() -> None:
    chunks = Chunks(LIMIT)
    assert chunks.feed(b"a\r\n0123") == ([b"0123"], None)
    assert chunks.feed(b"456789") == ([b"456789"], None)
    assert chunks.feed(b"\r\n1\r\nx\r\n0\r\n\r\nGET") == ([b"x"], b"GET")


def test_what_is_passed_on_is_a_copy() -> None:
    """All connections share one read buffer."""
    buffer = bytearray(b"3\r\nabc\r\n0\r")
    chunks = Chunks(LIMIT)
    pieces, _ = chunks.feed(memoryview(buffer))
    buffer[:] = b"?" * len(buffer)
    assert pieces == [b"abc"]
    assert chunks.feed(b"\n\r\n") == ([], b"")


MALFORMED = {
    "no size": b"\r\nabc\r\n",
    "a size that is no number": b"xyz\r\n",
    "a size with a prefix": b"0x3\r\nabc\r\n",
    "a size with a sign": b"+3\r\nabc\r\n",
    "a negative size": b"-3\r\nabc\r\n",
    "a size with an underscore": b"1_0\r\n",
    "a size beyond ASCII": "\u0663\r\nabc\r\n".encode(),
    "a space before the size": b" 3\r\nabc\r\n",
    "a size of 17 digits": b"00000000000000003\r\nabc\r\n",
    "a size and junk": b"3 x\r\nabc\r\n",
    "a bare LF after the size": b"3\nabc\r\n",
    "a bare CR after the size": b"3\rabc\r\n",
    "a bare LF in an extension": b"3;a\nabc\r\n",
    "a bare CR in an extension": b"3;a\rb\r\nabc\r\n",
    "a NUL in an extension": b"3;a\0\r\nabc\r\n",
    "no end after a chunk": b"3\r\nabc0\r\n\r\n",
    "a chunk that is longer": b"3\r\nabcd\r\n0\r\n\r\n",
    "a bare LF after a chunk": b"3\r\nabc\n0\r\n\r\n",
    "a bare CR after a chunk": b"3\r\nabc\r0\r\n\r\n",
    "a bare LF after the last": b"0\n\r\n",
    "a trailer that is no field": b"0\r\nabc\r\n\r\n",
    "a space in a trailer": b"0\r\nA : b\r\n\r\n",
    "a folded trailer": b"0\r\nA: b\r\n c\r\n\r\n",
    "a bare LF in the trailers": b"0\r\nA: b\nC: d\r\n\r\n",
    "a NUL in a trailer": b"0\r\nA: \0\r\n\r\n",
}


def status(stream: bytes, *cuts: int, limit: int = LIMIT) -> int:
    with pytest.raises(Refused) as caught:
        decode(stream, *cuts, limit=limit)
    return caught.value.refusal.status


@pytest.mark.parametrize("stream", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_body_is_refused(stream: bytes) -> None:
    assert status(stream) == 400
    assert status(stream, *range(1, len(stream))) == 400
    assert status(b"1\r\nx\r\n" + stream) == 400


@pytest.mark.parametrize(
    "start", [b"g", b" ", b"\r", b"3\r\nabc0", b"3\r\nabc\rx", b"3;\0", b"0" * 17, b"3\n"]
)
def test_a_malformed_body_is_refused_at_its_first_wrong_byte(start: bytes) -> None:
    chunks = Chunks(LIMIT)
    chunks.feed(start[:-1])
    with pytest.raises(Refused):
        chunks.feed(start[-1:])


@pytest.mark.parametrize("cut", [False, True], ids=["at once", "in pieces"])
@pytest.mark.parametrize(
    "stream", [b"1;" + b"x" * 200, b"0\r\nA: " + b"x" * 200, b"0\r\n" + b"A: bcd\r\n" * 25]
)
def test_a_line_or_trailers_without_an_end_are_refused(stream: bytes, cut: bool) -> None:
    cuts = range(10, len(stream), 10) if cut else ()
    assert status(stream, *cuts, limit=100) == 431


@pytest.mark.parametrize("size, refused", [(96, False), (97, False), (98, True)])
def test_the_limit_of_trailers_counts_their_bytes(size: int, refused: bool) -> None:
    stream = b"0\r\nA: " + b"x" * size + b"\r\n\r\n"
    if refused:
        assert status(stream, limit=100) == 431
    else:
        assert decode(stream, limit=100)[1] == stream[3:-4]


def test_the_limit_does_not_count_the_body() -> None:
    body = b"x" * 5000
    stream = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    assert decode(stream, limit=10)[0] == body
    assert decode(b"1\r\nx\r\n" * 100 + b"0\r\n\r\n", limit=10)[0] == b"x" * 100
