"""The open calls of one server, in its process: their ids, their commands and their time-outs."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Protocol

from ..wire.messages import Lost, Message, Overdue
from .channel import Outbox

_ANSWER_SECONDS = 0.5  # for the parent to answer Overdue

# Unique over the life of the process, so that a late reply never reaches another call.
next_call_id = itertools.count(1).__next__


class Call(Protocol):
    """An invocation of the parent's handler, as the child sees it.

    ``due`` is when the handler's time ends, in seconds on the loop's clock; ``None`` while no time
    is counted.
    """

    due: float | None

    def command(self, message: Message) -> None:
        """Carry out one command of the parent."""

    def timed_out(self) -> None:
        """Called when ``due`` has passed, and the parent does not postpone it."""


class Calls:
    """The open calls by id, their time-outs, and the open questions to the parent about these.

    One timer is enough because every call has the same limit of ``seconds``; ``None`` is no limit.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, outbox: Outbox, seconds: float | None
    ) -> None:
        self._loop = loop
        self._outbox = outbox
        self._seconds = seconds
        self._open: dict[int, Call] = {}
        self.get = self._open.get  # by id
        self._asked: dict[int, tuple[asyncio.TimerHandle, Callable[[bool], None]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Call]:
        return iter(self._open.values())

    def open(self, call: Call, *, timed: bool = True) -> int:
        """Add ``call``, and count its time if it is ``timed``; returns its new id.

        Setting ``call.due`` to ``None`` ends the count.
        """
        call_id = next_call_id()
        self._open[call_id] = call
        if timed and self._seconds is not None:
            call.due = self._loop.time() + self._seconds
            if self._timer is None:
                self._timer = self._loop.call_later(self._seconds, self._check)
        return call_id

    def close(self, call_id: int) -> None:
        """Remove a call, if it is open; further commands for it are dropped."""
        self._open.pop(call_id, None)

    def lose(self, call_id: int, *, reset: bool, answered: tuple[int, int] | None = None) -> None:
        """Remove a call and, if it was open, report to the parent that the child has ended it.

        ``reset`` is whether the client reset the connection; ``answered`` is what the
        child has sent in place of the handler: status and bytes.
        """
        if self._open.pop(call_id, None) is not None:
            self._outbox.send(Lost(call=call_id, reset=reset, answered=answered))

    # Time-outs ---------------------------------------------------------------------------------

    def _check(self) -> None:
        self._timer = None
        now = self._loop.time()
        coming: list[float] = []
        for call_id, call in list(self._open.items()):
            if call.due is None:
                continue
            if call.due > now:
                coming.append(call.due)
            else:
                call.due = None
                self._ask(functools.partial(self._decided, call_id, call))
        if coming and self._timer is None:
            self._timer = self._loop.call_later(min(coming) - now, self._check)

    def _decided(self, call_id: int, call: Call, postponed: bool) -> None:
        if self._open.get(call_id) is not call:  # it has ended meanwhile
            return
        if postponed and self._seconds is not None:
            call.due = self._loop.time() + self._seconds
            if self._timer is None:
                self._timer = self._loop.call_later(self._seconds, self._check)
        else:
            call.timed_out()

    def _ask(self, act: Callable[[bool], None]) -> None:
        """Ask the parent whether to postpone a time-out, and call ``act`` with its answer.

        The parent says yes while the test is being debugged. No answer within half a second
        counts as no.
        """
        token = next_call_id()
        timer = self._loop.call_later(_ANSWER_SECONDS, self.postponed, token)
        self._asked[token] = (timer, act)
        self._outbox.send(Overdue(token=token))

    def postponed(self, token: int, *, wanted: bool = False) -> None:
        """Act on the parent's answer, or on its absence."""
        timer, act = self._asked.pop(token, (None, None))
        if timer is not None and act is not None:
            timer.cancel()
            act(wanted)

    async def postpones(self) -> bool:
        """Ask the parent whether to postpone the end of a drain; returns its answer."""
        answer: asyncio.Future[bool] = self._loop.create_future()

        def act(wanted: bool) -> None:
            if not answer.done():  # the waiting task may have been cancelled
                answer.set_result(wanted)

        self._ask(act)
        return await answer

    def end(self) -> None:
        """Cancel the timers: the next server uses the same loop."""
        for timer, _ in self._asked.values():
            timer.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
