"""When the time of handlers is over, for all exchanges of a server by one timer."""

from __future__ import annotations

import asyncio
from typing import Protocol

from .http_exchange import Exchange


class Waiting(Protocol):
    """A connection with a handler at work."""

    def timed_out(self, exchange: Exchange) -> None:
        """The handler's time for ``exchange`` is over."""


class Timeouts:
    """One timer will do, since each exchange has the same number of seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float | None) -> None:
        self._loop = loop
        self._seconds = seconds
        self._armed: dict[Exchange, tuple[float, Waiting]] = {}  # the oldest first
        self._timer: asyncio.TimerHandle | None = None

    def arm(self, exchange: Exchange, connection: Waiting) -> None:
        """Tell ``connection`` when the time for ``exchange`` is over."""
        if self._seconds is not None:
            self._armed[exchange] = (self._loop.time() + self._seconds, connection)
            if self._timer is None:
                self._timer = self._loop.call_later(self._seconds, self._look)

    def disarm(self, exchange: Exchange) -> None:
        """The handler has answered, or nobody waits for it any more."""
        self._armed.pop(exchange, None)

    def close(self) -> None:
        """No handler's time matters any more, and the next server's loop is to have no timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        for exchange, (when, connection) in list(self._armed.items()):
            if when > self._loop.time():
                self._timer = self._loop.call_at(when, self._look)
                return
            del self._armed[exchange]
            connection.timed_out(exchange)
