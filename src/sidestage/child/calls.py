"""The open calls of one server, in its process: their ids, their commands and their time-outs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from ..wire.messages import Lost, Message, Overdue
from .channel import Outbox

_ANSWER_SECONDS = 0.5  # for the parent to answer Overdue

# Unique over the life of the process, so that a late reply never reaches another call.
next_call_id = itertools.count(1).__next__


class Call(Protocol):
    """An invocation of the parent's handler, as the child sees it."""

    def command(self, message: Message) -> None:
        """Carry out one command of the parent."""


class TimedCall(Call, Protocol):
    """A call whose handler must answer by ``due``, in seconds on the loop's clock.

    ``None`` means no limit.
    """

    due: float | None

    def timed_out(self) -> None:
        """Called once ``due`` has passed."""


class Calls:
    """The open calls by id, and the open questions to the parent about time-outs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outbox: Outbox) -> None:
        self._loop = loop
        self._outbox = outbox
        self._open: dict[int, Call] = {}
        self._asked: dict[int, tuple[asyncio.TimerHandle, Callable[[bool], None]]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Call]:
        return iter(self._open.values())

    def command(self, call_id: int, message: Message) -> None:
        """Give a command to its call; drop it if the call has ended."""
        call = self._open.get(call_id)
        if call is not None:
            call.command(message)

    def open(self, call: Call) -> int:
        """Add ``call``; returns its new id."""
        call_id = next_call_id()
        self._open[call_id] = call
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

    def ask_to_postpone(self, act: Callable[[bool], None]) -> None:
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
        """Ask the parent whether to postpone a time-out; returns its answer."""
        answer: asyncio.Future[bool] = self._loop.create_future()

        def act(wanted: bool) -> None:
            if not answer.done():  # the waiting task may have been cancelled
                answer.set_result(wanted)

        self.ask_to_postpone(act)
        return await answer

    def end(self) -> None:
        """Cancel the timers: the next server uses the same loop."""
        for timer, _ in self._asked.values():
            timer.cancel()


class Timeouts:
    """The handlers' time-outs of one server, with a single timer.

    One timer is enough because every call has the same limit of ``seconds``. ``calls`` returns
    the open calls; it is used only when the timer fires, not for each request.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float | None,
        calls: Callable[[], Iterable[TimedCall]],
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._calls = calls
        self._timer: asyncio.TimerHandle | None = None

    def arm(self, call: TimedCall) -> None:
        """Start the time-out of ``call``; setting ``call.due`` to ``None`` cancels it."""
        if self._seconds is not None:
            call.due = self._loop.time() + self._seconds
            if self._timer is None:
                self._timer = self._loop.call_later(self._seconds, self._check)

    def close(self) -> None:
        """Cancel the timer: the next server uses the same loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
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
            self._timer = self._loop.call_later(min(coming) - now, self._check)
