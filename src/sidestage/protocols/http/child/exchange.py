"""One HTTP exchange in the child: the parsed request and the framing of its response.

No I/O here. ``Exchange.head`` alone decides how a response's body is framed (RFC 9112 6).
"""

from __future__ import annotations

import asyncio
import functools
import time
from typing import NamedTuple, Protocol

from ....wire.messages import Address, Message
from ..messages import Headers, Request, Respond

_NO_BODY = frozenset({204, 304})
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Responses(Protocol):
    """The sender of the responses of a connection's exchanges."""

    def command(self, exchange: Exchange, message: Message) -> None:
        """Carry out a command of the parent for ``exchange``."""

    def timed_out(self, exchange: Exchange) -> None:
        """The handler's time for ``exchange`` has ended."""


class Exchange:
    """A request and its response, while they come in and go out; a call in ``child/calls.py``."""

    method = ""
    target = b""
    http_version = "1.1"
    hosts = 0  # number of Host fields
    length: int | None = 0  # bytes of the request's body; None is chunked
    expects = False  # whether the client waits for 100 Continue
    body: bytes | bytearray = b""
    cut = 0  # bytes of the request's body that were received and not recorded
    received = False  # the whole request has come
    streamed = False  # its body goes to the parent as it comes
    call = 0  # its id, once the parent has it
    since: float | None = None  # when it was sent to the parent or recorded
    due: float | None = None  # when the handler's time ends, on the loop's clock
    timer: asyncio.TimerHandle | None = None  # until a slow body is streamed
    keep_alive = True
    head_sent = False
    chunked = False
    bodiless = False  # the response has no body, whatever the handler writes
    declared: int | None = None  # Content-Length of a streamed response, from the handler
    sent = 0  # bytes of the response's body
    responded = False
    refusal: tuple[int, str] | None = None

    def __init__(self, responses: Responses) -> None:
        self.responses = responses
        self.headers: list[tuple[str, str]] = []

    def command(self, message: Message) -> None:
        self.responses.command(self, message)

    def timed_out(self) -> None:
        self.responses.timed_out(self)

    def line(self) -> str:
        """Method and target, for messages to people."""
        return f"{self.method} {self.target.decode('latin-1')}".strip() or "request"

    def note(self, name: bytes, value: str) -> None:
        """Evaluate Content-Length, Transfer-Encoding, Host or Expect; ``name`` is in lower case."""
        match name:
            case b"content-length":
                self.length = int(value)
            case b"transfer-encoding":
                self.length = None
            case b"host":
                self.hosts += 1
            case _:
                self.expects = value.lower() == "100-continue"

    def request(self, peer: Address, connection: int) -> Request:
        """The message to the parent."""
        assert self.since is not None
        return Request(
            call=self.call,
            peer=peer,
            at=self.since,
            connection=connection,
            method=self.method,
            target=self.target.decode("latin-1"),
            http_version=self.http_version,
            headers=tuple(self.headers),
            body=bytes(self.body),
            more=self.streamed,
            cut=self.cut,
        )

    def head(self, response: Respond) -> bytes:
        """Encode the head of the response, and decide how its body is framed."""
        given = _given(response.status, response.reason, response.headers)
        self.bodiless = given.bodiless or self.method == "HEAD"
        if given.closes:
            self.keep_alive = False
        for length in given.lengths:
            self._declare(response, length)
        head = given.head
        if not given.dated:
            head += http_date()
        if not given.framed:
            head += self._framing(response)
        if given.connection:
            return head + b"\r\n"
        if not self.keep_alive:
            return head + b"Connection: close\r\n\r\n"
        if self.http_version == "1.0":
            return head + b"Connection: keep-alive\r\n\r\n"
        return head + b"\r\n"

    def _declare(self, response: Respond, length: str) -> None:
        """Compare the handler's Content-Length; if it is wrong, the connection must be closed."""
        if response.length is None and length.isascii() and length.isdigit():
            self.declared = int(length)  # compared at the end
        elif not self.bodiless:
            self.keep_alive &= length == str(response.length)

    def _framing(self, response: Respond) -> bytes:
        if response.length is not None:
            if response.status == 304 and not response.length:
                return b""
            return b"Content-Length: %d\r\n" % response.length
        if self.http_version == "1.0":
            self.keep_alive = False  # the end of the connection is the end of the body
            return b""
        if response.status == 304:  # with Transfer-Encoding, clients would wait for chunks
            return b""
        self.chunked = not self.bodiless
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


def objection(exchange: Exchange) -> tuple[int, str, str] | None:
    """Why a request must be refused although it parses: status, reason phrase and explanation.

    ``None`` if it need not be refused.
    """
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
    """A response that the child sends itself."""
    body = b"" if status == 200 else f"{status} {reason}\n".encode()
    headers = (("Content-Type", "text/plain; charset=utf-8"),) if body else ()
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
