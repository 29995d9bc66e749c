"""HTTP/1.1 in the child (RFC 9112): one connection, its queue of requests and their responses.

A connection's requests are answered in the order they came, so each waits in a queue for its turn.
Connections do not wait for each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ....child.net.listener import wire_address
from ....child.net.stream import hold, reset
from ....wire.credit import Backpressure
from ....wire.messages import Ack, Address, Close, Data, End, Message, OpenConnection
from ..messages import Respond
from .exchange import PLAIN_SUCCESS, Exchange, plain
from .h1_reader import RequestReader

if TYPE_CHECKING:
    from .service import HTTPService

SMALL_BODY = 1 << 16  # bytes; a larger body is streamed
SMALL_WAIT = 0.05  # seconds; a body that takes longer to come is streamed
PIPELINE = 32  # requests waiting on one connection before reading pauses
LINGER = 1.0  # seconds for the client to read the response and stop sending
IGNORED_BODY = 1 << 20  # bytes of a request body read after its response, to keep the connection


class HTTPConnection:
    """A client's connection: the receiver of its bytes, and the sink of its requests."""

    transport: asyncio.Transport

    def __init__(self, service: HTTPService) -> None:
        self.service = service
        self.peer: Address = ""
        self.number = service.next_connection()
        self.flow = Backpressure(service.send, functools.partial(self._hold, "flow"))
        self.queue: deque[Exchange] = deque()
        self.reader = RequestReader(self, service.settings.head_limit)
        self.holds: set[str] = set()  # reasons not to read
        self.lingering: asyncio.TimerHandle | None = None

    # From the transport ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.peer = wire_address(transport.get_extra_info("peername"))
        self.service.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.lingering is not None:
            self.lingering.cancel()
        if exc is not None and self.reader.incoming is not None:
            text = "the client reset the connection in the middle of a request"
            self._diagnose(text)
        self._flush()
        for exchange in self.queue:
            self.service.calls.lose(exchange.call, reset=exc is not None)
        self._drop_queue()
        self.service.left(self)

    def data_received(self, data: memoryview) -> None:
        self.reader.feed(data)

    def eof_received(self) -> bool:
        self._flush()  # before the transport closes
        if self.reader.incoming is not None:
            self._diagnose("the client closed in the middle of a request")
            self.reader.incoming = None
            if not (self.queue and self.queue[0].received):
                return False
        if self.queue:  # the client may still read: answer what it has sent
            self.queue[-1].keep_alive = False
        return bool(self.queue) and self.lingering is None

    def pause_writing(self) -> None:
        self.flow.client_blocked(True)

    def resume_writing(self) -> None:
        self.flow.client_blocked(False)

    # From the reader ---------------------------------------------------------------------------

    def begun(self, exchange: Exchange) -> None:
        # RFC 9110 10.1.1: no 100 Continue for HTTP/1.0.
        exchange.expects &= exchange.http_version == "1.1" and exchange.length != 0
        self.queue.append(exchange)
        if exchange.length is not None and exchange.length > SMALL_BODY:
            exchange.streamed = self.service.handled
        if exchange.length != 0:  # else it is complete in a moment
            self._advance()

    def body(self, exchange: Exchange, data: bytes) -> None:
        if exchange.responded:
            self._ignore(exchange, data)
        elif exchange.streamed and exchange.call:
            self.service.send(Data(call=exchange.call, data=data))
            self.flow.sent(len(data))
        else:
            self._store(exchange, data)

    def received(self, exchange: Exchange) -> None:
        exchange.received = True
        if exchange.since is None:
            self._cancel_timer(exchange)
        if exchange.streamed and exchange.call:
            self.service.send(End(call=exchange.call))
        self._advance()

    def awaited(self, exchange: Exchange) -> None:
        # Wait a moment for the rest of a small body, so that one message can carry all of it.
        if exchange.since is None and exchange.timer is None:
            exchange.timer = self.service.loop.call_later(SMALL_WAIT, self._stream, exchange)

    def _diagnose(self, text: str) -> None:
        self.service.diagnose(self.peer, text, self.number)

    def _drop_queue(self) -> None:
        for exchange in self.queue:
            self._cancel_timer(exchange)
        self.queue.clear()

    def _cancel_timer(self, exchange: Exchange) -> None:
        if exchange.timer is not None:
            exchange.timer.cancel()
            exchange.timer = None

    def _stream(self, exchange: Exchange) -> None:
        """Send the request to the parent without waiting for the rest of its body."""
        exchange.streamed = self.service.handled
        self._advance()

    def _store(self, exchange: Exchange, body: bytes) -> None:
        if not exchange.body:
            exchange.body = bytearray()
        if self.service.handled:
            exchange.body += body
            if len(exchange.body) > SMALL_BODY:
                if not exchange.streamed:
                    self._stream(exchange)
                # Behind an earlier request its body is buffered here: stop reading.
                self._pause(exchange.since is None)
        else:
            free = max(0, self.service.record_limit - len(exchange.body))
            exchange.body += body[:free]
            exchange.cut += max(0, len(body) - free)

    def _ignore(self, exchange: Exchange, body: bytes) -> None:
        """Take a piece of the body that comes after the response, which only the record needs."""
        exchange.cut += len(body)
        if exchange.cut > IGNORED_BODY:
            self._finish(exchange)
        elif exchange.call:
            self.service.send(Data(call=exchange.call, data=body))

    # The queue ---------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Move the first request as far as possible, then the next."""
        while self.queue:
            exchange = self.queue[0]
            if exchange.refusal is not None:
                self._answer_refusal(exchange)
                return
            if exchange.since is None:
                if exchange.expects and not exchange.received and not exchange.body:
                    exchange.expects = False
                    self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
                if not exchange.received and not exchange.streamed:
                    break
                self._send_request(exchange)
            if not exchange.responded:
                break
            if not exchange.keep_alive or self.service.draining:
                self._finish(exchange)
                return
            if not exchange.received:
                break
            self.queue.popleft()
            self.service.calls.close(exchange.call)
        if self.holds or len(self.queue) > PIPELINE:
            self._pause(len(self.queue) > PIPELINE)

    def _send_request(self, exchange: Exchange) -> None:
        service = self.service
        self._cancel_timer(exchange)
        exchange.since = service.loop.time()
        if not service.handled and not exchange.streamed:
            service.outbox.record(exchange.request(self.peer, self.number))
            self._respond(exchange, PLAIN_SUCCESS)
            return
        exchange.call = service.calls.open(exchange)
        self.flow.start(exchange.call)
        service.send(exchange.request(self.peer, self.number))
        if exchange.streamed:
            self.flow.sent(len(exchange.body))
            if exchange.received:
                service.send(End(call=exchange.call))
            exchange.body = b""
        service.timeouts.arm(exchange)

    def _pause(self, wanted: bool) -> None:
        self._hold("queue", wanted)

    def _hold(self, reason: str, wanted: bool) -> None:
        """Add or remove a reason not to read; read only while there is none."""
        before = bool(self.holds)
        (self.holds.add if wanted else self.holds.discard)(reason)
        if before != bool(self.holds):
            hold(self.transport, wanted)

    def timed_out(self, exchange: Exchange) -> None:
        self.service.calls.ask_to_postpone(functools.partial(self._end_of_time, exchange))

    def _end_of_time(self, exchange: Exchange, postponed: bool) -> None:
        if exchange.head_sent or exchange not in self.queue:
            return
        if postponed:
            self.service.timeouts.arm(exchange)
            return
        seconds = self.service.config.handler_timeout
        text = f"the handler gave no answer to {exchange.line()} within {seconds} s: sent 504"
        self._diagnose(text)
        response = plain(504, "Gateway Timeout")
        answered = (response.status, len(response.body))
        self.service.calls.lose(exchange.call, reset=False, answered=answered)
        exchange.keep_alive = False
        self._respond(exchange, response)
        self._advance()

    # Responses ---------------------------------------------------------------------------------

    def command(self, exchange: Exchange, message: Message) -> None:
        match message:
            case Respond():
                self._respond(exchange, message)
                self._advance()
            case Data():
                self._write_body(exchange, message.data)
            case End():
                self._end(exchange)
                self._advance()
            case Ack():
                self.flow.acknowledged(message.size)
            case Close():
                self._close(exchange, message)
            case _:
                raise AssertionError(message)

    def _respond(self, exchange: Exchange, response: Respond) -> None:
        if exchange.head_sent or self.transport.is_closing():
            return
        exchange.head_sent = True
        exchange.due = None
        if self.service.draining:
            exchange.keep_alive = False
        body = response.body
        head = exchange.head(response)
        exchange.sent = len(body)
        if exchange.bodiless:
            body = b""
        elif exchange.chunked and body:
            body = b"%x\r\n%b\r\n" % (len(body), body)
        self._write(head + body)
        if response.more:
            self.flow.wrote(len(response.body))
        else:
            exchange.responded = True
            if exchange.streamed:
                self.flow.release()

    def _write_body(self, exchange: Exchange, data: bytes) -> None:
        exchange.sent += len(data)
        if data and not self.transport.is_closing() and not exchange.bodiless:
            if exchange.chunked:
                self._flush()
                self.transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))
            else:
                self._write(data)
        self.flow.wrote(len(data))

    def _write(self, data: bytes) -> None:
        self.service.writes.write(self.transport, data)

    def _flush(self) -> None:
        self.service.writes.flush(self.transport)

    def _end(self, exchange: Exchange) -> None:
        if exchange.chunked and not exchange.responded and not self.transport.is_closing():
            self._write(b"0\r\n\r\n")
        if exchange.declared is not None and not exchange.bodiless:
            exchange.keep_alive &= exchange.declared == exchange.sent
        exchange.responded = True
        self.flow.release()

    def _finish(self, exchange: Exchange) -> None:
        """Close the connection after the response to ``exchange`` has been delivered."""
        if exchange.received:
            self.service.calls.close(exchange.call)
        else:  # its handler must not wait for the rest of the body
            self.service.calls.lose(exchange.call, reset=False)
        alone = exchange.received and self.reader.incoming is None and len(self.queue) == 1
        self._drop_queue()
        self.reader.end()
        self._flush()
        if alone:
            self.transport.close()
        else:
            self._linger()

    def _linger(self) -> None:
        """Stop sending, and close once the client has stopped too, at the latest after ``LINGER``.

        Closing while the client still sends would reset the connection, and the client could
        lose the response (RFC 9112 9.6).
        """
        self.flow.release()
        self._pause(False)
        self._flush()
        if self.service.draining:
            self.transport.close()
        elif self.lingering is None and not self.transport.is_closing():
            with contextlib.suppress(OSError):  # the client has left already
                self.transport.write_eof()
            self.lingering = self.service.loop.call_later(LINGER, self.transport.abort)

    def _close(self, exchange: Exchange, message: Close) -> None:
        """Close in the middle of a response, so that the client sees that it is incomplete."""
        self.service.calls.close(exchange.call)
        if message.reset or not (exchange.chunked or exchange.declared or exchange.bodiless):
            # Without chunks or a length, a plain close would look like the end of the body.
            self._flush()
            reset(self.transport)
        else:
            self._finish(exchange)

    # Refusals ----------------------------------------------------------------------------------

    def malformed(self, exchange: Exchange | None, why: str) -> None:
        if self.queue and not self.queue[-1].keep_alive and self.queue[-1].received:
            # RFC 9112 9.6: ignore everything after a request with "Connection: close".
            self.reader.end()
            self._diagnose(f"the client sent more than its last request: {why}")
            return
        self.refuse(exchange or Exchange(self), 400, "Bad Request", why)

    def refuse(self, exchange: Exchange, status: int, reason: str, why: str = "") -> None:
        self.reader.end()
        exchange.refusal = (status, reason)
        exchange.keep_alive = False
        self._diagnose(f"sent {status} {reason}{': ' if why else ''}{why}")
        if exchange.call:  # its handler must not wait for the rest of the body
            self.service.calls.lose(exchange.call, reset=False)
        if exchange not in self.queue:
            self.queue.append(exchange)
        self._advance()

    def _answer_refusal(self, exchange: Exchange) -> None:
        assert exchange.refusal is not None
        self._respond(exchange, plain(*exchange.refusal))
        self._drop_queue()
        self._linger()

    # For the drain -----------------------------------------------------------------------------

    def call_ids(self) -> Iterable[int]:
        return [exchange.call for exchange in self.queue]

    def describe(self) -> OpenConnection:
        call, state = 0, "idle"
        if self.queue:
            exchange = self.queue[0]
            call = exchange.call
            state = f"{exchange.line()}: {self._stage(exchange)}"
        return OpenConnection(client_address=self.peer, state=state, call=call)

    def _stage(self, exchange: Exchange) -> str:
        if exchange.since is None:
            return "request not complete"
        if exchange.responded:
            return "closing"
        stage = "response not complete" if exchange.head_sent else "handler running"
        return f"{stage} for {self.service.loop.time() - exchange.since:.1f} s"

    def close_if_idle(self) -> None:
        if not self._in_progress():
            self._flush()
            self.transport.close()

    def abandon(self) -> None:
        """Abort the connection if it waits for a response: the handler will send none."""
        if self._in_progress():
            self.transport.abort()

    def _in_progress(self) -> bool:
        """Whether a handler has been called and has not completed its response."""
        first = self.queue[0] if self.queue else None
        return first is not None and first.since is not None and not first.responded

    def abort(self) -> None:
        self.transport.abort()
