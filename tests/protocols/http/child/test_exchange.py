"""The states of an exchange: what may follow what."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestage.protocols.http.child.exchange import (
    ANSWERED,
    ASKED,
    Answered,
    Asked,
    Event,
    Exchange,
    IllegalEvent,
)
from sidestage.wire.messages import Ack, Address

OF_REQUEST = {Event.WHOLE, Event.BEGUN, Event.PIECE, Event.COMPLETE}
OF_RESPONSE = {Event.INFORM, Event.RESPOND, Event.RESPOND_HEAD, Event.DATA, Event.END}
BEGINNINGS = {Event.WHOLE, Event.BEGUN}
ENDS = {Event.WHOLE, Event.COMPLETE}
HEADS = {Event.RESPOND, Event.RESPOND_HEAD}


class Framing:
    """Notes what an exchange passes on."""

    COMMANDS: ClassVar[dict[type, Callable[[Any, Exchange, Any], None]]] = {
        Ack: lambda framing, exchange, message: framing.calls.append((exchange, message))
    }
    peer: Address = ("127.0.0.1", 1)
    number = 1

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def respond(self, exchange: Exchange, response: Any) -> None:
        raise AssertionError("an exchange sends nothing")

    def timed_out(self, exchange: Exchange) -> None:
        self.calls.append(exchange)

    def hold(self, wanted: bool) -> None:
        raise AssertionError("an exchange holds nothing")


def exchange(asked: Asked = Asked.HEAD, answered: Answered = Answered.QUEUED) -> Exchange:
    made = Exchange(Framing())
    made.asked, made.answered = asked, answered
    return made


def states(made: Exchange) -> tuple[Asked, Answered]:
    return made.asked, made.answered


# One event -------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("answered", Answered)
@pytest.mark.parametrize("asked", Asked)
def test_an_event_moves_as_the_tables_say(asked: Asked, answered: Answered, event: Event) -> None:
    """Or changes nothing, if it is too late for it, or an error."""
    made = exchange(asked, answered)
    # Without a head there is nothing to answer, but an error may be sent.
    of_response = asked is not Asked.HEAD or event in {Event.REFUSE, Event.ABANDON}
    after: tuple[Asked, Answered] | None = None
    late = False
    if event in OF_REQUEST:
        if (asked, event) in ASKED:
            after = ASKED[asked, event], answered
    elif of_response:
        if (answered, event) in ANSWERED:
            after = asked, ANSWERED[answered, event]
        late = answered in {Answered.DONE, Answered.ABANDONED} and event is not Event.TURN
        late |= (answered, event) == (Answered.HEAD_SENT, Event.INFORM)
    if after is not None:
        assert made.on(event) is True
        assert states(made) == after
    elif late:
        assert made.on(event) is False
        assert states(made) == (asked, answered)
    else:
        with pytest.raises(IllegalEvent, match=f"{event.name} when {asked.name}"):
            made.on(event)
        assert states(made) == (asked, answered)


@pytest.mark.parametrize(
    "before, event, after",
    [
        (Answered.QUEUED, Event.TURN, Answered.PASSED),
        (Answered.QUEUED, Event.REFUSE, Answered.DONE),
        (Answered.QUEUED, Event.ABANDON, Answered.ABANDONED),
        (Answered.QUEUED, Event.RESPOND, None),
        (Answered.QUEUED, Event.INFORM, None),
        (Answered.PASSED, Event.TURN, None),
        (Answered.PASSED, Event.INFORM, Answered.PASSED),
        (Answered.PASSED, Event.RESPOND, Answered.DONE),
        (Answered.PASSED, Event.RESPOND_HEAD, Answered.HEAD_SENT),
        (Answered.PASSED, Event.DATA, None),
        (Answered.PASSED, Event.END, None),
        (Answered.PASSED, Event.REFUSE, Answered.DONE),
        (Answered.PASSED, Event.ABANDON, Answered.ABANDONED),
        (Answered.HEAD_SENT, Event.RESPOND, None),
        (Answered.HEAD_SENT, Event.RESPOND_HEAD, None),
        (Answered.HEAD_SENT, Event.DATA, Answered.HEAD_SENT),
        (Answered.HEAD_SENT, Event.END, Answered.DONE),
        (Answered.HEAD_SENT, Event.REFUSE, Answered.ABANDONED),
        (Answered.HEAD_SENT, Event.ABANDON, Answered.ABANDONED),
    ],
)
def test_what_may_follow_in_a_response(
    before: Answered, event: Event, after: Answered | None
) -> None:
    """Said again here, so that no change of the tables goes unnoticed."""
    made = exchange(Asked.DONE, before)
    if after is None:
        with pytest.raises(IllegalEvent):
            made.on(event)
        after = before
    else:
        assert made.on(event)
    assert made.answered is after


def test_the_tables_agree_with_the_states() -> None:
    assert set(ASKED) == {
        (Asked.HEAD, Event.WHOLE),
        (Asked.HEAD, Event.BEGUN),
        (Asked.BODY, Event.PIECE),
        (Asked.BODY, Event.COMPLETE),
    }
    assert {event for _, event in ANSWERED}.isdisjoint(OF_REQUEST)
    assert {before for before, _ in ANSWERED} == {
        Answered.QUEUED,
        Answered.PASSED,
        Answered.HEAD_SENT,
    }


# Many events -----------------------------------------------------------------------------------

sequences = st.lists(st.sampled_from(Event), max_size=40)
# Mostly in order, so that the later states are reached.
likely = st.builds(
    lambda first, rest: [*first, *rest],
    st.sampled_from(
        [
            [Event.WHOLE, Event.TURN],
            [Event.BEGUN, Event.COMPLETE, Event.TURN],
            [Event.BEGUN, Event.TURN, Event.INFORM, Event.RESPOND_HEAD, Event.DATA],
            [Event.BEGUN, Event.TURN, Event.RESPOND],
            [Event.REFUSE],
        ]
    ),
    sequences,
)


@given(sequences | likely)
def test_an_exchange_has_at_most_one_response(events: list[Event]) -> None:
    """And what ends it is not left, whatever happens."""
    made = exchange()
    happened: list[Event] = []
    for event in events:
        before = states(made)
        moved = False
        with contextlib.suppress(IllegalEvent):
            moved = made.on(event)
        if moved:
            happened.append(event)
            assert not (before[1] >= Answered.DONE and event in OF_RESPONSE | {Event.TURN})
        else:
            assert states(made) == before
        if before[1] >= Answered.DONE:
            assert made.answered is before[1]
        assert made.asked >= before[0]
        assert made.answered >= before[1]
        assert made.ended is (made.answered in {Answered.DONE, Answered.ABANDONED})
        assert made.received is (made.asked is Asked.DONE)
    heads = [at for at, event in enumerate(happened) if event in HEADS]
    assert len(heads) <= 1
    assert happened.count(Event.TURN) <= 1
    assert happened.count(Event.END) <= 1
    if heads:
        assert Event.TURN in happened[: heads[0]]
        assert Event.INFORM not in happened[heads[0] :]
    for event in (Event.DATA, Event.END):
        if event in happened:
            assert Event.RESPOND_HEAD in happened[: happened.index(event)]


@given(sequences)
def test_a_request_comes_in_order(events: list[Event]) -> None:
    made = exchange()
    happened: list[Event] = []
    for event in events:
        with contextlib.suppress(IllegalEvent):
            if made.on(event) and event in OF_REQUEST:
                happened.append(event)
    assert happened == sorted(happened)
    assert len([event for event in happened if event in BEGINNINGS]) <= 1
    assert len([event for event in happened if event in ENDS]) <= 1
    if Event.WHOLE in happened:
        assert happened == [Event.WHOLE]
    assert made.received is any(event in ENDS for event in happened)


@pytest.mark.parametrize("first, then", [*itertools.product(sorted(HEADS), repeat=2)])
def test_a_second_response_changes_nothing(first: Event, then: Event) -> None:
    made = exchange(Asked.DONE, Answered.PASSED)
    assert made.on(first)
    with contextlib.suppress(IllegalEvent):
        assert not made.on(then)
    assert made.answered is (Answered.DONE if first is Event.RESPOND else Answered.HEAD_SENT)


# As a call -------------------------------------------------------------------------------------


def test_commands_and_time_outs_go_to_what_frames_it() -> None:
    framing = Framing()
    made = Exchange(framing)
    message = Ack(call=1, size=2)
    made.command(message)
    made.timed_out()
    assert framing.calls == [(made, message), made]


def test_an_exchange_without_a_head_has_a_name() -> None:
    assert exchange().line() == "request"


def test_it_is_too_late_for_information_after_the_head() -> None:
    made = exchange(Asked.BODY, Answered.HEAD_SENT)
    assert made.on(Event.INFORM) is False
    assert states(made) == (Asked.BODY, Answered.HEAD_SENT)
