"""A call of an HTTP server's handler: how it is answered, and what its record keeps."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.http_requests import fake_run, feed, message, record, streamed
from sidestage import faults
from sidestage.dispatch.calls import ClientLeft
from sidestage.errors import ServerStopped
from sidestage.journal.journal import Journal
from sidestage.journal.record import Answer
from sidestage.pristine.waits import Clock
from sidestage.protocols.http.call import HTTPCall, open_call
from sidestage.protocols.http.request import HTTPRequest
from sidestage.wire import messages as wire

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


@pytest.mark.parametrize("result", [b"answer", iter([b"answer"])], ids=["whole", "stream"])
def test_a_record_can_be_read_once_its_client_has_the_answer(result: Any) -> None:
    """Its handler may not have returned yet, and the client may leave in that moment."""
    call = streamed(b"some")
    read: list[bytes] = []

    def send(*messages: wire.Message) -> None:
        last = messages[-1]
        if isinstance(last, wire.End) or not getattr(last, "more", True):
            call.event(wire.Lost(call=1, reset=False))
            read.append(call.request.body)

    call.run.send = send  # type: ignore[method-assign]
    call.complete(result)
    assert read == [b"some"]


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


@pytest.mark.parametrize("pieces", [[b"hello"], [b"he", b"llo"], [b"", b"hel", b"lo"]])
@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_a_fault_is_on_the_record_before_the_bytes_that_it_strikes_after(
    pieces: list[bytes], after: int
) -> None:
    """Once these are sent, the child carries it out, and the client may look."""
    call, sent, noted = HTTPCall(fake_run(), message(call=1)), bytearray(), list[bool]()

    def send(*messages: Any) -> None:
        sent.extend(
            b"".join(getattr(each, "body", getattr(each, "data", b"")) for each in messages)
        )
        if len(sent) >= after:
            noted.append(call.request.answer is not None)

    call.run.send = send  # type: ignore[method-assign]
    call.complete(faults.garbage(b"!", iter(pieces), after=after))
    assert noted
    assert all(noted)


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
        call.event(wire.Lost(call=1, reset=False, answered=(504, 20)))
        call.complete("too late")
        assert call.request.answer is not None
        assert call.request.answer.status == 504

    def test_is_none_while_there_is_none(self) -> None:
        assert HTTPCall(fake_run(), message(call=1)).request.answer is None

    def test_is_plain_success_without_a_handler(self) -> None:
        assert record("/").answer == Answer(at=1.0, status=200, size=0, seconds=0.0)
