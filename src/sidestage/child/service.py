"""One server in its process, for any protocol: listeners, connections and the drain."""

from __future__ import annotations

import asyncio
import errno
import importlib
import itertools
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Protocol

from ..wire.credit import LEAST_ROOM, Transit
from ..wire.frames import MAX_RECORD
from ..wire.messages import (
    Configure,
    Declare,
    Diagnostic,
    Gone,
    Hold,
    Message,
    OpenConnection,
    Reply,
    SetOption,
    Vocabulary,
    Withdraw,
)
from ..wire.values import printable
from .calls import Calls
from .iteration import Flag, Iteration
from .net.layer import Layer, LayerFactory, stacked
from .net.listener import Acceptor, wire_address
from .net.stream import Receiver, Transport

_ROOT = __name__.partition(".")[0]

# A stop reads everything that clients had sent before it. A client may send without end, so stop
# reading after more bytes than the kernel buffers for a connection.
_KERNEL_BYTES = 1 << 24
_READ_SECONDS = 0.005  # between two looks at what is read ahead of the handlers
LEFT_SECONDS = 0.1  # that a stop leaves a handler whose client has stopped sending
# Of the loop, without a connection or a byte: all has been read, and the tasks have run that this
# has started. A stop may begin in the iteration that has read the command, before clients are
# looked at, and goes on before they are in the next.
_QUIET_ITERATIONS = 2
_DESCRIBED = 20  # connections that are described to the test


class Peer(Protocol):
    """A client's connection, as the drain sees it."""

    def describe(self) -> OpenConnection:
        """Describe the client and what its connection is doing."""
        ...

    def call_ids(self) -> Iterable[int]:
        """The ids of the calls that it waits for."""
        ...

    def is_behind(self) -> bool:
        """Whether the client has sent more that cannot be read before the handler reads."""
        ...

    def close_if_idle(self) -> None:
        """Close now, or as soon as the exchange in progress has finished."""

    def abort(self) -> None:
        """Drop the connection now."""


class HalfClosed(Peer, Protocol):
    """A connection whose client has stopped sending: a stop does not wait for its handler."""

    def give_up(self) -> None:
        """Drop the connection: its handler has had its time."""


class ServedLayer(Protocol):
    """A layer of a service, for all its connections; called with what is above, it makes one."""

    vocabulary: ClassVar[Vocabulary]
    bequest: str  # the owner's directory of files, to be removed if that dies; empty for none

    def __init__(self, service: Service, settings: Any) -> None: ...

    def __call__(self, above: Receiver, /) -> Layer:
        """Make the layer of one connection."""
        ...


