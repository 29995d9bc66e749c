"""Frames for a parent that reads at any time: nothing blocks, and losses are reported."""

from __future__ import annotations

import asyncio
import fcntl
import os
import tracemalloc
from collections.abc import Iterator

import pytest

from sidestage.child.channel import Outbox
from sidestage.wire import frames
from sidestage.wire.frames import FrameBuffer, TooLarge
from sidestage.wire.messages import (
    EVENTS,
    Data,
    Diagnostic,
    Dropped,
    LogLine,
    Message,
    Misread,
    Synced,
)

FULL = 1 << 21  # bytes: more than a pipe takes at once


class Parent:
    """The reading end of an outbox's pipe, and its loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        self.outbox = Outbox(self.loop, self._writer)
        self._buffer = FrameBuffer(EVENTS)
        self._open = True

    def read(self) -> list[Message]:
        """Read everything that is in the pipe or waits for it."""
        came: list[Message] = []
        while True:
            self.outbox.flush()
            try:
                came += self._buffer.feed(os.read(self._reader, 1 << 20))
            except BlockingIOError:
                return came
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.run_until_complete(asyncio.sleep(0))

    def capacity(self) -> int:
        return fcntl.fcntl(self._writer, fcntl.F_GETPIPE_SZ)

    def leave(self) -> None:
        self._open = False
        os.close(self._reader)

    def close(self) -> None:
        self.loop.close()
        os.close(self._writer)
        if self._open:
            os.close(self._reader)


@pytest.fixture
def parent() -> Iterator[Parent]:
    parent = Parent()
    yield parent
    parent.close()


def record(number: int, size: int = 100) -> Data:
    return Data(call=number, data=bytes(size))


def encoded(number: int, size: int = 100) -> bytes:
    return frames.pack(record(number, size))


def numbers(came: list[Message]) -> list[int]:
    return [message.call for message in came if isinstance(message, Data)]


def dropped(came: list[Message]) -> int:
    return sum(message.count for message in came if isinstance(message, Dropped))


def fill(parent: Parent) -> Message:
    """Fill the pipe, so that the outbox is in the middle of a frame."""
    large = Data(call=0, data=bytes(FULL))
    parent.outbox.send(large)
    return large


def test_what_the_pipe_takes_is_there_at_once(parent: Parent) -> None:
    parent.outbox.send(Synced(token=1))
    parent.outbox.send(Synced(token=2))
    parent.outbox.record(record(3))
    assert parent.read() == [Synced(token=1), Synced(token=2), record(3)]


def test_a_parent_that_does_not_read_blocks_nothing(parent: Parent) -> None:
    for number in range(100):
        parent.outbox.send(record(number, 10_000))
    assert numbers(parent.read()) == list(range(100))


def test_the_order_is_kept(parent: Parent) -> None:
    sent = [fill(parent)]
    for number in range(1, 50, 2):
        parent.outbox.send(record(number))
        parent.outbox.record(record(number + 1))
        sent += [record(number), record(number + 1)]
    assert parent.read() == sent


@pytest.mark.parametrize("first", [0, FULL])
@pytest.mark.parametrize("size", [0, 100, frames.LARGE, frames.CHUNK, FULL])
def test_data_keeps_its_place_and_its_bytes(parent: Parent, first: int, size: int) -> None:
    """Whoever sends it uses the memory again."""
    memory = bytearray(b"x" * size)
    parent.outbox.send(record(1, first))
    parent.outbox.record(record(2))
    parent.outbox.send_data(3, memoryview(memory))
    parent.outbox.send(Synced(token=4))
    memory[:] = bytes(size)
    expected = [record(1, first), record(2), Data(call=3, data=b"x" * size), Synced(token=4)]
    assert parent.read() == expected


def test_data_for_a_parent_that_is_gone_is_no_error(parent: Parent) -> None:
    parent.leave()
    parent.outbox.send_data(1, bytes(frames.LARGE))
    parent.outbox.send_data(1, bytes(frames.LARGE))


def test_more_can_be_sent_after_the_parent_has_caught_up(parent: Parent) -> None:
    fill(parent)
    parent.read()
    parent.outbox.send(Synced(token=1))
    assert parent.read() == [Synced(token=1)]


def test_the_oldest_records_are_shed_and_counted(parent: Parent) -> None:
    parent.outbox.limit = 1000
    fill(parent)
    for number in range(1, 101):
        parent.outbox.record(record(number))
    came = parent.read()
    kept = numbers(came)[1:]
    assert kept == list(range(101 - len(kept), 101))
    assert 5 < len(kept) < 10
    assert dropped(came) == 100 - len(kept)


def test_dropped_records_are_reported_before_later_ones(parent: Parent) -> None:
    parent.outbox.limit = 1000
    large = fill(parent)
    for number in range(1, 101):
        parent.outbox.record(record(number))
    came = parent.read()
    assert came[0] == large
    assert isinstance(came[1], Dropped)


def test_dropped_records_are_reported_once(parent: Parent) -> None:
    parent.outbox.limit = 1000
    total = 0
    for _ in range(2):
        fill(parent)
        for number in range(1, 21):
            parent.outbox.record(record(number))
        came = parent.read()
        assert dropped(came) + len(numbers(came)) == 21
        total += dropped(came)
    assert total > 0
    assert parent.read() == []


def test_records_that_came_together_go_together(parent: Parent) -> None:
    parent.outbox.limit = 400
    fill(parent)
    for number in (1, 2):
        parent.outbox.record(record(number, 30))
    parent.outbox.flush()
    parent.outbox.record(record(3, 330))  # for which one of them less would be enough
    came = parent.read()
    assert numbers(came) == [0, 3]
    assert dropped(came) == 2


def test_what_is_no_record_is_never_shed(parent: Parent) -> None:
    parent.outbox.limit = 1000
    fill(parent)
    for number in range(1, 101):
        parent.outbox.send(record(number))
    came = parent.read()
    assert numbers(came) == list(range(101))
    assert dropped(came) == 0


def test_records_among_what_is_kept_are_shed_around_it(parent: Parent) -> None:
    parent.outbox.limit = 1000
    fill(parent)
    for number in range(1, 101):
        parent.outbox.send(Synced(token=number))
        parent.outbox.record(record(number))
    came = parent.read()
    assert [m.token for m in came if isinstance(m, Synced)] == list(range(1, 101))
    kept = numbers(came)[1:]
    assert kept == list(range(101 - len(kept), 101))
    assert dropped(came) == 100 - len(kept)


def test_a_limit_of_nothing(parent: Parent) -> None:
    parent.outbox.limit = 0
    fill(parent)
    parent.outbox.record(record(1))
    parent.outbox.send(Synced(token=1))
    came = parent.read()
    assert came[1:] == [Dropped(count=1), Synced(token=1)]


def test_within_the_limit_nothing_is_shed(parent: Parent) -> None:
    parent.outbox.limit = 100_000
    fill(parent)
    for number in range(1, 101):
        parent.outbox.record(record(number))
    assert dropped(parent.read()) == 0


def test_diagnostics_are_shed_and_counted_and_log_lines_shed(parent: Parent) -> None:
    parent.outbox.limit = 2000
    fill(parent)
    for number in range(100):
        parent.outbox.note(Diagnostic(peer="", text=f"{number:04} " + "x" * 100))
        parent.outbox.note(LogLine(name="a", level=30, text="y" * 100))
        parent.outbox.record(record(number))
    came = parent.read()
    told = [message.text[:4] for message in came if isinstance(message, Diagnostic)]
    lost = sum(message.diagnostics for message in came if isinstance(message, Dropped))
    assert told == [f"{number:04}" for number in range(100 - len(told), 100)]
    assert 2 < len(told) < 10
    assert lost == 100 - len(told)
    assert dropped(came) == 100 - len(numbers(came)[1:])


def test_what_is_kept_takes_no_room_of_what_is_not(parent: Parent) -> None:
    parent.outbox.limit = 1000
    fill(parent)
    parent.outbox.send(record(1, 100_000))
    parent.outbox.note(Diagnostic(peer="", text="told"))
    parent.outbox.record(record(2))
    came = parent.read()
    assert numbers(came) == [0, 1, 2]
    assert dropped(came) == 0
    assert any(isinstance(message, Diagnostic) for message in came)


def test_small_messages_that_wait_take_little_more_than_their_bytes(parent: Parent) -> None:
    fill(parent)
    parent.outbox.flush()
    tracemalloc.start()
    try:
        for _ in range(20_000):
            parent.outbox.send(Synced(token=1))
            parent.outbox.flush()
        assert tracemalloc.get_traced_memory()[0] < 20_000 * 40
    finally:
        tracemalloc.stop()
    assert len(parent.read()) == 20_001


def test_what_is_encoded_already_comes_in_its_turn(parent: Parent) -> None:
    parent.outbox.record(record(0))
    parent.outbox.add_encoded(encoded(1), kept=False)
    parent.outbox.add_encoded(encoded(2), kept=True)
    parent.outbox.send(record(3))
    assert numbers(parent.read()) == [0, 1, 2, 3]


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_encoded_already_is_shed_if_it_is_not_kept(parent: Parent, kept: bool) -> None:
    parent.outbox.limit = 1 << 16
    count = 4 * FULL // 1000
    for number in range(count):
        parent.outbox.add_encoded(encoded(number, 1000), kept=kept)
    came = parent.read()
    dropped = sum(message.count for message in came if isinstance(message, Dropped))
    assert (dropped > 0) is not kept
    assert len(numbers(came)) + dropped == count


def test_a_parent_that_is_gone_is_no_error(parent: Parent) -> None:
    fill(parent)
    parent.outbox.record(record(1))
    parent.leave()
    parent.loop.run_until_complete(asyncio.sleep(0.0))
    parent.outbox.send(Synced(token=1))
    parent.loop.run_until_complete(asyncio.sleep(0.0))
    parent.outbox.record(record(2))


def test_a_pipe_that_was_full_holds_more(parent: Parent) -> None:
    """Larger pieces make streams faster."""
    before = parent.capacity()
    parent.outbox.send(Synced(token=1))
    parent.outbox.flush()
    assert parent.capacity() == before
    fill(parent)
    parent.outbox.flush()
    assert parent.capacity() > before


@pytest.mark.parametrize("as_record", [False, True])
@pytest.mark.parametrize(
    "message, error",
    [
        (Misread(text="\ud800"), UnicodeEncodeError),
        (Synced(token=1 << 70), OverflowError),
        (record(0, 2000), TooLarge),
    ],
)
def test_a_message_that_cannot_be_sent_takes_no_other_with_it(
    message: Message,
    error: type[Exception],
    as_record: bool,
    parent: Parent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frames, "MAX_MESSAGE", 1000)
    send = parent.outbox.record if as_record else parent.outbox.send
    send(record(1))
    with pytest.raises(error):
        send(message)
    send(record(2))
    assert numbers(parent.read()) == [1, 2]
    with pytest.raises(error):
        send(message)
    assert parent.read() == []
