"""HTTP/1.1 in the child (RFC 9112): requests in order, one response each, on our own transport.

httptools parses. Requests of one connection are answered in the order they came, so each waits
in a queue until its turn; those of different connections never wait for one another.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable

import httptools

from ..wire.messages import (
    Ack,
    Close,
    Data,
    End,
    OpenConnection,
    Request,
    Respond,
)
from .listen import wire_address
from .service import Backpressure, CallCommand, Service, reset

SMALL_BODY = 1 << 16  # bytes; a larger body is streamed
SMALL_WAIT = 0.05  # seconds; a body that takes longer is streamed
PIPELINE = 32  # requests waiting on one connection before reading pauses
LINGER = 1.0  # seconds for a client to stop sending and read the answer
IGNORED_BODY = 1 << 20  # bytes of an unread request body that a kept connection may still bring

_NO_BODY = frozenset({204, 304})
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class HTTPService(Service):
    """Listeners whose connections speak HTTP/1.1."""

    def protocol(self) -> asyncio.BaseProtocol:
        return HTTPConnection(self)


class Exchange:
    """One request on its way in and its response on its way out."""

    __slots__ = (
        "body",
        "call",
        "chunked",
        "cut",
        "expects",
        "head_sent",
        "headers",
        "http_version",
        "keep_alive",
        "length",
        "method",
        "received",
        "refusal",
        "responded",
        "since",
        "streamed",
        "target",
        "timer",
    )

    def __init__(self) -> None:
        self.method = ""
        self.target = b""
        self.http_version = "1.1"
        self.headers: list[tuple[str, str]] = []
        self.length: int | None = 0  # of the body; None is chunked
        self.expects = False
        self.body = bytearray()
        self.cut = 0
        self.received = False  # the whole request is here
        self.streamed = False  # its body goes to the parent as it comes
        self.call = 0
        self.since: float | None = None  # when it was passed on
        self.timer: asyncio.TimerHandle | None = None
        self.keep_alive = True
        self.head_sent = False
        self.chunked = False
        self.responded = False
        self.refusal: tuple[int, str] | None = None

    def line(self) -> str:
        """The request as a person would name it."""
        return f"{self.method} {self.target.decode('latin-1')}".strip() or "request"


class HTTPConnection(asyncio.Protocol):
    """A client's connection."""

    transport: asyncio.Transport

    def __init__(self, service: HTTPService) -> None:
        self.service = service
        self.peer: object = ""
        self.flow = Backpressure(service.outbox)
        self.queue: deque[Exchange] = deque()
        self.incoming: Exchange | None = None
        self.in_head = True
        self.head_size = 0  # of the head's parts, as parsed
        self.head_fed = 0  # of all that came while it was not complete
        self.refused = False  # nothing more is parsed on this connection
        self.paused = False
        self.lingering: asyncio.TimerHandle | None = None
        self.parser = httptools.HttpRequestParser(self)

    # From the transport ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.peer = wire_address(transport.get_extra_info("peername"))
        self.flow.connect(transport)
        self.service.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.lingering is not None:
            self.lingering.cancel()
        for exchange in self.queue:
            self._disarm(exchange)
            self.service.lose_call(exchange.call, reset=exc is not None)
        self.queue.clear()
        self.service.left(self)

    def data_received(self, data: bytes) -> None:
        if self.refused:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # We speak HTTP/1.1 only, and RFC 9110 7.8 lets a server ignore the offer.
            self.parser = httptools.HttpRequestParser(self)
            if rest := data[upgrade.args[0] :]:
                self.data_received(rest)
            return
        except httptools.HttpParserError as error:
            self._malformed(error)
            return
        exchange = self.incoming
        if exchange is None:
            return
        if self.in_head:
            self.head_fed += len(data)
            if self.head_fed > self.service.config.head_limit:
                self._refuse(431, "Request Header Fields Too Large")
        elif exchange.since is None and exchange.timer is None:
            exchange.timer = self.service.loop.call_later(SMALL_WAIT, self._stream, exchange)

    def eof_received(self) -> bool:
        if self.incoming is not None and not self.refused:
            self.service.diagnose(self.peer, "the client closed in the middle of a request")
            self.incoming = None
            if not (self.queue and self.queue[0].received):
                return False
        for exchange in self.queue:
            exchange.keep_alive = False
        return bool(self.queue) and self.lingering is None

    def pause_writing(self) -> None:
        self.flow.client_blocked(True)

    def resume_writing(self) -> None:
        self.flow.client_blocked(False)

    # From the parser ---------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.incoming = Exchange()
        self.in_head = True
        self.head_size = self.head_fed = 0

    def on_url(self, url: bytes) -> None:
        assert self.incoming is not None
        self.incoming.target += url

    def on_header(self, name: bytes, value: bytes | None) -> None:
        exchange = self.incoming
        assert exchange is not None
        value = value or b""
        self.head_size += len(name) + len(value) + 4
        text = value.decode("latin-1")
        exchange.headers.append((name.decode("latin-1"), text))
        match name.lower():
            case b"content-length":
                exchange.length = int(text) if text.isdigit() else 0
            case b"transfer-encoding":
                exchange.length = None
            case b"expect":
                exchange.expects = text.lower() == "100-continue"

    def on_headers_complete(self) -> None:
        exchange = self.incoming
        assert exchange is not None
        self.in_head = False
        if self.refused:
            return
        if self.head_size + len(exchange.target) > self.service.config.head_limit:
            self._refuse(431, "Request Header Fields Too Large")
            return
        exchange.method = self.parser.get_method().decode("latin-1")
        exchange.http_version = self.parser.get_http_version()
        exchange.keep_alive = self.parser.should_keep_alive() and exchange.method != "CONNECT"
        self.queue.append(exchange)
        if exchange.length is not None and exchange.length > SMALL_BODY:
            exchange.streamed = self.service.handled
        self._advance()

    def on_body(self, body: bytes) -> None:
        exchange = self.incoming
        if exchange is None or self.refused:
            return
        if exchange.responded:
            self._ignore(exchange, len(body))
        elif exchange.streamed and exchange.call:
            self.service.outbox.send(Data(call=exchange.call, data=body))
            self.flow.sent(len(body))
        else:
            self._store(exchange, body)

    def on_message_complete(self) -> None:
        exchange, self.incoming = self.incoming, None
        self.in_head = True
        if exchange is None or self.refused:
            return
        exchange.received = True
        if exchange.since is None:
            self._disarm(exchange)
        if exchange.streamed and exchange.call and not exchange.responded:
            self.service.outbox.send(End(call=exchange.call))
        self._advance()

    def _stream(self, exchange: Exchange) -> None:
        """Pass the request on without waiting for the rest of its body."""
        exchange.streamed = self.service.handled
        self._advance()

    def _store(self, exchange: Exchange, body: bytes) -> None:
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

    def _ignore(self, exchange: Exchange, size: int) -> None:
        exchange.cut += size
        if exchange.cut > IGNORED_BODY:
            self.refused = True
            self._linger()

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
                    self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
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
            self.service.close_call(exchange.call)
        self._pause(len(self.queue) > PIPELINE)

    def _pass_on(self, exchange: Exchange) -> None:
        service = self.service
        self._disarm(exchange)
        exchange.since = service.loop.time()
        if not service.handled and not exchange.streamed:
            service.outbox.record(self._request(exchange))
            self._respond(exchange, _PLAIN_SUCCESS)
            return
        exchange.call = service.open_call(_Call(self, exchange))
        self.flow.start(exchange.call)
        service.outbox.send(self._request(exchange))
        if exchange.streamed:
            self.flow.sent(len(exchange.body))
            if exchange.received:
                service.outbox.send(End(call=exchange.call))
            exchange.body = bytearray()
        self._arm(exchange)

    def _request(self, exchange: Exchange) -> Request:
        return Request(
            call=exchange.call,
            peer=wire_address(self.peer),
            method=exchange.method,
            target=exchange.target.decode("latin-1"),
            http_version=exchange.http_version,
            headers=exchange.headers,
            body=bytes(exchange.body),
            more=exchange.streamed,
            cut=exchange.cut,
        )

    def _pause(self, wanted: bool) -> None:
        if wanted != self.paused and not self.transport.is_closing():
            self.paused = wanted
            if wanted:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def _arm(self, exchange: Exchange) -> None:
        seconds = self.service.config.handler_timeout
        if seconds is not None:
            exchange.timer = self.service.loop.call_later(seconds, self._timed_out, exchange)

    @staticmethod
    def _disarm(exchange: Exchange) -> None:
        if exchange.timer is not None:
            exchange.timer.cancel()
            exchange.timer = None

    def _timed_out(self, exchange: Exchange) -> None:
        if exchange.head_sent:
            return
        seconds = self.service.config.handler_timeout
        text = f"the handler gave no answer to {exchange.line()} within {seconds} s: sent 504"
        self.service.diagnose(self.peer, text)
        self.service.lose_call(exchange.call, reset=False)
        exchange.keep_alive = False
        self._respond(exchange, _plain(504, "Gateway Timeout"))
        self._advance()

    # Responses ---------------------------------------------------------------------------------

    def command(self, exchange: Exchange, message: CallCommand) -> None:
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
        self._disarm(exchange)
        if exchange.head_sent or self.transport.is_closing():
            return
        exchange.head_sent = True
        if self.service.draining:
            exchange.keep_alive = False
        body = response.body
        head = self._head(exchange, response)
        if exchange.method == "HEAD" or response.status in _NO_BODY:
            body = b""
        elif exchange.chunked and body:
            body = b"%x\r\n%b\r\n" % (len(body), body)
        self.transport.write(head + body)
        if not response.more:
            exchange.responded = True
            self.flow.release()

    def _head(self, exchange: Exchange, response: Respond) -> bytes:
        lines = [f"HTTP/1.1 {response.status} {response.reason}"]
        given = set()
        for name, value in response.headers:
            lines.append(f"{name}: {value}")
            lowered = name.lower()
            given.add(lowered)
            if lowered == "connection" and "close" in value.lower():
                exchange.keep_alive = False
            if lowered == "content-length" and response.length is not None:
                # The handler may lie about the length; then the connection can't be kept.
                exchange.keep_alive &= value.strip() == str(response.length)
        if "date" not in given:
            lines.append(f"Date: {_http_date()}")
        lines += self._framing(exchange, response, given)
        if "connection" not in given:
            if not exchange.keep_alive:
                lines.append("Connection: close")
            elif exchange.http_version == "1.0":
                lines.append("Connection: keep-alive")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    @staticmethod
    def _framing(exchange: Exchange, response: Respond, given: set[str]) -> Iterable[str]:
        if "content-length" in given or "transfer-encoding" in given or response.status == 204:
            return ()
        if response.length is not None:
            if response.status == 304 and not response.length:
                return ()
            return (f"Content-Length: {response.length}",)
        if exchange.http_version == "1.0":
            exchange.keep_alive = False  # the end of the connection is the end of the body
            return ()
        exchange.chunked = exchange.method != "HEAD" and response.status not in _NO_BODY
        return ("Transfer-Encoding: chunked",)

    def _write_body(self, exchange: Exchange, data: bytes) -> None:
        if not self.transport.is_closing() and exchange.method != "HEAD":
            if exchange.chunked:
                self.transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))
            else:
                self.transport.write(data)
        self.flow.wrote(len(data))

    def _end(self, exchange: Exchange) -> None:
        if exchange.chunked and not exchange.responded and not self.transport.is_closing():
            self.transport.write(b"0\r\n\r\n")
        exchange.responded = True
        self.flow.release()

    def _finish(self, exchange: Exchange) -> None:
        """Close after the response to ``exchange``, so that the client gets all of it."""
        self.service.close_call(exchange.call)
        self.queue.clear()
        self.refused = True
        if exchange.received and self.incoming is None:
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
        if self.lingering is None and not self.transport.is_closing():
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self.lingering = self.service.loop.call_later(LINGER, self.transport.abort)

    def _close(self, exchange: Exchange, message: Close) -> None:
        self.service.close_call(exchange.call)
        if message.reset:
            reset(self.transport)
        else:
            self.transport.abort()

    # Refusals ----------------------------------------------------------------------------------

    def _malformed(self, error: Exception) -> None:
        cause = error.__context__ or error.__cause__ or error
        if isinstance(cause, AssertionError):
            raise error
        self._refuse(400, "Bad Request", str(error))

    def _refuse(self, status: int, reason: str, why: str = "") -> None:
        """Answer what cannot be a request, in its turn, and read no more."""
        exchange = self.incoming or Exchange()
        self.refused = True
        exchange.refusal = (status, reason)
        exchange.keep_alive = False
        self.service.diagnose(self.peer, f"sent {status} {reason}{': ' if why else ''}{why}")
        if exchange.call:  # its handler is at work on a body that will never be whole
            self.service.lose_call(exchange.call, reset=False)
        if exchange not in self.queue:
            self.queue.append(exchange)
        self._advance()

    def _answer_refusal(self, exchange: Exchange) -> None:
        assert exchange.refusal is not None
        self._respond(exchange, _plain(*exchange.refusal))
        self.queue.clear()
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
        return OpenConnection(client_address=wire_address(self.peer), state=state, call=call)

    def _stage(self, exchange: Exchange) -> str:
        if exchange.since is None:
            return "request not complete"
        if exchange.responded:
            return "closing"
        stage = "response not complete" if exchange.head_sent else "handler running"
        return f"{stage} for {self.service.loop.time() - exchange.since:.1f} s"

    def close_if_idle(self) -> None:
        if not self.queue:
            self.transport.close()

    def abort(self) -> None:
        self.transport.abort()


class _Call:
    """Ties a call's commands to its exchange."""

    __slots__ = ("_connection", "_exchange")

    def __init__(self, connection: HTTPConnection, exchange: Exchange) -> None:
        self._connection = connection
        self._exchange = exchange

    def command(self, message: CallCommand) -> None:
        self._connection.command(self._exchange, message)


def _plain(status: int, reason: str) -> Respond:
    body = b"" if status == 200 else f"{status} {reason}\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8")] if body else []
    return Respond(
        call=0,
        status=status,
        reason=reason,
        headers=headers,
        body=body,
        length=len(body),
        more=False,
    )


_PLAIN_SUCCESS = _plain(200, "OK")
_date: tuple[int, str] = (0, "")


def _http_date() -> str:
    """The present second as RFC 9110 5.6.7 wants it, whatever the locale."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        t = time.gmtime(now)
        text = (
            f"{_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year} "
            f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT"
        )
        _date = (now, text)
    return _date[1]
