"""The settings and messages of HTTP, which both processes know."""

from __future__ import annotations

import msgspec

from ...wire.messages import Address, Message, Met, Seen, Vocabulary

NO_BODY = frozenset({204, 205, 304})  # statuses without a body: RFC 9110 6.4.1, 15.3.6
Headers = tuple[tuple[str, str], ...]  # the garbage collector skips tuples of text


class HTTPSettings(Message, frozen=True, kw_only=True):
    """What an HTTP server has beyond the settings of every server."""

    head_limit: int = 1 << 16  # bytes; larger request heads are refused


OF_TLS = frozenset({"reset_in_record", "close_in_record", "close_without_notify"})  # faults


class Fault(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """What the child does wrong on purpose, in place of a response or within one."""

    kind: str  # the name of its function in sidestage.faults
    after: int | None = None  # bytes of the body that are sent before; None is the whole response
    data: bytes = b""  # garbage
    rate: float = 0.0  # bytes a second, of slow
    reply: bool = True  # there is a response; else nothing is sent before


class Canned(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """The answer of an expectation, which the child gives by itself: a ``Reply.answer``."""

    status: int
    reason: str
    headers: Headers
    body: bytes
    fault: Fault | None = None


class Respond(Message, frozen=True, kw_only=True, tag=50):
    """The head of a response and the first piece of its body, often the only one."""

    call: int
    status: int
    reason: str
    headers: Headers
    body: bytes
    length: int | None  # bytes of the whole body; None if not known yet
    more: bool  # Data and End follow
    fault: Fault | None = None


def answer_of(message: Canned | Respond, *, head_only: bool) -> tuple[int, int]:
    """Status and bytes of the body that the client of a whole response gets; 0 without a head.

    ``head_only`` is whether the request was a HEAD, or a CONNECT.
    """
    fault, size = message.fault, len(message.body)
    if fault is not None and not fault.reply:
        return 0, 0
    if head_only or message.status in NO_BODY:
        return message.status, 0
    if fault is not None and fault.after is not None:
        size = min(size, fault.after)
    return message.status, size


class Inform(Message, frozen=True, kw_only=True, tag=53):
    """An informational response (1xx); 100 has the client send its body, if it waits for that."""

    call: int
    status: int
    reason: str
    headers: Headers


def credit_of(message: Inform) -> int:
    """The bytes of the call's credit that an informational response takes."""
    return 64 + sum(len(name) + len(value) for name, value in message.headers)


class Trailers(Message, frozen=True, kw_only=True, tag=52):
    """The trailer fields of a body, sent before its End.

    A client's are as they came, without the last line end; the parent's are encoded lines.
    """

    call: int
    fields: bytes


class Request(Message, frozen=True, kw_only=True, tag=51):
    """A request. With ``call`` 0 the child has answered it itself, and it is only recorded."""

    call: int
    peer: Address
    at: float  # seconds on the monotonic clock, when the child sent this
    connection: int  # its number in this run
    method: str
    target: str
    http_version: str
    fields: bytes  # the header fields as they came, without the empty line
    body: bytes
    more: bool  # Data and End follow with the rest of the body
    cut: int  # bytes of the body that are not in the record
    trailers: bytes = b""  # the trailer fields as they came; without ``more``
    expects: bool = False  # the client waits for 100 Continue before it sends the body
    local: Address = ""  # of a CONNECT: what the client has connected to
    met: Met | None = None  # on a strict server
    tls: Seen | None = None


VOCABULARY = Vocabulary(
    settings=HTTPSettings, commands=(Respond, Inform, Trailers), events=(Request, Trailers)
)
