"""The first answer of an iteration is sent at once, the others at its end; also at a close."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from kit.connections import Connection
from sidestage.child.net.stream import MUCH


class Noting(socket.socket):
    """A socket that notes each piece that it is to send."""

    sent: list[bytes]

    def send(self, data: Any, flags: int = 0) -> int:
        self.sent.append(bytes(data))
        return super().send(data, flags)


@pytest.fixture
def sent(connection: Connection) -> list[bytes]:
    """What the kernel is asked to send to the client, a system call each.

    An answer to another client was the first of this iteration.
    """
    connection.iteration.prompt = False
    noting = Noting(fileno=connection.served.detach())
    noting.setblocking(False)
    noting.sent = []
    connection.served = connection.stream._sock = noting
    connection.stream.start(None)
    return noting.sent


def test_the_first_of_an_iteration_is_sent_at_once_after_the_messages(
    connection: Connection, sent: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    iteration = connection.iteration
    monkeypatch.setattr(iteration.outbox, "flush", lambda: sent.append(b"messages"))
    iteration.prompt = True
    connection.stream.write(b"first")
    connection.stream.write(b"second")
    assert sent == [b"messages", b"first"]
    iteration.end()
    assert sent[2:] == [b"messages", b"second", b"messages"]
    connection.stream.write(b"third")
    assert sent[5:] == [b"messages", b"third"]


def test_nothing_else_is_sent_before_the_iteration_ends(
    connection: Connection, sent: list[bytes]
) -> None:
    connection.stream.write(b"answer")
    assert sent == []
    connection.iteration.end()
    assert sent == [b"answer"]
    connection.iteration.end()
    assert sent == [b"answer"]


def test_answers_to_one_client_are_one_write_in_order(
    connection: Connection, sent: list[bytes]
) -> None:
    for answer in (b"a", b"b", b"c"):
        connection.stream.write(answer)
    assert connection.stream.get_write_buffer_size() == 3
    connection.iteration.end()
    assert sent == [b"abc"]
    assert connection.stream.get_write_buffer_size() == 0


def test_what_is_written_in_the_next_iteration_follows(
    connection: Connection, sent: list[bytes]
) -> None:
    for answer in (b"a", b"b"):
        connection.stream.write(answer)
        connection.iteration.end()
    assert sent == [b"a", b"b"]


def test_what_the_kernel_does_not_take_goes_out_before_what_is_written_then(
    connection: Connection, sent: list[bytes]
) -> None:
    connection.served.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    connection.stream.write(b"a" * (MUCH - 1))
    connection.iteration.end()
    connection.stream.write(b"b")
    connection.iteration.end()
    assert b"b" not in sent
    connection.stream.close()
    assert connection.rest() == b"a" * (MUCH - 1) + b"b"


def test_much_is_sent_at_once_after_what_was_written_before(
    connection: Connection, sent: list[bytes]
) -> None:
    connection.stream.write(b"head ")
    connection.stream.write(b"x" * MUCH)
    assert sent == [b"head " + b"x" * MUCH]
    connection.stream.write(b" end")
    connection.stream.close()
    assert connection.rest() == b"head " + b"x" * MUCH + b" end"


@pytest.mark.parametrize("end", ["close", "write_eof", "close_lingering"])
def test_an_end_sends_what_waits(connection: Connection, sent: list[bytes], end: str) -> None:
    connection.stream.write(b"last")
    getattr(connection.stream, end)()
    assert sent == []
    connection.iteration.end()
    assert sent == [b"last"]
    assert connection.rest() == b"last"
    assert sent == [b"last"]


def test_a_connection_that_is_gone_is_not_written_to(
    connection: Connection, sent: list[bytes]
) -> None:
    connection.stream.write(b"nobody reads this")
    connection.stream.abort()
    connection.run()
    assert sent == []
    assert connection.receiver.calls == ["made", "lost"]
