"""What the four protocols share in the child: calls, listeners, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol

from ..wire.frames import MAX_RECORD, WINDOW
from ..wire.messages import (
    Ack,
    Close,
    Configure,
    Data,
    Diagnostic,
    End,
    Lost,
    MailReply,
    OpenConnection,
    Overdue,
    Respond,
    SendTo,
    SetOption,
)
from .channel import Outbox
from .net.acceptor import Acceptor
from .net.listener import wire_address
from .net.stream import Receiver

CallCommand = Respond | MailReply | SendTo | Close | SetOption | Data | Ack | End

# Passes of the loop in which a stop still takes what clients had sent before it: in one they are
# accepted and read, in the next what is a task of its own goes on with that.
_LAST_PASSES = 2

_ANSWER_SECONDS = 0.5  # for the parent to say whether it is being debugged

# Over the life of the process, so that a late reply never hits another's call.
next_call_id = itertools.count(1).__next__


class Target(Protocol):
    """What a call's commands are for."""

    def command(self, message: CallCommand) -> None:
        """Carry out one command."""


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
    """One server: its listeners, its connections, its calls under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outbox: Outbox, config: Configure) -> None:
        self.loop = loop
        self.outbox = outbox
        self.config = config
        self.handled = config.handled
        self.record_limit = min(config.keep // 4, MAX_RECORD)  # bytes of one record's body
        self.draining = False
        self.finished = 0  # calls whose handlers were done when the stop was asked for
        self.calls: dict[int, Target] = {}
        self.peers: set[Peer] = set()
        self._acceptors: list[Acceptor] = []
        self._asked: dict[int, tuple[asyncio.TimerHandle, Callable[[bool], None]]] = {}
        self._emptied = Flag()

    # Serving -----------------------------------------------------------------------------------

    def serve(self, sockets: list[socket.socket]) -> None:
        """Accept on ``sockets`` from now on."""
        for sock in sockets:
            acceptor = Acceptor(self.loop, sock, self.config.backlog, self.receiver)
            self._acceptors.append(acceptor)

    def receiver(self) -> Receiver:
        """What a new connection is for."""
        raise AssertionError("each protocol has its own")

    def pass_ends(self) -> None:
        """A pass of the loop is over, which is about to wait."""

    def command(self, message: CallCommand) -> None:
        """Pass a command on to the call it is for; one that has ended needs none."""
        target = self.calls.get(getattr(message, "call", 0))
        if target is not None:
            target.command(message)

    def open_call(self, target: Target) -> int:
        """A new call id, whose commands go to ``target``."""
        call = next_call_id()
        self.calls[call] = target
        return call

    def close_call(self, call: int) -> None:
        """No more commands for ``call`` will find anybody."""
        self.calls.pop(call, None)

    def lose_call(self, call: int, *, reset: bool) -> None:
        """The client of ``call`` is gone: tell the parent, if the call was still under way."""
        if self.calls.pop(call, None) is not None:
            self.outbox.send(Lost(call=call, reset=reset))

    def joined(self, peer: Peer) -> None:
        """A client has connected."""
        self.peers.add(peer)

    def left(self, peer: Peer) -> None:
        """A client's connection is closed."""
        self.peers.discard(peer)
        if not self.peers:
            self._emptied.set()

    def diagnose(self, peer: object, text: str) -> None:
        """Tell the test of something that is no handler's error."""
        self.outbox.send(Diagnostic(peer=wire_address(peer), text=text))

    # Time-outs ---------------------------------------------------------------------------------

    def ask_to_postpone(self, act: Callable[[bool], None]) -> None:
        """Call ``act`` with whether the time-out that has come is to be granted again.

        It is while the test is being debugged. A parent that does not answer does not want it.
        """
        token = next_call_id()
        timer = self.loop.call_later(_ANSWER_SECONDS, self.postponed, token)
        self._asked[token] = (timer, act)
        self.outbox.send(Overdue(token=token))

    def postponed(self, token: int, *, wanted: bool = False) -> None:
        """The answer of the parent, or that there is none."""
        timer, act = self._asked.pop(token, (None, None))
        if timer is not None and act is not None:
            timer.cancel()
            act(wanted)

    async def postpones(self) -> bool:
        """Whether the time-out that has come is to be granted again."""
        answer: asyncio.Future[bool] = self.loop.create_future()

        def act(wanted: bool) -> None:
            if not answer.done():  # who waited may have been cancelled
                answer.set_result(wanted)

        self.ask_to_postpone(act)
        return await answer

    # Stopping ----------------------------------------------------------------------------------

    async def drain(
        self, seconds: float, spare: int, announce: Callable[[], None]
    ) -> list[OpenConnection]:
        """Stop accepting, let exchanges finish, close everything; returns what had not finished.

        ``announce`` is called once all that clients had sent before has been read.
        """
        for _ in range(_LAST_PASSES):
            await asyncio.sleep(0)
        self.close_listeners()
        self.draining = True
        announce()
        for peer in list(self.peers):
            if spare and spare in peer.call_ids():
                peer.abort()
            else:
                peer.close_if_idle()
        await self._wait_until_empty(seconds)
        while self.peers and await self.postpones():
            await self._wait_until_empty(seconds)
        unfinished = [peer.describe() for peer in self.peers]
        for peer in list(self.peers):
            for call in list(peer.call_ids()):
                self.close_call(call)  # the handler is to learn that the server is gone
            peer.abort()
        await self._wait_until_empty(1.0)  # aborted transports close within two passes
        for timer, _ in self._asked.values():
            timer.cancel()
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


