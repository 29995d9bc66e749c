"""The calls of one server in its process: ids, whom a command is for, and when time is up."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from typing import Protocol

from ..wire.messages import Lost, Message, Overdue
from .channel import Outbox

_ANSWER_SECONDS = 0.5  # for the parent to say whether it is being debugged

# Unique over the life of the process, so that a late reply never reaches another's call.
next_call_id = itertools.count(1).__next__


class Target(Protocol):
    """What a call's commands are for."""

    def command(self, message: Message) -> None:
        """Carry out one command."""


class Timed(Protocol):
    """A call whose handler has until ``due``, on the loop's clock; ``None`` for no end."""

    due: float | None

    def timed_out(self) -> None:
        """The handler's time has ended."""


class Calls:
    """Open calls by their ids, and what the parent was asked about time-outs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outbox: Outbox) -> None:
        self._loop = loop
        self._outbox = outbox
        self._targets: dict[int, Target] = {}
        self._asked: dict[int, tuple[asyncio.TimerHandle, Callable[[bool], None]]] = {}

    def __len__(self) -> int:
        return len(self._targets)

    def targets(self) -> Iterable[Target]:
        """What the open calls' commands are for."""
        return self._targets.values()

    def command(self, call: int, message: Message) -> None:
        """Pass a command on to the call that it is for; one for an ended call is dropped."""
        target = self._targets.get(call)
        if target is not None:
            target.command(message)

    def open(self, target: Target) -> int:
        """A new id, whose commands go to ``target``."""
        call = next_call_id()
        self._targets[call] = target
        return call

    def close(self, call: int) -> None:
        """Drop further commands for ``call``."""
        self._targets.pop(call, None)

    def lose(self, call: int, *, reset: bool, answered: int = 0) -> None:
        """End ``call`` from this side: report it to the parent if it was still open."""
        if self._targets.pop(call, None) is not None:
            self._outbox.send(Lost(call=call, reset=reset, answered=answered))

    # Time-outs ---------------------------------------------------------------------------------

    def ask_to_postpone(self, act: Callable[[bool], None]) -> None:
        """Call ``act`` with whether to grant the time that has just ended once more.

        The parent grants it while the test is being debugged. No answer counts as no.
        """
        token = next_call_id()
        timer = self._loop.call_later(_ANSWER_SECONDS, self.postponed, token)
        self._asked[token] = (timer, act)
        self._outbox.send(Overdue(token=token))

    def postponed(self, token: int, *, wanted: bool = False) -> None:
        """The answer of the parent, or that there is none."""
        timer, act = self._asked.pop(token, (None, None))
        if timer is not None and act is not None:
            timer.cancel()
            act(wanted)

    async def postpones(self) -> bool:
        """Whether to grant the time that has just ended once more."""
        answer: asyncio.Future[bool] = self._loop.create_future()

        def act(wanted: bool) -> None:
            if not answer.done():  # whoever waited may have been cancelled
                answer.set_result(wanted)

        self.ask_to_postpone(act)
        return await answer

    def end(self) -> None:
        """Cancel the timers: the loop of the next server must have none of this one's."""
        for timer, _ in self._asked.values():
            timer.cancel()


class Timeouts:
    """When handlers' time ends, for all calls of a server by one timer.

    One timer will do, since each call has the same number of seconds. ``calls`` are those with a
    handler; they are looked at when the timer fires, not with every request.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float | None,
        calls: Callable[[], Iterable[Timed]],
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._calls = calls
        self._timer: asyncio.TimerHandle | None = None

    def arm(self, call: Timed) -> None:
        """Start the time of ``call``; setting ``call.due`` to ``None`` cancels it."""
        if self._seconds is not None:
            call.due = self._loop.time() + self._seconds
            if self._timer is None:
                self._timer = self._loop.call_later(self._seconds, self._look)

    def close(self) -> None:
        """Cancel the timer: the loop of the next server must have none of this one's."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        coming: list[float] = []
        for call in list(self._calls()):
            if call.due is None:
                continue
            if call.due > now:
                coming.append(call.due)
            else:
                call.due = None
                call.timed_out()
        if coming and self._timer is None:
            self._timer = self._loop.call_later(min(coming) - now, self._look)
