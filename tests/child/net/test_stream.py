"""The child's own transport, between two ends of a real connection."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.connections import Connection
from sidestage.child.net.listener import Acceptor
from sidestage.child.net.stream import HIGH_WATER

# Reading -----------------------------------------------------------------------------------------


def test_what_has_come_already_is_read_at_once(connection: Connection) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    acceptor = Acceptor(connection.iteration, listener, 10, lambda: connection.receiver)
    with socket.create_connection(listener.getsockname(), 10) as client:
        client.sendall(b"early")
        connection.run(2)  # one to receive, whose end the second begins with
        assert connection.receiver.calls == ["made"]
        assert connection.receiver.data == b"early"
        client.sendall(b" and late")
        connection.run_until(lambda: connection.receiver.data == b"early and late")
    connection.run_until(lambda: "lost" in connection.receiver.calls)
    acceptor.close()


def test_nothing_is_read_while_it_pauses(connection: Connection) -> None:
    connection.stream.start(None)
    connection.stream.pause_reading()
    connection.client.sendall(b"held")
    connection.run()
    assert not connection.receiver.data
    connection.stream.resume_reading()
    connection.run_until(lambda: connection.receiver.data == b"held")


def test_a_receiver_that_pauses_at_once_gets_nothing(connection: Connection) -> None:
    connection.receiver.begin = connection.stream.pause_reading
    connection.client.sendall(b"held")
    connection.stream.start(None)
    connection.run()
    assert not connection.receiver.data
    connection.stream.resume_reading()
    connection.run_until(lambda: connection.receiver.data == b"held")


@pytest.mark.parametrize("keeps_open", [False, True])
def test_the_end_closes_unless_the_receiver_keeps_it_open(
    connection: Connection, keeps_open: bool
) -> None:
    connection.receiver.keeps_open = keeps_open
    connection.stream.start(None)
    connection.client.shutdown(socket.SHUT_WR)
    connection.run_until(lambda: "eof" in connection.receiver.calls)
    connection.stream.resume_reading()  # which finds nothing to read any more
    connection.run()
    assert connection.stream.is_closing() is not keeps_open
    connection.stream.write(b"answer")
    connection.stream.close()
    assert connection.rest() == (b"answer" if keeps_open else b"")
    assert connection.receiver.calls == ["made", "eof", "lost"]


def test_a_reset_is_reported_as_a_reset(connection: Connection) -> None:
    connection.stream.start(None)
    connection.reset()
    connection.run_until(lambda: "lost" in connection.receiver.calls)
    assert isinstance(connection.receiver.error, ConnectionResetError)
    assert connection.failures == []


@pytest.mark.parametrize("when", ["begin", "react"])
def test_an_error_in_the_receiver_ends_its_connection_and_is_reported(
    connection: Connection, when: str
) -> None:
    def fail() -> None:
        raise ValueError("defect")

    setattr(connection.receiver, when, fail)
    connection.client.sendall(b"data")
    connection.stream.start(None)
    connection.run()
    assert connection.receiver.calls == ["made", "lost"]
    assert [str(failure["exception"]) for failure in connection.failures] == ["defect"]
    assert connection.served.fileno() == -1


# Writing -----------------------------------------------------------------------------------------


@settings(deadline=None)  # it is the kernel's time
@given(
    st.lists(st.tuples(st.integers(0, 5 * HIGH_WATER), st.booleans(), st.booleans()), max_size=8),
    st.sampled_from(["close", "eof"]),
)
def test_all_that_is_written_arrives_in_order(
    writes: list[tuple[int, bool, bool]], end: str
) -> None:
    connection = Connection()
    try:
        connection.served.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connection.stream.start(None)
        expected = bytearray()
        for number, (size, in_parts, is_last) in enumerate(writes):
            data = bytes([number]) * size
            expected += data
            if in_parts:
                connection.stream.writelines([data[:7], data[7:]])
            else:
                connection.stream.write(data)
            if is_last:
                connection.iteration.end()
        if end == "close":
            connection.stream.close()
        else:
            connection.stream.write_eof()
        assert connection.rest() == expected
        calls = connection.receiver.calls
        assert calls.count("pause") == calls.count("resume")
        assert connection.stream.get_write_buffer_size() == 0
    finally:
        connection.close()


def test_the_receiver_is_paused_when_too_much_waits(connection: Connection) -> None:
    connection.stream.start(None)
    while connection.stream.get_write_buffer_size() <= HIGH_WATER:
        assert connection.receiver.calls == ["made"]
        connection.stream.write(b"x" * 10000)
        connection.iteration.end()
    assert connection.receiver.calls == ["made", "pause"]
    connection.stream.close()
    connection.rest()
    assert connection.receiver.calls == ["made", "pause", "resume", "lost"]


def test_a_client_that_has_gone_gets_nothing(connection: Connection) -> None:
    connection.stream.start(None)
    connection.stream.pause_reading()  # so that only writing can notice it
    connection.reset()
    connection.stream.write(b"x")
    connection.stream.write(b"y")
    connection.run()
    assert connection.receiver.calls == ["made", "lost"]
    assert isinstance(connection.receiver.error, ConnectionError)
    connection.stream.write(b"z")  # is no error
    assert connection.failures == []


def test_to_write_after_the_end_is_a_defect(connection: Connection) -> None:
    connection.stream.start(None)
    connection.stream.write(b"all")
    connection.stream.write_eof()
    with pytest.raises(RuntimeError, match="after write_eof"):
        connection.stream.write(b"more")
    assert connection.rest() == b"all"


@pytest.mark.parametrize("with_unsent", [False, True])
def test_an_abort_is_at_once(connection: Connection, with_unsent: bool) -> None:
    connection.stream.start(None)
    while with_unsent and not connection.stream.get_write_buffer_size():
        connection.stream.write(b"x" * 100_000)
        connection.iteration.end()
    connection.stream.abort()
    connection.stream.abort()
    assert "lost" not in connection.receiver.calls  # not within what the receiver does
    connection.run()
    assert connection.receiver.calls.count("lost") == 1
    assert connection.receiver.error is None
    assert connection.served.fileno() == -1


# A reset that overtakes nothing ------------------------------------------------------------------


def what_comes(connection: Connection) -> tuple[bytes, bool]:
    """What the client gets, and whether a reset ends it."""
    came = bytearray()
    resets: list[bool] = []
    connection.client.setblocking(False)

    def ended() -> bool:
        try:
            part = connection.client.recv(1 << 20)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            resets.append(True)
            return True
        came.extend(part)
        return not part

    connection.run_until(ended)
    return bytes(came), bool(resets)


@pytest.mark.parametrize("sizes", [[], [5], [5, 7], [9 * HIGH_WATER], [3, 9 * HIGH_WATER, 4]])
def test_a_reset_comes_after_all_that_was_written(connection: Connection, sizes: list[int]) -> None:
    connection.served.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)  # it takes much
    connection.stream.start(None)
    expected = bytearray()
    for number, size in enumerate(sizes):
        data = bytes([number]) * size
        expected += data
        connection.stream.write(data)
    connection.stream.reset_when_sent()
    connection.stream.reset_when_sent()
    connection.run()
    assert what_comes(connection) == (expected, True)
    assert connection.receiver.calls.count("lost") == 1
    assert connection.served.fileno() == -1
    assert connection.failures == []


def fill(connection: Connection) -> None:
    """Write more than the kernel takes, and wait for a reset."""
    connection.stream.start(None)
    while not connection.stream.get_write_buffer_size():
        connection.stream.write(b"x" * 100_000)
        connection.iteration.end()
    connection.stream.reset_when_sent()
    connection.run()
    assert "lost" not in connection.receiver.calls


@pytest.mark.parametrize("end", ["close", "abort", "reset"])
def test_a_reset_that_waits_for_the_client_is_hurried_by_an_end(
    connection: Connection, end: str
) -> None:
    fill(connection)
    getattr(connection.stream, end)()
    connection.run()
    assert connection.receiver.calls.count("lost") == 1
    assert connection.served.fileno() == -1


@pytest.mark.parametrize("buffered", [True, False])
def test_a_client_that_leaves_ends_the_wait_for_a_reset(
    connection: Connection, buffered: bool
) -> None:
    if buffered:
        fill(connection)
    else:
        connection.stream.start(None)
        connection.stream.write(b"all of it")
        connection.stream.reset_when_sent()
    connection.reset()
    connection.run_until(lambda: "lost" in connection.receiver.calls)
    assert connection.failures == []


def test_what_the_client_sends_is_not_read_before_a_reset(connection: Connection) -> None:
    fill(connection)
    connection.client.sendall(b"more")
    connection.run()
    assert not connection.receiver.data
