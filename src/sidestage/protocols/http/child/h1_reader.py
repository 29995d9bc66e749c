"""Divides what an HTTP/1.1 client sends into heads and bodies (RFC 9112).

No I/O here. The connection gets each request's progress through ``RequestSink``, and ends the
reading with ``end``.
"""

from __future__ import annotations

from typing import Protocol

from ..rules import Refusal, Refused, malformed, too_large
from .chunks import Chunks
from .exchange import Exchange, Framing
from .head import LONG, Incomplete, parse_head, parse_short_head

_UNREAD = 1 << 16  # bytes after a CONNECT that is not answered, before reading pauses


class RequestSink(Framing, Protocol):
    """What gets the requests of a connection."""

    def whole(self, exchange: Exchange) -> None:
        """A request without a body has come."""

    def begun(self, exchange: Exchange) -> None:
        """The head of a request with a body has come."""

    def body(self, exchange: Exchange, data: bytes | memoryview) -> None:
        """A piece of its body has come."""

    def complete(self, exchange: Exchange) -> None:
        """The whole request has come."""

    def awaited(self, exchange: Exchange) -> None:
        """The body is not complete, and there is nothing more to read."""

    def refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        """Answer with an error when its turn comes; nothing more is read."""


class RequestReader:
    """Divides what the client sends, and calls ``sink``."""

    def __init__(self, sink: RequestSink, head_limit: int) -> None:
        self.incoming: Exchange | None = None  # the request that has begun and is not complete
        self.ended = False
        self.paused = False  # keep what comes, as much as one read gives, for later
        self.unread = b""  # what is kept: because of that, or after a CONNECT
        self.connects = False  # a CONNECT is not answered: what follows it may not be HTTP
        self._sink = sink
        self._head_limit = head_limit  # bytes
        self._head = b""  # the beginning of a head that is not complete
        self._incomplete: Incomplete | None = None
        self._left = 0  # bytes of the body
        self._chunks: Chunks | None = None
        self._tunnel: Exchange | None = None
        self._last = False  # the client sends no request after this one
        self._begun = False  # a request has

    def feed(self, data: bytes | memoryview) -> None:
        """Divide ``data``."""
        try:
            rest: bytes | memoryview | None = data
            while rest and not self.ended:
                if self._tunnel is not None:
                    self._sink.body(self._tunnel, bytes(rest))
                    return
                if self.connects or self.paused:
                    self.unread += bytes(rest)
                    if self.connects:
                        self._sink.hold(len(self.unread) > _UNREAD)
                    return
                if self._left or self._chunks is not None:
                    rest = self._feed_body(rest)
                else:
                    rest = self._feed_head(rest if type(rest) is bytes else bytes(rest))
        except Refused as refused:
            if not self.ended:
                self._sink.refuse(self.incoming or Exchange(self._sink), refused.refusal)
            return
        if self.incoming is not None and (self._left or self._chunks is not None):
            self._sink.awaited(self.incoming)

    def end(self) -> None:
        """Ignore everything from here on."""
        self.ended = True
        self.incoming = None

    def stage(self) -> str:
        """How far the client has got with its next request, of which no head has come."""
        if self.ended:
            return "closing"
        if size := len(self._head):
            return f"connected, has sent {size:,} bytes of a request, waiting for the rest"
        return "idle after its last request" if self._begun else "connected, has sent nothing yet"

    def begin_tunnel(self, exchange: Exchange) -> None:
        """Give everything from here on to ``exchange``, starting with what has come already."""
        self._tunnel = exchange
        self.go_on()

    def go_on(self) -> None:
        """Go on with what was kept: a CONNECT is answered, or this is no longer paused."""
        self.connects = False
        unread, self.unread = self.unread, b""
        if unread:
            self._sink.hold(False)
            self.feed(unread)

    # Heads ---------------------------------------------------------------------------------------

    def _feed_head(self, data: bytes) -> bytes:
        """Take the head at the beginning of ``data``; returns what follows it."""
        kept = self._head
        if not kept:
            data = data.lstrip(b"\r\n")  # RFC 9112 2.2: empty lines before the request line
            if not data:
                return b""
            if self._last:  # RFC 9112 9.6
                raise malformed("`Connection: close` was there (RFC 9112 9.6)")
            self.incoming = Exchange(self._sink)
            self._begun = True
            whole, end = data, data.find(b"\r\n\r\n") + 4
        else:
            whole = kept + data
            end = whole.find(b"\r\n\r\n", max(0, len(kept) - 3)) + 4
        if end < 4:
            self._keep_head(whole, data)
            return b""
        self._head, self._incomplete = b"", None
        if end > self._head_limit:
            Incomplete().feed(whole[: self._head_limit])  # as if it had come in pieces
            raise too_large()
        exchange = self.incoming
        assert exchange is not None
        parse = parse_short_head if end <= LONG else parse_head
        head = exchange.head = parse(whole[:end])
        exchange.keep_alive = head.keep_alive
        self._last = not head.keep_alive
        if head.length == 0:
            self.connects = head.method == "CONNECT"
            self.incoming = None
            self._sink.whole(exchange)
        else:
            self._begin_body(exchange, head.length)
        return whole[end:]

    def _keep_head(self, whole: bytes, piece: bytes) -> None:
        self._head = whole
        if self._incomplete is None:
            self._incomplete = Incomplete()
        excess = max(0, len(whole) - self._head_limit)
        self._incomplete.feed(piece[: max(0, len(piece) - excess)])
        if excess:
            raise too_large()

    def _begin_body(self, exchange: Exchange, length: int | None) -> None:
        if length is None:
            self._chunks = Chunks(self._head_limit)
        else:
            self._left = length
        self._sink.begun(exchange)

    def _complete(self, exchange: Exchange) -> None:
        self._chunks, self._left = None, 0
        self.incoming = None
        self._sink.complete(exchange)

    # Bodies --------------------------------------------------------------------------------------

    def _feed_body(self, data: bytes | memoryview) -> bytes | memoryview | None:
        """Take the body at the beginning of ``data``; returns what follows it."""
        exchange = self.incoming
        assert exchange is not None
        if self._chunks is not None:
            return self._feed_chunks(self._chunks, exchange, data)
        piece = data if len(data) <= self._left else data[: self._left]
        self._left -= len(piece)
        rest = data[len(piece) :]
        self._sink.body(exchange, piece)
        if not self._left and not self.ended:
            self._complete(exchange)
        return rest

    def _feed_chunks(
        self, chunks: Chunks, exchange: Exchange, data: bytes | memoryview
    ) -> bytes | memoryview | None:
        pieces, rest = chunks.feed(data)
        if pieces:
            self._sink.body(exchange, pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if rest is not None and not self.ended:
            exchange.trailers = chunks.trailers
            self._complete(exchange)
        return rest
