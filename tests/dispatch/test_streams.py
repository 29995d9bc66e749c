"""Inflow and Outflow without a server: the other side is a list of messages."""

from __future__ import annotations

import threading
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.scripts import eventually
from sidestage.dispatch.streams import Inflow, Outflow, Unacknowledged, open_file
from sidestage.pristine.waits import Deadline
from sidestage.wire.credit import SHARE
from sidestage.wire.frames import CHUNK, WINDOW
from sidestage.wire.messages import Ack, AckSoon, Data, Message

NOW = Deadline(0)
LONG = 30.0  # seconds; a bound for what ends at once unless it is broken
chunks = st.lists(st.binary(min_size=1, max_size=50), max_size=20)


class Gone(Exception):
    """The error that ends a stream."""


def fed(*parts: bytes) -> tuple[Inflow, list[Message]]:
    sent: list[Message] = []
    inflow = Inflow(sent.append, 1)
    for part in parts:
        inflow.feed(part)
    return inflow, sent


def read_all(inflow: Inflow, limit: int = 1 << 16) -> bytes:
    data = b""
    while part := inflow.read_some(limit, NOW):
        data += part
    return data


@given(chunks, st.integers(1, 60))
def test_what_is_fed_is_read_in_order_whatever_the_sizes(parts: list[bytes], limit: int) -> None:
    inflow, _ = fed(*parts)
    inflow.end()
    assert read_all(inflow, limit) == b"".join(parts)


@given(chunks, st.integers(1, 60))
def test_a_peek_takes_nothing(parts: list[bytes], limit: int) -> None:
    inflow, _ = fed(*parts)
    inflow.end()
    peeked = inflow.read_some(limit, NOW, peek=True)
    assert inflow.read_some(limit, NOW) == peeked
    assert inflow.left() == b"".join(parts)[len(peeked) :]


@given(st.lists(st.integers(1, WINDOW), min_size=1, max_size=20))
def test_no_more_is_acknowledged_than_was_read_and_never_less_by_a_quarter_window(
    sizes: list[int],
) -> None:
    inflow, sent = fed()
    read = 0
    for size in sizes:
        inflow.feed(bytes(size))
        read += len(inflow.read_some(size, NOW))
        acknowledged = sum(message.size for message in sent if isinstance(message, Ack))
        assert acknowledged <= read < acknowledged + WINDOW // 4


def test_small_pieces_take_no_more_than_their_bytes() -> None:
    inflow, _ = fed()
    tracemalloc.start()
    try:
        for _ in range(100_000):
            inflow.feed(b"x")
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
    inflow.end()
    assert read_all(inflow) == b"x" * 100_000


def test_small_pieces_may_come_while_they_are_read() -> None:
    inflow, _ = fed()

    def feed() -> None:
        for number in range(20_000):
            inflow.feed(b"%05d" % number)
        inflow.end()

    feeder = threading.Thread(target=feed)
    feeder.start()
    data = b"".join(iter(lambda: inflow.read_some(7, Deadline(LONG)), b""))
    feeder.join()
    assert data == b"".join(b"%05d" % number for number in range(20_000))


