"""A reset is noticed, though nobody reads from the connection."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator

import pytest

from kit.connections import Connection
from sidestage.child.net.hangups import make_hangups

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="needs epoll")


@pytest.fixture
def watched(connection: Connection) -> Iterator[Connection]:
    hangups = connection.iteration.hangups = make_hangups(connection.loop)
    assert hangups is not None
    connection.receiver.keeps_open = True
    connection.stream.start(None)
    yield connection
    hangups.close()
    connection.iteration.hangups = None


def test_after_the_end_of_the_client(watched: Connection) -> None:
    watched.client.shutdown(socket.SHUT_WR)
    watched.run_until(lambda: "eof" in watched.receiver.calls)
    watched.run()
    assert "lost" not in watched.receiver.calls
    watched.reset()
    watched.run_until(lambda: "lost" in watched.receiver.calls)
    assert isinstance(watched.receiver.error, ConnectionResetError)
    assert watched.receiver.error.errno in {errno.EPIPE, errno.ECONNRESET}


def test_while_reading_pauses(watched: Connection) -> None:
    watched.stream.pause_reading()
    watched.client.sendall(b"held")
    watched.run()
    watched.reset()
    watched.run_until(lambda: "lost" in watched.receiver.calls)
    assert isinstance(watched.receiver.error, ConnectionResetError)


def test_one_that_is_read_again_is_read_to_its_end(watched: Connection) -> None:
    for _ in range(3):
        watched.stream.pause_reading()
        watched.stream.resume_reading()
    watched.client.sendall(b"all")
    watched.client.shutdown(socket.SHUT_WR)
    watched.run_until(lambda: "eof" in watched.receiver.calls)
    assert watched.receiver.data == b"all"


def test_the_end_of_both_sides_is_none(watched: Connection) -> None:
    watched.client.shutdown(socket.SHUT_WR)
    watched.run_until(lambda: "eof" in watched.receiver.calls)
    watched.stream.write_eof()
    assert watched.client.recv(1) == b""
    watched.run(10)
    assert "lost" not in watched.receiver.calls
    watched.stream.close()
    watched.run_until(lambda: "lost" in watched.receiver.calls)
    assert watched.receiver.error is None


def test_without_epoll_there_is_none(
    monkeypatch: pytest.MonkeyPatch, connection: Connection
) -> None:
    monkeypatch.delattr(select, "epoll")
    assert make_hangups(connection.loop) is None
