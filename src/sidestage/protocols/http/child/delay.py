"""A response that waits for its time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ....wire.messages import Close, Data, End, Message
from ..messages import Inform, Respond, Trailers

if TYPE_CHECKING:
    from .exchange import Exchange

_OF_RESPONSE = (Respond, Inform, Data, Trailers, End, Close)


class Delay:
    """Keeps a response for some seconds: a ``Gate``, whose time begins with the first command."""

    stage = "handler running"  # until there is something to keep
    told = True
    answer_begun = False
    answer_complete = False

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._kept: list[Message] = []

    def keeps(self, exchange: Exchange, message: Message) -> bool:
        if not (
            isinstance(message, _OF_RESPONSE)
            and (self.answer_begun or isinstance(message, Respond))
        ):
            return False
        self._kept.append(message)
        self.answer_complete = isinstance(message, (End, Close)) or (
            isinstance(message, Respond) and not message.more
        )
        if not self.answer_begun:
            self.answer_begun = True
            self.stage = f"its answer is delayed by {self._seconds:g} s"
            self._timer = self._loop.call_later(self._seconds, self._over, exchange)
            exchange.due = None
            exchange.framing.delayed()
        return True

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _over(self, exchange: Exchange) -> None:
        exchange.gate = None
        for message in self._kept:
            exchange.command(message)
