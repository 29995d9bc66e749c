"""Flow control: no more than the window is under way, and no byte is acknowledged twice."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sidestage.wire.credit import SHARE, Backpressure, Transit
from sidestage.wire.frames import WINDOW
from sidestage.wire.messages import Ack, AckSoon

sizes = st.lists(st.integers(1, WINDOW // 2), max_size=30)


class Stream:
    """A stream's backpressure, and what it has asked for."""

    def __init__(self) -> None:
        self.acks: list[Any] = []
        self.holds: list[bool] = []
        self.flow = Backpressure(7, self.acks.append, self.holds.append, Transit(1 << 40))

    @property
    def acknowledged(self) -> int:
        return sum(ack.size for ack in self.acks)


@given(sizes)
def test_a_client_is_read_until_the_window_is_full_and_again_when_half_is_consumed(
    pieces: list[int],
) -> None:
    stream, unread = Stream(), 0
    for size in pieces:
        if not stream.flow.paused:
            stream.flow.sent(size)
            unread += size
        elif unread:
            consumed = min(size, unread)
            stream.flow.acknowledged(consumed)
            unread -= consumed
        if unread >= WINDOW:
            assert stream.flow.paused
        if unread < WINDOW // 2:
            assert not stream.flow.paused
    assert stream.holds == [True, False] * (len(stream.holds) // 2) + [True] * (
        len(stream.holds) % 2
    )


@given(sizes)
def test_what_the_client_has_taken_is_acknowledged_by_quarters_of_the_window(
    pieces: list[int],
) -> None:
    stream = Stream()
    for size in pieces:
        stream.flow.wrote(size)
    assert 0 <= sum(pieces) - stream.acknowledged < WINDOW // 4
    assert all(ack.size >= WINDOW // 4 and ack.call == 7 for ack in stream.acks)


def test_in_a_hurry_it_is_acknowledged_at_once_and_by_quarters_of_a_share() -> None:
    stream = Stream()
    stream.flow.wrote(SHARE)
    assert stream.acks == []
    stream.flow.hurry()
    assert stream.acknowledged == SHARE
    stream.flow.wrote(SHARE // 4)
    assert stream.acknowledged == SHARE + SHARE // 4


def test_nothing_is_acknowledged_while_the_client_does_not_read() -> None:
    stream = Stream()
    stream.flow.client_blocked(True)
    stream.flow.wrote(WINDOW)
    assert stream.acks == []
    stream.flow.client_blocked(False)
    assert stream.acknowledged == WINDOW


def test_after_a_release_the_client_is_read_whatever_was_consumed() -> None:
    stream = Stream()
    stream.flow.sent(WINDOW)
    assert stream.flow.paused
    stream.flow.release()
    assert not stream.flow.paused
    assert stream.holds == [True, False]


def test_a_new_call_owes_nothing_of_the_one_before() -> None:
    acks: list[Any] = []
    for call in (7, 8):
        flow = Backpressure(call, acks.append, lambda hold: None, Transit(1 << 40))
        flow.wrote(WINDOW // 4 - 1)
    assert acks == []
    flow.wrote(1)
    assert acks == [Ack(call=8, size=WINDOW // 4)]


def test_a_call_may_begin_while_the_client_does_not_read() -> None:
    acks: list[Any] = []
    flow = Backpressure(7, acks.append, lambda hold: None, Transit(1 << 40), blocked=True)
    flow.wrote(WINDOW)
    assert acks == []
    flow.client_blocked(False)
    assert acks == [Ack(call=7, size=WINDOW)]


class Streams:
    """Streams to one parent, and what it has not consumed of each."""

    def __init__(self, count: int, limit: int) -> None:
        self.transit = Transit(limit)
        self.asked: list[AckSoon] = []
        self.unread = [0] * count
        self.flows = [
            Backpressure(call, self._take, lambda hold: None, self.transit) for call in range(count)
        ]

    def _take(self, message: Ack | AckSoon) -> None:
        assert isinstance(message, AckSoon)
        self.asked.append(message)

    def send(self, call: int, size: int) -> None:
        """Send for as long as the client is read."""
        if not self.flows[call].paused:
            self.flows[call].sent(size)
            self.unread[call] += size

    def consume(self, call: int, size: int) -> None:
        """Acknowledge as the parent does it: in quarters, of a share if it was asked to."""
        step = SHARE // 4 if AckSoon(call=call) in self.asked else WINDOW // 4
        size = min(size, self.unread[call]) // step * step
        if size:
            self.unread[call] -= size
            self.flows[call].acknowledged(size)


moves = st.tuples(st.booleans(), st.integers(0, 4), st.integers(1, 1 << 18))


@given(st.lists(moves, max_size=80))
def test_beyond_the_total_a_stream_has_a_share(every: list[tuple[bool, int, int]]) -> None:
    limit = 1 << 20
    streams = Streams(5, limit)
    for sends, call, size in every:
        (streams.send if sends else streams.consume)(call, size)
        assert streams.transit.size == sum(streams.unread)
        assert sum(streams.unread) <= limit + 5 * (SHARE + (1 << 18))
    for call in range(5):  # whatever the others do
        streams.consume(call, WINDOW)
        assert not streams.flows[call].paused


def test_those_that_waited_for_others_go_on_once_these_are_read() -> None:
    streams = Streams(2, 1 << 20)
    streams.send(0, 1 << 20)
    streams.send(1, SHARE)
    assert [flow.paused for flow in streams.flows] == [False, True]
    assert streams.asked == [AckSoon(call=1)]
    streams.consume(0, WINDOW)
    assert [flow.paused for flow in streams.flows] == [False, False]


def test_a_stream_that_ends_takes_its_bytes_off() -> None:
    streams = Streams(2, 1 << 20)
    streams.send(0, 1 << 20)
    streams.send(1, SHARE)
    streams.flows[0].release()
    assert streams.transit.size == SHARE
    assert not streams.flows[1].paused


def test_what_was_released_is_acknowledged_without_effect() -> None:
    transit = Transit(1 << 40)
    flow = Backpressure(7, lambda ack: None, lambda wanted: None, transit)
    flow.sent(WINDOW)
    flow.release()
    flow.sent(1)
    flow.acknowledged(WINDOW)
    assert transit.size == 1
    flow.acknowledged(1)
    assert transit.size == 0
