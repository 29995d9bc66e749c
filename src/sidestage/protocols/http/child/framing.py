"""How a response is framed in HTTP/1.1 (RFC 9112 6): its head, and what its body looks like.

No I/O here. What a handler says of the framing is sent as it says it. ``head_of`` compares it with
what is sent, and so does ``mismatch`` at the end: if they differ, the connection must end.
"""

from __future__ import annotations

import functools
import time
from typing import NamedTuple

from ..messages import NO_BODY, Headers, Respond
from ..rules import Refused
from .chunks import Chunks
from .exchange import Exchange

_FRAMING = frozenset({"content-length", "transfer-encoding"})
_DIGITS = 18  # of a Content-Length that clients understand
_LINE_LIMIT = 1 << 16  # bytes, in chunks that the handler makes itself
_LONG = 1 << 12  # bytes; longer heads are not cached
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def head_of(exchange: Exchange, response: Respond) -> bytes:
    """Encode the head of the response to ``exchange``, and decide how its body is framed."""
    request = exchange.head
    old = request is not None and request.http_version == "1.0"
    if request is not None and request.method == "CONNECT" and 200 <= response.status < 300:
        return _tunnel(exchange, response)
    given = _given(response.status, response.reason, response.headers)
    if len(given.head) > _LONG:
        _given.cache_clear()
    head = given.head if given.dated else given.head + http_date()
    head_only = request is not None and request.method == "HEAD"
    if given.silent and response.length and exchange.keep_alive and not old:  # as most are
        exchange.bodiless = head_only
        return head + b"Content-Length: %d\r\n\r\n" % response.length
    exchange.bodiless = head_only or response.status in NO_BODY
    if given.lengths or given.codings:
        exchange.mismatch = _declare(exchange, response, given, head_only=head_only, old=old)
        exchange.keep_alive &= not exchange.mismatch
    elif response.length and response.status not in (204, 205):
        head += b"Content-Length: %d\r\n" % response.length
    else:
        head += _framing(exchange, response, old=old)
    if "close" in given.connection:
        exchange.keep_alive = False
    elif not exchange.keep_alive:
        return head + b"Connection: close\r\n\r\n"
    elif old and "keep-alive" not in given.connection:
        return head + b"Connection: keep-alive\r\n\r\n"
    return head + b"\r\n"


class Ready(NamedTuple):
    """A whole response, encoded but for its date: in HTTP/1.1, on a connection that goes on."""

    before: bytes  # the Date field
    after: bytes


def ready(method: str, response: Respond) -> Ready | None:
    """Encode a response that is sent again and again, as ``head_of`` does.

    ``None`` if it is large, if it goes wrong, or if its framing takes more thought.
    """
    if response.more or response.fault is not None or len(response.body) > _LONG:
        return None
    given = _given(response.status, response.reason, response.headers)
    if given.dated or not given.silent or method in ("HEAD", "CONNECT"):
        return None
    return Ready(given.head, b"Content-Length: %d\r\n\r\n%b" % (len(response.body), response.body))


def informational(status: int, reason: str, headers: Headers) -> bytes:
    """Encode a 1xx response (RFC 9110 15.2)."""
    return _given(status, reason, headers).head + b"\r\n"


def sent(exchange: Exchange, data: bytes) -> None:
    """Note a piece of the body as the handler gave it."""
    exchange.sent += len(data)
    if exchange.own_chunks is not None and data:
        exchange.own_chunks.feed(data)


def mismatch(exchange: Exchange) -> str:
    """At the end of the body: what does not agree with what the handler said; empty if all does."""
    if exchange.bodiless:
        return ""
    declared, own = exchange.declared, exchange.own_chunks
    if declared is not None and declared != exchange.sent:
        return f"Content-Length: {declared} with {exchange.sent} bytes"
    if own is not None and not own.complete:
        return "Transfer-Encoding: chunked with a body that is not in chunks, or incomplete"
    return ""


class OwnChunks:
    """Checks the chunks that a handler makes itself."""

    def __init__(self) -> None:
        self.complete = False  # the last chunk was there, and nothing after it
        self._chunks: Chunks | None = Chunks(_LINE_LIMIT)

    def feed(self, data: bytes) -> None:
        """Check the next piece of the body."""
        rest: bytes | memoryview | None = None
        if self._chunks is not None:
            try:
                _, rest = self._chunks.feed(data)
            except Refused:
                self._chunks = None
        self.complete = rest is not None and not rest
        if rest is not None:
            self._chunks = None  # what follows belongs to no body


