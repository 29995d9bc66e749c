"""Faults as values: what they say, and what is refused where they are made."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestage import HTTPResponse, faults
from sidestage.protocols.http.faults import response_and_fault, said
from sidestage.protocols.http.messages import Canned, Fault, answer_of

WITH_REPLY: dict[str, Callable[[Any], faults.Fault]] = {
    "reset": faults.reset,
    "close": faults.close,
    "stall": faults.stall,
    "reset_in_record": faults.reset_in_record,
    "close_in_record": faults.close_in_record,
    "close_without_notify": faults.close_without_notify,
    "garbage": lambda reply: faults.garbage(b"junk", reply),
    "slow": lambda reply: faults.slow(reply, 100),
    "chunk_error": faults.chunk_error,
    "wrong_length": faults.wrong_length,
}
AFTER: dict[str, Callable[..., faults.Fault]] = {
    "reset": faults.reset,
    "close": faults.close,
    "stall": faults.stall,
    "reset_in_record": faults.reset_in_record,
    "close_in_record": faults.close_in_record,
    "close_without_notify": faults.close_without_notify,
    "garbage": lambda reply, **after: faults.garbage(b"junk", reply, **after),
}
with_each = pytest.mark.parametrize("name", WITH_REPLY)
with_each_after = pytest.mark.parametrize("name", AFTER)


@with_each
@pytest.mark.parametrize(
    "reply, body, status",
    [
        ("größe", "größe".encode(), 200),
        ({"id": 1}, b'{"id": 1}', 200),
        ((b"x", 201), b"x", 201),
        (HTTPResponse("text", 404), "text", 404),
    ],
)
def test_a_reply_is_what_a_handler_may_return(
    name: str, reply: object, body: object, status: int
) -> None:
    response, fault = response_and_fault(WITH_REPLY[name](reply))
    assert (response.body, response.status) == (body, status)
    assert fault is not None
    assert (fault.kind, fault.after, fault.reply) == (name, None, True)


@pytest.mark.parametrize(
    "made, kind, data",
    [
        (faults.reset(), "reset", b""),
        (faults.close(), "close", b""),
        (faults.stall(), "stall", b""),
        (faults.garbage(bytearray(b"\x00\r\n")), "garbage", b"\x00\r\n"),
    ],
)
def test_without_a_reply_nothing_is_sent_before(made: faults.Fault, kind: str, data: bytes) -> None:
    response, fault = response_and_fault(made)
    assert response.body == b""
    assert fault == Fault(kind=kind, data=data, reply=False)


def test_none_is_a_reply() -> None:
    """As it is what a handler may return: plain success."""
    response, fault = response_and_fault(faults.reset(None))
    assert response.status == 200
    assert fault == Fault(kind="reset")


def test_what_is_no_fault_is_a_response_alone() -> None:
    response, fault = response_and_fault("text")
    assert (response.body, fault) == (b"text", None)
    with pytest.raises(TypeError, match="no response can be made of object"):
        response_and_fault(object())


@with_each_after
@given(st.binary(max_size=30), st.data())
def test_after_is_anywhere_in_the_body(name: str, body: bytes, data: st.DataObject) -> None:
    after = data.draw(st.integers(0, len(body)))
    _, fault = response_and_fault(AFTER[name](body, after=after))
    assert fault is not None
    assert fault.after == after


@with_each_after
@pytest.mark.parametrize(
    "reply, after, size",
    [
        ("ü", 3, "2 bytes"),
        (b"x", 2, "1 byte"),
        (204, 1, "0 bytes"),
        ((b"never sent", 204), 1, "0 bytes"),
        (None, 1, "0 bytes"),
    ],
)
def test_after_beyond_the_body_is_an_error(name: str, reply: object, after: int, size: str) -> None:
    with pytest.raises(ValueError, match=f"after={after} is never reached: .* has {size}"):
        AFTER[name](reply, after=after)


def test_after_beyond_an_iterator_is_not_known_yet() -> None:
    response, _ = response_and_fault(faults.reset(iter([b"x"]), after=1 << 40))
    assert [*response.body] == [b"x"]


@pytest.mark.parametrize(
    "make, kind, text",
    [
        (lambda: faults.reset(after=5), ValueError, r"write reset\(reply, after=5\)"),
        (lambda: faults.garbage(b"x", after=5), ValueError, r"garbage\(data, reply, after=5\)"),
        (lambda: faults.reset("x", after=-1), ValueError, "after must be at least 0, not -1"),
        (lambda: faults.reset("x", after=True), TypeError, "after must be an int, not True"),
        (lambda: faults.reset("x", after="1"), TypeError, "after must be an int, not '1'"),
        (lambda: faults.reset(object()), TypeError, "no response can be made of object"),
        (lambda: faults.reset(5), ValueError, "status must be between 200 and 999, not 5"),
        (lambda: faults.garbage("x"), TypeError, "garbage must be a bytes-like object"),
        (lambda: faults.garbage(b""), ValueError, r"return faults\.close\(\)"),
        (lambda: faults.slow("x", 0), ValueError, "greater than 0 and finite, not 0; .* use stall"),
        (lambda: faults.slow("x", -1.5), ValueError, "greater than 0 and finite, not -1.5"),
        (lambda: faults.slow("x", float("nan")), ValueError, "greater than 0 and finite, not nan"),
        (lambda: faults.slow("x", 10**400), ValueError, "greater than 0 and finite"),
        (lambda: faults.slow("x", True), TypeError, "bytes_per_second must be a number, not True"),
        (lambda: faults.slow("x", "9"), TypeError, "bytes_per_second must be a number, not '9'"),
        (lambda: faults.slow(204, 9), ValueError, "slow sends a body slowly, and 204 has none"),
        (lambda: faults.slow("", 9), ValueError, "slow sends a body slowly, and '' has none"),
        (lambda: faults.chunk_error(304), ValueError, "may have a body, not 304"),
        (lambda: faults.wrong_length(204), ValueError, "may have a body, not 204"),
        (
            lambda: faults.wrong_length(iter([b"x"])),
            ValueError,
            "needs a body whose length is known, .* join it to bytes, or use chunk_error",
        ),
        (
            lambda: faults.wrong_length(HTTPResponse("x", trailers={"X": "y"})),
            ValueError,
            "needs a body whose length is known",
        ),
        (
            lambda: faults.wrong_length(("x", 200, {"Content-Length": 1})),
            ValueError,
            "leave Content-Length out of the headers",
        ),
        (
            lambda: faults.chunk_error(("x", 200, {"transfer-encoding": "chunked"})),
            ValueError,
            "leave transfer-encoding out of the headers",
        ),
        (
            lambda: faults.slow(faults.reset("x"), 10),
            TypeError,
            r"one fault at a time: the reply of slow cannot be faults\.reset",
        ),
    ],
)
def test_what_cannot_be_is_an_error_where_it_is_written(
    make: Callable[[], object], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        make()


def test_a_fault_is_a_frozen_value() -> None:
    fault = faults.reset("x", after=1)
    assert fault == faults.reset("x", after=1) != faults.reset("x")
    assert pickle.loads(pickle.dumps(fault)) == fault
    with pytest.raises(dataclasses.FrozenInstanceError):
        fault.after = 2  # type: ignore[misc]


def test_a_fault_shows_how_it_was_made() -> None:
    assert repr(faults.stall()) == "faults.stall()"
    assert repr(faults.garbage(b"junk")) == "faults.garbage(b'junk')"
    shown = repr(faults.reset("x", after=1))
    assert shown.startswith("faults.reset(HTTPResponse(body=b'x', status=200")
    assert shown.endswith(", after=1)")
    assert repr(faults.slow("x", 0.5)).endswith(", bytes_per_second=0.5)")


def fault_of(made: faults.Fault) -> Fault:
    fault = response_and_fault(made)[1]
    assert fault is not None
    return fault


@pytest.mark.parametrize(
    "made, size, text",
    [
        (faults.reset(), 0, "reset"),
        (faults.reset("x" * 9, after=1), 1, "reset after 1 byte"),
        (faults.reset(b"x" * 60_000, after=50_000), 50_000, "reset after 50,000 bytes"),
        (faults.close("hello"), 5, "closed after 5 bytes"),
        (faults.stall(), 0, "stalled"),
        (faults.stall("x", after=0), 0, "stalled after 0 bytes"),
        (faults.garbage(b"junk"), 0, "4 bytes of garbage"),
        (faults.garbage(b"j", "hello"), 5, "1 byte of garbage after 5 bytes"),
        (faults.slow("x" * 2000, 1e3), 2000, "2,000 bytes at 1,000 bytes/s"),
        (faults.chunk_error("hello"), 5, "broken chunk after 5 bytes"),
        (faults.wrong_length("hello"), 5, "Content-Length 1 too large after 5 bytes"),
    ],
)
def test_what_reports_say(made: faults.Fault, size: int, text: str) -> None:
    assert said(fault_of(made), size) == text


@pytest.mark.parametrize(
    "fault, status, head_only, told",
    [
        (None, 200, False, (200, 5)),
        (None, 200, True, (200, 0)),
        (None, 304, False, (304, 0)),
        (fault_of(faults.reset()), 200, False, (0, 0)),
        (fault_of(faults.reset("hello")), 200, False, (200, 5)),
        (fault_of(faults.reset("hello", after=2)), 200, False, (200, 2)),
        (fault_of(faults.reset("hello", after=2)), 200, True, (200, 0)),
        (fault_of(faults.slow("hello", 2)), 200, False, (200, 5)),
    ],
)
def test_what_the_client_of_a_canned_answer_gets(
    fault: Fault | None, status: int, head_only: bool, told: tuple[int, int]
) -> None:
    canned = Canned(status=status, reason="", headers=(), body=b"hello", fault=fault)
    carried = msgspec.msgpack.decode(msgspec.msgpack.encode(canned), type=Canned)
    assert answer_of(carried, head_only=head_only) == told
