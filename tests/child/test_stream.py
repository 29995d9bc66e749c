"""The child's own transport, between two ends of a real connection, and what accepts clients."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import resource
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import eventually
from sidestage import HTTPServer, TCPServer
from sidestage.child.acceptor import Acceptor
from sidestage.child.stream import HIGH_WATER, Stream


class Receiver:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.told: list[str] = []
        self.data = bytearray()
        self.keeps_open = False
        self.error: Exception | None = None
        self.begin: Callable[[], None] = lambda: None
        self.react: Callable[[], None] = lambda: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.told.append("made")
        self.begin()

    def data_received(self, data: memoryview) -> None:
        self.data += data
        self.react()

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self.keeps_open

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        self.error = exc


class Connection:
    """A stream with its receiver, and the client's end."""

    def __init__(self) -> None:
        self.loop = asyncio.SelectorEventLoop()
        self.failures: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.failures.append(context))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = socket.create_connection(listener.getsockname())
            self.served, peer = listener.accept()
        self.served.setblocking(False)
        self.client.settimeout(10)
        self.receiver = Receiver()
        self.stream = Stream(self.loop, self.served, peer, self.receiver)

    def run(self, passes: int = 3) -> None:
        """Let the loop go round."""

        async def some() -> None:
            for _ in range(passes):
                await asyncio.sleep(0)

        self.loop.run_until_complete(some())

    def run_until(self, condition: Callable[[], bool]) -> None:
        def over() -> bool:
            self.run()
            return condition()

        assert eventually(over, 10)

    def rest(self) -> bytes:
        """What the client gets until the end."""
        came = bytearray()
        self.client.setblocking(False)

        def ended() -> bool:
            try:
                part = self.client.recv(1 << 20)
            except BlockingIOError:
                return False
            came.extend(part)
            return not part

        self.run_until(ended)
        return bytes(came)

    def reset(self) -> None:
        """Have the client go without a word."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()

    def close(self) -> None:
        self.stream.abort()
        self.run()
        self.loop.close()
        self.client.close()


@pytest.fixture
def connection() -> Iterator[Connection]:
    connection = Connection()
    yield connection
    connection.close()


# Reading -----------------------------------------------------------------------------------------


def test_what_has_come_already_is_read_at_once(connection: Connection) -> None:
    connection.client.sendall(b"early")
    connection.stream.start()
    assert connection.receiver.told == ["made"]
    assert connection.receiver.data == b"early"
    connection.client.sendall(b" and late")
    connection.run_until(lambda: connection.receiver.data == b"early and late")


def test_nothing_is_read_while_it_pauses(connection: Connection) -> None:
    connection.stream.start()
    connection.stream.pause_reading()
    connection.client.sendall(b"held")
    connection.run()
    assert not connection.receiver.data
    connection.stream.resume_reading()
    connection.run_until(lambda: connection.receiver.data == b"held")


def test_a_receiver_that_pauses_at_once_gets_nothing(connection: Connection) -> None:
    connection.receiver.begin = connection.stream.pause_reading
    connection.client.sendall(b"held")
    connection.stream.start()
    connection.run()
    assert not connection.receiver.data
    connection.stream.resume_reading()
    connection.run_until(lambda: connection.receiver.data == b"held")


@pytest.mark.parametrize("keeps_open", [False, True])
def test_the_end_closes_unless_it_is_to_stay_half_open(
    connection: Connection, keeps_open: bool
) -> None:
    connection.receiver.keeps_open = keeps_open
    connection.stream.start()
    connection.client.shutdown(socket.SHUT_WR)
    connection.run_until(lambda: "eof" in connection.receiver.told)
    connection.stream.resume_reading()  # which finds nothing to read any more
    connection.run()
    assert connection.stream.is_closing() is not keeps_open
    connection.stream.write(b"answer")
    connection.stream.close()
    assert connection.rest() == (b"answer" if keeps_open else b"")
    assert connection.receiver.told == ["made", "eof", "lost"]


def test_a_reset_is_told_as_what_it_is(connection: Connection) -> None:
    connection.stream.start()
    connection.reset()
    connection.run_until(lambda: "lost" in connection.receiver.told)
    assert isinstance(connection.receiver.error, ConnectionResetError)
    assert connection.failures == []


@pytest.mark.parametrize("when", ["begin", "react"])
def test_a_defect_of_the_receiver_ends_its_connection_and_is_told(
    connection: Connection, when: str
) -> None:
    def fail() -> None:
        raise ValueError("defect")

    setattr(connection.receiver, when, fail)
    connection.client.sendall(b"data")
    connection.stream.start()
    connection.run()
    assert connection.receiver.told == ["made", "lost"]
    assert [str(failure["exception"]) for failure in connection.failures] == ["defect"]
    assert connection.served.fileno() == -1


# Writing -----------------------------------------------------------------------------------------


@settings(deadline=None)  # it is the kernel's time
@given(
    st.lists(st.tuples(st.integers(0, 3 * HIGH_WATER), st.booleans()), max_size=8),
    st.sampled_from(["close", "eof"]),
)
def test_all_that_is_written_arrives_in_order(writes: list[tuple[int, bool]], end: str) -> None:
    connection = Connection()
    try:
        connection.served.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connection.stream.start()
        expected = bytearray()
        for number, (size, in_parts) in enumerate(writes):
            data = bytes([number]) * size
            expected += data
            if in_parts:
                connection.stream.writelines([data[:7], data[7:]])
            else:
                connection.stream.write(data)
        if end == "close":
            connection.stream.close()
        else:
            connection.stream.write_eof()
        assert connection.rest() == expected
        told = connection.receiver.told
        assert told.count("pause") == told.count("resume")
        assert connection.stream.get_write_buffer_size() == 0
    finally:
        connection.close()


def test_whoever_writes_is_told_when_too_much_waits(connection: Connection) -> None:
    connection.stream.start()
    while connection.stream.get_write_buffer_size() <= HIGH_WATER:
        assert connection.receiver.told == ["made"]
        connection.stream.write(b"x" * 10000)
    assert connection.receiver.told == ["made", "pause"]
    connection.stream.close()
    connection.rest()
    assert connection.receiver.told == ["made", "pause", "resume", "lost"]


def test_a_client_that_has_gone_gets_nothing(connection: Connection) -> None:
    connection.stream.start()
    connection.stream.pause_reading()  # so that only writing can tell
    connection.reset()
    connection.stream.write(b"x")
    connection.stream.write(b"y")
    connection.run()
    assert connection.receiver.told == ["made", "lost"]
    assert isinstance(connection.receiver.error, ConnectionError)
    connection.stream.write(b"z")  # is no error
    assert connection.failures == []


@pytest.mark.parametrize("with_unsent", [False, True])
def test_an_abort_is_at_once(connection: Connection, with_unsent: bool) -> None:
    connection.stream.start()
    while with_unsent and not connection.stream.get_write_buffer_size():
        connection.stream.write(b"x" * 100_000)
    connection.stream.abort()
    connection.stream.abort()
    assert "lost" not in connection.receiver.told  # not within what the receiver does
    connection.run()
    assert connection.receiver.told.count("lost") == 1
    assert connection.receiver.error is None
    assert connection.served.fileno() == -1


# Accepting ---------------------------------------------------------------------------------------


def test_clients_wait_while_there_is_no_descriptor_for_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with HTTPServer(handler=lambda request: "served") as server:
        assert server.pid is not None
        before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        taken = {int(path.name) for path in Path(f"/proc/{server.pid}/fd").iterdir()}
        lowest = next(fd for fd in itertools.count() if fd not in taken)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (lowest, before[1]))
        with socket.create_connection(server.server_address, 10) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert eventually(lambda: "could not be accepted" in caplog.text, 10)
            assert os.strerror(errno.EMFILE) in caplog.text
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)
            answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.endswith(b"served")
    assert len(caplog.records) < 20  # it has not tried all the time


def test_whoever_stops_meanwhile_accepts_nobody(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Listener(socket.socket):
        def accept(self) -> NoReturn:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("sidestage.child.acceptor._RETRY_SECONDS", 0.01)
    listener = Listener()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    acceptor = Acceptor(connection.loop, listener, 10, lambda: connection.receiver)
    with socket.create_connection(listener.getsockname(), 10):
        connection.run_until(lambda: bool(connection.failures))
    acceptor.close()
    connection.loop.run_until_complete(asyncio.sleep(0.02))  # the retry would have been by now
    assert len(connection.failures) == 1


def test_small_writes_are_not_held_back(connection: Connection) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    acceptor = Acceptor(connection.loop, listener, 10, lambda: connection.receiver)
    with socket.create_connection(listener.getsockname(), 10):
        connection.run_until(lambda: connection.receiver.told == ["made"])
        accepted = connection.receiver.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    connection.run_until(lambda: "lost" in connection.receiver.told)
    acceptor.close()


def test_a_client_that_is_gone_before_it_is_accepted_is_no_error() -> None:
    with TCPServer() as server:
        process = psutil.Process(server.pid)
        process.suspend()
        for _ in range(3):
            client = socket.create_connection(server.server_address, 10)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        process.resume()
        with socket.create_connection(server.server_address, 10) as client:
            client.sendall(b"still there")
        assert server.wait_for(4)[-1].data == b"still there"
