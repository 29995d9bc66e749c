"""The answers of one iteration are sent in order and complete, also at a close."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sidestage.child.net.stream import Writes


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closing = False

    def write(self, data: Any) -> None:
        self.sent.append(data)

    def is_closing(self) -> bool:
        return self.closing


class Loop:
    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, call: Callable[[], None]) -> None:
        self.soon.append(call)

    def end_pass(self) -> None:
        soon, self.soon = self.soon, []
        for call in soon:
            call()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def writes(loop: Any) -> Writes:
    return Writes(loop)


def test_a_lone_answer_is_sent_at_once(loop: Loop, writes: Writes) -> None:
    client = Transport()
    for answer in (b"1", b"2"):
        writes.begin_iteration()
        writes.write(client, answer)
    assert client.sent == [b"1", b"2"]
    assert not loop.soon


def test_the_others_of_a_pass_follow_at_its_end(loop: Loop, writes: Writes) -> None:
    clients = [Transport() for _ in range(3)]
    for client in clients:
        writes.write(client, b"hello")
    assert [client.sent for client in clients] == [[b"hello"], [], []]
    loop.end_pass()
    assert [client.sent for client in clients] == [[b"hello"]] * 3


def test_answers_to_one_client_are_one_write_in_order(loop: Loop, writes: Writes) -> None:
    writes.write(Transport(), b"first")
    client = Transport()
    for answer in (b"a", b"b", b"c"):
        writes.write(client, answer)
    loop.end_pass()
    assert client.sent == [b"abc"]


def test_what_waits_goes_out_before_what_is_written_in_the_next_pass(
    loop: Loop, writes: Writes
) -> None:
    writes.write(Transport(), b"first")
    client = Transport()
    writes.write(client, b"a")
    writes.begin_iteration()
    writes.write(client, b"b")
    loop.end_pass()
    assert client.sent == [b"ab"]


def test_a_close_sends_what_waits(loop: Loop, writes: Writes) -> None:
    writes.write(Transport(), b"first")
    client = Transport()
    writes.write(client, b"last")
    writes.flush(client)
    assert client.sent == [b"last"]
    loop.end_pass()
    assert client.sent == [b"last"]


def test_a_connection_that_is_gone_is_not_written_to(loop: Loop, writes: Writes) -> None:
    writes.write(Transport(), b"first")
    client = Transport()
    writes.write(client, b"nobody reads this")
    client.closing = True
    loop.end_pass()
    assert client.sent == []
