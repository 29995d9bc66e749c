"""How a response is framed in HTTP/1.1 (RFC 9112 6): its head, and what its body looks like.

No I/O here. ``head_of`` alone decides the framing, so what is said and what is sent agree.
"""

from __future__ import annotations

import functools
import time
from typing import NamedTuple

from ..messages import Headers, Respond
from .exchange import Exchange

_NO_BODY = frozenset({204, 304})
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def head_of(exchange: Exchange, response: Respond) -> bytes:
    """Encode the head of the response to ``exchange``, and decide how its body is framed."""
    request = exchange.head
    old = request is not None and request.http_version == "1.0"
    given = _given(response.status, response.reason, response.headers)
    head = given.head if given.dated else given.head + http_date()
    if request is not None and request.method == "CONNECT" and 200 <= response.status < 300:
        # RFC 9110 9.3.6: what follows the head is the tunnel.
        exchange.tunnel, exchange.bodiless = response.more, not response.more
        exchange.keep_alive = False
        return head + b"\r\n"
    exchange.bodiless = given.bodiless or (request is not None and request.method == "HEAD")
    if given.closes:
        exchange.keep_alive = False
    for length in given.lengths:
        _declare(exchange, response, length)
    if not given.framed:
        if response.length:
            head += b"Content-Length: %d\r\n" % response.length
        else:
            head += _framing(exchange, response, old=old)
    if given.connection:
        return head + b"\r\n"
    if not exchange.keep_alive:
        return head + b"Connection: close\r\n\r\n"
    if old:
        return head + b"Connection: keep-alive\r\n\r\n"
    return head + b"\r\n"


def informational(status: int, reason: str, headers: Headers) -> bytes:
    """Encode a 1xx response (RFC 9110 15.2)."""
    return _given(status, reason, headers).head + b"\r\n"


def _declare(exchange: Exchange, response: Respond, length: str) -> None:
    """Compare the handler's Content-Length; if it is wrong, the connection must be closed."""
    if response.length is None and length.isascii() and length.isdigit():
        exchange.declared = int(length)  # compared at the end
    elif not exchange.bodiless:
        exchange.keep_alive &= length == str(response.length)


def _framing(exchange: Exchange, response: Respond, *, old: bool) -> bytes:
    if response.length is not None:
        return b"" if response.status == 304 else b"Content-Length: 0\r\n"
    if old:
        exchange.keep_alive = False  # the end of the connection is the end of the body
        return b""
    if response.status == 304:  # with Transfer-Encoding, clients would wait for chunks
        return b""
    exchange.chunked = not exchange.bodiless
    return b"Transfer-Encoding: chunked\r\n"


class _Given(NamedTuple):
    """What a handler's status, reason and headers decide about the response."""

    head: bytes  # status line and header fields
    bodiless: bool
    dated: bool  # has a Date field
    framed: bool  # says how the body is framed, or has none
    lengths: tuple[str, ...]  # of Content-Length fields
    connection: bool  # has a Connection field
    closes: bool  # that says "close"


@functools.lru_cache(maxsize=16)  # most handlers send few different heads
def _given(status: int, reason: str, headers: Headers) -> _Given:
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers), ""]
    lowered = [(name.lower(), value) for name, value in headers]
    names = {name for name, _ in lowered}
    return _Given(
        head="\r\n".join(lines).encode("latin-1"),
        bodiless=status in _NO_BODY,
        dated="date" in names,
        framed=not names.isdisjoint({"content-length", "transfer-encoding"}) or status == 204,
        lengths=tuple(value.strip() for name, value in lowered if name == "content-length"),
        connection="connection" in names,
        closes=any(name == "connection" and "close" in value.lower() for name, value in lowered),
    )


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
