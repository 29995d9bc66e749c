"""The order of one iteration of the child's loop: receive, read the commands, act, send.

What a client sent is acted on only after the commands were read that had come by then. So what the
test wrote before it let the client send is in force, and the test need not wait for it. What the
test is sent about a request is written before the bytes that answer it. So the test finds it in
the pipe once a client has the answer, and need not ask for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Literal, Protocol

from ..wire.messages import Synced
from .channel import Outbox
from .net.hangups import Hangups

_ASK_SECONDS = 0.1  # for clients to stop sending, before a look is answered
LARGE = 1 << 14  # bytes received at once that are acted on at once, since a copy would cost more


class Sender(Protocol):
    """Something with bytes for a client."""

    def send(self) -> None:
        """Send them, as far as the kernel takes them."""


class Flag(asyncio.Event):
    """An event whose ``wait`` takes a time-out and does not raise when it ends."""

    async def wait(self, seconds: float | None = None) -> Literal[True]:
        """Wait until it is set, at most ``seconds``; ``None`` is no limit."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await super().wait()
        return True


class Iteration:
    """What waits for its turn in this iteration; ``read_commands`` is set by the host."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outbox: Outbox) -> None:
        self.loop = loop
        self.outbox = outbox
        self.read_commands: Callable[[], None] = _nothing
        self.hangups: Hangups | None = None  # set by the host, where the system has it
        self.readers: dict[int, Callable[[], object]] = {}  # what receives, by descriptor
        self.readable: list[int] = []  # those of them that have something, in this iteration
        self.received: list[tuple[Callable[[Any], None], Any]] = []  # what to call, with what
        self.senders: list[Sender] = []
        # Whether a stream may send its answer at once, after the messages. Its client wakes while
        # the other answers are made; waking it is the most expensive part of an answer.
        self.prompt = True
        self.asked: list[int] = []  # tokens of Sync
        self._ask_until = 0.0  # when they are answered, whatever still comes
        self._seen = -1  # of ``taken``, when they were looked at
        self.taken = 0  # clients accepted, and bytes received from them
        self.progress = Flag()  # set when a handler has read, or has finished
        self._again = False  # something was scheduled while sending: the loop must not wait

    def act(self) -> None:
        """Receive, read the commands, act on all of that, and send what that has made."""
        if self.readable:
            self._receive()
        self.act_now()
        if self.asked:
            self._answer_if_quiet()
        self.send()

    def add_reader(self, fd: int, read: Callable[[], object]) -> None:
        """Have ``read`` called in each iteration in which ``fd`` has something to receive."""
        self.loop.add_reader(fd, read)  # also for events that are not of this alone
        self.readers[fd] = read

    def remove_reader(self, fd: int) -> None:
        """Receive nothing more from ``fd``."""
        self.readers.pop(fd, None)
        self.loop.remove_reader(fd)

    def _receive(self) -> None:
        """Receive from what has something, unless that was removed meanwhile."""
        readable = self.readable.copy()
        self.readable.clear()
        for fd in readable:
            read = self.readers.get(fd)
            if read is not None:
                try:
                    read()
                except Exception as error:  # noqa: BLE001 - the others must get theirs
                    self.report(error)

    def act_now(self) -> None:
        """Read the commands, and act on what was received before; more may be received."""
        received, self.received = self.received, []
        self.read_commands()
        for act, argument in received:
            try:
                act(argument)
            except Exception as error:  # noqa: BLE001 - the others must get theirs
                self.report(error)

    def _answer_if_quiet(self) -> None:
        """Answer what asks once everything is acted on that clients had sent before.

        That is so after an iteration in which nothing came, and nothing was left for the next.
        Clients that send without end are not waited for.
        """
        now = self.loop.time()
        if self._seen < 0:
            self._ask_until = now + _ASK_SECONDS
        if (self.taken != self._seen or self._again) and now < self._ask_until:
            self._seen = self.taken
            return
        self._seen = -1
        asked, self.asked = self.asked, []
        for token in asked:
            self.outbox.send(Synced(token=token))

    def report(self, error: BaseException) -> None:
        """Report an error that nobody has expected."""
        context = {"message": "serving a client has failed", "exception": error}
        self.loop.call_exception_handler(context)

    def soon(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Call ``callback`` in the next iteration, which begins without waiting."""
        self._again = True
        self.loop.call_soon(callback, *arguments)

    def send(self) -> None:
        """Send the messages, then the answers."""
        self.outbox.flush()
        while self.senders:
            senders, self.senders = self.senders, []
            for sender in senders:
                try:
                    sender.send()
                except Exception as error:  # noqa: BLE001 - the others must send theirs
                    self.report(error)
            self.outbox.flush()  # a sender may have acknowledged something

    def end(self) -> bool:
        """Send what is left; returns whether the next iteration may wait."""
        self.send()
        self.prompt = True
        again, self._again = self._again, False
        return not (again or self.asked)

    def send_now(self, sender: Sender) -> None:
        """Send what ``sender`` has, because it is much; messages go first, as ever."""
        self.outbox.flush()
        if sender in self.senders:  # else its turn is to come in ``send``
            self.senders.remove(sender)
        sender.send()


def _nothing() -> None:
    """There are no commands."""
