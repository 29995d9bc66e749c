"""One request of a strict service: which expectation it meets, and what answers it."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from ....child.expectations import FREE, OPEN, Outcome, choose, to_ask
from ....wire.messages import Chosen, Close, Gone, Message, Met, Verdict
from ..matching.view import RequestView
from ..messages import Respond
from .answerers import PLAIN_SUCCESS, plain
from .delay import Delay
from .direct import answered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .exchange import Exchange
    from .index import HTTPEntry
    from .router import Router

_ICON = "/favicon.ico"  # browsers ask for it by themselves


class Turn:
    """A request and its choice: an ``Answerer``, and a ``Gate`` while it asks the test.

    A handler is the answerer of what it answers. After a question that was asked at the head, the
    body is passed on as it comes and is kept here as well: another expectation may need it. The
    test is asked as often as its answer, or the counts of that moment, leave more to ask.
    """

    stage = "waits for the test to judge it"
    answer_begun = False
    answer_complete = False

    # Long: what the state of a choice is, a line each. ``view`` is there if somebody has looked.
    def __init__(
        self,
        router: Router,
        exchange: Exchange,
        candidates: Sequence[HTTPEntry],
        view: RequestView | None = None,
    ) -> None:
        head = exchange.head
        assert head is not None
        self._router = router
        self._service = router.service
        self._exchange = exchange
        self._whole = exchange.received or exchange.large  # nothing more to look at will come
        self._body = exchange.body if self._whole else b""
        cut = exchange.cut
        if exchange.large and not cut:
            cut = max(1, len(exchange.body) - self._service.record_limit)
        if view is None:
            view = RequestView(head.method, head.target, head.fields, bytes(self._body), cut)
        self._view = view
        self._candidates: Sequence[HTTPEntry] = tuple(candidates)  # whose method and path fit
        self._said: dict[int, bool] = {}  # whether the request fits, by the number of the entry
        self.told = False  # the test's process knows the request
        self._taking = False
        self._awaits = False  # nothing can be said or asked before more of the body has come
        self._open: HTTPEntry | None = None  # of which it cannot be said yet
        self._choice = choose(self._candidates, self._matches)
        self.early = self._is_early()
        self.calls = self._calls_test()

    def is_for_handler(self) -> bool:
        """Whether no expectation takes the request, and there is a handler."""
        return self._choice.outcome is FREE and self._service.handled

    def _is_early(self) -> bool:
        """Whether the choice does not need the body, nor what the test is asked for it."""
        if self._choice.outcome is OPEN:
            entry = self._open
            asks = entry is not None and entry.spec.asked and not entry.matchers.needs_body
        else:
            entry, asks = self._choice.entry, True
        return entry is not None and entry.early and asks

    def _calls_test(self) -> bool:
        entry = self._choice.entry
        if entry is None:
            return self._choice.outcome is OPEN
        return entry.held or entry.next_is_callable

    # The choice ----------------------------------------------------------------------------------

    def _matches(self, entry: HTTPEntry) -> bool | None:
        said = self._said.get(entry.number)
        if said is None and (said := self._judge(entry)) is not None:
            self._said[entry.number] = said
        if said is None:
            self._open = entry
        return said

    def _judge(self, entry: HTTPEntry) -> bool | None:
        """Whether the request fits; ``None`` if that needs the body, or the test's process."""
        matchers = entry.matchers
        if matchers.fields_fit(self._view) is False:
            return False
        if matchers.needs_body or (entry.spec.asked and not entry.early):
            if not self._whole:
                return None
            if self._view.cut or matchers.body_fits(self._view) is False:
                return False
        return None if entry.spec.asked else True

    # As an answerer ------------------------------------------------------------------------------

    def take(self, exchange: Exchange) -> None:
        self._taking = True
        if self._choice.outcome is OPEN:
            self._body = bytearray(exchange.body)
            exchange.call = self._service.calls.open(exchange.sized())
            exchange.gate = self
            self._router.questions.ask(self, self._go_on)
        else:
            self._act()
        self._taking = False

    def piece(self, exchange: Exchange, data: bytes | memoryview) -> None:
        if not exchange.call:  # it is answered
            return
        if self.told:
            self._service.handler.piece(exchange, data)
        if not self._view.cut:
            self._body += data
            over = len(self._body) - self._service.record_limit
            self._view.cut = max(0, over)
        self._look_at_body()

    def complete(self, exchange: Exchange) -> None:
        if not exchange.call:
            return
        self._see_all()
        if self.told:
            self._service.handler.complete(exchange)
        self._look_at_body()

    def _see_all(self) -> None:
        """Nothing more to look at will come."""
        self._whole = True
        self._view.body = bytes(self._body)
        if not self.told:
            self._exchange.body = self._view.body

    def _look_at_body(self) -> None:
        """Go on if there is enough of the body, and this waits for it."""
        if not self._awaits:
            return
        if self._view.cut and not self._whole:  # too large, however much of it is to come
            self._see_all()
        if not self._whole:
            self._exchange.framing.want_body(self._exchange)
            return
        self._awaits = False
        if self._choose() is OPEN:
            self._router.questions.ask(self, self._go_on)
        else:
            self._go_on()

    def lose(
        self, exchange: Exchange, *, reset: bool, answered: tuple[int, int] | None = None
    ) -> None:
        if not exchange.call:
            return
        self._router.questions.settle(self)
        if self.told:
            self._service.calls.lose(exchange.call, reset=reset, answered=answered)
            return
        self._close_call()
        status, size = answered or (0, 0)
        exchange.met = Met(status=status, size=size, done=answered is not None)
        self._service.outbox.record(exchange.request())

    def _close_call(self) -> None:
        self._service.calls.close(self._exchange.call)
        self._exchange.call = 0

    # As a gate: what is asked, and the verdict ---------------------------------------------------

    def _go_on(self) -> bool:
        """Act, ask or wait for the body, by the counts of this moment; returns whether it asks."""
        if self._choose() is OPEN:
            if asks := self._asks():
                self._ask(asks)
                return True
        elif self._whole or self._is_early():
            if not self.told:
                self._close_call()
            self._act()
            return False
        self._awaits = True
        self._look_at_body()
        return False

    def _choose(self) -> Outcome:
        self._choice = choose(self._present(), self._matches)
        return self._choice.outcome

    def _asks(self) -> tuple[int, ...]:
        """What the test can be asked now, of what the choice depends on."""
        undecided = to_ask(self._candidates, self._matches)
        return tuple(entry.number for entry in takewhile(self._is_for_test, undecided))

    def _is_for_test(self, entry: HTTPEntry) -> bool:
        """Whether it is the test that is to say if the request fits, and not the body."""
        at_head = entry.early and not entry.matchers.needs_body
        return entry.spec.asked and (self._whole or at_head)

    def _ask(self, asks: tuple[int, ...]) -> None:
        exchange = self._exchange
        exchange.met = Met(asks=asks)
        if self.told:
            self._service.send(Chosen(call=exchange.call, met=exchange.met))
        else:
            self.told = True
            self._service.handler.tell(exchange)

    def _present(self) -> Sequence[HTTPEntry]:
        """The candidates that were not withdrawn meanwhile."""
        entries = self._router.table.entries
        self._candidates = [entry for entry in self._candidates if entry.number in entries]
        return self._candidates

    def keeps(self, exchange: Exchange, message: Message) -> bool:
        if isinstance(message, Verdict):
            self._note(message.entry)
            if not self._go_on():
                self._router.questions.settle(self)
            return True
        if isinstance(message, (Respond, Close)):  # a `where` has raised: that is its answer
            exchange.gate = None
            self._router.questions.settle(self)
        return False

    def _note(self, entry: int) -> None:
        """Take over a verdict: the request fits ``entry``, and none that was asked before it."""
        assert self._exchange.met is not None
        for number in self._exchange.met.asks:
            self._said[number] = number == entry
            if number == entry:
                break

    def cancel(self) -> None:
        """It keeps nothing."""

    # What comes of it ----------------------------------------------------------------------------

    def _act(self) -> None:
        self._exchange.gate = None
        outcome, entry = self._choice
        if entry is not None:
            self._meet(entry)
        elif self.is_for_handler() and not self._exchange.cut:
            self._pass_on(Met())
        elif outcome is FREE and not self._router.strict:
            self._answer(PLAIN_SUCCESS)
        elif outcome is FREE and self._is_icon():
            self._answer(plain(404, "Not Found"))
        else:
            why = self._router.explain(self._view)
            self._answer(plain(404, why.reason, why.text), unexpected=why.text)

    def _is_icon(self) -> bool:
        return self._view.method == "GET" and self._view.raw_path == _ICON

    def _meet(self, entry: HTTPEntry) -> None:
        number, answer = self._router.table.meet(entry)
        delay = 0.0 if answer is None or entry.held else answer.delay
        if delay:
            self._exchange.gate = Delay(self._service.loop, delay)
        if entry.held or (answer is not None and answer.content is None):
            self._pass_on(Met(entry=entry.number, reply=number, held=entry.held))
        else:
            content = PLAIN_SUCCESS if answer is None else answer.content
            assert content is not None
            self._answer(content, entry.number, number)

    def _pass_on(self, met: Met) -> None:
        """Have the test answer: a handler, a callable, or whoever takes what is held."""
        exchange, calls = self._exchange, self._service.calls
        exchange.met = met
        exchange.answerer = self._service.handler
        if self.told:
            self._service.send(Chosen(call=exchange.call, met=met))
            calls.count(exchange, timed=not met.held)
        else:
            exchange.call = calls.open(exchange.sized(), timed=not met.held)
            self._service.handler.tell(exchange)
        if met.held and self._service.has_half_closed(exchange.framing):
            self._service.send(Gone(call=exchange.call))

    def _answer(
        self, response: Respond, entry: int = 0, reply: int = 0, unexpected: str = ""
    ) -> None:
        """Answer without the test, which is told first."""
        exchange = self._exchange
        head = exchange.head
        assert head is not None
        met = answered(head, response, entry, reply, unexpected)
        if self.told:
            self._service.send(Chosen(call=exchange.call, met=met))
            self._close_call()
        else:
            exchange.met = met
            self._router.tell(exchange.request())
        if exchange.gate is None and self._taking:
            exchange.framing.respond(exchange, response)
        else:
            exchange.command(response)
