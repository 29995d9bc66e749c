"""The settings and messages of HTTP, which both processes know."""

from __future__ import annotations

from ...wire.messages import Address, Message, Vocabulary

Headers = tuple[tuple[str, str], ...]  # the garbage collector skips tuples of text


class HTTPSettings(Message, frozen=True, kw_only=True):
    """What an HTTP server has beyond the settings of every server."""

    head_limit: int = 1 << 16  # bytes; larger request heads are refused


class Respond(Message, frozen=True, kw_only=True, tag=50):
    """The head of a response and the first piece of its body, often the only one."""

    call: int
    status: int
    reason: str
    headers: Headers
    body: bytes
    length: int | None  # bytes of the whole body; None if not known yet
    more: bool  # Data and End follow


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


VOCABULARY = Vocabulary(
    settings=HTTPSettings, commands=(Respond, Inform, Trailers), events=(Request, Trailers)
)
