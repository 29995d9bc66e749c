"""Every message that crosses the pipe, one typed immutable class each.

Commands go from the test's process to the server's, events come back, and the stream messages
(``Data``, ``Ack``, ``End``) go both ways on a call id. Nothing here is ever a pickle: what reads
hostile bytes must not be able to hand the test's process code to run.
"""

from __future__ import annotations

from typing import Literal

import msgspec

# Raised when either side would misread the other; compared in Hello.
WIRE_VERSION = 2

# (host, port[, flowinfo, scope_id]) or the path of a Unix socket ("" for an unnamed peer).
Address = tuple[str | int, ...] | str
Headers = tuple[tuple[str, str], ...]  # not a list: the garbage collector need not visit them
Protocol = Literal["http", "smtp", "tcp", "udp"]


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all messages: a plain value, compared by value; msgspec inherits no ``kw_only``."""


# Both ways: streams ----------------------------------------------------------------------------


class Data(Message, frozen=True, kw_only=True, tag=1):
    """Some bytes of the stream ``call``."""

    call: int
    data: bytes


class Ack(Message, frozen=True, kw_only=True, tag=2):
    """``size`` bytes of the stream ``call`` were consumed: the sender may send as many more."""

    call: int
    size: int


class End(Message, frozen=True, kw_only=True, tag=3):
    """No more bytes come on the stream ``call``."""

    call: int


# Commands --------------------------------------------------------------------------------------


class Configure(Message, frozen=True, kw_only=True, tag=10):
    """Be this server: bind, answer Ready or Failed, serve."""

    protocol: Protocol
    host: str | None  # None with a path
    port: int
    path: str | None
    cwd: str | None  # which a relative path is relative to
    poll_interval: float  # seconds
    handled: bool  # whether the parent runs a handler; else record and answer plain success
    handler_timeout: float | None  # seconds until a call is answered without the handler
    keep: int  # bytes of records kept
    backlog: int
    head_limit: int = 1 << 16  # bytes of an HTTP request's head
    size_limit: int = 1 << 25  # bytes of a mail


class Handle(Message, frozen=True, kw_only=True, tag=11):
    """Run calls through the parent from here on, or stop doing so; answered by Synced."""

    on: bool
    token: int


class Sync(Message, frozen=True, kw_only=True, tag=12):
    """Answer Synced once all that came before has been passed on."""

    token: int


class Respond(Message, frozen=True, kw_only=True, tag=13):
    """The head of an HTTP response and the first, often only, part of its body."""

    call: int
    status: int
    reason: str
    headers: Headers
    body: bytes
    length: int | None  # of the whole body; None where only the stream's end will tell
    more: bool  # Data and End follow


class MailReply(Message, frozen=True, kw_only=True, tag=14):
    """What the SMTP client is told about its mail."""

    call: int
    reply: str


class SendTo(Message, frozen=True, kw_only=True, tag=15):
    """A datagram to send from the ``listener``-th socket."""

    listener: int
    address: Address
    data: bytes


class Close(Message, frozen=True, kw_only=True, tag=16):
    """Close the connection of ``call``, after what was sent has gone out, or with a reset."""

    call: int
    reset: bool


class SetOption(Message, frozen=True, kw_only=True, tag=17):
    """``setsockopt`` on the connection of ``call``."""

    call: int
    level: int
    name: int
    value: int | bytes


class Stop(Message, frozen=True, kw_only=True, tag=18):
    """Stop serving: drain for up to ``drain`` seconds, close everything, answer Stopped."""

    drain: float
    spare: int  # a call whose handler is the one that stops the server: not waited for
    finished: int = 0  # calls of this run whose handlers are done


class Postpone(Message, frozen=True, kw_only=True, tag=19):
    """The answer to Overdue."""

    token: int
    wanted: bool


# Events ----------------------------------------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True, tag=30):
    """The child is up."""

    pid: int
    version: int


class Ready(Message, frozen=True, kw_only=True, tag=31):
    """Bound, and serving from the next instant."""

    addresses: list[Address]


class Failed(Message, frozen=True, kw_only=True, tag=32):
    """It could not bind."""

    errno: int | None
    text: str


class Request(Message, frozen=True, kw_only=True, tag=33):
    """An HTTP request; ``call`` 0 is a record that the child answered itself."""

    call: int
    peer: Address
    method: str
    target: str
    http_version: str
    headers: Headers
    body: bytes
    more: bool  # Data and End follow with the rest of the body
    cut: int  # bytes of the body that a record left out


class MailIn(Message, frozen=True, kw_only=True, tag=34):
    """A mail as its DATA ended."""

    call: int
    peer: Address
    helo: str
    esmtp: bool
    mail_from: str
    mail_options: list[str]
    rcpt_tos: list[str]
    rcpt_options: list[str]
    data: bytes


class Opened(Message, frozen=True, kw_only=True, tag=35):
    """A TCP client connected."""

    call: int
    peer: Address
    local: Address


class Packet(Message, frozen=True, kw_only=True, tag=36):
    """A datagram came; ``call`` 0 is a record."""

    call: int
    listener: int
    peer: Address
    data: bytes


class Lost(Message, frozen=True, kw_only=True, tag=37):
    """The client of ``call`` is gone."""

    call: int
    reset: bool


class TranscriptIn(Message, frozen=True, kw_only=True, tag=38):
    """A TCP connection that the child recorded on its own, from open to end."""

    peer: Address
    local: Address
    data: bytes
    cut: int
    ended: str


class Diagnostic(Message, frozen=True, kw_only=True, tag=39):
    """Something a client did that the protocol does not allow, or that was given up on."""

    peer: Address
    text: str


class LogLine(Message, frozen=True, kw_only=True, tag=40):
    """A log record of the child."""

    name: str
    level: int
    text: str


class Synced(Message, frozen=True, kw_only=True, tag=41):
    """All that came before ``token`` was asked for has been passed on."""

    token: int


class Dropped(Message, frozen=True, kw_only=True, tag=42):
    """``count`` records were dropped in the child because more than ``keep`` bytes waited."""

    count: int


class OpenConnection(msgspec.Struct, frozen=True, array_like=True):
    """A connection that was still open when the drain ended."""

    client_address: Address
    state: str
    call: int


class Stopped(Message, frozen=True, kw_only=True, tag=43):
    """Nothing is open any more. ``clean`` says that the process may serve again."""

    clean: bool
    open: list[OpenConnection]
    why: str  # why it is not clean


class Draining(Message, frozen=True, kw_only=True, tag=44):
    """All that clients had sent before the stop has been passed on."""


class Overdue(Message, frozen=True, kw_only=True, tag=45):
    """A time-out is about to come: does the test's process want it, or is it being debugged?"""

    token: int


Command = (
    Configure
    | Handle
    | Sync
    | Postpone
    | Respond
    | MailReply
    | SendTo
    | Close
    | SetOption
    | Stop
    | Data
    | Ack
    | End
)
Event = (
    Hello
    | Ready
    | Failed
    | Request
    | MailIn
    | Opened
    | Packet
    | Lost
    | TranscriptIn
    | Diagnostic
    | LogLine
    | Synced
    | Dropped
    | Draining
    | Overdue
    | Stopped
    | Data
    | Ack
    | End
)
