"""Calls by their ids, and their time-outs, on a loop whose time the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sidestage.child.calls import Calls
from sidestage.wire.credit import CALLS
from sidestage.wire.messages import Diagnostic, Lost, Message, Overdue


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

    def call_soon(self, call: Callable[[], None]) -> None:
        self.call_later(0, call)

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

    note = send


class FakeCall:
    """An open call, with or without a time that ends."""

    def __init__(self, size: int = 0) -> None:
        self.commands: list[Message] = []
        self.due: float | None = None
        self.size = size
        self.ended = 0

    def command(self, message: Message) -> None:
        self.commands.append(message)

    def timed_out(self) -> None:
        self.ended += 1


class Stage:
    def __init__(self, seconds: float | None = 10, room: int = 1000) -> None:
        self.loop, self.outbox = Loop(), Outbox()
        loop: Any = self.loop
        outbox: Any = self.outbox
        self.calls = Calls(loop, outbox, seconds, room)

    def open(self) -> FakeCall:
        """Open a call whose time begins now."""
        call = FakeCall()
        self.calls.open(call)
        return call

    def overdue(self) -> FakeCall:
        """Open a call whose time has just ended."""
        call = self.open()
        self.loop.pass_time(10)
        return call

    def asked(self) -> Overdue:
        """The only question to the parent since the last call of this."""
        (asked,) = self.outbox.sent
        assert isinstance(asked, Overdue)
        self.outbox.sent.clear()
        return asked


@pytest.fixture
def stage() -> Stage:
    return Stage()


class TestCalls:
    def test_a_command_reaches_its_call_and_no_other(self, stage: Stage) -> None:
        one, other = FakeCall(), FakeCall()
        first, second = stage.calls.open(one), stage.calls.open(other)
        assert first != second
        assert stage.calls.get(first) is one
        assert stage.calls.get(second) is other

    def test_a_command_for_an_ended_call_is_dropped(self, stage: Stage) -> None:
        call = FakeCall()
        number = stage.calls.open(call)
        stage.calls.close(number)
        assert stage.calls.get(number) is None
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


class TestTheLimit:
    def test_is_of_many_calls(self, stage: Stage) -> None:
        numbers = [stage.calls.open(FakeCall()) for _ in range(CALLS)]
        assert stage.calls.full
        stage.calls.close(numbers[0])
        assert not stage.calls.full

    def test_is_of_bytes_too_but_for_a_few_calls(self, stage: Stage) -> None:
        for _ in range(7):
            stage.calls.open(FakeCall(2000))
            assert not stage.calls.full
        number = stage.calls.open(FakeCall(2000))
        assert stage.calls.full
        stage.calls.close(number)
        assert not stage.calls.full

    def test_counts_calls_that_have_ended_until_their_handlers_have_returned(
        self, stage: Stage
    ) -> None:
        numbers = [stage.calls.open(FakeCall(100)) for _ in range(10)]
        stage.calls.lose(numbers[0], reset=True)
        stage.calls.leave(numbers[1])
        stage.calls.close(numbers[0])
        assert len(stage.calls) == 8
        assert stage.calls.full
        stage.calls.returned(numbers[1])
        assert not stage.calls.full
        stage.calls.returned(numbers[1])
        for _ in range(2):
            stage.calls.open(FakeCall(50))
        assert stage.calls.full

    def test_lets_those_go_on_that_wait_as_long_as_there_is_room(self, stage: Stage) -> None:
        numbers = [stage.calls.open(FakeCall(100)) for _ in range(10)]
        began: list[int] = []

        def waiting(name: int) -> Callable[[], None]:
            def go_on() -> None:
                began.append(name)
                stage.calls.open(FakeCall(100))

            return go_on

        every = [waiting(name) for name in range(4)]
        for go_on in every:
            stage.calls.wait(go_on)
        stage.calls.forget(every[1])
        stage.calls.close(numbers[0])
        stage.calls.close(numbers[1])
        stage.loop.pass_time(0)
        assert began == [0, 2]
        assert stage.calls.full

    def test_is_told_once_until_half_are_done(self, stage: Stage) -> None:
        def told() -> int:
            return sum(isinstance(message, Diagnostic) for message in stage.outbox.sent)

        numbers = [stage.calls.open(FakeCall(100)) for _ in range(10)]
        for _ in range(5):
            stage.calls.close(numbers.pop())
            numbers.append(stage.calls.open(FakeCall(100)))
        assert told() == 1
        while len(numbers) > 4:
            stage.calls.close(numbers.pop())
        numbers += [stage.calls.open(FakeCall(100)) for _ in range(6)]
        assert told() == 2

    @pytest.mark.parametrize("room", [True, False])
    def test_is_waited_for_no_longer_than_for_a_handler(self, room: bool) -> None:
        async def admitted() -> bool:
            calls = Calls(asyncio.get_running_loop(), outbox, 5.0 if room else 0.01, 1000)
            numbers = [calls.open(FakeCall(100), timed=False) for _ in range(10)]
            waiting = asyncio.ensure_future(calls.admits())
            await asyncio.sleep(0)
            if room:
                calls.close(numbers[0])
            return await waiting

        outbox: Any = Outbox()
        assert asyncio.run(admitted()) is room


class TestPostponing:
    @pytest.mark.parametrize("wanted", [True, False])
    def test_the_answer_decides(self, stage: Stage, wanted: bool) -> None:
        call = stage.overdue()
        stage.calls.postponed(stage.asked().token, wanted=wanted)
        assert call.ended == (not wanted)
        stage.loop.pass_time(9)
        assert call.ended == (not wanted)

    def test_no_answer_is_a_no(self, stage: Stage) -> None:
        call = stage.overdue()
        stage.loop.pass_time(0.4)
        assert call.ended == 0
        stage.loop.pass_time(0.2)
        assert call.ended == 1

    def test_an_answer_that_is_too_late_or_to_nothing_is_ignored(self, stage: Stage) -> None:
        call = stage.overdue()
        stage.loop.pass_time(1)
        stage.calls.postponed(stage.asked().token, wanted=True)
        stage.calls.postponed(999_999, wanted=True)
        stage.loop.pass_time(100)
        assert call.ended == 1
        assert stage.outbox.sent == []

    def test_one_that_is_postponed_has_its_whole_time_again(self, stage: Stage) -> None:
        call = stage.overdue()
        stage.calls.postponed(stage.asked().token, wanted=True)
        stage.loop.pass_time(9.9)
        assert stage.outbox.sent == []
        stage.loop.pass_time(0.1)
        stage.calls.postponed(stage.asked().token, wanted=False)
        assert call.ended == 1

    @pytest.mark.parametrize("wanted", [True, False])
    def test_one_that_has_ended_meanwhile_is_left_alone(self, stage: Stage, wanted: bool) -> None:
        call = FakeCall()
        number = stage.calls.open(call)
        stage.loop.pass_time(10)
        stage.calls.close(number)
        stage.calls.postponed(stage.asked().token, wanted=wanted)
        stage.loop.pass_time(100)
        assert (call.ended, call.due, stage.outbox.sent) == (0, None, [])


class TestTimeouts:
    def test_each_call_has_its_whole_time_by_one_timer(self, stage: Stage) -> None:
        first = stage.open()
        stage.loop.pass_time(4)
        second = stage.open()
        assert len(stage.loop.timers) == 1
        stage.loop.pass_time(6)
        stage.calls.postponed(stage.asked().token)
        assert (first.ended, second.ended) == (1, 0)
        stage.loop.pass_time(3)
        assert stage.outbox.sent == []
        stage.loop.pass_time(1)
        stage.calls.postponed(stage.asked().token)
        assert (first.ended, second.ended) == (1, 1)

    def test_one_that_was_answered_does_not_end(self, stage: Stage) -> None:
        call = stage.open()
        call.due = None
        stage.loop.pass_time(100)
        assert (call.ended, stage.outbox.sent) == (0, [])

    def test_without_a_limit_nothing_is_timed(self) -> None:
        stage = Stage(seconds=None)
        call = stage.open()
        assert (call.due, stage.loop.timers) == (None, [])

    def test_nor_what_is_not_to_be_timed(self, stage: Stage) -> None:
        call = FakeCall()
        stage.calls.open(call, timed=False)
        assert (call.due, stage.loop.timers) == (None, [])

    @pytest.mark.parametrize("seconds", [0, 10])
    def test_nothing_is_left_for_the_next_server(self, stage: Stage, seconds: float) -> None:
        call = stage.open()
        stage.loop.pass_time(seconds)  # after the whole time, the parent was asked
        stage.calls.end()
        stage.loop.pass_time(100)
        assert call.ended == 0
        assert all(timer.cancelled for timer in stage.loop.timers)
