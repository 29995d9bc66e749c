"""When the test's process is asked about which request. No I/O here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE = 0.25  # seconds that a question waits for the one before it


class Questions:
    """The questions to the test's process about requests: one is out, and the others wait.

    They are asked in the order in which they came. What the test is asked may itself wait for one
    of the others, if it sends a request to the same server: so they wait for each other no longer
    than ``PATIENCE``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[object, Callable[[], bool]] = {}  # in the order in which they came
        self._out: object = None  # the question that the others wait for
        self._slow: set[object] = set()  # that are out as well, and for which none waits any more
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, key: object, ask: Callable[[], bool]) -> None:
        """Have ``ask`` called when it is its turn; it returns whether a question is out then."""
        self._waiting[key] = ask
        self._go_on()

    @property
    def are_open(self) -> bool:
        """Whether one is out, or waits."""
        return bool(self._waiting or self._slow) or self._out is not None

    def settle(self, key: object) -> None:
        """The question of ``key`` is answered, or needs no answer any more."""
        self._waiting.pop(key, None)
        self._slow.discard(key)
        if self._out is key:
            self._out = None
            self._stop_timer()  # who waits now waits for another
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and self._out is None:
            key = next(iter(self._waiting))
            ask = self._waiting.pop(key)
            self._out = key  # nothing that ``ask`` does asks the next
            if not ask() and self._out is key:
                self._out = None
        if not self._waiting:
            self._stop_timer()
        elif self._timer is None:
            self._timer = self._loop.call_later(PATIENCE, self._wait_no_longer)

    def _wait_no_longer(self) -> None:
        self._timer = None
        if self._out is not None:
            self._slow.add(self._out)
            self._out = None
        self._go_on()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
