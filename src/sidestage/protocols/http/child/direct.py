"""Answers a request whose line decides which expectation it meets, with what that has ready.

Most requests are such, so this is the short way; ``turn`` has the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....wire.messages import Met
from ..messages import Respond, answer_of
from .answerers import PLAIN_SUCCESS

if TYPE_CHECKING:
    from .exchange import Exchange
    from .head import Head
    from .index import HTTPEntry
    from .router import Router


def answered(
    head: Head, response: Respond, entry: int = 0, reply: int = 0, unexpected: str = ""
) -> Met:
    """What the test is told of a request to which the child gives ``response``."""
    tunnel = head.method == "CONNECT" and 200 <= response.status < 300
    status, size = answer_of(response, head_only=head.method == "HEAD" or tunnel)
    return Met(entry=entry, reply=reply, status=status, size=size, unexpected=unexpected, done=True)


class Direct:
    """An ``Answerer`` of all requests of one line that meet one expectation.

    No call, no question and no delay. It lasts until an expectation or an answer is added.
    """

    __slots__ = ("_entry", "_mets", "_router", "early")

    calls = False

    def __init__(self, router: Router, entry: HTTPEntry) -> None:
        self._router = router
        self._entry = entry
        self._mets: dict[int, Met] = {}  # by the number of the answer
        self.early = entry.early

    def take(self, exchange: Exchange) -> None:
        router = self._router
        number, answer = router.table.meet(self._entry)
        response = PLAIN_SUCCESS if answer is None else answer.content
        assert response is not None
        met = self._mets.get(number)
        if met is None:
            assert exchange.head is not None
            met = answered(exchange.head, response, self._entry.number, number)
            self._mets[number] = met
        exchange.met = met
        router.service.outbox.record(exchange.request())
        exchange.framing.respond(exchange, response)

    def piece(self, exchange: Exchange, data: bytes) -> None:
        """It is answered already."""

    def complete(self, exchange: Exchange) -> None:
        """It is answered already."""

    def lose(
        self, exchange: Exchange, *, reset: bool, answered: tuple[int, int] | None = None
    ) -> None:
        """There is no call."""