class Flag(asyncio.Event):
    """An event that can be waited for with a time-out that is no error."""

    async def wait(self, seconds: float | None = None) -> Literal[True]:
        """Wait until it is set, at most ``seconds``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await super().wait()
        return True


class Backpressure:
    """Counts stream bytes both ways on one connection, so that neither side piles them up.

    ``hold`` is called with whether the client is not to be read for now.
    """

    def __init__(self, outbox: Outbox, hold: Callable[[bool], None]) -> None:
        self.call = 0
        self.paused = False  # the parent has not consumed enough
        self._outbox = outbox
        self._hold = hold
        self._unread = 0  # sent to the parent, not acknowledged
        self._owed = 0  # taken from the parent, not acknowledged
        self._blocked = False  # the client does not read

    def start(self, call: int) -> None:
        """Begin the stream ``call``."""
        self.call, self._unread, self._owed = call, 0, 0

    def sent(self, size: int) -> None:
        """``size`` bytes from the client went to the parent."""
        self._unread += size
        self._set_paused(self.paused or self._unread >= WINDOW)

    def acknowledged(self, size: int) -> None:
        """The parent has consumed ``size`` bytes."""
        self._unread -= size
        self._set_paused(self.paused and self._unread >= WINDOW // 2)

    def release(self) -> None:
        """Read from the client again, whatever the parent has consumed."""
        self._unread = 0
        self._set_paused(False)

    def _set_paused(self, paused: bool) -> None:
        if paused != self.paused:
            self.paused = paused
            self._hold(paused)

    def wrote(self, size: int) -> None:
        """``size`` bytes from the parent went to the client's transport."""
        self._owed += size
        self._settle()

    def client_blocked(self, blocked: bool) -> None:
        """The transport's buffer is full, or has room again."""
        self._blocked = blocked
        self._settle()

    def _settle(self) -> None:
        if self._owed >= WINDOW // 4 and not self._blocked:
            owed, self._owed = self._owed, 0
            self._outbox.send(Ack(call=self.call, size=owed))


def hold(transport: asyncio.Transport, wanted: bool) -> None:
    """Don't read from ``transport``, or do again."""
    if wanted:
        transport.pause_reading()
    else:
        transport.resume_reading()


def reset(transport: asyncio.Transport) -> None:
    """Drop the connection so that the client sees a reset (RST), not an end-of-file."""
    sock: Any = transport.get_extra_info("socket")
    if sock is not None and sock.family != getattr(socket, "AF_UNIX", None):
        linger = b"\1\0\0\0\0\0\0\0"  # struct linger {1, 0}: close discards and resets
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()
