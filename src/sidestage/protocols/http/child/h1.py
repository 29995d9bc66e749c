"""HTTP/1.1 in the child (RFC 9112): requests in order, one response each, on our own transport.

Requests of one connection are answered in the order they came, so each waits in a queue until its
turn; those of different connections never wait for one another.
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
SMALL_WAIT = 0.05  # seconds; a body that takes longer is streamed
PIPELINE = 32  # requests waiting on one connection before reading pauses
LINGER = 1.0  # seconds for a client to stop sending and read the answer
IGNORED_BODY = 1 << 20  # bytes of an unread request body that a kept connection may still bring


class HTTPConnection:
    """A client's connection."""

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
        self._flush()  # the transport may be closed for it
        if self.reader.incoming is not None:
            self._diagnose("the client closed in the middle of a request")
            self.reader.incoming = None
            if not (self.queue and self.queue[0].received):
                return False
        if self.queue:  # it may have stopped sending only, so what it has sent is answered
            self.queue[-1].keep_alive = False
        return bool(self.queue) and self.lingering is None

    def pause_writing(self) -> None:
        self.flow.client_blocked(True)

    def resume_writing(self) -> None:
        self.flow.client_blocked(False)

    # From the reader ---------------------------------------------------------------------------

    def begun(self, exchange: Exchange) -> None:
        """The head of a request is complete, which can be answered."""
        # RFC 9110 10.1.1: a client of HTTP/1.0 would not understand the answer.
        exchange.expects &= exchange.http_version == "1.1" and exchange.length != 0
        self.queue.append(exchange)
        if exchange.length is not None and exchange.length > SMALL_BODY:
            exchange.streamed = self.service.handled
        if exchange.length != 0:  # else it is complete in a moment
            self._advance()

    def body(self, exchange: Exchange, data: bytes) -> None:
        """More of its body has come."""
        if exchange.responded:
            self._ignore(exchange, data)
        elif exchange.streamed and exchange.call:
            self.service.send(Data(call=exchange.call, data=data))
            self.flow.sent(len(data))
        else:
            self._store(exchange, data)

    def received(self, exchange: Exchange) -> None:
        """It is complete."""
        exchange.received = True
        if exchange.since is None:
            self._wait_no_more(exchange)
        if exchange.streamed and exchange.call:
            self.service.send(End(call=exchange.call))
        self._advance()

    def awaited(self, exchange: Exchange) -> None:
        """There is more of its body to come: that is waited for, but not for long."""
        if exchange.since is None and exchange.timer is None:
            exchange.timer = self.service.loop.call_later(SMALL_WAIT, self._stream, exchange)

    def _diagnose(self, text: str) -> None:
        self.service.diagnose(self.peer, text, self.number)

    def _drop_queue(self) -> None:
        for exchange in self.queue:
            self._wait_no_more(exchange)
        self.queue.clear()

    def _wait_no_more(self, exchange: Exchange) -> None:
        if exchange.timer is not None:
            exchange.timer.cancel()
            exchange.timer = None

    def _stream(self, exchange: Exchange) -> None:
        """Pass the request on without waiting for the rest of its body."""
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
                # It waits behind an earlier request, so hold the client back.
                self._pause(exchange.since is None)
        else:
            room = max(0, self.service.record_limit - len(exchange.body))
            exchange.body += body[:room]
            exchange.cut += max(0, len(body) - room)

    def _ignore(self, exchange: Exchange, body: bytes) -> None:
        """The answer is out; the rest of the body is of interest for the record alone."""
        exchange.cut += len(body)
        if exchange.cut > IGNORED_BODY:
            self._finish(exchange)
        elif exchange.call:
            self.service.send(Data(call=exchange.call, data=body))

    # The queue ---------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Bring the first request as far as it can go, then the next."""
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
                self._pass_on(exchange)
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

    def _pass_on(self, exchange: Exchange) -> None:
        service = self.service
        self._wait_no_more(exchange)
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
        """Don't read from the client as long as there is any reason not to."""
        before = bool(self.holds)
        (self.holds.add if wanted else self.holds.discard)(reason)
        if before != bool(self.holds):
            hold(self.transport, wanted)

    def timed_out(self, exchange: Exchange) -> None:
        """The handler's time for ``exchange`` has ended."""
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
        self.service.calls.lose(exchange.call, reset=False, answered=504)
        exchange.keep_alive = False
        self._respond(exchange, plain(504, "Gateway Timeout"))
        self._advance()

    # Responses ---------------------------------------------------------------------------------

    def command(self, exchange: Exchange, message: Message) -> None:
        """Carry out what the parent says of ``exchange``."""
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
        """Close after the response to ``exchange``, so that the client gets all of it."""
        if exchange.received:
            self.service.calls.close(exchange.call)
        else:  # whoever waits for its body waits in vain
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
        """Stop sending, and drop the connection once the client has stopped too.

        Closing while the client still sends would reset the connection, and the client could
        lose the response (RFC 9112 9.6).
        """
        self.flow.release()
        self._pause(False)
        self._flush()
        if self.service.draining:
            self.transport.close()
        elif self.lingering is None and not self.transport.is_closing():
            with contextlib.suppress(OSError):  # the client is gone already
                self.transport.write_eof()
            self.lingering = self.service.loop.call_later(LINGER, self.transport.abort)

    def _close(self, exchange: Exchange, message: Close) -> None:
        """The handler has given its response up, and the client must see that it is not whole."""
        self.service.calls.close(exchange.call)
        if message.reset or not (exchange.chunked or exchange.declared or exchange.bodiless):
            # Without chunks or a length a mere end would look like the end of the body.
            self._flush()
            reset(self.transport)
        else:
            self._finish(exchange)

    # Refusals ----------------------------------------------------------------------------------

    def malformed(self, exchange: Exchange | None, why: str) -> None:
        """What has come is not HTTP/1.1."""
        if self.queue and not self.queue[-1].keep_alive and self.queue[-1].received:
            # RFC 9112 9.6: nothing that comes after "close" is a request.
            self.reader.end()
            self._diagnose(f"the client sent more than its last request: {why}")
            return
        self.refuse(exchange or Exchange(self), 400, "Bad Request", why)

    def refuse(self, exchange: Exchange, status: int, reason: str, why: str = "") -> None:
        """Answer what cannot be a request, in its turn, and read no more."""
        self.reader.end()
        exchange.refusal = (status, reason)
        exchange.keep_alive = False
        self._diagnose(f"sent {status} {reason}{': ' if why else ''}{why}")
        if exchange.call:  # its handler is at work on a body that will never be whole
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
        """Nobody will answer any more: drop the connection if it waits for that."""
        if self._in_progress():
            self.transport.abort()

    def _in_progress(self) -> bool:
        """An exchange is, from when its handler is called until that has answered."""
        first = self.queue[0] if self.queue else None
        return first is not None and first.since is not None and not first.responded

    def abort(self) -> None:
        self.transport.abort()
