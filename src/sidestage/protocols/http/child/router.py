"""The expectations of a strict service, and who answers a request by them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from ....child.expectations import FREE, Expectations, choose
from ....child.questions import Questions
from ....wire.credit import CALL, LEAST_ROOM
from ....wire.messages import Declare, Hold, Met, Reply, Withdraw
from ..matching.matchers import Matchers, decode
from ..matching.nearest import Candidate, Why, explain_unexpected
from ..matching.view import RequestView
from ..messages import Canned, Request, Respond
from .exchange import ASKED_ALL
from .index import PathIndex
from .lines import Lines
from .turn import Turn

if TYPE_CHECKING:
    from .exchange import Answerer, Exchange
    from .index import HTTPEntry
    from .lines import Line
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
        received = exchange.asked is ASKED_ALL
        if received and line.direct is not None:
            return line.direct
        answerer: Answerer | None = None
        if line.decides:
            answerer = self._decided(line, exchange)
        elif received:
            answerer = self._chosen(line, exchange)
        elif not (line.early or self.service.handled):
            exchange.awaits = False
            return self.service.recorder  # nobody takes it before its body has come
        if answerer is None:
            answerer = self._turn(exchange, Turn(self, exchange, line.entries))
        if received or answerer is self.service.handler:
            return answerer
        if answerer.early:
            exchange.early = True
        else:
            exchange.awaits = self.service.handled and not (exchange.large or exchange.cut)
        return answerer

    def _decided(self, line: Line, exchange: Exchange) -> Answerer | None:
        """Who answers a request whose line decides; ``None`` if that is a matter for a turn."""
        entry = line.only
        if entry is None or not entry.is_open:  # else it is met, whatever it is
            outcome, entry = choose(line.entries, _fits)
            if outcome is FREE and self.service.handled and not exchange.cut:
                return self._handler(exchange)
        if entry is None or not entry.next_is_ready:
            return None
        assert exchange.head is not None
        direct = self.lines.direct(self, entry, exchange.head.method)
        if entry is line.only and entry.is_always_ready:
            line.direct = direct
        return direct

    def _chosen(self, line: Line, exchange: Exchange) -> Answerer | None:
        """The same of a request that has come, if the test's process has nothing to judge."""
        head = exchange.head
        assert head is not None
        if exchange.cut or exchange.large:
            return None
        view = RequestView(head.method, head.target, head.fields, bytes(exchange.body))
        candidates = line.may_meet(view)
        for entry in candidates:
            if entry.spec.asked:
                return self._turn(exchange, Turn(self, exchange, candidates, view))
        outcome, chosen = choose(candidates, partial(_rest_fits, view))
        if outcome is FREE and self.service.handled:
            return self._handler(exchange)
        if chosen is not None and chosen.next_is_ready:
            return self.lines.direct(self, chosen, head.method)
        return Turn(self, exchange, candidates, view)

    def _turn(self, exchange: Exchange, turn: Turn) -> Answerer:
        for_handler = turn.is_for_handler() and not exchange.cut
        return self._handler(exchange) if for_handler else turn

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


def _rest_fits(view: RequestView, entry: HTTPEntry) -> bool:
    return entry.matchers.rest_fits(view) is not False


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
