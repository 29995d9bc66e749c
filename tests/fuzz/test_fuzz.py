"""A hundredth of what ``make fuzz`` runs, and the fuzzer itself."""

from __future__ import annotations

import random

import pytest

from fuzz.cases import Case, Fault, Target, case_at, cut, run
from fuzz.http_answers import read_answers
from fuzz.smtp import check_replies, read_replies
from fuzz.targets import TARGETS, inputs_of

SEED = 2026
INPUTS = 10_000


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_breaks(name: str) -> None:
    numbers = range(inputs_of(name, INPUTS))
    result = run(TARGETS[name].make(), SEED, numbers)
    assert not result.failures, "\n\n".join(map(str, result.failures))
    assert result.inputs == len(numbers)


# The fuzzer --------------------------------------------------------------------------------------


class Fragile(Target):
    """Breaks at some inputs, and at each batch."""

    name = "fragile"
    what = "nothing"
    batch = 10

    def make(self, dice: random.Random) -> Case:
        parts = tuple(bytes([dice.randrange(4)]) * 3 for _ in range(20))
        return Case(parts, dice.getrandbits(32))

    def check(self, case: Case) -> None:
        if b"\1\2" in case.data:
            raise Fault(f"one and two: in {len(case.data)} bytes")
        if case.data.endswith(b"\3"):
            raise ValueError("three")

    def end_batch(self) -> None:
        raise Fault("the whole")


def test_each_kind_of_fault_is_reported_once_with_a_small_input() -> None:
    result = run(Fragile(), 1, range(30))
    assert [failure.error.partition("\n")[0].partition(": ")[0] for failure in result.failures] == [
        "one and two",
        "ValueError",
        "the whole",
    ]
    first, second, third = result.failures
    assert (first.data, second.data) == (b"\1\2", b"\3")
    assert f"--only fragile --seed 1 --at {first.number}" in str(first)
    assert "--at 0 --count 10" in str(third)
    assert result.inputs == 30


def test_a_run_ends_when_enough_is_found() -> None:
    assert run(Fragile(), 1, range(1000), enough=3).inputs == 10


@pytest.mark.parametrize("name", TARGETS)
def test_an_input_can_be_made_again(name: str) -> None:
    target = TARGETS[name].make()
    assert case_at(target, 1, 7) == case_at(TARGETS[name].make(), 1, 7)
    assert len({case_at(target, 1, number).data for number in range(20)}) > 10


def test_cuts_lose_nothing() -> None:
    dice = random.Random(SEED)
    for _ in range(100):
        assert b"".join(cut(b"0123456789", dice)) == b"0123456789"


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 Early\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nx",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_the_reader_of_answers_is_strict(data: bytes) -> None:
    with pytest.raises(Fault):
        read_answers(data, ["GET", "GET"], ended=False)


@pytest.mark.parametrize(
    "data", [b"250 OK\n", b"250-OK\r\n", b"25 OK\r\n", b"600 OK\r\n", b"OK\r\n", b"250 \0\r\n"]
)
def test_the_reader_of_replies_is_strict(data: bytes) -> None:
    with pytest.raises(Fault):
        read_replies(data)


def test_an_exception_in_a_reply_is_a_fault() -> None:
    replies = read_replies(b"220 t\r\n451 4.3.0 IndexError\r\n")
    with pytest.raises(Fault):
        check_replies(replies, b"RCPT TO:<\r\n")
