"""Faults in the child without sockets: of canned answers, with the time in the test's hands."""

from __future__ import annotations

from typing import Any

import pytest

from kit.http_child import Loop, Server, declare, head, reply
from sidestage.protocols.http.messages import Fault, Respond
from sidestage.wire.messages import Data, Diagnostic, End, Lost

SLOW = Fault(kind="slow", rate=10.0)
PLACE = head("GET", "/a")


def strict(fault: Fault, body: bytes = b"hello", **options: Any) -> Server:
    server = Server(handled=False)
    server.command(declare(1, "GET", "/a"), reply(1, body, fault=fault, **options))
    return server


def body(server: Server) -> bytes:
    return bytes(server.transport.out).partition(b"\r\n\r\n")[2]


def respond(server: Server, fault: Fault, data: bytes = b"hello", *, more: bool = False) -> None:
    (request,) = server.requests
    server.service.command(
        Respond(
            call=request.call,
            status=200,
            reason="OK",
            headers=(),
            body=data,
            length=None if more else len(data),
            more=more,
            fault=fault,
        )
    )


# Canned ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault, status, size, out",
    [
        (Fault(kind="reset", reply=False), 0, 0, b""),
        (Fault(kind="close", reply=False), 0, 0, b""),
        (Fault(kind="garbage", data=b"junk", reply=False), 0, 0, b"junk"),
        (Fault(kind="close"), 200, 5, b"hello"),
        (Fault(kind="close", after=2), 200, 2, b"he"),
        (Fault(kind="reset", after=0), 200, 0, b""),
        (Fault(kind="garbage", data=b"junk", after=1), 200, 1, b"hjunk"),
        (Fault(kind="chunk_error"), 200, 5, b"5\r\nhello\r\nbroken chunk\r\n"),
        (Fault(kind="wrong_length"), 200, 5, b"hello"),
    ],
)
def test_a_canned_answer_goes_wrong(fault: Fault, status: int, size: int, out: bytes) -> None:
    server = strict(fault)
    server.feed(PLACE * 3)
    assert server.transport.closed or server.transport.lingering
    came = bytes(server.transport.out)
    assert (body(server) if fault.reply else came) == out
    (met,) = server.mets
    assert met is not None
    assert (met.entry, met.status, met.size, met.done) == (1, status, size, True)
    assert len(server.requests) == 1  # what comes behind is not read any more


def test_what_waits_behind_a_fault_gets_no_answer_and_a_diagnostic() -> None:
    server = Server()
    server.feed(PLACE * 3)
    respond(server, Fault(kind="close", reply=False))
    (told,) = server.outbox.of(Diagnostic)
    assert told.text.startswith("no answer to GET /a (and 1 more): ")
    assert len(server.requests) == 1


def test_the_length_that_is_too_large() -> None:
    server = strict(Fault(kind="wrong_length"))
    server.feed(PLACE)
    assert b"\r\nContent-Length: 6\r\n" in server.transport.out


def test_a_stall_keeps_the_connection_and_reads_on() -> None:
    server = strict(Fault(kind="stall", after=2))
    server.feed(PLACE)
    assert body(server) == b"he"
    assert server.transport.reading
    assert not server.transport.closed
    assert not server.transport.lingering
    assert "GET /a: stalled on purpose" in server.connection.describe().state
    server.feed(PLACE)
    assert len(server.requests) == 1
    assert not server.connection.eof_received()  # so the stream closes


def test_a_delay_comes_before_a_fault() -> None:
    server = strict(Fault(kind="close", reply=False), delay=1.0)
    server.feed(PLACE)
    assert not server.transport.closed
    server.loop.fire()
    assert server.transport.closed
    assert not server.transport.out


def test_a_stop_does_not_wait_for_a_fault() -> None:
    for fault in (Fault(kind="stall"), SLOW):
        server = strict(fault)
        server.feed(PLACE)
        assert not server.transport.closed
        server.connection.close_if_idle()
        assert server.transport.closed


# Slow --------------------------------------------------------------------------------------------


def tick(loop: Loop) -> None:
    """Let the timer fire that was set last, and no time pass."""
    loop.timers.pop().call()


def test_a_slow_body_comes_a_piece_at_a_time() -> None:
    server = strict(SLOW)
    server.feed(PLACE * 2)
    assert body(server) == b""
    for sent in (b"h", b"he", b"hel", b"hell"):
        tick(server.loop)
        assert body(server) == sent
    assert len(server.requests) == 1  # the next has to wait
    tick(server.loop)
    assert body(server).startswith(b"hello")
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "rate, size, step", [(1.0, 5, 1), (19.0, 5, 1), (40.0, 5, 2), (1e12, 5, 5), (0.001, 5, 1)]
)
def test_a_piece_is_a_twentieth_of_a_second_or_a_byte(rate: float, size: int, step: int) -> None:
    server = strict(Fault(kind="slow", rate=rate), b"x" * size)
    server.feed(PLACE)
    tick(server.loop)
    assert len(body(server)) == step


def test_a_slow_body_waits_for_a_client_that_does_not_read() -> None:
    server = strict(SLOW)
    server.feed(PLACE)
    server.connection.pause_writing()
    tick(server.loop)  # which was due before
    assert body(server) == b"h"
    assert not server.loop.timers
    server.connection.resume_writing()
    tick(server.loop)
    assert body(server) == b"he"


def test_nothing_is_sent_after_the_client_has_left() -> None:
    server = strict(SLOW)
    server.feed(PLACE)
    server.connection.connection_lost(None)
    server.loop.fire()
    assert body(server) == b""


# Of a handler ------------------------------------------------------------------------------------


def test_a_slow_stream_is_acknowledged_as_it_is_sent() -> None:
    """So a handler makes no more than its window in advance."""
    server = Server()
    server.feed(PLACE)
    respond(server, Fault(kind="slow", rate=40.0), b"ab", more=True)
    call = server.requests[0].call
    server.service.command(Data(call=call, data=b"cd"))
    server.service.command(End(call=call))
    assert body(server) == b""
    tick(server.loop)
    assert body(server) == b"2\r\nab\r\n"
    tick(server.loop)
    assert body(server) == b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"


def test_a_handler_whose_answer_is_slow_is_not_under_way() -> None:
    server = Server()
    server.feed(PLACE)
    respond(server, SLOW)
    assert len(server.service.calls) == 0
    assert "response at 10 bytes/s, 5 bytes left" in server.connection.describe().state


def test_what_comes_after_a_fault_changes_nothing() -> None:
    server = Server()
    server.feed(PLACE)
    respond(server, Fault(kind="close", after=1), b"he", more=True)
    out = bytes(server.transport.out)
    assert out.endswith(b"\r\n\r\n1\r\nh\r\n")
    call = server.requests[0].call
    server.service.command(Data(call=call, data=b"llo"))
    server.service.command(End(call=call))
    assert server.transport.out == out
    assert not server.outbox.of(Lost)


def test_a_fault_before_the_body_has_come_tells_that_nothing_more_will() -> None:
    server = Server()
    server.feed(head("POST", "/a", "Content-Length: 100000"), b"x" * 70_000)
    respond(server, Fault(kind="stall", reply=False))
    (lost,) = server.outbox.of(Lost)
    assert (lost.call, lost.reset) == (server.requests[0].call, False)
    before = len(server.outbox.sent)
    server.feed(b"x" * 30_000)
    assert len(server.outbox.sent) == before
