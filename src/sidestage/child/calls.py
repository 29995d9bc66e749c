"""The open calls of one server, in its process: their ids, their commands and their time-outs."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Protocol

from ..wire.credit import CALLS, LEAST_ROOM
from ..wire.messages import Diagnostic, Lost, Message, Overdue
from .channel import Outbox

_ANSWER_SECONDS = 0.5  # for the parent to answer Overdue
_LEAST_CALLS = 8  # that may be under way, however large they are

# Unique over the life of the process, so that a late reply never reaches another call.
next_call_id = itertools.count(1).__next__


class Call(Protocol):
    """An invocation of the parent's handler, as the child sees it.

    ``due`` is when the handler's time ends, in seconds on the loop's clock; ``None`` while no time
    is counted. ``size`` is how many bytes the parent holds for it, beside its streams.
    """

    due: float | None
    size: int

    def command(self, message: Message) -> None:
        """Carry out one command of the parent."""

    def timed_out(self) -> None:
        """Called when ``due`` has passed, and the parent does not postpone it."""


class Calls:
    """The open calls by id, their time-outs, and the open questions to the parent about these.

    One timer is enough because every call has the same limit of ``seconds``; ``None`` is no limit.

    Calls are under way until their handlers have returned, also those that have ended before. While
    there are ``CALLS`` of them, or they hold ``room`` bytes together, this is ``full``: whoever
    would open one more has to ``wait``.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        outbox: Outbox,
        seconds: float | None,
        room: int = LEAST_ROOM,
    ) -> None:
        self.full = False
        self._loop = loop
        self._outbox = outbox
        self._seconds = seconds
        self._room = room
        self._size = 0  # bytes that the calls under way hold
        self._left: dict[int, int] = {}  # sizes of those that have ended before their handlers
        self._waiting: dict[Callable[[], None], None] = {}
        self._told = False  # that this is full; until half are done
        self._open: dict[int, Call] = {}
        self.get = self._open.get  # by id
        self._asked: dict[int, tuple[asyncio.TimerHandle, Callable[[bool], None]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Call]:
        return iter(self._open.values())

    def open(self, call: Call, *, timed: bool = True, now: float | None = None) -> int:
        """Add ``call``, and count its time if it is ``timed``; returns its new id.

        ``now`` is the time on the loop's clock, if the caller knows it. Setting ``call.due`` to
        ``None`` ends the count.
        """
        call_id, opened = next_call_id(), self._open
        opened[call_id] = call
        self._size += call.size
        if self._size >= self._room or len(opened) + len(self._left) >= CALLS:
            self._look()
        seconds = self._seconds
        if timed and seconds is not None:  # as ``_begin_time``, without a call
            call.due = (self._loop.time() if now is None else now) + seconds
            if self._timer is None:
                self._timer = self._loop.call_later(seconds, self._check)
        return call_id

    def count(self, call: Call, *, timed: bool) -> None:
        """Begin the time of an open call anew, or end its count if it is not ``timed``."""
        call.due = None
        if timed and self._seconds is not None:
            self._begin_time(call, self._loop.time(), self._seconds)

    def _begin_time(self, call: Call, now: float, seconds: float) -> None:
        call.due = now + seconds
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._check)

    def close(self, call_id: int) -> None:
        """Remove a call, if it is open; further commands for it are dropped."""
        call = self._open.pop(call_id, None)
        if call is not None:
            self._size -= call.size
            if self._told:
                self._look()

    def leave(self, call_id: int) -> None:
        """Remove a call whose handler still runs; it is under way until ``returned``."""
        call = self._open.pop(call_id, None)
        if call is not None:
            self._left[call_id] = call.size

    def returned(self, call_id: int) -> None:
        """Note that the handler has returned of a call that had ended before."""
        self._size -= self._left.pop(call_id, 0)
        if self._told:
            self._look()

    def lose(self, call_id: int, *, reset: bool, answered: tuple[int, int] | None = None) -> None:
        """Remove a call and, if it was open, report to the parent that the child has ended it.

        ``reset`` is whether the client reset the connection; ``answered`` is what the
        child has sent in place of the handler: status and bytes.
        """
        if call_id in self._open:
            self.leave(call_id)
            self._outbox.send(Lost(call=call_id, reset=reset, answered=answered))

    # The limit ---------------------------------------------------------------------------------

    def wait(self, go_on: Callable[[], None]) -> None:
        """Have ``go_on`` called once, when this is no longer full."""
        self._waiting[go_on] = None

    async def admits(self) -> bool:
        """Wait until one more call may be opened; returns ``False`` after a handler's time."""
        free = asyncio.Event()
        try:
            async with asyncio.timeout(self._seconds):
                while self.full:
                    free.clear()
                    self.wait(free.set)
                    await free.wait()
        except TimeoutError:
            return False
        finally:
            self.forget(free.set)
        return True

    def forget(self, go_on: Callable[[], None]) -> None:
        """Do not call ``go_on``."""
        self._waiting.pop(go_on, None)

    def _look(self) -> None:
        """Find out whether this is full."""
        count = len(self._open) + len(self._left)
        large = self._size >= self._room and count >= _LEAST_CALLS
        self.full = large or count >= CALLS
        if self.full and not self._told:
            self._told = True
            held = f" with {self._size} bytes of requests" if large else ""
            text = f"{count} handlers run{held}: more of them wait until some have returned"
            self._outbox.send(Diagnostic(peer="sidestage", text=text, at=self._loop.time()))
        elif self._told and 2 * count < CALLS and 2 * self._size < self._room:
            self._told = False
        if self._waiting and not self.full:
            self._loop.call_soon(self._admit)

    def _admit(self) -> None:
        while self._waiting and not self.full:
            go_on = next(iter(self._waiting))
            del self._waiting[go_on]
            go_on()

    def limit(self, seconds: float | None, room: int) -> None:
        """Have other limits from now on, also for the time of the calls that are under way.

        One whose time has no end, or is over, keeps none.
        """
        before, self._seconds, self._room = self._seconds, seconds, room
        for call in self._open.values():
            if call.due is not None and before is not None:
                call.due = None if seconds is None else call.due + seconds - before
        if self._timer is not None:
            self._timer.cancel()
        self._check()
        self._look()

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
                self.ask(functools.partial(self._decided, call_id, call))
        if coming and self._timer is None:
            self._timer = self._loop.call_later(min(coming) - now, self._check)

    def _decided(self, call_id: int, call: Call, postponed: bool) -> None:
        if self._open.get(call_id) is not call:  # it has ended meanwhile
            return
        if postponed and self._seconds is not None:
            self._begin_time(call, self._loop.time(), self._seconds)
        else:
            call.timed_out()

    def ask(self, act: Callable[[bool], None]) -> None:
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

        self.ask(act)
        return await answer

    def end(self) -> None:
        """Cancel the timers: the next server uses the same loop."""
        for timer, _ in self._asked.values():
            timer.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
