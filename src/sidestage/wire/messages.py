"""The messages that all protocols use on the pipe.

Commands go from the test's process to the server's and events come back. The messages of a stream
(``Data``, ``Ack`` and others) go both ways with the id of a call. A protocol adds its own messages;
its folder lists them in a ``Vocabulary``. Nothing is ever pickled: the server's process reads
hostile bytes, and must not be able to make the test's process run code.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

# Sent in Hello: two versions would misread each other.
WIRE_VERSION = 9

# (host, port[, flowinfo, scope_id]) or the path of a Unix socket ("" for an unnamed peer).
Address = tuple[str | int, ...] | str


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all messages, which are compared by value; msgspec does not inherit ``kw_only``."""


class Vocabulary(NamedTuple):
    """The messages that one protocol adds. Tags are unique across all protocols."""

    settings: type[Message]  # carried by Configure
    commands: tuple[type[Message], ...]
    events: tuple[type[Message], ...]


# Both ways: streams ----------------------------------------------------------------------------


class Data(Message, frozen=True, kw_only=True, tag=1):
    """Some bytes of a call's stream."""

    call: int
    data: bytes


class Ack(Message, frozen=True, kw_only=True, tag=2):
    """``size`` bytes of a call's stream were consumed: the sender may send that many more."""

    call: int
    size: int


class AckSoon(Message, frozen=True, kw_only=True, tag=4):
    """Send Acks of a call's stream for fewer bytes: its sender may have no more on their way."""

    call: int


class End(Message, frozen=True, kw_only=True, tag=3):
    """The end of a call's stream."""

    call: int


