"""One server in its process, for any protocol: listeners, connections and the drain."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import itertools
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Literal, Protocol

from ..wire.frames import MAX_RECORD
from ..wire.messages import Configure, Diagnostic, Message, OpenConnection, Vocabulary
from .calls import Calls
from .channel import Outbox
from .net.listener import Acceptor, wire_address
from .net.stream import Receiver

_ROOT = __name__.partition(".")[0]

# Iterations of the loop in which a stop still reads what clients had sent before it: the first
# accepts and reads, the second runs the tasks that this has started.
_LAST_ITERATIONS = 2


class Peer(Protocol):
    """A client's connection, as the drain sees it."""

    def describe(self) -> OpenConnection:
        """Describe the client and what its connection is doing."""
        ...

    def call_ids(self) -> Iterable[int]:
        """The ids of the calls that it waits for."""
        ...

    def close_if_idle(self) -> None:
        """Close now, or as soon as the exchange in progress has finished."""

    def abort(self) -> None:
        """Drop the connection now."""


class Service:
    """One server: its listeners, its connections, its open calls.

    A protocol derives from it in ``protocols/<name>/child/service.py`` and assigns the class to
    ``SERVICE`` there.
    """

    vocabulary: ClassVar[Vocabulary]
    socket_kind: ClassVar[int] = socket.SOCK_STREAM

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        outbox: Outbox,
        config: Configure,
        settings: Any,
    ) -> None:
        self.loop = loop
        self.outbox = outbox
        self.config = config
        self.settings = settings  # of the type in the vocabulary
        self.handled = config.handled
        self.record_limit = min(config.keep // 4, MAX_RECORD)  # bytes of one record's body
        self.draining = False
        self.finished = 0  # calls whose handlers had returned when the stop was requested
        self.calls = Calls(loop, outbox)
        self.peers: set[Peer] = set()
        self.next_connection = itertools.count(1).__next__
        self._acceptors: list[Acceptor] = []
        self._emptied = Flag()

    # Serving -----------------------------------------------------------------------------------

    def serve(self, sockets: list[socket.socket]) -> None:
        """Accept clients on ``sockets``."""
        for sock in sockets:
            acceptor = Acceptor(self.loop, sock, self.config.backlog, self.receiver)
            self._acceptors.append(acceptor)

    def receiver(self) -> Receiver:
        """Return the receiver for a new connection."""
        raise AssertionError("each protocol has its own")

    def iteration_ends(self) -> None:
        """Called when the loop is about to wait."""

    def command(self, message: Any) -> None:
        """Give a command to its call; one of another protocol, come late, may have none."""
        self.calls.command(getattr(message, "call", 0), message)

    def idle(self) -> None:
        """Called during a drain that waits for handlers, once none is running."""

    def joined(self, peer: Peer) -> None:
        """Add a connection."""
        self.peers.add(peer)

    def left(self, peer: Peer) -> None:
        """Remove a connection that is closed."""
        self.peers.discard(peer)
        if not self.peers:
            self._emptied.set()

    def diagnose(self, peer: object, text: str, connection: int = 0) -> None:
        """Send the test a diagnostic about ``peer``."""
        self.send(
            Diagnostic(
                peer=wire_address(peer), text=text, at=self.loop.time(), connection=connection
            )
        )

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
        for _ in range(_LAST_ITERATIONS):
            await asyncio.sleep(0)
        self.close_listeners()
        self.draining = True
        announce(len(self.calls) > 0)
        for peer in list(self.peers):
            if caller and caller in peer.call_ids():
                peer.abort()
            else:
                peer.close_if_idle()
        await self._wait_until_empty(seconds)
        while self.peers and await self.calls.postpones():
            await self._wait_until_empty(seconds)
        return await self._abort_unfinished()

    async def _abort_unfinished(self) -> list[OpenConnection]:
        """Close what the drain has not finished; returns it."""
        unfinished = [peer.describe() for peer in self.peers]
        for peer in list(self.peers):
            for call in list(peer.call_ids()):
                self.calls.close(call)  # the parent ends these calls itself
            peer.abort()
        await self._wait_until_empty(1.0)  # aborted transports close within two iterations
        self.calls.end()
        return unfinished

    def close_listeners(self) -> None:
        """Stop accepting clients."""
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors.clear()

    async def _wait_until_empty(self, seconds: float) -> None:
        if self.peers:
            self._emptied.clear()
            await self._emptied.wait(seconds)


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
    name = f"{folder}.child.service"
    if outside is not None:
        directory, name = outside
        if directory not in sys.path:
            sys.path.append(directory)
    try:
        service: type[Service] = importlib.import_module(name).SERVICE
    except ModuleNotFoundError as error:
        if error.name != folder:
            raise
        raise OSError(errno.EPROTONOSUPPORT, f"there is no protocol {protocol!r}") from None
    return service


class Flag(asyncio.Event):
    """An event whose ``wait`` takes a time-out and does not raise when it ends."""

    async def wait(self, seconds: float | None = None) -> Literal[True]:
        """Wait until it is set, at most ``seconds``; ``None`` is no limit."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await super().wait()
        return True
