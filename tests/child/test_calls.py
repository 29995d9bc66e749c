"""Calls by their ids, and their time-outs, on a loop whose time the test sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sidestage.child.calls import Calls, Timeouts
from sidestage.wire.messages import Close, Lost, Message, Overdue


class Timer:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at, self.call, self.cancelled = at, call, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """A clock, and the timers that are set on it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[..., None], *arguments: Any) -> Timer:
        self.timers.append(Timer(self.now + delay, lambda: call(*arguments)))
        return self.timers[-1]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer.at <= self.now]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            if not timer.cancelled:
                timer.call()


class Outbox:
    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, message: Message) -> None:
        self.sent.append(message)


class FakeCall:
    """An open call, with or without a time that ends."""

    def __init__(self) -> None:
        self.commands: list[Message] = []
        self.due: float | None = None
        self.ended = 0

    def command(self, message: Message) -> None:
        self.commands.append(message)

    def timed_out(self) -> None:
        self.ended += 1


class Stage:
    def __init__(self) -> None:
        self.loop, self.outbox = Loop(), Outbox()
        loop: Any = self.loop
        outbox: Any = self.outbox
        self.calls = Calls(loop, outbox)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def close(call: int) -> Close:
    return Close(call=call, reset=False)


class TestCalls:
    def test_a_command_reaches_its_call_and_no_other(self, stage: Stage) -> None:
        one, other = FakeCall(), FakeCall()
        first, second = stage.calls.open(one), stage.calls.open(other)
        assert first != second
        stage.calls.command(first, close(first))
        assert (one.commands, other.commands) == ([close(first)], [])

    def test_a_command_for_an_ended_call_is_dropped(self, stage: Stage) -> None:
        call = FakeCall()
        number = stage.calls.open(call)
        stage.calls.close(number)
        stage.calls.command(number, close(number))
        assert call.commands == []
        assert len(stage.calls) == 0

    def test_a_lost_call_is_reported_once_and_with_the_answer_it_was_given(
        self, stage: Stage
    ) -> None:
        number = stage.calls.open(FakeCall())
        stage.calls.lose(number, reset=False, answered=(504, 20))
        stage.calls.lose(number, reset=True)
        assert stage.outbox.sent == [Lost(call=number, reset=False, answered=(504, 20))]

    def test_one_that_has_ended_is_not_reported(self, stage: Stage) -> None:
        number = stage.calls.open(FakeCall())
        stage.calls.close(number)
        stage.calls.lose(number, reset=True)
        assert stage.outbox.sent == []


class TestPostponing:
    @pytest.mark.parametrize("wanted", [True, False])
    def test_the_answer_decides(self, stage: Stage, wanted: bool) -> None:
        answers: list[bool] = []
        stage.calls.ask_to_postpone(answers.append)
        (asked,) = stage.outbox.sent
        assert isinstance(asked, Overdue)
        stage.calls.postponed(asked.token, wanted=wanted)
        stage.loop.pass_time(60)
        assert answers == [wanted]

    def test_no_answer_is_a_no(self, stage: Stage) -> None:
        answers: list[bool] = []
        stage.calls.ask_to_postpone(answers.append)
        stage.loop.pass_time(0.4)
        assert answers == []
        stage.loop.pass_time(0.2)
        assert answers == [False]

    def test_an_answer_that_is_too_late_or_to_nothing_is_ignored(self, stage: Stage) -> None:
        answers: list[bool] = []
        stage.calls.ask_to_postpone(answers.append)
        stage.loop.pass_time(1)
        (asked,) = stage.outbox.sent
        assert isinstance(asked, Overdue)
        stage.calls.postponed(asked.token, wanted=True)
        stage.calls.postponed(999_999, wanted=True)
        assert answers == [False]


class TestTimeouts:
    def timeouts(self, stage: Stage, *calls: FakeCall, seconds: float | None = 10) -> Timeouts:
        loop: Any = stage.loop
        return Timeouts(loop, seconds, lambda: calls)

    def test_each_call_has_its_whole_time_by_one_timer(self, stage: Stage) -> None:
        first, second = FakeCall(), FakeCall()
        timeouts = self.timeouts(stage, first, second)
        timeouts.arm(first)
        stage.loop.pass_time(4)
        timeouts.arm(second)
        assert len(stage.loop.timers) == 1
        stage.loop.pass_time(6)
        assert (first.ended, second.ended) == (1, 0)
        stage.loop.pass_time(3)
        assert second.ended == 0
        stage.loop.pass_time(1)
        assert (first.ended, second.ended) == (1, 1)

    def test_one_that_was_answered_does_not_end(self, stage: Stage) -> None:
        call = FakeCall()
        timeouts = self.timeouts(stage, call)
        timeouts.arm(call)
        call.due = None
        stage.loop.pass_time(100)
        assert call.ended == 0

    def test_without_a_limit_nothing_is_timed(self, stage: Stage) -> None:
        call = FakeCall()
        self.timeouts(stage, call, seconds=None).arm(call)
        assert (call.due, stage.loop.timers) == (None, [])

    def test_nothing_is_left_for_the_next_server(self, stage: Stage) -> None:
        call = FakeCall()
        timeouts = self.timeouts(stage, call)
        timeouts.arm(call)
        timeouts.close()
        stage.loop.pass_time(100)
        assert call.ended == 0