class Seen(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What was agreed with a client of a server with TLS: in the events of its calls."""

    version: str  # TLSv1.3
    cipher: str  # TLS_AES_256_GCM_SHA384
    sni: str | None  # the host that the client has asked for
    alpn: str | None  # the protocol that was chosen
    client_certificate: bytes | None  # DER


# Commands --------------------------------------------------------------------------------------


class Configure(Message, frozen=True, kw_only=True, tag=10):
    """Bind, answer Ready or Failed, and serve.

    ``layers`` lie between the streams and the protocol, the first on the stream: the name of the
    folder of each, and its settings, encoded.

    ``_outside`` and ``_layers`` are for tests of Sidestage itself. Each place is a directory and a
    module in it. The ``SERVICE`` of ``_outside`` replaces the protocol's. The ``LAYER`` of each of
    ``_layers`` lies between ``layers`` and the protocol. A process that gets either is never
    pooled.
    """

    protocol: str  # the name of its folder
    settings: bytes  # of the type in the protocol's vocabulary, encoded
    host: str | None  # None with a path
    port: int
    path: str | None  # of a Unix socket
    cwd: str | None  # the directory that a relative path is relative to
    poll_interval: float  # seconds
    handler_timeout: float | None  # seconds until a call is answered without the handler
    keep: int  # bytes of records that may wait while the parent does not read
    backlog: int
    layers: tuple[tuple[str, bytes], ...] = ()
    _outside: tuple[str, str] | None = None
    _layers: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        """For logs: what it is about, without settings, in which keys may be."""
        where = f"host={self.host!r}, port={self.port}, path={self.path!r}"
        layers = tuple(name for name, _ in self.layers)
        return f"Configure(protocol={self.protocol!r}, {where}, layers={layers})"


class Resume(Message, frozen=True, kw_only=True, tag=21):
    """Serve where Ahead said, with the configuration of the last server. Not answered."""


class Handle(Message, frozen=True, kw_only=True, tag=11):
    """Call the parent's handler from here on, or, as at first, record and answer plain success.

    Not answered: what a client sends after this was written is acted on after this was read.
    """

    on: bool


class Change(Message, frozen=True, kw_only=True, tag=25):
    """Keep to other limits than Configure said, of these; the next server has those of Configure.

    Not answered: what a client sends after this was written is acted on after this was read.
    """

    handler_timeout: float | None  # seconds
    keep: int  # bytes


class Sync(Message, frozen=True, kw_only=True, tag=12):
    """Answer Synced once everything that clients have sent before has been acted on.

    Clients that send without end are waited for no longer than a tenth of a second.
    """

    token: int


class Describe(Message, frozen=True, kw_only=True, tag=23):
    """Answer Described at once."""

    token: int


class Close(Message, frozen=True, kw_only=True, tag=16):
    """Close the connection of ``call``: once everything has been sent, or with a reset (RST).

    With ``breaks``, TLS ends as it must not, without close_notify: in the middle of a record or
    after one. Then a reset waits for what was sent, too. If the handler has not ``returned``,
    Returned follows.
    """

    call: int
    reset: bool
    returned: bool = True
    breaks: Literal["", "in_record", "without_notify"] = ""


class Returned(Message, frozen=True, kw_only=True, tag=22):
    """The handler has returned of a call that had ended before: by Lost, or by Close."""

    call: int


class SetOption(Message, frozen=True, kw_only=True, tag=17):
    """Set an option of the socket of ``call``, as with ``socket.setsockopt``."""

    call: int
    level: int
    name: int
    value: int | bytes


class Stop(Message, frozen=True, kw_only=True, tag=18):
    """Stop serving: drain for up to ``drain`` seconds, close everything, answer Stopped.

    With ``ahead``, bind again for a server of the same configuration, and send Ahead.
    """

    drain: float
    caller: int  # the call whose handler stops its own server, so do not wait for it; or 0
    finished: int = 0  # calls of this run whose handlers have returned
    ahead: bool = False


class Postpone(Message, frozen=True, kw_only=True, tag=19):
    """The answer to Overdue."""

    token: int
    wanted: bool  # whether to postpone the time-out


class Idle(Message, frozen=True, kw_only=True, tag=20):
    """No handler is running any more. The answer to ``Draining(waits=True)``."""


# Expectations: what the child answers by itself -------------------------------------------------


class Declare(Message, frozen=True, kw_only=True, tag=26):
    """Add an expectation; from the first on the service is strict.

    Not answered: what a client sends after this was written is acted on after this was read.
    """

    entry: int  # unique in a server, and ascending in the order of declaration
    allow: bool  # may be met; else must be
    least: int  # times that it has to be met
    most: int | None  # times that it may be met; None is any number
    group: int  # the ``in_order`` that it belongs to; 0 is none
    label: str  # how texts name it: what was declared
    place: str  # and where: "test_shop.py:12", or empty
    asked: bool  # has parts that only the test's process can judge
    held: bool  # what meets it waits until the test answers
    early: bool  # chosen, and answered, when the head has come
    met: int  # times that earlier runs have met it
    matchers: bytes  # of the protocol, encoded


class Reply(Message, frozen=True, kw_only=True, tag=27):
    """Add an answer to an expectation; the last repeats."""

    entry: int
    least: int  # times that it has to be met now
    delay: float  # seconds before the answer
    answer: bytes | None  # of the protocol, encoded; None is a callable of the test's process
    early: bool = False  # from now on the expectation is chosen when the head has come


class Hold(Message, frozen=True, kw_only=True, tag=28):
    """Have what meets an expectation wait until the test answers."""

    entry: int


class Withdraw(Message, frozen=True, kw_only=True, tag=29):
    """Remove expectations; ``strict`` is whether the service is strict after it."""

    entries: list[int]
    strict: bool


class Verdict(Message, frozen=True, kw_only=True, tag=24):
    """The answer to ``Met.asks``: the first that the request matches; the others were not asked.

    Chosen follows, which may ask on. An answer to the call in its place settles the question:
    nothing is chosen then.
    """

    call: int
    entry: int  # 0 if it matches none of them


class Met(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What expectations have made of a request: in its event, or in Chosen."""

    entry: int = 0  # that was chosen; 0 is none
    reply: int = 0  # the number of its answer, from 0: that of a callable is due
    status: int = 0  # that the child has answered, or answers after the delay; 0 if it does not
    size: int = 0  # bytes of its body
    held: bool = False  # the test answers
    asks: tuple[int, ...] = ()  # entries on which Verdict is due, in the order in which to ask
    unexpected: str = ""  # why none was chosen, and what came nearest; the client has got it
    done: bool = False  # the child answers by itself; a fault may have no status


# Events ----------------------------------------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True, tag=30):
    """The child has booted."""

    pid: int
    version: int
    pipe: int = 0  # bytes that the pipe for events holds; 0 if that cannot be known


class Ahead(Message, frozen=True, kw_only=True, tag=46):
    """Bound for the next server, which Resume begins; nobody else knows the port."""

    addresses: list[Address]  # empty if it could not be bound


class Ready(Message, frozen=True, kw_only=True, tag=31):
    """Bound and serving."""

    addresses: list[Address]


class Failed(Message, frozen=True, kw_only=True, tag=32):
    """The child could not bind."""

    errno: int | None
    text: str


class Lost(Message, frozen=True, kw_only=True, tag=37):
    """The child has ended ``call``: its client has left, or was answered without the handler."""

    call: int
    reset: bool
    answered: tuple[int, int] | None = None  # status and bytes of the child's own answer


class Gone(Message, frozen=True, kw_only=True, tag=48):
    """The client of ``call`` has stopped sending: during a stop it counts as gone.

    Of a call that the test holds, it is told at once.

    An answer still reaches it, until Lost follows.
    """

    call: int


class Diagnostic(Message, frozen=True, kw_only=True, tag=39):
    """A client broke the rules of its protocol, or the server gave up on something."""

    peer: Address
    text: str
    at: float = 0.0  # seconds on the monotonic clock
    connection: int = 0  # its number in this run; 0 if there is none


class LogLine(Message, frozen=True, kw_only=True, tag=40):
    """A formatted log record of the child."""

    name: str
    level: int
    text: str
    at: float = 0.0  # seconds on the monotonic clock


class Synced(Message, frozen=True, kw_only=True, tag=41):
    """Everything that came before the command with ``token`` has been sent to the parent."""

    token: int


class Dropped(Message, frozen=True, kw_only=True, tag=42):
    """The child has dropped what waited for the parent beyond ``keep`` bytes."""

    count: int  # records
    diagnostics: int = 0


class OpenConnection(msgspec.Struct, frozen=True, array_like=True):
    """A connection that is open, and what it is doing."""

    client_address: Address
    state: str
    call: int  # 0 if no handler has it
    number: int = 0  # of the connection in this run


class Described(Message, frozen=True, kw_only=True, tag=49):
    """The connections without a call that are open: the first, and how many more there are."""

    token: int
    open: list[OpenConnection]
    more: int


class Stopped(Message, frozen=True, kw_only=True, tag=43):
    """Everything is closed. Only with ``clean`` may the process serve again.

    With ``ahead``, Ahead follows at once.
    """

    ahead: bool = False
    clean: bool
    open: list[OpenConnection]


class Draining(Message, frozen=True, kw_only=True, tag=44):
    """Everything that clients had sent before the stop has been sent to the parent."""

    waits: bool = False  # whether the child waits for Idle


class Overdue(Message, frozen=True, kw_only=True, tag=45):
    """A handler's time has ended: postpone the time-out because the test is being debugged?"""

    token: int


class Misread(Message, frozen=True, kw_only=True, tag=47):
    """The child could not decode a command, and has ended the call that it was for."""

    text: str


class Chosen(Message, frozen=True, kw_only=True, tag=34):
    """What was chosen for a call after its Verdict; without entry, its handler, unless ``done``.

    If it is ``done`` the call has ended: no answer and no Returned is due. If it asks, nothing is
    chosen yet.
    """

    call: int
    met: Met


class Counts(Message, frozen=True, kw_only=True, tag=35):
    """How often expectations were met in this run, as records of that were dropped.

    It counts what came before this message, with what was dropped; what follows adds to it.
    """

    met: list[tuple[int, int]]  # entry, times; without those that were not met


COMMANDS: tuple[type[Message], ...] = (
    Configure,
    Resume,
    Handle,
    Change,
    Sync,
    Describe,
    Postpone,
    Declare,
    Reply,
    Hold,
    Withdraw,
    Verdict,
    Close,
    Returned,
    SetOption,
    Stop,
    Idle,
    Data,
    Ack,
    AckSoon,
    End,
)
EVENTS: tuple[type[Message], ...] = (
    Hello,
    Ahead,
    Ready,
    Failed,
    Lost,
    Gone,
    Diagnostic,
    LogLine,
    Misread,
    Synced,
    Described,
    Dropped,
    Draining,
    Overdue,
    Chosen,
    Counts,
    Stopped,
    Data,
    Ack,
    AckSoon,
    End,
)
