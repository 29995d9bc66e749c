"""Answers a request of which it is known which expectation it meets, with what that has ready.

Most requests are such, so this is the short way; ``turn`` has the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....wire.messages import Met
from ..messages import Respond, answer_of
from .answerers import PLAIN_SUCCESS
from .framing import Ready, ready

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
    """An ``Answerer`` of all requests that meet one expectation, whose answer is ready.

    No call, no question and no delay. It lasts until an expectation or an answer is added. Of
    methods to which an answer has no body, each has one of its own.
    """

    __slots__ = ("_entry", "_made", "_router", "early")

    calls = False

    def __init__(self, router: Router, entry: HTTPEntry) -> None:
        self._router = router
        self._entry = entry
        self._made: dict[int, tuple[Met, Respond, Ready | None]] = {}  # by the answer's number
        self.early = entry.early

    def take(self, exchange: Exchange) -> None:
        router = self._router
        number, answer = router.table.meet(self._entry)
        made = self._made.get(number)
        if made is None:
            assert exchange.head is not None
            content = PLAIN_SUCCESS if answer is None else answer.content
            made = self._made[number] = self._make(exchange.head, number, content)
        exchange.met, response, whole = made
        framing = exchange.framing
        framing.repeats.tell(router.service.outbox, exchange, kept=False)
        framing.respond(exchange, response, whole)

    def _make(
        self, head: Head, number: int, response: Respond | None
    ) -> tuple[Met, Respond, Ready | None]:
        """What the test is told, and what the client gets."""
        assert response is not None
        met = answered(head, response, self._entry.number, number)
        return met, response, ready(head.method, response)

    def piece(self, exchange: Exchange, data: bytes | memoryview) -> None:
        """It is answered already."""

    def complete(self, exchange: Exchange) -> None:
        """It is answered already."""

    def lose(
        self, exchange: Exchange, *, reset: bool, answered: tuple[int, int] | None = None
    ) -> None:
        """There is no call."""
