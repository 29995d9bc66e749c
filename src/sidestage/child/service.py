"""One server in its process, whatever its protocol: listeners, connections, an orderly end."""

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

# Iterations of the loop in which a stop still takes what clients had sent before it: one accepts
# and reads them, the next continues with what runs in a task of its own.
_LAST_ITERATIONS = 2


class Peer(Protocol):
    """A client's connection, as the drain sees it."""

    def describe(self) -> OpenConnection:
        """Who is connected, and in the middle of what."""
        ...

    def call_ids(self) -> Iterable[int]:
        """The calls that it waits for."""
        ...

    def close_if_idle(self) -> None:
        """Close unless an exchange is in progress, else after it."""

    def abort(self) -> None:
        """Drop the connection now."""


class Service:
    """One server: its listeners, its connections, its open calls.

    A protocol derives from it in ``protocols/<name>/child/service.py``, which names the class
    ``SERVICE``.
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
        self.settings = settings  # of the vocabulary's type
        self.handled = config.handled
        self.record_limit = min(config.keep // 4, MAX_RECORD)  # bytes of one record's body
        self.draining = False
        self.finished = 0  # calls whose handlers were done when the stop was asked for
        self.calls = Calls(loop, outbox)
        self.peers: set[Peer] = set()
        self.next_connection = itertools.count(1).__next__
        self._acceptors: list[Acceptor] = []
        self._emptied = Flag()

    # Serving -----------------------------------------------------------------------------------

    def serve(self, sockets: list[socket.socket]) -> None:
        """Accept on ``sockets`` from now on."""
        for sock in sockets:
            acceptor = Acceptor(self.loop, sock, self.config.backlog, self.receiver)
            self._acceptors.append(acceptor)

    def receiver(self) -> Receiver:
        """The receiver of a new connection's bytes."""
        raise AssertionError("each protocol has its own")

    def iteration_ends(self) -> None:
        """Called when the loop is about to wait."""

    def command(self, message: Any) -> None:
        """Pass a command on to the call it is for."""
        self.calls.command(message.call, message)

    def idle(self) -> None:
        """No handler is running any more, in a drain that waits for that."""

    def joined(self, peer: Peer) -> None:
        """A client has connected."""
        self.peers.add(peer)

    def left(self, peer: Peer) -> None:
        """A client's connection is closed."""
        self.peers.discard(peer)
        if not self.peers:
            self._emptied.set()

    def diagnose(self, peer: object, text: str, connection: int = 0) -> None:
        """Report something that is no handler's error to the test."""
        self.send(
            Diagnostic(
                peer=wire_address(peer), text=text, at=self.loop.time(), connection=connection
            )
        )

    def send(self, message: Message) -> None:
        """Pass on a message that must not be lost."""
        self.outbox.send(message)

    # Stopping ----------------------------------------------------------------------------------

    async def drain(
        self, seconds: float, caller: int, announce: Callable[[bool], None]
    ) -> list[OpenConnection]:
        """Stop accepting, let exchanges finish, close everything; returns what had not finished.

        ``caller`` is the call whose handler stops the server, which is not waited for.
        ``announce`` is called once everything that clients had sent before has been read, with
        whether ``idle`` is waited for.
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
        unfinished = [peer.describe() for peer in self.peers]
        for peer in list(self.peers):
            for call in list(peer.call_ids()):
                self.calls.close(call)  # the handler will learn that the server is gone
            peer.abort()
        await self._wait_until_empty(1.0)  # aborted transports close within two iterations
        self.calls.end()
        return unfinished

    def close_listeners(self) -> None:
        """Accept nobody any more."""
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors.clear()

    async def _wait_until_empty(self, seconds: float) -> None:
        if self.peers:
            self._emptied.clear()
            await self._emptied.wait(seconds)


def protocols() -> Iterator[str]:
    """The names of the protocols that there is a folder of."""
    import pkgutil  # not needed for the first server, whose boot is waited for

    package = importlib.import_module(f"{_ROOT}.protocols")
    for found in pkgutil.iter_modules(package.__path__):
        yield found.name


def service_of(protocol: str, outside: tuple[str, str] | None = None) -> type[Service]:
    """The service of a protocol, from its folder; ``outside`` as ``Configure`` has it.

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
    """An event that can be waited for with a time-out that is no error."""

    async def wait(self, seconds: float | None = None) -> Literal[True]:
        """Wait until it is set, at most ``seconds``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await super().wait()
        return True