class Unrecorded:
    """The bytes of records that are not complete: what does not fit is cut from them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit  # bytes
        self._free = limit  # bytes

    def limit(self, limit: int) -> None:
        """Have room for ``limit`` bytes from now on."""
        self._free += limit - self._limit
        self._limit = limit

    def take(self, size: int) -> int:
        """Count up to ``size`` bytes; returns how many may be stored."""
        taken = max(0, min(size, self._free))  # less than none is free once the limit is lower
        self._free -= taken
        return taken

    def give(self, size: int) -> None:
        """Take ``size`` bytes off: their record is complete, or is none."""
        self._free += size


class Service:
    """One server: its listeners, its connections, its open calls.

    A protocol derives from it in ``protocols/<name>/child/service.py`` and assigns the class to
    ``SERVICE`` there.
    """

    vocabulary: ClassVar[Vocabulary]
    socket_kind: ClassVar[int] = socket.SOCK_STREAM
    clients_begin: ClassVar[bool] = False  # one that sends nothing is not served

    def __init__(self, iteration: Iteration, config: Configure, settings: Any) -> None:
        self.iteration = iteration
        self.loop = iteration.loop
        self.outbox = iteration.outbox
        self.config = config
        self.settings = settings  # of the type in the vocabulary
        self.layers: list[LayerFactory] = []  # from the stream up
        self.layer_commands: dict[type, Callable[[Any], None]] = {}  # what is for no call
        self.handled = False  # call the parent's handler; else record, and answer plain success
        self.handler_timeout = config.handler_timeout  # seconds; it may change
        self.record_limit = min(config.keep // 4, MAX_RECORD)  # bytes of one record's body
        self.draining = False
        self.finished = 0  # calls whose handlers had returned when the stop was requested
        room = max(config.keep, LEAST_ROOM)
        self.calls = Calls(self.loop, self.outbox, config.handler_timeout, room)
        self.transit = Transit(room)  # of the streams from clients
        self.unrecorded = Unrecorded(config.keep)
        self.peers: set[Peer] = set()
        self.next_connection = itertools.count(1).__next__
        self.remove_file: Callable[[], None] = _nothing  # of a Unix socket
        self._half_closed: set[HalfClosed] = set()
        self._patience: dict[int, asyncio.TimerHandle] = {}  # by call, in a stop
        self._acceptors: list[Acceptor] = []
        self._emptied = Flag()

    # Serving -----------------------------------------------------------------------------------

    def serve(self, sockets: list[socket.socket]) -> None:
        """Accept clients on ``sockets``."""
        receiver = self._top_of_stack if self.layers else self.receiver
        for sock in sockets:
            acceptor = Acceptor(self.iteration, sock, self.config.backlog, receiver)
            self._acceptors.append(acceptor)

    def change(self, handler_timeout: float | None, keep: int) -> None:
        """Keep to other limits than those of the configuration, which the next server may have."""
        room = max(keep, LEAST_ROOM)
        self.handler_timeout = handler_timeout
        self.record_limit = min(keep // 4, MAX_RECORD)
        self.calls.limit(handler_timeout, room)
        self.transit.limit = room
        self.unrecorded.limit(keep)

    def receiver(self) -> Receiver:
        """Return the receiver for a new connection."""
        raise AssertionError("each protocol has its own")

    def _top_of_stack(self) -> Receiver:
        return stacked(self.receiver(), self.layers)

    def may_be_ahead(self) -> bool:
        """Whether the next may be bound ahead: on TCP/IP, at a port that the kernel chooses."""
        config = self.config
        return self.socket_kind == socket.SOCK_STREAM and config.path is None and not config.port

    def command(self, message: Any) -> None:
        """Give a command to its call, or to a layer; drop it if the call has ended."""
        call = self.calls.get(getattr(message, "call", 0))
        if call is not None:
            call.command(message)
        elif (act := self.layer_commands.get(type(message))) is not None:
            act(message)

    @classmethod
    def preload(cls) -> None:
        """Import what not every server needs."""

    def expect(self, message: Declare | Reply | Hold | Withdraw) -> None:
        """Add an expectation, change it, or remove some."""
        raise NotImplementedError("this protocol has no expectations")

    def counts(self) -> list[tuple[int, int]]:
        """How often expectations were met in this run."""
        return []

    def plain_refusal(self, local: object) -> bytes:
        """What a client gets that speaks no TLS to a server with it; ``local`` is its address."""
        return b""

    def read_on(self, peer: Peer) -> None:
        """Read what the client has sent, though nobody takes it: it may have left after that."""

    def idle(self) -> None:
        """Called during a drain that waits for handlers, once none is running."""

    def joined(self, peer: Peer) -> None:
        """Add a connection."""
        self.peers.add(peer)

    def left(self, peer: Peer) -> None:
        """Remove a connection that is closed."""
        self.peers.discard(peer)
        if self._half_closed:
            self._half_closed.discard(peer)
        self.iteration.progress.set()
        if not self.peers:
            self._emptied.set()

    def describe(self) -> tuple[list[OpenConnection], int]:
        """The connections that are open and have no call, of which the parent knows.

        In order, only the first, and how many more there are.
        """
        every = (peer.describe() for peer in self.peers)
        described = sorted((one for one in every if not one.call), key=lambda one: one.number)
        return described[:_DESCRIBED], len(described[_DESCRIBED:])

    def half_closed(self, peer: HalfClosed, *, on: bool = True) -> None:
        """Note that the client has stopped sending, and that a stop need not wait for it then."""
        (self._half_closed.add if on else self._half_closed.discard)(peer)
        if on and self.draining:
            self._expect_end(peer)

    def has_half_closed(self, peer: object) -> bool:
        """Whether the client has stopped sending."""
        return peer in self._half_closed

    def began(self, peer: HalfClosed) -> None:
        """Note that a call begins in a stop: its client may have stopped sending before."""
        if peer in self._half_closed:
            self._expect_end(peer)

    def diagnose(self, peer: object, text: str, connection: int = 0) -> None:
        """Send the test a diagnostic about ``peer``."""
        self.outbox.note(
            Diagnostic(
                peer=wire_address(peer),
                text=printable(text),
                at=self.loop.time(),
                connection=connection,
            )
        )

    def set_option(
        self, transport: Transport, message: SetOption, peer: object, connection: int
    ) -> None:
        """Set an option of a connection's socket; a failure is a diagnostic."""
        sock = transport.get_extra_info("socket")
        try:
            sock.setsockopt(message.level, message.name, message.value)
        except OSError as error:
            text = f"setsockopt({message.level}, {message.name}) failed: {error.strerror}"
            self.diagnose(peer, text, connection)

    def send(self, message: Message) -> None:
        """Send a message that is never dropped."""
        self.outbox.send(message)

    # Stopping ----------------------------------------------------------------------------------

    async def drain(
        self, seconds: float, caller: int, announce: Callable[[bool], None]
    ) -> list[OpenConnection]:
        """Stop accepting, let exchanges finish for up to ``seconds``, then close everything.

        Returns the connections that had not finished. ``caller`` is the id of the call whose
        handler stops the server, or 0: that call is not waited for. ``announce`` is called once
        everything that clients had sent before the stop has been read; its argument is whether
        the drain waits for ``idle``.
        """
        end = self.loop.time() + seconds
        await self._take_what_was_sent(self.loop.time() + seconds / 4, caller)
        self.close_listeners()
        self.draining = True
        announce(len(self.calls) > 0)
        for peer in list(self.peers):
            if caller and caller in peer.call_ids():
                peer.abort()
            else:
                peer.close_if_idle()
        for half_closed in list(self._half_closed):
            if not caller or caller not in half_closed.call_ids():
                self._expect_end(half_closed)
        await self._wait_until_empty(end - self.loop.time())
        while self.peers and await self.calls.postpones():
            await self._wait_until_empty(seconds)
        try:
            return await self._abort_unfinished()
        finally:
            self.calls.end()
            for timer in self._patience.values():
                timer.cancel()

    def _expect_end(self, peer: HalfClosed) -> None:
        """Let the handlers of ``peer`` answer soon, or never: its client counts as gone."""
        for call in peer.call_ids():
            if call not in self._patience and self.calls.get(call) is not None:
                self.outbox.send(Gone(call=call))
                self._be_patient(peer, call)

    def _be_patient(self, peer: HalfClosed, call: int) -> None:
        self._patience[call] = self.loop.call_later(LEFT_SECONDS, self._impatient, peer, call)

    def _impatient(self, peer: HalfClosed, call: int) -> None:
        """The time of a handler is over, unless the test is being debugged."""

        def runs() -> bool:
            return peer in self._half_closed and self.calls.get(call) is not None

        def decide(postponed: bool) -> None:
            if postponed and runs():
                self._be_patient(peer, call)
            elif runs():
                peer.give_up()

        if runs():
            self.calls.ask(decide)

    async def _take_what_was_sent(self, end: float, caller: int) -> None:
        iteration = self.iteration
        if not (
            self.peers
            or len(self.calls)  # a session of a client that is gone may be about to tell it
            or iteration.received
            or any(map(Acceptor.has_clients, self._acceptors))
        ):
            return  # as mostly; an iteration of the loop takes longer than this look
        enough, quiet = iteration.taken + _KERNEL_BYTES, 0
        patience = LEFT_SECONDS  # with handlers that do not read what comes before the end
        while quiet < _QUIET_ITERATIONS and iteration.taken < enough and self.loop.time() < end:
            before = iteration.taken
            behind = [
                peer for peer in self.peers if peer.is_behind() and caller not in peer.call_ids()
            ]
            if behind:
                iteration.progress.clear()
                await iteration.progress.wait(min(patience, end - self.loop.time()))
                if not iteration.progress.is_set():
                    patience = _READ_SECONDS
                    for peer in behind:
                        self.read_on(peer)
                quiet = 0
            else:
                await asyncio.sleep(0)
                quiet = quiet + 1 if iteration.taken == before else 0

    async def _abort_unfinished(self) -> list[OpenConnection]:
        """Close what the drain has not finished; returns it."""
        unfinished = [peer.describe() for peer in self.peers]
        for peer in list(self.peers):
            for call in list(peer.call_ids()):
                self.calls.close(call)  # the parent ends these calls itself
            peer.abort()
        await self._wait_until_empty(1.0)  # aborted transports close within two iterations
        return unfinished

    def close_listeners(self) -> None:
        """Stop accepting clients, and remove the file of a Unix socket before that is closed."""
        self.remove_file()
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors.clear()

    async def _wait_until_empty(self, seconds: float) -> None:
        if self.peers:
            self._emptied.clear()
            await self._emptied.wait(seconds)