def test_in_a_hurry_what_was_read_is_acknowledged_at_once_and_by_a_quarter_of_a_share() -> None:
    inflow, sent = fed(bytes(SHARE))
    inflow.read_some(SHARE, NOW)
    assert sent == []
    inflow.event(AckSoon(call=1))
    with pytest.raises(TimeoutError):
        inflow.read_some(1, NOW)
    assert sent == [Ack(call=1, size=SHARE)]
    inflow.feed(bytes(SHARE // 4))
    inflow.read_some(SHARE, NOW)
    assert sent[1:] == [Ack(call=1, size=SHARE // 4)]


def test_one_that_waits_acknowledges_when_it_is_asked_to_hurry() -> None:
    inflow, sent = fed(bytes(SHARE))
    inflow.read_some(SHARE, NOW)
    reader = threading.Thread(target=inflow.read_some, args=(1, Deadline(LONG)))
    reader.start()
    inflow.event(AckSoon(call=1))
    assert eventually(lambda: sent == [Ack(call=1, size=SHARE)])
    inflow.end()
    reader.join(LONG)
    assert not reader.is_alive()


def test_reading_from_a_silent_client_times_out() -> None:
    inflow, _ = fed()
    with pytest.raises(TimeoutError):
        inflow.read_some(1, NOW)


def test_what_came_before_a_failure_can_still_be_read() -> None:
    inflow, _ = fed(b"last words")
    inflow.fail(Gone())
    assert inflow.read_some(100, NOW) == b"last words"
    with pytest.raises(Gone):
        inflow.read_some(100, NOW)


def test_an_end_before_a_failure_stays_an_end() -> None:
    inflow, _ = fed(b"all")
    inflow.end()
    inflow.fail(Gone())
    assert read_all(inflow) == b"all"


@pytest.mark.parametrize("change", ["feed", "end", "fail"])
def test_a_blocked_reader_wakes(change: str) -> None:
    inflow, _ = fed()
    arguments = {"feed": (b"x",), "end": (), "fail": (Gone(),)}[change]
    outcome: list[object] = []

    def read() -> None:
        try:
            outcome.append(inflow.read_some(10, Deadline(LONG)))
        except Gone:
            outcome.append("gone")

    reader = threading.Thread(target=read)
    reader.start()
    getattr(inflow, change)(*arguments)
    reader.join(LONG)
    assert outcome == [{"feed": b"x", "end": b"", "fail": "gone"}[change]]


@given(st.lists(st.binary(max_size=3 * CHUNK // 64), max_size=5))
def test_what_is_written_is_sent_in_order(parts: list[bytes]) -> None:
    sent: list[Message] = []
    outflow = Outflow(sent.append, 1, Unacknowledged(1 << 40))
    for part in parts:
        outflow.write(part, NOW)
    assert b"".join(m.data for m in sent if isinstance(m, Data)) == b"".join(parts)


def test_a_client_that_does_not_read_gets_one_window_and_then_the_writer_waits() -> None:
    sent: list[Message] = []
    outflow = Outflow(sent.append, 1, Unacknowledged(1 << 40))
    with pytest.raises(TimeoutError):
        outflow.write(bytes(3 * WINDOW), NOW)
    assert sum(len(m.data) for m in sent if isinstance(m, Data)) == WINDOW


def test_beyond_the_total_of_all_a_writer_has_a_share() -> None:
    every = Unacknowledged(WINDOW)
    sent: list[Message] = []
    first, second = (Outflow(sent.append, call, every) for call in (1, 2))
    first.write(bytes(WINDOW), NOW)
    sent.clear()
    with pytest.raises(TimeoutError):
        second.write(bytes(CHUNK + 1), NOW)
    assert [message for message in sent if not isinstance(message, Data)] == [AckSoon(call=2)]
    second.acknowledged(CHUNK - SHARE + 1)
    second.write(b"x", NOW)  # whatever becomes of the first
    writer = threading.Thread(target=second.write, args=(bytes(CHUNK), Deadline(LONG)))
    writer.start()
    first.close()
    writer.join(LONG)
    assert not writer.is_alive()


def test_an_acknowledged_window_lets_the_next_one_go() -> None:
    outflow: Outflow

    def send(message: Message) -> None:
        assert isinstance(message, Data)
        outflow.acknowledged(len(message.data))

    outflow = Outflow(send, 1, Unacknowledged(1 << 40))
    outflow.write(bytes(5 * WINDOW), NOW)


def test_a_failed_outflow_raises_on_every_write_even_an_empty_one() -> None:
    outflow = Outflow(lambda message: None, 1, Unacknowledged(1 << 40))
    outflow.fail(Gone())
    for data in (b"x", b""):
        with pytest.raises(Gone):
            outflow.write(data, Deadline(LONG))


def test_a_memoryview_of_wide_items_is_sent_as_its_bytes() -> None:
    sent: list[Message] = []
    Outflow(sent.append, 1, Unacknowledged(1 << 40)).write(memoryview(b"abcdefgh").cast("I"), NOW)
    assert sent == [Data(call=1, data=b"abcdefgh")]


@pytest.mark.parametrize("mode", ["", "b", "a", "rx", "rb+"])
def test_a_file_mode_that_is_none_is_refused(mode: str) -> None:
    with pytest.raises(ValueError, match="mode must be"):
        open_file(lambda size: b"", lambda data: None, mode)


def test_a_text_file_reads_and_writes_lines() -> None:
    sent: list[bytes] = []
    inflow, _ = fed("grüß\n".encode(), b"dich\n")
    inflow.end()
    file = open_file(
        lambda size: inflow.read_some(size, NOW), sent.append, "rw", encoding="utf-8", newline="\n"
    )
    assert list(file) == ["grüß\n", "dich\n"]
    file.write("gern\n")
    file.flush()
    assert b"".join(sent) == b"gern\n"
