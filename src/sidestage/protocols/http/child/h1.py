"""HTTP/1.1 in the child (RFC 9112): one connection, its queue of exchanges, their framing.

A connection's requests are answered in the order they came, so each waits in a queue for its turn.
Connections do not wait for each other.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from ....child.net.listener import wire_address
from ....child.net.stream import Transport
from ....wire.messages import (
    Ack,
    AckSoon,
    Address,
    Close,
    Data,
    End,
    Gone,
    OpenConnection,
    Seen,
    SetOption,
    Verdict,
)
from ..messages import Inform, Respond, Trailers, credit_of
from ..rules import Refusal
from .answerers import plain
from .exchange import (
    ANSWERED_ALL,
    ASKED_ALL,
    PASSED,
    QUEUED,
    RESPOND,
    RESPOND_HEAD,
    TURN,
    WHOLE,
    Answerer,
    Event,
    Exchange,
)
from .faults import perform, tell_behind
from .framing import Ready, head_of, http_date, informational, mismatch, sent
from .h1_reader import RequestReader
from .repeats import Repeats

if TYPE_CHECKING:
    import asyncio

    from .service import HTTPService

SMALL_BODY = 1 << 16  # bytes; a larger body is passed on as it comes
SMALL_WAIT = 0.05  # seconds; so is a body that takes longer to come
PIPELINE = 32  # requests waiting on one connection before reading pauses
PIPELINE_BYTES = 1 << 17  # so does it when they have as many bytes, of heads and bodies
IGNORED_BODY = 1 << 20  # bytes of a request body read after its response, to keep the connection
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HTTPConnection:
    """A client's connection: the receiver of its bytes, and the framing of its exchanges."""

    transport: Transport

    def __init__(self, service: HTTPService) -> None:
        self.service = service
        self.peer: Address = ""
        self.tls: Seen | None = None
        self.number = service.next_connection()
        self.queue: deque[Exchange] = deque()
        self.repeats = Repeats()
        self.reader = RequestReader(self, service.settings.head_limit)
        self.data_received = self.reader.feed
        self.holds: set[str] = set()  # reasons not to read
        self.blocked = False  # the transport's buffer is full
        self.reads_on = False  # in a stop, though the handler does not take what came
        self.stalled: tuple[str, float] | None = None  # which request gets no more, since when

    # From the transport ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Transport)
        self.transport = transport
        self.peer = wire_address(transport.get_extra_info("peername"))
        self.tls = transport.get_extra_info("tls")
        self.service.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self.reader.incoming is not None:
            self._diagnose("the client reset the connection in the middle of a request")
        self.reader.end()
        self.service.calls.forget(self._advance)
        for exchange in self.queue:
            exchange.on(Event.ABANDON)
            self._lose(exchange, reset=exc is not None)
        self._drop_queue()
        self.service.left(self)

    def eof_received(self) -> bool:
        queue = self.queue
        if queue and queue[0].tunnel:
            if queue[0].answerer is not None:
                queue[0].answerer.complete(queue[0])
            return True  # half-open: the handler may still write
        if (incoming := self.reader.incoming) is not None:
            self._diagnose("the client closed in the middle of a request")
            self.reader.end()
            if not (queue and queue[0].received):
                return False
            if incoming in queue:  # behind others, which are answered
                self._leave_queue(incoming)
                queue.remove(incoming)
        if queue:  # the client may still read: answer what it has sent
            queue[-1].keep_alive = False
            queue[-1].half_closed = True
            self.service.half_closed(self)
            for exchange in queue:
                if exchange.met is not None and exchange.met.held:
                    self.service.send(Gone(call=exchange.call))
        return bool(queue)

    def pause_writing(self) -> None:
        self._set_blocked(True)

    def resume_writing(self) -> None:
        self._set_blocked(False)

    def _set_blocked(self, blocked: bool) -> None:
        self.blocked = blocked
        if self.queue and (flow := self.queue[0].flow) is not None:
            flow.client_blocked(blocked)
        if self.queue and (faulty := self.queue[0].faulty) is not None and not blocked:
            faulty.go_on()
        if not (blocked or self.transport.is_closing()):
            self._advance()

    # From the reader ---------------------------------------------------------------------------

    def whole(self, exchange: Exchange) -> None:
        exchange.on(WHOLE)
        self.queue.append(exchange)
        self._advance()

    def begun(self, exchange: Exchange) -> None:
        exchange.on(Event.BEGUN)
        self.queue.append(exchange)
        head = exchange.head
        assert head is not None
        exchange.early = head.expects or (head.length or 0) > SMALL_BODY
        self._advance()

    def body(self, exchange: Exchange, data: bytes | memoryview) -> None:
        if exchange.tunnel:
            if exchange.answerer is not None:
                exchange.answerer.piece(exchange, data)
            return
        exchange.on(Event.PIECE)
        if exchange.ended:
            self._ignore(exchange, data)
        elif exchange.answerer is not None:
            exchange.answerer.piece(exchange, data)
        else:
            self._store(exchange, data)

    def complete(self, exchange: Exchange) -> None:
        exchange.on(Event.COMPLETE)
        if exchange.timer is not None:
            exchange.timer.cancel()
            exchange.timer = None
        if exchange.answerer is not None:
            exchange.answerer.complete(exchange)
        self._advance()

    def awaited(self, exchange: Exchange) -> None:
        # Wait a moment for the rest of a small body, so that one message can carry all of it.
        if exchange.since is None and exchange.timer is None:
            exchange.timer = self.service.loop.call_later(SMALL_WAIT, self._hurry, exchange)

    def local(self) -> Address:
        return wire_address(self.transport.get_extra_info("sockname"))

    def hold(self, wanted: bool) -> None:
        self._hold("flow", wanted)

    def _diagnose(self, text: str) -> None:
        self.service.diagnose(self.peer, text, self.number)

    def _drop_queue(self) -> None:
        for exchange in self.queue:
            self._leave_queue(exchange)
            if exchange.refusal is not None:
                self._diagnose(f"too late to send {exchange.refusal}")
        self.queue.clear()

    def _leave_queue(self, exchange: Exchange) -> None:
        """Give back what ``exchange`` holds."""
        self._cancel_timer(exchange)
        if exchange.stored:
            self.service.unrecorded.give(exchange.stored)
            exchange.stored = 0
        if exchange.flow is not None:
            exchange.flow.release()
        if exchange.faulty is not None:
            exchange.faulty.cancel()

    def _cancel_timer(self, exchange: Exchange) -> None:
        if exchange.timer is not None:
            exchange.timer.cancel()
            exchange.timer = None
        if exchange.patience is not None:
            exchange.patience.cancel()
            exchange.patience = None
        if exchange.gate is not None:
            exchange.gate.cancel()

    def _hurry(self, exchange: Exchange) -> None:
        """Do not wait for the rest of the body."""
        exchange.early = True
        self._advance()

    def _store(self, exchange: Exchange, data: bytes | memoryview) -> None:
        if not exchange.body:
            exchange.body = bytearray()
        if exchange.awaits:
            self._store_all(exchange, data)
        elif self.service.handled and not (exchange.cut or exchange.large):
            exchange.body += data
            if len(exchange.body) > SMALL_BODY:
                if not exchange.early:
                    self._hurry(exchange)
                # Behind an earlier request its body is buffered here: stop reading.
                self._hold("queue", exchange.since is None and not exchange.awaits)
        else:
            free = max(0, min(len(data), self.service.record_limit - len(exchange.body)))
            # What is kept is the beginning.
            free = 0 if exchange.cut else self.service.unrecorded.take(free)
            exchange.stored += free
            exchange.body += data[:free]
            exchange.cut += len(data) - free

    def _store_all(self, exchange: Exchange, data: bytes | memoryview) -> None:
        """Store a piece that expectations wait for; if it is too much, they do without the body."""
        limit, taken = self.service.record_limit, self.service.unrecorded.take(len(data))
        exchange.stored += taken
        exchange.body += data
        if taken == len(data) and len(exchange.body) <= limit:
            return
        exchange.awaits, exchange.large, exchange.early = False, True, True
        self._advance()
        if exchange.since is None:  # it is no handler's: only the record needs it
            exchange.cut = max(0, len(exchange.body) - limit)
            exchange.body = exchange.body[:limit]

    def _ignore(self, exchange: Exchange, data: bytes | memoryview) -> None:
        """Take a piece of the body that comes after the response, which only the record needs."""
        exchange.cut += len(data)
        if exchange.cut > IGNORED_BODY:
            self._finish(exchange)
        elif exchange.answerer is not None:
            exchange.answerer.piece(exchange, data)

    # The queue ---------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Move the first exchange as far as possible, then the next."""
        while self.queue:
            exchange = self.queue[0]
            if exchange.answered is QUEUED:
                ready = not self.blocked and exchange.refusal is None
                if not (ready and self._take_turn(exchange)):
                    self._put_off(exchange)
                    return
            if exchange.answered < ANSWERED_ALL or exchange.tunnel:
                break
            if not exchange.keep_alive or self.service.draining:
                self._finish(exchange)
                return
            if exchange.asked is not ASKED_ALL:
                break
            self.queue.popleft()
            self.service.calls.close(exchange.call)
            if exchange.flow is not None:
                exchange.flow.release()
            if self.reader.connects and not self.queue:  # it was the CONNECT, the last that came
                self.reader.go_on()
        if self.holds or len(self.queue) > 1:
            self._hold_if_long()

    def _put_off(self, exchange: Exchange) -> None:
        """Refuse the first exchange, or have it wait."""
        if exchange.refusal is None or self.blocked:  # the client does not read what there is
            self._hold_if_long()
        else:
            self._answer_refusal(exchange, exchange.refusal)

    def _hold_if_long(self) -> None:
        """Stop reading while the queue is long."""
        queue = self.queue
        long = len(queue) > 1 and sum(map(_size, queue)) > PIPELINE_BYTES
        self._hold("queue", long or len(queue) > PIPELINE)

    def _take_turn(self, exchange: Exchange) -> bool:
        """Give the first exchange to an answerer, if enough of it has come."""
        service = self.service
        answerer: Answerer = service.recorder
        if service.router is not None:
            answerer = service.router.answerer(exchange)
        elif service.handled and not exchange.cut:  # a handler gets the whole body or none of it
            answerer = service.handler
        if exchange.asked is not ASKED_ALL and not (exchange.early and answerer.early):
            head = exchange.head
            if head is not None and head.expects and not exchange.body:
                self._continue(exchange)
            return False
        if service.calls.full and answerer.calls:
            self._wait_for_room(exchange)
            return False
        if exchange.timer is not None or exchange.patience is not None:
            self._cancel_timer(exchange)
        exchange.on(TURN)
        exchange.since = service.loop.time()
        exchange.answerer = answerer
        answerer.take(exchange)
        if exchange.stored:
            service.unrecorded.give(exchange.stored)
            exchange.stored = 0
        if self.blocked and exchange.flow is not None:
            exchange.flow.client_blocked(True)
        # A fault may have ended the connection, or a response that was slow and is none.
        return bool(self.queue) and self.queue[0] is exchange

    def _wait_for_room(self, exchange: Exchange) -> None:
        """Take ``exchange`` once some handlers have returned, or refuse it after their time."""
        service, seconds = self.service, self.service.handler_timeout
        service.calls.wait(self._advance)
        if exchange.patience is None and seconds is not None:
            refusal = Refusal(504, "Gateway Timeout", f"no handler was free within {seconds} s")
            exchange.patience = service.loop.call_later(
                seconds, self._refuse_waiting, exchange, refusal
            )

    def _refuse_waiting(self, exchange: Exchange, refusal: Refusal) -> None:
        self.reader.end()
        exchange.refusal, exchange.keep_alive = refusal, False
        self._advance()

    def _continue(self, exchange: Exchange) -> None:
        """Have a client that waits for it send the body (RFC 9110 10.1.1)."""
        if not exchange.continued:
            exchange.continued = True
            self.transport.write(_CONTINUE)

    def want_body(self, exchange: Exchange) -> None:
        if self._is_awaiting(exchange):
            self._continue(exchange)
        self._release(exchange)

    def _is_awaiting(self, exchange: Exchange) -> bool:
        """Whether the client was not told to send the body, and may never do so."""
        head = exchange.head
        return head is not None and head.expects and not (exchange.continued or exchange.received)

    def _hold(self, reason: str, wanted: bool) -> None:
        """Add or remove a reason not to read; read only while there is none."""
        before = bool(self.holds)
        (self.holds.add if wanted else self.holds.discard)(reason)
        if before != bool(self.holds):
            self.reader.paused = wanted
            if wanted:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()
                if self.reader.unread and not self.reader.connects:
                    self.reader.go_on()

    def timed_out(self, exchange: Exchange) -> None:
        if exchange.answered is not PASSED or (exchange.gate and exchange.gate.answer_begun):
            return
        seconds = self.service.handler_timeout
        text = f"the handler gave no answer to {exchange.line()} within {seconds} s: sent 504"
        self._diagnose(text)
        response = plain(504, "Gateway Timeout")
        self._lose(exchange, reset=False, answered=(response.status, len(response.body)))
        exchange.keep_alive = False
        self.respond(exchange, response)
        self._advance()

    def _lose(
        self, exchange: Exchange, *, reset: bool, answered: tuple[int, int] | None = None
    ) -> None:
        gate, exchange.gate = exchange.gate, None
        if gate is not None:
            gate.cancel()
        if gate is not None and gate.answer_complete:
            self._diagnose(f"the connection ended before the delayed answer to {exchange.line()}")
            self.service.calls.close(exchange.call)
        elif exchange.answerer is not None:
            exchange.answerer.lose(exchange, reset=reset, answered=answered)

    # Responses ---------------------------------------------------------------------------------

    def respond(self, exchange: Exchange, response: Respond, made: Ready | None = None) -> None:
        if response.fault is not None:
            perform(self, exchange, response)
            return
        if not exchange.on(RESPOND_HEAD if response.more else RESPOND):
            return
        exchange.due = None
        if self.service.draining:
            exchange.keep_alive = False
        if exchange.asked is not ASKED_ALL:
            self._answer_early(exchange, response)
        if made is not None and exchange.keep_alive and not exchange.is_old:
            self.transport.write(made.before + http_date() + made.after)
        else:
            self.transport.write(self._encoded(exchange, response))
        if response.more:
            self._begin_stream(exchange, response)
        elif exchange.flow is not None:
            self._release(exchange)

    def _encoded(self, exchange: Exchange, response: Respond) -> bytes:
        """The head of a response, and the first piece of its body."""
        body = response.body
        head = head_of(exchange, response)
        if exchange.mismatch:
            self._tell_mismatch(exchange)
        if exchange.bodiless:
            return head
        if exchange.chunked and body:
            body = b"%x\r\n%b\r\n" % (len(body), body)
        return head + body

    def _begin_stream(self, exchange: Exchange, response: Respond) -> None:
        """The first piece of a body was written; others follow."""
        sent(exchange, response.body)
        self._wrote(exchange, len(response.body))
        if exchange.tunnel:
            self._begin_tunnel(exchange)

    def _answer_early(self, exchange: Exchange, response: Respond) -> None:
        """Answer before the whole body has come: a client may wait to be told to send it."""
        if not self._is_awaiting(exchange):
            return
        if response.more:  # its handler may still want the body, and it is too late then
            self._continue(exchange)
        else:
            exchange.keep_alive = False

    def _release(self, exchange: Exchange) -> None:
        """Read from the client again, whatever the handler reads."""
        if exchange.flow is not None:
            exchange.flow.release()
            self.service.iteration.progress.set()

    def _begin_tunnel(self, exchange: Exchange) -> None:
        self.reader.begin_tunnel(exchange)
        if exchange.half_closed and exchange.answerer is not None:
            self.service.half_closed(self, on=False)  # it has said all, and reads on, as over TCP
            exchange.answerer.complete(exchange)

    def _command_respond(self, exchange: Exchange, response: Respond) -> None:
        self.respond(exchange, response)
        self._advance()

    def _inform(self, exchange: Exchange, message: Inform) -> None:
        self._wrote(exchange, credit_of(message))
        if not exchange.on(Event.INFORM):
            return
        if message.status == 100:
            if not exchange.received and not exchange.body:
                self._continue(exchange)
        elif exchange.head is not None and exchange.head.http_version != "1.0":
            # RFC 9110 15.2: HTTP/1.0 has no informational responses.
            self.transport.write(informational(message.status, message.reason, message.headers))

    def _write_body(self, exchange: Exchange, message: Data) -> None:
        if exchange.faulty is not None:
            exchange.faulty.write(message.data)
            return
        if not exchange.on(Event.DATA):
            return
        data = message.data
        sent(exchange, data)
        if data and not self.transport.is_closing() and not exchange.bodiless:
            if exchange.chunked:
                self.transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))
            else:
                self.transport.write(data)
        self._wrote(exchange, len(data))

    def _wrote(self, exchange: Exchange, size: int) -> None:
        flow = exchange.flow or self.service.new_flow(exchange, blocked=self.blocked)
        flow.wrote(size)

    def _end(self, exchange: Exchange, message: End) -> None:
        if exchange.faulty is not None:
            exchange.faulty.end()
        else:
            self.complete_response(exchange)

    def complete_response(self, exchange: Exchange) -> None:
        """The whole body of a response has been written."""
        if not exchange.on(Event.END):
            return
        if exchange.tunnel:
            with contextlib.suppress(OSError):  # the client has left: reading reports it
                self.transport.write_eof()
            return
        if exchange.chunked and not self.transport.is_closing():
            self.transport.write(b"0\r\n%b\r\n" % exchange.trailers_out)
        if not exchange.mismatch and (text := mismatch(exchange)):
            exchange.mismatch, exchange.keep_alive = text, False
            self._tell_mismatch(exchange)
        self._release(exchange)
        self._advance()

    def _tell_mismatch(self, exchange: Exchange) -> None:
        self._diagnose(
            f"the response to {exchange.line()} says {exchange.mismatch}: "
            "the connection closes after it"
        )

    def _finish(self, exchange: Exchange) -> None:
        """Close the connection after the response to ``exchange`` has been delivered."""
        self.end_call(exchange)
        alone = exchange.received and self.reader.incoming is None and len(self.queue) == 1
        alone = alone and not self.reader.unread
        self.reader.end()
        self._drop_queue()
        transport = self.transport
        if alone and not (transport.get_write_buffer_size() or transport.has_unread()):
            transport.close()
        else:
            self._linger(exchange)

    def end_call(self, exchange: Exchange) -> None:
        """The connection ends, so nothing more is wanted of the answerer of ``exchange``."""
        if exchange.received:
            self.service.calls.close(exchange.call)
        else:  # its handler must not wait for the rest of the body
            self._lose(exchange, reset=False)

    def reset_when_sent(self, exchange: Exchange) -> None:
        """Reset the connection once the client has what was written."""
        self.end_call(exchange)
        self.reader.end()
        self._drop_queue()
        self.transport.reset_when_sent()

    def stall(self, exchange: Exchange) -> None:
        """Send nothing more, until the client leaves or the server stops."""
        self.end_call(exchange)
        self.reader.end()
        self._drop_queue()
        self.stalled = exchange.line(), self.service.loop.time()
        if self.service.draining or exchange.half_closed:
            self.transport.close()
        else:  # read, so that its end is seen
            self._release(exchange)
            self._hold("queue", False)

    def _linger(self, exchange: Exchange) -> None:
        self._release(exchange)
        self._hold("queue", False)
        if self.service.draining:
            self.transport.close()
        else:
            self.transport.close_lingering()

    def _close(self, exchange: Exchange, message: Close) -> None:
        """Close in the middle of a response, so that the client sees that it is incomplete."""
        tunnel = exchange.tunnel
        exchange.on(Event.ABANDON)
        if message.returned:
            self.service.calls.close(exchange.call)
        else:
            self.service.calls.leave(exchange.call)
        if message.breaks:
            self.transport.get_extra_info("records").break_off(
                in_record=message.breaks == "in_record"
            )
        asked = not message.returned  # the handler did, and has not failed
        if asked and not tunnel:
            tell_behind(self, exchange)
        if message.reset and (message.breaks or (asked and not tunnel)):
            self.reset_when_sent(exchange)
        elif message.reset or not (
            asked
            or tunnel
            or exchange.chunked
            or exchange.own_chunks
            or exchange.declared
            or exchange.bodiless
        ):
            # Without chunks or a length, a plain close would look like the end of the body; only
            # a handler that closes wants that.
            self.transport.reset()
        else:
            self._finish(exchange)

    def _acknowledge(self, exchange: Exchange, message: Ack) -> None:
        if exchange.flow is not None:
            exchange.flow.acknowledged(message.size)
            self.service.iteration.progress.set()

    def _acknowledge_soon(self, exchange: Exchange, message: AckSoon) -> None:
        if exchange.flow is not None:
            exchange.flow.hurry()

    def _end_with(self, exchange: Exchange, message: Trailers) -> None:
        if exchange.chunked and not exchange.ended:
            exchange.trailers_out = message.fields

    COMMANDS: ClassVar[dict[type, Callable[[Any, Exchange, Any], None]]] = {
        Respond: _command_respond,
        Data: _write_body,
        End: _end,
        Ack: _acknowledge,
        AckSoon: _acknowledge_soon,
        Inform: _inform,
        Trailers: _end_with,
        Close: _close,
        Verdict: lambda self, exchange, message: None,  # too late: its question was settled
        SetOption: lambda self, exchange, message: self.service.set_option(
            self.transport, message, self.peer, self.number
        ),
    }

    # Refusals ----------------------------------------------------------------------------------

    def refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        last = self.queue[-1] if self.queue else None
        self.reader.end()
        if last is not None and not last.keep_alive and last.received:
            # RFC 9112 9.6: ignore everything after a request with "Connection: close".
            self._diagnose(f"the client sent more than its last request: {refusal.why}")
            return
        exchange.refusal = refusal
        exchange.keep_alive = False
        if exchange.answered is not QUEUED:
            self._refuse_late(exchange, refusal)
            return
        if exchange not in self.queue:
            self.queue.append(exchange)
        self._advance()

    def _refuse_late(self, exchange: Exchange, refusal: Refusal) -> None:
        """Refuse a request whose handler runs already: its body is wrong."""
        self._lose(exchange, reset=False)  # it must not wait for the rest of the body
        if exchange.answered is PASSED:
            self._answer_refusal(exchange, refusal)
        else:
            exchange.on(Event.REFUSE)
            self._drop_queue()
            self._linger(exchange)

    def _answer_refusal(self, exchange: Exchange, refusal: Refusal) -> None:
        exchange.on(Event.REFUSE)
        exchange.refusal = None
        self._diagnose(f"sent {refusal}")
        response = plain(refusal.status, refusal.reason)
        self.transport.write(head_of(exchange, response) + response.body)
        self._drop_queue()
        self._linger(exchange)

    # For the drain -----------------------------------------------------------------------------

    def call_ids(self) -> Iterable[int]:
        return [exchange.call for exchange in self.queue]

    def describe(self) -> OpenConnection:
        call, state = 0, self.reader.stage()
        if self.stalled is not None:
            line, since = self.stalled
            state = f"{line}: stalled on purpose for {self.service.loop.time() - since:.1f} s"
        if self.queue:
            exchange = self.queue[0]
            if exchange.gate is None or exchange.gate.told:
                call = exchange.call
            state = f"{exchange.line()}: {self._stage(exchange)}"
        return OpenConnection(self.peer, state, call, self.number)

    def _stage(self, exchange: Exchange) -> str:
        if exchange.since is None:
            if exchange.received:
                return "waits for a handler" if self.service.calls.full else "waits to be answered"
            size = len(exchange.body) + exchange.cut
            length = exchange.head.length if exchange.head is not None else None
            of = "" if length is None else f" of {length:,}"
            return f"has sent {size:,}{of} bytes of the body, waiting for the rest"
        if exchange.ended and not exchange.tunnel:
            return "closing"
        stage = "handler running" if exchange.gate is None else exchange.gate.stage
        if exchange.faulty is not None:
            stage = exchange.faulty.stage()
        elif exchange.answered is not PASSED:
            stage = "tunnel open" if exchange.tunnel else "response not complete"
        return f"{stage} for {self.service.loop.time() - exchange.since:.1f} s"

    def delayed(self) -> None:
        if self.service.draining:
            self.close_if_idle()

    def close_if_idle(self) -> None:
        gate = self.queue[0].gate if self.queue else None
        if gate is not None and gate.answer_begun:
            self.transport.close()
        elif not self._in_progress():
            if self.queue and self.queue[0].received and not self.queue[0].ended:
                self._diagnose(f"the server stopped before the turn of {self.queue[0].line()}")
            (self.transport.abort if self.stalled else self.transport.close)()
        elif self.queue[0].faulty is not None:  # nobody needs the rest of what goes wrong
            self.transport.abort()

    def abandon(self) -> None:
        """Abort the connection if it waits for a response: the handler will send none."""
        if self._in_progress():
            self.transport.abort()

    def _in_progress(self) -> bool:
        """Whether an answerer has a request and has not completed its response."""
        first = self.queue[0] if self.queue else None
        if first is None or first.since is None:
            return False
        return first.tunnel or not first.ended

    def is_behind(self) -> bool:
        """Whether the client has sent more that cannot be read before the handler reads."""
        first = self.queue[0] if self.queue else None
        if first is None or first.flow is None:
            return False
        if self.reads_on and not first.received:  # it has still more to send
            return not self.transport.is_closing()
        return first.flow.paused and self.transport.has_unread()

    def read_on(self) -> None:
        """Read more than the handler takes, up to the next limit."""
        if self.queue and (flow := self.queue[0].flow) is not None:
            self.reads_on = True
            flow.release()

    def abort(self) -> None:
        self.transport.abort()

    give_up = abort


def _size(exchange: Exchange) -> int:
    """The bytes of a request that waits."""
    head = exchange.head
    return len(exchange.body) + (0 if head is None else len(head.fields) + len(head.target))
