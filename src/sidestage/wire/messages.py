"""The messages of every protocol: what crosses the pipe whoever serves.

Commands go from the test's process to the server's, events come back, and the messages of a
stream (``Data``, ``Ack``, ``End``) go both ways on the id of a call. A protocol adds its own; its
folder names them in a ``Vocabulary``. Nothing here is ever a pickle: code that reads hostile bytes
must not be able to hand the test's process code to run.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

# Compared in Hello: either side would misread the other if these differ.
WIRE_VERSION = 3

# (host, port[, flowinfo, scope_id]) or the path of a Unix socket ("" for an unnamed peer).
Address = tuple[str | int, ...] | str


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all messages: a plain value, compared by value; msgspec inherits no ``kw_only``."""


class Vocabulary(NamedTuple):
    """What one protocol adds to the pipe. Tags are unique over all protocols."""

    settings: type[Message]  # carried by Configure
    commands: tuple[type[Message], ...]
    events: tuple[type[Message], ...]


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
    """Be this server: bind, answer Ready or Failed, serve.

    ``_outside`` is for tests of Sidestage itself: a directory, and a module in it whose
    ``SERVICE`` is served in place of the protocol's. A process that was given it is never pooled.
    """

    protocol: str  # the name of its folder
    settings: bytes  # of the protocol's own type, encoded
    host: str | None  # None with a path
    port: int
    path: str | None
    cwd: str | None  # the directory that a relative path is relative to
    poll_interval: float  # seconds
    handled: bool  # whether the parent runs a handler; else record and answer plain success
    handler_timeout: float | None  # seconds until a call is answered without the handler
    keep: int  # bytes of records kept
    backlog: int
    _outside: tuple[str, str] | None = None


class Handle(Message, frozen=True, kw_only=True, tag=11):
    """Run calls through the parent from here on, or stop doing so; answered by Synced."""

    on: bool
    token: int


class Sync(Message, frozen=True, kw_only=True, tag=12):
    """Answer Synced once everything that came before has been passed on."""

    token: int


class Close(Message, frozen=True, kw_only=True, tag=16):
    """Close the connection of ``call``, after what was sent has gone out, or with a reset."""

    call: int
    reset: bool


class Stop(Message, frozen=True, kw_only=True, tag=18):
    """Stop serving: drain for up to ``drain`` seconds, close everything, answer Stopped."""

    drain: float
    caller: int  # the call whose handler stops its own server, which is not waited for; or 0
    finished: int = 0  # calls of this run whose handlers are done


class Postpone(Message, frozen=True, kw_only=True, tag=19):
    """The answer to Overdue."""

    token: int
    wanted: bool


class Idle(Message, frozen=True, kw_only=True, tag=20):
    """No handler is running any more. Sent while the child drains, if it has said it waits."""


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


class Lost(Message, frozen=True, kw_only=True, tag=37):
    """The child ends ``call``: its client is gone, or was answered without the handler."""

    call: int
    reset: bool
    answered: int = 0  # the status that the child has answered with, if it did


class Diagnostic(Message, frozen=True, kw_only=True, tag=39):
    """Something a client did that the protocol does not allow, or that was given up on."""

    peer: Address
    text: str
    at: float = 0.0  # seconds on the monotonic clock
    connection: int = 0  # its number in this run; 0 if there is none


class LogLine(Message, frozen=True, kw_only=True, tag=40):
    """A log record of the child."""

    name: str
    level: int
    text: str
    at: float = 0.0  # seconds on the monotonic clock


class Synced(Message, frozen=True, kw_only=True, tag=41):
    """Everything that came before ``token`` was asked for has been passed on."""

    token: int


class Dropped(Message, frozen=True, kw_only=True, tag=42):
    """``count`` records were dropped in the child because more than ``keep`` bytes waited."""

    count: int


class OpenConnection(msgspec.Struct, frozen=True, array_like=True):
    """A connection that was still open when the drain ended."""

    client_address: Address
    state: str
    call: int  # 0 if no handler has it


class Stopped(Message, frozen=True, kw_only=True, tag=43):
    """Everything is closed. ``clean`` means that nothing of the server is left in the process."""

    clean: bool
    open: list[OpenConnection]
    why: str  # not clean


class Draining(Message, frozen=True, kw_only=True, tag=44):
    """Everything that clients had sent before the stop has been passed on."""

    waits: bool = False  # for Idle


class Overdue(Message, frozen=True, kw_only=True, tag=45):
    """A time-out is about to come: does the test's process want it, or is it being debugged?"""

    token: int


COMMANDS: tuple[type[Message], ...] = (
    Configure,
    Handle,
    Sync,
    Postpone,
    Close,
    Stop,
    Idle,
    Data,
    Ack,
    End,
)
EVENTS: tuple[type[Message], ...] = (
    Hello,
    Ready,
    Failed,
    Lost,
    Diagnostic,
    LogLine,
    Synced,
    Dropped,
    Draining,
    Overdue,
    Stopped,
    Data,
    Ack,
    End,
)
