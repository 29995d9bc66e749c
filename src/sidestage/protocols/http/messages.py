"""What HTTP adds to the pipe."""

from __future__ import annotations

from ...wire.messages import Address, Message, Vocabulary

Headers = tuple[tuple[str, str], ...]  # not a list: the garbage collector need not visit them


class HTTPSettings(Message, frozen=True, kw_only=True):
    """What an HTTP server is to be, beside what every server is."""

    head_limit: int = 1 << 16  # bytes of a request's head


class Respond(Message, frozen=True, kw_only=True, tag=50):
    """The head of a response and the first, often only, part of its body."""

    call: int
    status: int
    reason: str
    headers: Headers
    body: bytes
    length: int | None  # of the whole body; None where only the stream's end will tell
    more: bool  # Data and End follow


class Request(Message, frozen=True, kw_only=True, tag=51):
    """A request; ``call`` 0 is a record that the child has answered itself."""

    call: int
    peer: Address
    at: float  # seconds on the monotonic clock, when it was passed on
    connection: int  # its number in this run
    method: str
    target: str
    http_version: str
    headers: Headers
    body: bytes
    more: bool  # Data and End follow with the rest of the body
    cut: int  # bytes of the body that a record left out


VOCABULARY = Vocabulary(settings=HTTPSettings, commands=(Respond,), events=(Request,))
