"""The order of questions to the test's process, and how long one holds up the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kit.http_child import Loop
from sidestage.child.questions import Questions


class Asked:
    """What was asked, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def ask(self, name: str, *, out: bool = True) -> Callable[[], bool]:
        """Note that ``name`` was asked; ``out`` is whether it waits for an answer."""

        def ask() -> bool:
            self.names.append(name)
            return out

        return ask


@pytest.fixture
def loop() -> Any:
    return Loop()


def test_questions_go_out_one_by_one_in_order(loop: Any) -> None:
    asked, questions = Asked(), Questions(loop)
    for name in ("a", "b", "c"):
        questions.ask(name, asked.ask(name))
    assert asked.names == ["a"]
    questions.settle("b")
    questions.settle("a")
    assert asked.names == ["a", "c"]
    questions.settle("a")
    questions.settle("c")
    questions.ask("d", asked.ask("d"))
    assert asked.names == ["a", "c", "d"]


def test_many_that_need_no_answer_follow_at_once(loop: Any) -> None:
    asked, questions = Asked(), Questions(loop)
    questions.ask("first", asked.ask("first"))
    for number in range(5000):
        questions.ask(number, asked.ask("more", out=False))
    questions.settle("first")
    assert len(asked.names) == 5001


def test_a_slow_answer_holds_up_the_others_only_for_a_while(loop: Any) -> None:
    asked, questions = Asked(), Questions(loop)
    for name in ("a", "b", "c"):
        questions.ask(name, asked.ask(name))
    loop.fire()
    assert asked.names == ["a", "b"]  # and so on: each is waited for
    questions.settle("b")
    assert asked.names == ["a", "b", "c"]
    questions.settle("c")
    assert questions.are_open
    questions.settle("a")
    assert not questions.are_open


def test_no_timer_is_left_when_nothing_waits(loop: Any) -> None:
    asked, questions = Asked(), Questions(loop)
    questions.ask("a", asked.ask("a"))
    assert not loop.timers
    for name in ("b", "c"):
        questions.ask(name, asked.ask(name))
    questions.settle("c")
    questions.settle("b")
    assert [timer.cancelled for timer in loop.timers] == [True]
    questions.settle("a")
    assert not questions.are_open
