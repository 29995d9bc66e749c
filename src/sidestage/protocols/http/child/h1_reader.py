"""Parses the requests of one connection with httptools, and limits their heads.

No I/O here. The connection gets each request's progress through ``RequestSink``, and ends the
reading with ``end``.
"""

from __future__ import annotations

from typing import Protocol

import httptools

from .exchange import Exchange, Responses, objection

_NOT_HTTP = {  # first bytes of other protocols, for a better message than the parser's
    b"\x16\x03": "this is a TLS handshake (https), the server speaks plain HTTP",
    b"PRI * HTTP/2": "this is HTTP/2, the server speaks HTTP/1.1",
}
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"host", b"expect"})


class RequestSink(Responses, Protocol):
    """What gets the requests of a connection."""

    def begun(self, exchange: Exchange) -> None:
        """The head of a request is complete and valid."""

    def body(self, exchange: Exchange, data: bytes) -> None:
        """A piece of its body has come."""

    def received(self, exchange: Exchange) -> None:
        """The request is complete."""

    def awaited(self, exchange: Exchange) -> None:
        """All bytes that have come are parsed, and the body is not complete."""

    def refuse(self, exchange: Exchange, status: int, reason: str, why: str = "") -> None:
        """Answer with an error when its turn comes, and read no more; ``why`` is for the test."""

    def malformed(self, exchange: Exchange | None, why: str) -> None:
        """The client has sent something that is not HTTP/1.1."""


class RequestReader:
    """Parses what the client sends, and calls ``sink``."""

    def __init__(self, sink: RequestSink, head_limit: int) -> None:
        self.incoming: Exchange | None = None  # the request that is not complete
        self.ended = False
        self._sink = sink
        self._head_limit = head_limit  # bytes
        self._in_head = True
        self._head_size = 0  # bytes of the head's parts, as parsed
        self._head_fed = 0  # bytes that came while the head was not complete
        self._begun = 0  # requests that have begun in the bytes being parsed
        self._resuming = False  # a new parser is being given the state of the old one
        self._parser = httptools.HttpRequestParser(self)

    def feed(self, data: memoryview) -> None:
        """Parse ``data``."""
        while data and not self.ended:
            data = data[self._parse(data) :]

    def end(self) -> None:
        """Ignore everything from here on."""
        self.ended = True
        self.incoming = None

    def _parse(self, data: memoryview) -> int:
        """Feed the parser; returns how many bytes of ``data`` it has consumed."""
        alone, self._begun = self.incoming is None, 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._resume_after_upgrade()
            return int(upgrade.args[0])
        except httptools.HttpParserError as error:
            if isinstance(error.__context__ or error.__cause__, AssertionError):
                raise
            if not self.ended:
                self._sink.malformed(self.incoming, _named(data) or str(error))
        else:
            if self.incoming is not None:
                self._watch(self.incoming, len(data) if self._begun <= alone else 0)
        return len(data)

    def _resume_after_upgrade(self) -> None:
        """Ignore the client's offer to upgrade (RFC 9110 7.8): the server speaks HTTP/1.1 only.

        The parser stops here as if the request had no body. A new parser gets a head with the same
        framing, and goes on with the body.
        """
        self._parser = httptools.HttpRequestParser(self)
        exchange, self.incoming = self.incoming, None
        if exchange is not None:
            self._resuming = True
            if exchange.length is None:
                framing = b"Transfer-Encoding: chunked"
            else:
                framing = b"Content-Length: %d" % exchange.length
            self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
            self._resuming = False
            self.incoming = exchange

    def _watch(self, exchange: Exchange, size: int) -> None:
        """Check on an incomplete request, of which ``size`` more bytes have come."""
        if not self._in_head:
            self._sink.awaited(exchange)
            return
        self._head_fed += size
        if self._head_fed > self._head_limit:
            self._refuse_head(exchange)

    def _refuse_head(self, exchange: Exchange) -> None:
        self._sink.refuse(exchange, 431, "Request Header Fields Too Large")

    # From the parser ---------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._resuming or self.ended:
            return
        self.incoming = Exchange(self._sink)
        self._begun += 1
        self._in_head = True
        self._head_size = self._head_fed = 0

    def on_url(self, url: bytes) -> None:
        if self.incoming is not None:
            self.incoming.target += url

    def on_header(self, name: bytes, value: bytes | None) -> None:
        exchange = self.incoming
        if exchange is None:
            return
        value = value or b""
        self._head_size += len(name) + len(value) + 4
        if not self._in_head:
            # A trailer field, which must not be merged into the headers (RFC 9110 6.5.1).
            if self._head_size > self._head_limit:
                self._refuse_head(exchange)
            return
        text = value.decode("latin-1")
        exchange.headers.append((name.decode("latin-1"), text))
        if (lowered := name.lower()) in _FRAMING:
            exchange.note(lowered, text)

    def on_headers_complete(self) -> None:
        exchange = self.incoming
        if exchange is None:
            return
        self._in_head = False
        parser = self._parser
        exchange.method = parser.get_method().decode("latin-1")
        exchange.http_version = parser.get_http_version()
        exchange.keep_alive = parser.should_keep_alive() and exchange.method != "CONNECT"
        if self._head_size + len(exchange.target) > self._head_limit:
            self._refuse_head(exchange)
        elif refusal := objection(exchange):
            self._sink.refuse(exchange, *refusal)
        else:
            self._sink.begun(exchange)

    def on_body(self, body: bytes) -> None:
        if self.incoming is not None:
            self._sink.body(self.incoming, body)

    def on_message_complete(self) -> None:
        exchange = self.incoming
        if exchange is None or (exchange.length != 0 and self._parser.should_upgrade()):
            return  # with an upgrade, the body is still to come
        self.incoming = None
        self._sink.received(exchange)


def _named(data: memoryview) -> str | None:
    start = bytes(data[:16])
    return next((name for head, name in _NOT_HTTP.items() if start.startswith(head)), None)
