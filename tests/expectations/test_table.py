"""What a run is told of expectations: each change once, in order, and everything at a start."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestage.expectations.entry import Answer, Entry, Given, Terms, Times
from sidestage.expectations.table import Replies, Table
from sidestage.expectations.verdicts import errors_of
from sidestage.wire.messages import Declare, Hold, Message, Met, Reply, Withdraw

ANY = Times(None, None)


def table() -> Table:
    return Table(Replies(lambda *given: Given(b""), lambda *given: given))


def declared(table: Table, times: Times = ANY, *, allow: bool = False, test: Any = None) -> Entry:
    terms = Terms("GET /a", None, b"m", test, "", lambda records: f"{len(records)} came")
    return table.declare(terms, times, allow=allow, place="test_it.py:1")


def kinds(messages: list[Message]) -> list[type[Message]]:
    return [type(one) for one in messages]


class TestLog:
    def test_has_each_change_once_and_in_order(self) -> None:
        table_ = table()
        entry = declared(table_)
        table_.add_answer(entry, Answer(Given(b"1"), 0.5), early=True)
        messages, position = table_.since(0)
        assert kinds(messages) == [Declare, Reply]
        assert messages[1] == Reply(entry=1, least=1, delay=0.5, answer=b"1", early=True)
        held = declared(table_)
        table_.have_held(held)
        table_.remove([entry])
        messages, last = table_.since(position)
        assert kinds(messages) == [Declare, Hold, Withdraw]
        assert table_.since(last) == ([], last)

    def test_a_start_says_everything_with_the_counts(self) -> None:
        table_ = table()
        entry = declared(table_)
        table_.add_answer(entry, Answer(Given(b"1"), 0), early=True)
        table_.remove([declared(table_)])
        table_.whole()
        table_.met(1)
        messages, position = table_.whole()
        assert kinds(messages) == [Declare, Reply]
        assert isinstance(messages[0], Declare)
        assert (messages[0].met, messages[0].early) == (1, True)
        assert table_.since(position) == ([], position)
        table_.met(1)
        assert entry.count == 2

    def test_a_start_says_that_it_is_strict_without_any(self) -> None:
        table_ = table()
        table_.remove([declared(table_)])
        assert table_.whole()[0] == [Withdraw(entries=[], strict=True)]
        table_.remove([], strict=False)
        assert table_.whole()[0] == []

    @given(st.lists(st.sampled_from(["declare", "answer", "remove", "tell"]), max_size=30))
    def test_whoever_follows_knows_what_a_start_says(self, steps: list[str]) -> None:
        table_, told, position = table(), {}, 0
        for step in [*steps, "tell"]:
            if step == "declare":
                declared(table_)
            elif step == "answer" and (entries := list(table_)):
                table_.add_answer(entries[0], Answer(Given(b""), 0), early=False)
            elif step == "remove" and (entries := list(table_)):
                table_.remove(entries[:1])
            elif step == "tell":
                messages, position = table_.since(position)
                for message in messages:
                    _learn(told, message)
        whole: dict[int, list[Message]] = {}
        for message in table_.whole()[0]:
            _learn(whole, message)
        assert {number: len(known) for number, known in told.items()} == {
            number: len(known) for number, known in whole.items()
        }


def _learn(known: dict[int, list[Message]], message: Message) -> None:
    match message:
        case Declare():
            known[message.entry] = [message]
        case Reply():
            known[message.entry].append(message)
        case Withdraw():
            for number in message.entries:
                del known[number]


class TestAsking:
    def test_only_with_a_part_for_the_tests_process(self) -> None:
        table_ = table()
        entry = declared(table_)
        assert not table_.asks
        table_.add_answer(entry, Answer(Given(None, print), 0), early=False)
        assert table_.asks
        assert table_.answer_of(Met(entry=1)) is print
        assert table_.answer_of(Met(entry=1, reply=1)) is None

    def test_with_a_test_of_a_request(self) -> None:
        table_ = table()
        declared(table_, test=print)
        assert table_.asks
        assert table_.test_of(1) is print


class TestCounts:
    def test_totals_of_a_run_replace_what_was_counted_in_it(self) -> None:
        table_ = table()
        entry = declared(table_)
        table_.met(1)
        table_.whole()
        table_.met(1)
        table_.counted([(1, 5), (9, 1)])
        table_.met(1)
        assert entry.count == 7


class TestVerdicts:
    @pytest.mark.parametrize(
        "times, answers, met, fails",
        [
            (ANY, 0, 0, "met 0 of 1 times at it"),
            (ANY, 2, 1, "met 1 of 2 times at it, as it has 2 replies"),
            (ANY, 2, 2, ""),
            (Times(2, 2), 0, 1, "met 1 of 2 times at it"),
            (Times(1, 3), 2, 1, ""),
            (Times(0, 0), 0, 0, ""),
        ],
    )
    def test_of_what_came(self, times: Times, answers: int, met: int, fails: str) -> None:
        table_ = table()
        entry = declared(table_, times)
        for _ in range(answers):
            table_.add_answer(entry, Answer(Given(b""), 0), early=False)
        for _ in range(met):
            table_.met(1)
        errors = errors_of(table_, lambda: [SimpleNamespace(received_at=math.inf)], "it")
        assert bool(errors) is bool(fails)
        if errors:
            assert str(errors[0]).startswith(f"expect GET /a (test_it.py:1) was met {met} of ")
            assert fails in str(errors[0])
            assert str(errors[0]).endswith("1 came")
        assert errors_of(table_, list, "it") == []  # each is told once
