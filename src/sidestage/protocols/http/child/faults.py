"""Carries out faults: what goes wrong on purpose, in place of a response or within one.

No fault may hang: what is stalled or slow ends when its client leaves, and at once when the server
stops. A connection whose response has gone wrong gets no further request; ``slow`` alone does
nothing that HTTP forbids.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import msgspec

from ..messages import OF_TLS, Fault, Respond
from .exchange import Asked, Event, Exchange
from .framing import head_of, sent

if TYPE_CHECKING:
    from .h1 import HTTPConnection

_BAD_CHUNK = b"broken chunk\r\n"  # in place of a size, which is hexadecimal (RFC 9112 7.1)
_CORK: int | None = getattr(socket, "TCP_CORK", None)  # Linux has it
_STEP = 0.05  # seconds between two pieces of a slow body, if that is a byte or more


def perform(connection: HTTPConnection, exchange: Exchange, response: Respond) -> None:
    """Begin ``response``, whose ``fault`` says what goes wrong, as ``respond`` does with others.

    Does nothing if it is too late. The fault may have ended the connection when this returns.
    """
    fault = response.fault
    assert fault is not None
    if not exchange.on(Event.RESPOND_HEAD):
        return
    exchange.due = None
    if not fault.reply:
        connection.transport.write(fault.data)
        _strike(connection, exchange, fault)
        return
    if connection.service.draining:
        exchange.keep_alive = False
    if exchange.asked is not Asked.DONE:
        connection._answer_early(exchange, response)
    head = _head(exchange, response, fault)
    if exchange.mismatch:
        connection._tell_mismatch(exchange)
    if not response.more:
        connection._release(exchange)
    make = Slow if fault.kind == "slow" else Striking
    faulty = exchange.faulty = make(connection, exchange, fault, streamed=response.more)
    faulty.begin(head, response.body)


def tell_behind(connection: HTTPConnection, exchange: Exchange) -> None:
    """Tell the test of the requests that get no answer, because of the one before them."""
    behind = [one for one in connection.queue if one is not exchange and one.head is not None]
    if behind:
        more = f" (and {len(behind) - 1} more)" if behind[1:] else ""
        connection._diagnose(
            f"no answer to {behind[0].line()}{more}: "
            f"the connection ends on purpose with {exchange.line()}, which came before"
        )


def _head(exchange: Exchange, response: Respond, fault: Fault) -> bytes:
    """The head as it is without the fault, except for the length if that is to be wrong."""
    length = response.length
    if fault.kind == "chunk_error":
        length = None
    elif fault.kind == "wrong_length" and length is not None:
        length += 1
    head = head_of(exchange, msgspec.structs.replace(response, length=length))
    if exchange.tunnel:  # RFC 9110 9.3.6: a 2xx to CONNECT has no body, and it is no tunnel either
        exchange.tunnel, exchange.bodiless = False, True
    return head


def _strike(connection: HTTPConnection, exchange: Exchange, fault: Fault) -> None:
    """End the response, of which all is written, and the connection with it."""
    exchange.on(Event.ABANDON)
    exchange.faulty = None
    tell_behind(connection, exchange)
    broken_chunk = fault.kind == "chunk_error" and not exchange.bodiless
    if fault.kind in OF_TLS:
        _break_records(connection, fault)
    if fault.kind == "stall":
        connection.stall(exchange)
    elif fault.kind in ("reset", "reset_in_record") or (broken_chunk and not exchange.chunked):
        # HTTP/1.0 has no chunks; where no length is told, only a reset makes an end an error.
        connection.reset_when_sent(exchange)
    else:
        connection._finish(exchange)


def _keep_for_end(connection: HTTPConnection) -> None:
    """Have the kernel send what is written from now on together with the end that follows.

    Or the client has all of a response before its connection ends, and it is chance whether a pool
    that looks for the end asks again on this connection.
    """
    sock: socket.socket | None = connection.transport.get_extra_info("socket")
    if sock is not None and _CORK is not None and sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):  # the connection is lost
            sock.setsockopt(socket.IPPROTO_TCP, _CORK, 1)


def _break_records(connection: HTTPConnection, fault: Fault) -> None:
    """Have TLS end as it must not; where there is none, the connection just ends."""
    records = connection.transport.get_extra_info("records")
    if records is not None:
        records.break_off(in_record=fault.kind != "close_without_notify")


class Sending:
    """A response that goes wrong: how its body is sent until then."""

    def __init__(
        self, connection: HTTPConnection, exchange: Exchange, fault: Fault, *, streamed: bool
    ) -> None:
        self._connection = connection
        self._exchange = exchange
        self._fault = fault
        self._streamed = streamed  # the handler sends the body piece by piece, and has credit
        self._out = bytearray()  # written together: clients may take apart what comes in parts

    def _put(self, data: bytes) -> None:
        """Add a piece of the body to what is written next."""
        exchange = self._exchange
        sent(exchange, data)
        if data and not exchange.bodiless:
            self._out += b"%x\r\n%b\r\n" % (len(data), data) if exchange.chunked else data
        if self._streamed:
            self._connection._wrote(exchange, len(data))

    def _flush(self) -> None:
        out, self._out = self._out, bytearray()
        if out:
            self._connection.transport.write(bytes(out))


class Striking(Sending):
    """A response that ends wrongly: after some bytes of its body, or after all of it."""

    def __init__(
        self, connection: HTTPConnection, exchange: Exchange, fault: Fault, *, streamed: bool
    ) -> None:
        super().__init__(connection, exchange, fault, streamed=streamed)
        self._left = fault.after  # bytes of the body
        self._over = False

    def begin(self, head: bytes, body: bytes) -> None:
        """Take the head, and the first piece of the body or all of it."""
        self._out += head
        self._take(body)
        if not self._streamed:
            self.end()
        self._flush()

    def write(self, data: bytes) -> None:
        self._take(data)
        self._flush()

    def _take(self, data: bytes) -> None:
        if self._over:
            return
        if self._left is None:
            self._put(data)
            return
        data = data[: self._left]
        self._left -= len(data)
        self._put(data)
        if not self._left:
            self._strike()

    def end(self) -> None:
        if self._over:
            return
        exchange, fault = self._exchange, self._fault
        if exchange.chunked and fault.after is None and fault.kind != "chunk_error":
            self._out += b"0\r\n%b\r\n" % exchange.trailers_out
        self._strike()

    def _strike(self) -> None:
        self._over = True
        if self._fault.kind == "chunk_error" and self._exchange.chunked:
            self._out += _BAD_CHUNK
        self._out += self._fault.data
        if self._fault.kind not in ("stall", "reset", "reset_in_record"):
            _keep_for_end(self._connection)
        self._flush()
        _strike(self._connection, self._exchange, self._fault)

    def go_on(self) -> None:
        """It waits for nothing."""

    def cancel(self) -> None:
        self._over = True

    def stage(self) -> str:
        return "response not complete"


class Slow(Sending):
    """A response whose body is sent at ``fault.rate``, as far as its client takes it."""

    def __init__(
        self, connection: HTTPConnection, exchange: Exchange, fault: Fault, *, streamed: bool
    ) -> None:
        super().__init__(connection, exchange, fault, streamed=streamed)
        self._loop = connection.service.loop
        self._waiting = bytearray()
        self._ended = False  # all of the body is known
        self._due = 0.0  # when the last piece was, on the loop's clock
        self._timer: asyncio.TimerHandle | None = None
        self._step = max(1, int(fault.rate * _STEP))  # bytes

    def begin(self, head: bytes, body: bytes) -> None:
        """Take the head, and the first piece of the body or all of it."""
        self._out += head
        self._flush()
        if self._connection.service.draining:  # the stop waits for nothing that goes wrong
            _strike(self._connection, self._exchange, self._fault)
            return
        self.write(body)
        if not self._streamed:
            self.end()

    def write(self, data: bytes) -> None:
        if self._exchange.bodiless:
            self._put(data)
        else:
            self._waiting += data
            self.go_on()

    def end(self) -> None:
        self._ended = True
        exchange = self._exchange
        if exchange.received:  # nothing more is wanted of the handler
            self._connection.service.calls.close(exchange.call)
            exchange.call = 0
        self.go_on()

    def go_on(self) -> None:
        if self._timer is not None:
            return
        if self._waiting and not self._connection.blocked:
            now = self._loop.time()
            size = min(self._step, len(self._waiting))
            self._due = max(self._due, now) + size / self._fault.rate
            self._timer = self._loop.call_later(self._due - now, self._send_piece, size)
        elif self._ended and not self._waiting:
            self._complete()

    def _send_piece(self, size: int) -> None:
        self._timer = None
        piece = bytes(self._waiting[:size])
        del self._waiting[:size]
        self._put(piece)
        self._flush()
        self.go_on()

    def _complete(self) -> None:
        self._exchange.faulty = None
        self._connection.complete_response(self._exchange)

    def cancel(self) -> None:
        self._ended = False
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stage(self) -> str:
        return f"response at {self._fault.rate:,g} bytes/s, {len(self._waiting):,} bytes left,"
