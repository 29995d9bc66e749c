"""When the time of handlers is over, for all exchanges of a server by one timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol


class Timed(Protocol):
    """A call whose handler has until ``due``, on the loop's clock; ``None`` for no end."""

    due: float | None

    def timed_out(self) -> None:
        """The handler's time is over."""


class Timeouts:
    """One timer will do, since each exchange has the same number of seconds.

    ``exchanges`` are those with a handler; it is looked at when the timer comes, not with every
    request.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float | None,
        exchanges: Callable[[], Iterable[Timed]],
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._exchanges = exchanges
        self._timer: asyncio.TimerHandle | None = None

    def arm(self, exchange: Timed) -> None:
        """The time for ``exchange`` begins now; it ends when ``due`` is none any more."""
        if self._seconds is not None:
            exchange.due = self._loop.time() + self._seconds
            if self._timer is None:
                self._timer = self._loop.call_later(self._seconds, self._look)

    def close(self) -> None:
        """No handler's time matters any more, and the next server's loop is to have no timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        coming: list[float] = []
        for exchange in list(self._exchanges()):
            if exchange.due is None:
                continue
            if exchange.due > now:
                coming.append(exchange.due)
            else:
                exchange.due = None
                exchange.timed_out()
        if coming and self._timer is None:
            self._timer = self._loop.call_later(min(coming) - now, self._look)
