"""One HTTP exchange in the child: the request as it was parsed, the response as it is framed.

Pure: no transport here. How a body is framed (RFC 9112 6) is decided in one place, ``head``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from ..wire.messages import Respond

_NO_BODY = frozenset({204, 304})
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Exchange:
    """One request on its way in and its response on its way out."""

    __slots__ = (
        "bodiless",
        "body",
        "call",
        "chunked",
        "cut",
        "declared",
        "expects",
        "head_sent",
        "headers",
        "hosts",
        "http_version",
        "keep_alive",
        "length",
        "method",
        "received",
        "refusal",
        "responded",
        "sent",
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
        self.hosts = 0  # header fields of that name
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
        self.bodiless = False  # the response has no body, whatever the handler writes
        self.declared: int | None = None  # length of a streamed response, as the handler has it
        self.sent = 0  # bytes of the response's body
        self.responded = False
        self.refusal: tuple[int, str] | None = None

    def line(self) -> str:
        """The request as a person would name it."""
        return f"{self.method} {self.target.decode('latin-1')}".strip() or "request"

    def head(self, response: Respond) -> bytes:
        """The head of the response as it is sent; decides how the body is framed."""
        self.bodiless = self.method == "HEAD" or response.status in _NO_BODY
        lines = [f"HTTP/1.1 {response.status} {response.reason}"]
        given = set()
        for name, value in response.headers:
            lines.append(f"{name}: {value}")
            lowered = name.lower()
            given.add(lowered)
            if lowered == "connection" and "close" in value.lower():
                self.keep_alive = False
            if lowered == "content-length":
                self._declare(response, value.strip())
        if "date" not in given:
            lines.append(f"Date: {http_date()}")
        lines += self._framing(response, given)
        if "connection" not in given:
            if not self.keep_alive:
                lines.append("Connection: close")
            elif self.http_version == "1.0":
                lines.append("Connection: keep-alive")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _declare(self, response: Respond, length: str) -> None:
        """The handler may lie about the length; then the connection can't be kept."""
        if response.length is None and length.isascii() and length.isdigit():
            self.declared = int(length)  # the end will tell
        elif not self.bodiless:
            self.keep_alive &= length == str(response.length)

    def _framing(self, response: Respond, given: set[str]) -> Iterable[str]:
        if "content-length" in given or "transfer-encoding" in given or response.status == 204:
            return ()
        if response.length is not None:
            if response.status == 304 and not response.length:
                return ()
            return (f"Content-Length: {response.length}",)
        if self.http_version == "1.0":
            self.keep_alive = False  # the end of the connection is the end of the body
            return ()
        if response.status == 304:  # which clients would expect chunks after
            return ()
        self.chunked = not self.bodiless
        return ("Transfer-Encoding: chunked",)


def objection(exchange: Exchange) -> tuple[int, str, str] | None:
    """Why a request that parses must be refused all the same, if it must."""
    if exchange.http_version == "0.9":
        return 400, "Bad Request", "no HTTP version"
    if not exchange.http_version.startswith("1."):
        return 505, "HTTP Version Not Supported", f"HTTP/{exchange.http_version}"
    hosts = exchange.hosts
    if hosts > 1 or (not hosts and exchange.http_version == "1.1"):
        # RFC 9112 3.2
        return 400, "Bad Request", f"{hosts} Host fields, there must be one"
    return None


def plain(status: int, reason: str) -> Respond:
    """A response of the child's own."""
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


PLAIN_SUCCESS = plain(200, "OK")
_date: tuple[int, str] = (0, "")


def http_date() -> str:
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
