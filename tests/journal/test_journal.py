"""What the journal keeps of requests and errors, in which order, and how much."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestage import Diagnostic, HTTPServer, Received, ServerDied
from sidestage.journal.journal import OVERHEAD, Journal
from sidestage.journal.record import Answer

sizes = st.lists(st.integers(0, 20), max_size=30)


def kept_of(keep: int, *added: int) -> Received[object]:
    journal: Journal[object] = Journal(keep)
    for number, size in enumerate(added):
        journal.received(number, size)
    return journal.records()


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


def test_what_is_held_drops_older_records() -> None:
    journal: Journal[str] = Journal(10)
    journal.received("old", 4)
    journal.received("growing", 4)
    assert journal.hold(4) == 4
    assert journal.records() == ["growing"]
    assert journal.dropped == 1


def test_no_more_is_held_than_is_kept() -> None:
    journal: Journal[str] = Journal(10)
    assert [journal.hold(4), journal.hold(4), journal.hold(4), journal.hold(4)] == [4, 4, 2, 0]
    journal.let_go(6)
    assert journal.hold(100) == 6


@given(st.integers(1, 50), st.lists(st.integers(0, 40)))
def test_what_was_held_and_let_go_leaves_all_its_room(keep: int, sizes: list[int]) -> None:
    journal: Journal[int] = Journal(keep)
    for held in [journal.hold(size) for size in sizes]:
        journal.let_go(held)
    assert journal.hold(1000) == keep


def test_what_was_held_counts_for_its_record_known_by_identity() -> None:
    first, second = [0], [0]
    journal: Journal[list[int]] = Journal(10)
    journal.received(first, 1)
    journal.received(second, 1)
    journal.settle(first, journal.hold(6), 4)  # with 4 bytes more than were held
    assert journal.records() == [second]
    assert journal.records()[0] is second
    assert journal.hold(9) == 9
    assert journal.records() == [second]


def test_what_was_held_for_one_that_is_gone_counts_no_more() -> None:
    journal: Journal[str] = Journal(10)
    journal.received("gone", 8)
    journal.received("there", 8)
    journal.settle("gone", journal.hold(10), 100)
    assert journal.records() == ["there"]
    journal.received("and this", 2)
    assert journal.records() == ["there", "and this"]


def test_a_snapshot_does_not_change() -> None:
    journal: Journal[int] = Journal(10)
    journal.received(1, 1)
    before = journal.records()
    journal.received(2, 1)
    assert before == [1]
    assert len(journal.records()) == 2


def test_a_snapshot_is_a_list_that_lacks_nothing_by_itself() -> None:
    received: Received[int] = Received([1, 2])
    assert isinstance(received, list)
    assert received.dropped == 0


def test_to_clear_a_snapshot_is_an_error_that_says_what_to_do() -> None:
    received: Received[int] = Received([1, 2])
    with pytest.raises(TypeError, match=r"is a snapshot.*server.clear\(\)"):
        received.clear()
    assert received == [1, 2]


def test_to_await_what_was_waited_for_is_an_error_that_says_what_to_write() -> None:
    async def wait() -> None:
        with HTTPServer() as server:
            await server.wait_for(0)  # type: ignore[misc]

    with pytest.raises(TypeError, match=r"await server.wait_for_async\(1\)"):
        asyncio.run(wait())


class Came:
    """A record."""

    connection_number = 1

    def __init__(self, at: float, answer: Answer | None = None) -> None:
        self.received_at = at
        self.answer = answer


def diagnostic(text: str = "odd") -> Diagnostic:
    return Diagnostic(client_address="", text=text)


class TestOrder:
    def test_everything_is_in_the_order_of_time(self) -> None:
        journal: Journal[Came] = Journal(1 << 20)
        early = Came(1.0, Answer(at=4.0, status=200, size=0, seconds=3.0))
        late, error = Came(3.0), ValueError("no")
        journal.diagnosed(diagnostic(), at=2.0, connection=7)
        journal.received(late, 0)  # the child may report it before what came earlier
        journal.received(early, 0)
        journal.logged("sidestage.child: hm", at=3.5)
        journal.failed(error, connection=1)
        assert [(entry.kind, entry.at, entry.connection) for entry in journal.entries()[:5]] == [
            ("received", 1.0, 1),
            ("diagnosed", 2.0, 7),
            ("received", 3.0, 1),
            ("logged", 3.5, 0),
            ("answered", 4.0, 1),
        ]
        (failed,) = journal.entries()[5:]
        assert journal.clear() == 1  # else the run would tell that nobody has seen it
        assert (failed.kind, failed.value, failed.connection) == ("failed", error, 1)

    def test_a_death_is_an_entry(self) -> None:
        journal: Journal[Came] = Journal(10)
        death = ServerDied("a server", pid=1, exit_code=-9)
        journal.died(death)
        assert [(entry.kind, entry.value) for entry in journal.entries()] == [("died", death)]
        assert journal.failures.death is death


class TestBounds:
    def test_diagnostics_and_log_lines_are_bounded_too(self) -> None:
        journal: Journal[Came] = Journal(10 * OVERHEAD)
        for number in range(1000):
            journal.diagnosed(diagnostic(str(number)))
            journal.logged(str(number))
        assert len(journal.entries()) <= 10
        first, *kept = journal.diagnostics()
        assert kept[-1].text == "999"
        assert first.text == f"{1000 - len(kept)} older diagnostics dropped, to keep 5120 bytes"

    def test_the_oldest_go_first_whatever_they_are(self) -> None:
        journal: Journal[Came] = Journal(3 * OVERHEAD + 10)
        journal.received(Came(1.0), OVERHEAD)
        journal.diagnosed(diagnostic("a"), at=2.0)
        journal.received(Came(3.0), OVERHEAD)
        journal.diagnosed(diagnostic("b"), at=4.0)
        assert [entry.at for entry in journal.entries()] == [2.0, 3.0, 4.0]
        journal.received(Came(5.0), OVERHEAD)
        assert [entry.at for entry in journal.entries()] == [3.0, 4.0, 5.0]
        assert (journal.dropped, journal.diagnostics_dropped) == (1, 1)

    def test_failures_are_never_dropped(self) -> None:
        journal: Journal[Came] = Journal(1)
        errors = [ValueError(str(number)) for number in range(50)]
        for error in errors:
            journal.failed(error)
            journal.received(Came(1.0), 100)
        assert journal.failures.errors == errors
        assert sum(entry.kind == "failed" for entry in journal.entries()) == 50


@given(st.lists(st.integers(1, 20), max_size=20), st.integers(1, 10))
def test_the_latest_are_the_end_of_all_that_came(times: list[int], most: int) -> None:
    journal: Journal[object] = Journal(1 << 20)
    for at in sorted(times):
        journal.received(Came(at), 0)
        journal.diagnosed(Diagnostic(("127.0.0.1", 1), str(at)), at=at)
    every, none = journal.latest(None)
    assert none == 0
    assert [entry.at for entry in every] == sorted(times * 2)
    latest, earlier = journal.latest(most)
    assert [entry.at for entry in latest] == [entry.at for entry in every][-most:]
    assert earlier == len(every) - len(latest)
    assert journal.began() == min(times, default=None)