def _nothing() -> None:
    """There is no file."""


def protocols() -> Iterator[str]:
    """The names of the built-in protocols: the folders in ``protocols/``."""
    import pkgutil  # late: the first server does not need it

    package = importlib.import_module(f"{_ROOT}.protocols")
    for found in pkgutil.iter_modules(package.__path__):
        yield found.name


def service_of(protocol: str, outside: tuple[str, str] | None = None) -> type[Service]:
    """Import the service class of a protocol; ``outside`` is as in ``Configure``.

    Raises OSError for a protocol that there is no folder of.
    """
    folder = f"{_ROOT}.protocols.{protocol}"
    try:
        if outside is not None:
            module = _outside(outside)
        else:
            module = importlib.import_module(f"{folder}.child.service")
        service: type[Service] = module.SERVICE
    except ModuleNotFoundError as error:
        if error.name != folder:
            raise
        raise OSError(errno.EPROTONOSUPPORT, f"there is no protocol {protocol!r}") from None
    return service


def layer_of(name: str) -> type[ServedLayer]:
    """Import a layer: ``LAYER`` in the module ``child/layer.py`` of its folder in ``layers/``."""
    layer: type[ServedLayer] = importlib.import_module(f"{_ROOT}.layers.{name}.child.layer").LAYER
    return layer


def outside_layers(outside: Iterable[tuple[str, str]]) -> list[LayerFactory]:
    """Import the classes of layers; ``outside`` is as in ``Configure``."""
    return [_outside(place).LAYER for place in outside]


def _outside(place: tuple[str, str]) -> Any:
    """Import a module from a directory that is not on the path."""
    directory, name = place
    if directory not in sys.path:
        sys.path.append(directory)
    return importlib.import_module(name)
