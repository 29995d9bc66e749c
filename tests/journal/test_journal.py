"""What is kept of what was received, and how much of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidestage import Received
from sidestage.journal.journal import Records

sizes = st.lists(st.integers(0, 20), max_size=30)


def kept_of(keep: int, *added: int) -> Received[object]:
    records: Records[object] = Records(keep)
    for number, size in enumerate(added):
        records.add(number, size)
    return records.snapshot()


@given(st.integers(0, 50), sizes)
def test_the_newest_are_kept_and_the_others_counted(keep: int, added: list[int]) -> None:
    received = kept_of(keep, *added)
    assert received == list(range(len(added)))[received.dropped :]
    assert received.dropped + len(received) == len(added)


@given(st.integers(0, 50), sizes)
def test_no_more_is_kept_than_allowed_and_no_less(keep: int, added: list[int]) -> None:
    received = kept_of(keep, *added)
    assert sum(added[received.dropped :]) <= keep or len(received) == 1
    if received.dropped:
        assert sum(added[received.dropped - 1 :]) > keep


def test_one_that_is_too_large_alone_is_kept() -> None:
    assert kept_of(10, 1, 1, 100) == [2]


def test_a_record_that_grows_drops_older_ones() -> None:
    records: Records[str] = Records(10)
    records.add("old", 4)
    records.add("growing", 4)
    records.grow("growing", 4)
    assert records.snapshot() == ["growing"]
    assert records.dropped == 1


def test_one_that_grows_is_known_by_identity() -> None:
    first, second = [0], [0]
    records: Records[list[int]] = Records(10)
    records.add(first, 1)
    records.add(second, 1)
    records.grow(first, 20)
    assert records.snapshot() == [second]
    assert records.snapshot()[0] is second


def test_one_that_is_gone_does_not_grow() -> None:
    records: Records[str] = Records(10)
    records.add("gone", 8)
    records.add("there", 8)
    records.grow("gone", 100)
    assert records.snapshot() == ["there"]


def test_a_snapshot_does_not_change() -> None:
    records: Records[int] = Records(10)
    records.add(1, 1)
    before = records.snapshot()
    records.add(2, 1)
    assert before == [1]
    assert len(records.snapshot()) == 2


def test_a_snapshot_is_a_list_that_lacks_nothing_by_itself() -> None:
    received: Received[int] = Received([1, 2])
    assert isinstance(received, list)
    assert received.dropped == 0
