"""The expectations of a strict service, and who answers a request by them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from ....child.expectations import Expectations, Outcome, choose
from ....child.questions import Questions
from ....wire.credit import CALL, LEAST_ROOM
from ....wire.messages import Declare, Hold, Met, Reply, Withdraw
from ..matching.matchers import Matchers, decode
from ..matching.nearest import Candidate, Why, explain_unexpected
from ..messages import Canned, Request, Respond
from .direct import Direct
from .index import PathIndex
from .lines import Lines
from .turn import Turn

if TYPE_CHECKING:
    from ..matching.view import RequestView
    from .exchange import Answerer, Exchange
    from .service import HTTPService

_TO_HANDLER = Met()
_canned = msgspec.msgpack.Decoder(Canned).decode


class Router:
    """Keeps the expectations, and gives each request to its handler, a ``Direct`` or a ``Turn``.

    As long as the body is missing, the choice is made only if the head decides it: for a handler,
    or for an expectation that is ``early``.
    """

    def __init__(self, service: HTTPService) -> None:
        self.service = service
        self.strict = True
        index = PathIndex()
        self.table = Expectations[Matchers, Respond](index)
        self.lines = Lines(index)
        self.questions = Questions(service.loop)
        self._room = LEAST_ROOM  # bytes of unexpected requests that are never dropped

    def command(self, message: Declare | Reply | Hold | Withdraw) -> None:
        """Add an expectation, change it, or remove some."""
        self.lines.forget()
        match message:
            case Declare():
                self.table.declare(message, decode(message.matchers))
                self.strict = True
            case Reply():
                answer = None if message.answer is None else _response(_canned(message.answer))
                self.table.answer(message, answer)
            case Hold():
                self.table.hold(message.entry)
            case Withdraw():
                self.table.withdraw(message.entries)
                self.strict = message.strict

    def answerer(self, exchange: Exchange) -> Answerer:
        """Who answers ``exchange``, as far as it has come."""
        head = exchange.head
        assert head is not None
        line = self.lines.find(head.method, head.target)
        answerer: Direct | Turn | None = None
        if line.decides:
            entry = line.only
            if entry is None or not entry.is_open:  # else it is met, whatever it is
                outcome, entry = choose(line.entries, _fits)
                if outcome is Outcome.FREE and self.service.handled and not exchange.cut:
                    return self._handler(exchange)
            if entry is not None and entry.next_is_ready:
                answerer = line.direct(self, entry)
        if answerer is None:
            answerer = turn = Turn(self, exchange, line.entries)
            if turn.is_for_handler() and not exchange.cut:
                return self._handler(exchange)
        if exchange.received:
            return answerer
        if answerer.early:
            exchange.early = True
        else:
            exchange.awaits = self.service.handled and not (exchange.large or exchange.cut)
        return answerer

    def _handler(self, exchange: Exchange) -> Answerer:
        exchange.met, exchange.awaits = _TO_HANDLER, False
        return self.service.handler

    def tell(self, request: Request) -> None:
        """Tell the test of a request that has no call.

        Its record may be dropped; but not the failure of a test, as long as there are not many.
        """
        assert request.met is not None
        if request.met.unexpected and self._room > 0:
            self._room -= CALL + len(request.fields) + len(request.body)
            self.service.outbox.send(request)
        else:
            self.service.outbox.record(request)

    def explain(self, view: RequestView) -> Why:
        """Why a request has met no expectation."""
        candidates = [
            Candidate(
                entry.spec.label,
                entry.spec.place,
                entry.matchers,
                entry.note,
                partial(entry.advice, handled=self.service.handled),
            )
            for entry in self.table.entries.values()
        ]
        return explain_unexpected(view, candidates)


def _fits(_: object) -> bool:
    return True


def _response(canned: Canned) -> Respond:
    return Respond(
        call=0,
        status=canned.status,
        reason=canned.reason,
        headers=canned.headers,
        body=canned.body,
        length=len(canned.body),
        more=False,
        fault=canned.fault,
    )
