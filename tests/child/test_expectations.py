"""The table of choice, against a plain model of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kit.choices import Declared, Model
from sidestage.child.expectations import (
    Entry,
    Expectations,
    Outcome,
    choose,
    to_ask,
)
from sidestage.wire.messages import Declare, Reply

KINDS = range(3)  # of requests
Table = Expectations[frozenset[int], bytes]


class EveryEntry:
    """An index that finds all."""

    def __init__(self) -> None:
        self.entries: list[Entry[Any, Any]] = []

    def add(self, entry: Entry[Any, Any]) -> None:
        self.entries.append(entry)

    def remove(self, entry: Entry[Any, Any]) -> None:
        self.entries.remove(entry)

    def find(self, request: object) -> Sequence[Entry[Any, Any]]:
        return self.entries


def table() -> Table:
    return Table(EveryEntry())


def declare(number: int, **changes: Any) -> Declare:
    fields: dict[str, Any] = {
        "allow": False, "least": 1, "most": None, "group": 0, "label": f"expect {number}",
        "place": f"test_shop.py:{number}", "asked": False, "held": False, "early": False,
        "met": 0, "matchers": b"",
    }  # fmt: skip
    return Declare(entry=number, **{**fields, **changes})


def reply(number: int, least: int = 1, **changes: Any) -> Reply:
    fields: dict[str, Any] = {"delay": 0.0, "answer": b"", **changes}
    return Reply(entry=number, least=least, **fields)


def hit(table: Table, kind: int) -> tuple[str, int]:
    """Choose for a request, and count it."""
    choice = choose(table.index.find(kind), lambda entry: kind in entry.matchers)
    if choice.entry is not None:
        table.meet(choice.entry)
        return "met", choice.entry.number
    return ("unexpected" if choice.outcome is Outcome.FULL else "free"), 0


# Against the model -----------------------------------------------------------------------------

declarations = st.builds(
    Declared,
    number=st.just(0),
    least=st.integers(0, 2),
    most=st.none() | st.integers(0, 3),
    group=st.integers(0, 2),
    allow=st.booleans(),
    kinds=st.frozensets(st.sampled_from(KINDS)),
    met=st.sampled_from([0, 0, 0, 1, 2]),
)
hits = st.tuples(st.just("hit"), st.sampled_from(KINDS))
changes = st.tuples(st.sampled_from(["withdraw", "reply"]), st.integers(0, 20))
steps = st.lists(hits | hits | hits | changes | declarations, max_size=30)


class Both:
    """The table and the model, which get the same."""

    def __init__(self) -> None:
        self.table, self.model = table(), Model()

    def declare(self, one: Declared) -> None:
        one = Declared(**vars(one))
        one.number = len(self.model.entries) + 1
        one.group = 0 if one.allow else one.group
        self.model.entries.append(one)
        spec = {name: getattr(one, name) for name in ("allow", "least", "most", "group", "met")}
        self.table.declare(declare(one.number, **spec), one.kinds)

    def change(self, how: str, index: int) -> None:
        one = self.model.entries[index % len(self.model.entries)]
        number = one.number
        if how == "withdraw":
            one.withdrawn = True
            self.table.withdraw([number])
        elif not one.withdrawn:
            one.least += 1
            self.table.answer(reply(number, one.least), b"")

    def hit(self, kind: int) -> None:
        expected = self.model.choose(lambda one: kind in one.kinds)
        assert hit(self.table, kind) == expected
        if expected[1]:
            self.model.entries[expected[1] - 1].met += 1


@given(st.lists(declarations, min_size=1, max_size=6), steps)
def test_the_choice_is_that_of_the_model(first: list[Declared], steps: list[Any]) -> None:
    both = Both()
    for step in [*first, *steps]:
        match step:
            case Declared():
                both.declare(step)
            case ("hit", kind):
                both.hit(kind)
            case (how, index):
                both.change(how, index)
    live = {one.number: one for one in both.model.entries if not one.withdrawn}
    assert {number: entry.met for number, entry in both.table.entries.items()} == {
        number: one.met for number, one in live.items()
    }


Verdicts = Mapping[int, bool | None]  # of the test's process or of what came, by number
some_verdicts = st.lists(st.sampled_from([True, False, None]), min_size=5, max_size=5)


def both_of(declared: list[Declared]) -> Both:
    both = Both()
    for one in declared:
        both.declare(one)
    return both


@given(st.lists(declarations, min_size=1, max_size=5), some_verdicts)
def test_it_is_open_only_if_what_is_unknown_decides(
    declared: list[Declared], known: list[bool | None]
) -> None:
    both = both_of(declared)
    verdicts = dict(zip(range(1, len(declared) + 1), known, strict=False))
    choice = choose(both.table.index.find(0), lambda entry: verdicts[entry.number])
    assert (choice.outcome is Outcome.OPEN) == (len(both.model.outcomes(verdicts)) > 1)


@given(st.lists(declarations, min_size=1, max_size=5), some_verdicts)
def test_each_that_is_asked_decides_if_none_before_it_does(
    declared: list[Declared], known: list[bool | None]
) -> None:
    """So nothing is asked that could not be chosen, nor before what goes first."""
    both = both_of(declared)
    verdicts = dict(zip(range(1, len(declared) + 1), known, strict=False))
    for asked in to_ask(both.table.index.find(0), lambda entry: verdicts[entry.number]):
        assert verdicts[asked.number] is None
        assert len(both.model.outcomes(verdicts)) > 1
        assert len(both.model.outcomes({**verdicts, asked.number: True})) == 1
        verdicts[asked.number] = False
    assert len(both.model.outcomes(verdicts)) == 1


# The rules, one by one -------------------------------------------------------------------------


def kinds(*numbers: int) -> frozenset[int]:
    return frozenset(numbers)


def test_the_first_that_is_short_then_the_last_that_takes_more() -> None:
    here = table()
    here.declare(declare(1), kinds(1))
    here.declare(declare(2), kinds(1))
    assert [hit(here, 1)[1] for _ in range(4)] == [1, 2, 2, 2]


def test_what_matches_only_full_ones_is_unexpected_and_no_allow_takes_it() -> None:
    here = table()
    here.declare(declare(1, allow=True), kinds(1))
    here.declare(declare(2, most=1), kinds(1))
    assert [hit(here, 1) for _ in range(2)] == [("met", 2), ("unexpected", 0)]


def test_nothing_is_asked_of_full_ones_where_one_matches_for_sure() -> None:
    here = table()
    here.declare(declare(1, most=0), kinds(1))
    here.declare(declare(2, most=0), kinds(1))
    here.declare(declare(3, least=0), kinds(1))
    verdicts = {1: None, 2: True, 3: None}
    found = to_ask(here.index.find(1), lambda entry: verdicts[entry.number])
    assert [entry.number for entry in found] == [3]


def test_the_last_allow_with_times_left_takes_it() -> None:
    here = table()
    here.declare(declare(1, allow=True, least=0), kinds(1))
    here.declare(declare(2, allow=True, least=0, most=1), kinds(1))
    assert [hit(here, 1)[1] for _ in range(3)] == [2, 1, 1]


def test_an_order_opens_and_closes() -> None:
    here = table()
    for number, kind in ((1, 1), (2, 2), (3, 1)):
        here.declare(declare(number, group=1), kinds(kind))
    assert hit(here, 2) == ("unexpected", 0)
    assert [hit(here, 1)[1] for _ in range(2)] == [1, 1]
    assert hit(here, 2)[1] == 2
    assert hit(here, 1)[1] == 3
    assert hit(here, 2) == ("unexpected", 0)


def test_a_reply_that_comes_late_keeps_the_next_closed() -> None:
    here = table()
    for number in (1, 2):
        here.declare(declare(number, group=1), kinds(number))
    assert [hit(here, 1), choose([here.entries[2]], lambda _: True).outcome] == [
        ("met", 1),
        Outcome.MET,
    ]
    here.answer(reply(1, 2), b"")
    assert hit(here, 2) == ("unexpected", 0)
    assert [hit(here, kind)[1] for kind in (1, 2)] == [1, 2]


def test_one_that_is_closed_holds_up_nothing_whatever_it_still_needs() -> None:
    here = table()
    for number in (1, 2, 3):
        here.declare(declare(number, group=1), kinds(number))
    assert [hit(here, kind)[1] for kind in (1, 2)] == [1, 2]
    here.answer(reply(1, 2), b"")
    assert hit(here, 1) == ("unexpected", 0)
    assert hit(here, 3) == ("met", 3)


def test_the_notes_say_why_one_takes_no_more() -> None:
    here = table()
    here.declare(declare(1, most=1), kinds(1))
    for number in (2, 3):
        here.declare(declare(number, group=1), kinds(number))
    notes = [entry.note() for entry in here.entries.values()]
    assert notes == ["", "", "out of turn: waits for expect 2 (test_shop.py:2)"]
    assert [hit(here, kind)[1] for kind in (1, 2, 3)] == [1, 2, 3]
    notes = [entry.note() for entry in here.entries.values()]
    assert notes == [
        "it was met 1 of 1 times",
        "out of turn: a later one of its in_order() was met",
        "",
    ]


def test_the_advice_says_what_to_do_about_that() -> None:
    here = table()
    here.declare(declare(1, most=1), kinds(1))
    here.declare(declare(2, most=0), kinds(2))
    for number in (3, 4):
        here.declare(declare(number, group=1), kinds(number))
    assert hit(here, 1)[1] == 1
    more = "if it is to come once more, write times=2"
    handled = "the handler does not get what an expect matches; allow(..., times=1) would let it"
    order = "have the client keep to the order, or expect it outside of in_order()"
    entries = list(here.entries.values())
    assert [one.advice(handled=False) for one in entries] == [more, "", "", order]
    assert entries[0].advice(handled=True) == f"{more}; {handled}"
    assert "no expect would let it" in entries[1].advice(handled=True)
    assert entries[1].note() == "it is never to come (times=0)"


def test_the_answers_come_in_order_over_a_restart_and_the_last_repeats() -> None:
    here = table()
    here.declare(declare(1, met=1), kinds(1))
    entry = here.entries[1]
    assert here.meet(entry) == (0, None)
    for body in (b"a", b"b", b"c", None):
        here.answer(reply(1), body)
    given = [here.meet(entry) for _ in range(3)]
    assert [(number, answer and answer.content) for number, answer in given] == [
        (2, b"c"),
        (3, None),
        (3, None),
    ]
    assert here.counts() == [(1, 4)]


def test_answers_of_what_was_withdrawn_are_dropped() -> None:
    here = table()
    here.declare(declare(1, group=1), kinds(1))
    here.withdraw([1, 7])
    here.answer(reply(1), b"")
    here.hold(1)
    assert hit(here, 1) == ("free", 0)
    assert here.counts() == []