def _tunnel(exchange: Exchange, response: Respond) -> bytes:
    """The head of a 2xx response to CONNECT: what follows it is the tunnel (RFC 9110 9.3.6)."""
    headers = tuple(field for field in response.headers if field[0].lower() not in _FRAMING)
    given = _given(response.status, response.reason, headers)
    exchange.tunnel, exchange.bodiless = response.more, not response.more
    exchange.keep_alive = False
    return given.head + (b"" if given.dated else http_date()) + b"\r\n"


# What the handler says ---------------------------------------------------------------------------


def _declare(
    exchange: Exchange, response: Respond, given: _Given, *, head_only: bool, old: bool
) -> str:
    """Compare the handler's framing with the response; returns what does not fit, if anything."""
    lengths, codings = given.lengths, given.codings
    if lengths and codings:
        return "both Content-Length and Transfer-Encoding (RFC 9112 6.2)"
    if codings:
        return _declare_codings(exchange, response, codings, head_only=head_only, old=old)
    if len(lengths) != 1:
        return f"{len(lengths)} Content-Length fields (RFC 9110 8.6)"
    text = lengths[0]
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        return f"Content-Length: {text[:40]!r}, which is no length (RFC 9110 8.6)"
    length = int(text)
    if head_only or response.status == 304:
        return ""  # RFC 9110 8.6: what the body of a GET would have
    if exchange.bodiless and length:
        return f"Content-Length: {length} in a {response.status}, which has no body"
    if exchange.bodiless:
        return ""
    if response.length is None:
        exchange.declared = length  # compared at the end
    elif response.length != length:
        return f"Content-Length: {length} with {response.length} bytes"
    return ""


def _declare_codings(
    exchange: Exchange,
    response: Respond,
    codings: tuple[str, ...],
    *,
    head_only: bool,
    old: bool,
) -> str:
    said = f"Transfer-Encoding: {', '.join(codings)}"
    if old:
        return f"{said} to a client of HTTP/1.0 (RFC 9112 6.1)"
    if head_only:
        return ""
    if exchange.bodiless:
        return f"{said} in a {response.status}, which has no body"
    if codings.count("chunked") != 1 or codings[-1] != "chunked":
        return f"{said}, so the body ends with the connection (RFC 9112 6.3)"
    exchange.own_chunks = OwnChunks()
    if not response.more:
        exchange.own_chunks.feed(response.body)
        return mismatch(exchange)
    return ""


# What it does not say ----------------------------------------------------------------------------


def _framing(exchange: Exchange, response: Respond, *, old: bool) -> bytes:
    if response.status == 204 or response.status == 304:
        # RFC 9110 8.6, and with Transfer-Encoding clients would wait for chunks.
        return b""
    if response.length is not None or response.status == 205:
        return b"Content-Length: 0\r\n"
    if old:
        exchange.keep_alive = False  # the end of the connection is the end of the body
        return b""
    exchange.chunked = not exchange.bodiless
    return b"Transfer-Encoding: chunked\r\n"


class _Given(NamedTuple):
    """What a handler's status, reason and headers decide about the response."""

    head: bytes  # status line and header fields
    dated: bool  # has a Date field
    lengths: tuple[str, ...]  # of Content-Length fields
    codings: tuple[str, ...]  # of Transfer-Encoding fields, in lower case
    connection: frozenset[str]  # the members of Connection fields, in lower case
    silent: bool  # says nothing of all this, and the status allows a body


@functools.lru_cache(maxsize=16)  # most handlers send few different heads
def _given(status: int, reason: str, headers: Headers) -> _Given:
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers), ""]
    lowered = [(name.lower(), value) for name, value in headers]
    lengths = tuple(value.strip(" \t") for name, value in lowered if name == "content-length")
    codings, connection = (_members(lowered, name) for name in ("transfer-encoding", "connection"))
    return _Given(
        head="\r\n".join(lines).encode("latin-1"),
        dated=any(name == "date" for name, _ in lowered),
        lengths=lengths,
        codings=codings,
        connection=frozenset(connection),
        silent=not (lengths or codings or connection or status in NO_BODY),
    )


def _members(fields: list[tuple[str, str]], wanted: str) -> tuple[str, ...]:
    """The members of the lists in fields of one name (RFC 9110 5.6.1), in lower case."""
    values = [value for name, value in fields if name == wanted]
    return tuple(member.strip(" \t").lower() for value in values for member in value.split(","))


_date: tuple[int, bytes] = (0, b"")


def http_date() -> bytes:
    """The Date field for the current second (RFC 9110 5.6.7), independent of the locale."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        t = time.gmtime(now)
        text = (
            f"Date: {_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year} "
            f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT\r\n"
        )
        _date = (now, text.encode())
    return _date[1]
