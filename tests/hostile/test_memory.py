"""What both processes hold is bounded, whatever clients send and whether or not anybody reads it.

Each test measures the memory of both. What it sends is several times the bound.
"""

from __future__ import annotations

import gc
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import psutil
import pytest

from kit.runs import pid_of
from kit.scripts import eventually
from sidestage import HTTPServer, TCPServer, UDPServer

KEEP = 1 << 20  # bytes
ROOM = 1 << 24  # bytes: what calls under way may hold at least
MIB = 1 << 20
WAIT = 20.0  # seconds; no test comes near it
SMALL = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LARGE = b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % bytes(60_000).replace(b"\0", b"x")
UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n"


class Growth:
    """How much more memory both processes have than at first, in MiB."""

    def __init__(self, server: Any) -> None:
        self._processes = [psutil.Process(os.getpid()), psutil.Process(pid_of(server))]
        self._before = self._now()

    def _now(self) -> list[int]:
        gc.collect()
        return [process.memory_full_info().uss for process in self._processes]

    @property
    def test(self) -> float:
        """That of the test's process."""
        return (self._now()[0] - self._before[0]) / MIB

    @property
    def child(self) -> float:
        """That of the server's process."""
        return (self._now()[1] - self._before[1]) / MIB


@contextmanager
def clients(server: Any, count: int, seconds: float = WAIT) -> Iterator[list[socket.socket]]:
    """Connections to a server."""
    with ExitStack() as stack:
        address = server.server_address[:2]
        yield [
            stack.enter_context(socket.create_connection(address, timeout=seconds))
            for _ in range(count)
        ]


def datagrams() -> socket.socket:
    """A client of UDP."""
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def push(client: socket.socket, data: bytes) -> None:
    """Send as much of ``data`` as the server takes."""
    client.settimeout(0.2)
    with suppress(TimeoutError):
        client.sendall(data)


def answer(client: socket.socket) -> int:
    """The status of an answer without a body."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    return int(head.split()[1])


class Held:
    """A handler that waits until it is released; knows how many wait."""

    def __init__(self, release: threading.Event) -> None:
        self.began = 0
        self._release = release
        self._guard = threading.Lock()

    def __call__(self, request: Any) -> None:
        with self._guard:
            self.began += 1
        self._release.wait(WAIT)


def is_steady(done: list[Any]) -> bool:
    """Whether no more is done."""
    before = len(done)
    return before > 0 and not eventually(lambda: len(done) > before, 0.5)


class TestRequests:
    def test_heads_count_for_keep(self) -> None:
        with HTTPServer(handler=lambda request: b"", keep=KEEP) as server:
            with clients(server, 1) as [client]:
                client.sendall(SMALL)
                assert answer(client) == 200
                growth = Growth(server)
                for _ in range(1000):
                    client.sendall(LARGE)
                    assert answer(client) == 200
            assert growth.test < 20
            assert growth.child < 20
            assert len(server.received) <= KEEP // 60_000
            assert server.received.dropped > 900

    def test_more_than_there_is_room_for_wait(self, release: threading.Event) -> None:
        handler = Held(release)
        with HTTPServer(handler=handler, keep=KEEP) as server:
            growth = Growth(server)
            with clients(server, 700) as every:
                for client in every:
                    client.sendall(LARGE)
                began = self.limit_is_reached(server, handler)
                assert 200 < began < ROOM // 60_000 + 2
                # 47 MiB for threads and requests of those that run; with those that wait, 71.
                assert growth.test < 60
                release.set()
                assert {answer(client) for client in every} == {200}
            assert handler.began == 700

    @staticmethod
    def limit_is_reached(server: HTTPServer, handler: Held) -> int:
        """Wait until no more handlers may begin; returns how many have."""
        assert eventually(lambda: bool(server.diagnostics), WAIT)
        [told] = server.diagnostics
        assert "more of them wait until some have returned" in told.text
        count = int(told.text.partition(" handlers run")[0])
        assert eventually(lambda: handler.began == count, WAIT)
        return count

    def test_one_that_waits_too_long_is_told(self, release: threading.Event) -> None:
        handler = Held(release)
        with HTTPServer(handler=handler, keep=KEEP, handler_timeout=2.0) as server:
            with clients(server, 320) as every:
                for client in every:
                    client.sendall(LARGE)
                assert {answer(client) for client in every} == {504}
            texts = [told.text for told in server.diagnostics]
            assert "sent 504 Gateway Timeout: no handler was free within 2.0 s" in texts
            release.set()
            with clients(server, 1) as [client]:
                client.sendall(SMALL)
                assert answer(client) == 200

    def test_handlers_whose_clients_have_left_count(self, release: threading.Event) -> None:
        handler = Held(release)
        with HTTPServer(handler=handler, keep=KEEP) as server:
            with clients(server, 300) as every:
                for client in every:
                    client.sendall(LARGE)
                began = self.limit_is_reached(server, handler)
            with clients(server, 1) as [client]:
                client.sendall(SMALL)
                assert not eventually(lambda: handler.began > began, 0.5)
                release.set()
                assert answer(client) == 200

    def test_a_thousand_handlers_may_wait_for_each_other(self) -> None:
        all_there = threading.Barrier(1000)

        def handler(request: Any) -> None:
            all_there.wait(WAIT)

        with HTTPServer(handler=handler) as server, clients(server, 1000) as every:
            for client in every:
                client.sendall(SMALL)
            assert {answer(client) for client in every} == {200}
            assert not server.diagnostics


class TestStreams:
    @pytest.mark.parametrize("handled", [True, False])
    def test_unfinished_bodies_share_what_is_kept(
        self, handled: bool, release: threading.Event
    ) -> None:
        handler = Held(release) if handled else None
        with HTTPServer(handler=handler, keep=KEEP) as server:
            growth = Growth(server)
            with clients(server, 40) as every:
                for client in every:
                    push(client, UPLOAD + bytes(2 * MIB))
                assert growth.test < 40
                assert growth.child < 40
            release.set()

    @pytest.mark.parametrize("handled", [True, False])
    def test_so_do_transcripts_of_open_connections(self, handled: bool) -> None:
        def read(connection: Any) -> None:
            while connection.recv(1 << 16):
                pass

        with TCPServer(handler=read if handled else None, keep=4 * MIB) as server:
            with clients(server, 40) as every:
                for client in every:
                    client.sendall(bytes(1 * MIB))
            assert len(server.wait_for(40, timeout=WAIT)) + server.received.dropped == 40
            kept = sum(len(record.data) for record in server.received)
            assert kept <= 4 * MIB

    def test_the_transcripts_of_open_connections_are_cut_at_keep_together(self) -> None:
        read = threading.Semaphore(0)

        def handler(connection: Any) -> None:
            connection.recv_exactly(256 << 10)
            read.release()
            connection.recv(1)

        with TCPServer(handler=handler, keep=KEEP) as server:
            with clients(server, 8) as every:
                for client in every:
                    client.sendall(bytes(256 << 10))
                    assert read.acquire(timeout=WAIT)
                for number, client in enumerate(every, 1):
                    client.shutdown(socket.SHUT_WR)
                    server.wait_for(number, timeout=WAIT)
            records = server.received
            assert sum(record.cut for record in records) >= 4 * (256 << 10)
            assert sum(len(record.data) for record in records) <= KEEP

    def test_a_stream_goes_on_though_others_are_not_read(self, release: threading.Event) -> None:
        """However much waits for other handlers, each has a share."""
        whole = 3 * MIB

        def handler(connection: Any) -> bytes:
            if connection.recv_exactly(1) == b"w":
                release.wait(WAIT)
                return b""
            return b"%d" % len(connection.recv_exactly(whole))

        with TCPServer(handler=handler, keep=KEEP) as server:
            with clients(server, 16) as every:
                for client in every[1:]:
                    push(client, b"w" + bytes(4 * MIB))
                every[0].sendall(b"r" + bytes(whole))
                assert every[0].recv(100) == b"%d" % whole
            release.set()

    def test_answers_that_nobody_reads_hold_their_client_back(self) -> None:
        handled: list[str] = []

        def handler(request: Any) -> bytes:
            handled.append(request.target)
            return bytes(1 << 18)

        with HTTPServer(handler=handler, keep=KEEP) as server:
            growth = Growth(server)
            with clients(server, 1) as [client]:
                client.sendall(SMALL * 1000)
                assert eventually(lambda: is_steady(handled), WAIT)
                assert len(handled) < 100
                assert growth.child < 20
                wanted = 1000 * (1 << 18)
                while wanted > 0:
                    wanted -= len(client.recv(1 << 20))
            assert len(handled) == 1000

    def test_open_answers_that_nobody_reads_share_what_is_kept(self) -> None:
        """However much waits for other clients, each has a share."""

        def handler(request: Any) -> Any:
            return iter([bytes(MIB)] * 20)

        with HTTPServer(handler=handler, keep=KEEP) as server:
            growth = Growth(server)
            with clients(server, 80) as every:
                for client in every:
                    client.sendall(SMALL)
                assert eventually(lambda: len(server.received) == 80, WAIT)
                with clients(server, 1) as [client]:
                    client.sendall(SMALL)
                    read = 0
                    while read < 20 * MIB:
                        read += len(client.recv(MIB))
                assert growth.child < 30

    def test_informational_answers_that_nobody_reads_wait(self) -> None:
        sent: list[int] = []

        def handler(request: Any) -> None:
            for number in range(40_000):
                request.send_informational(103, {"Link": "x" * 2000})
                sent.append(number)

        with HTTPServer(handler=handler, keep=KEEP) as server:
            growth = Growth(server)
            with clients(server, 1) as [client]:
                client.sendall(SMALL)
                assert eventually(lambda: is_steady(sent), WAIT)
                assert len(sent) < 20_000
                assert growth.child < 20


class TestReports:
    def test_diagnostics_that_nobody_reads_are_counted(self) -> None:
        with HTTPServer(keep=10_000) as server:
            for _ in range(3000):
                with clients(server, 1) as [client]:
                    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    assert client.recv(100).startswith(b"HTTP/1.1 400")
            first, *others = server.diagnostics
            assert len(others) < 20
            assert first.text.startswith(f"{3000 - len(others)} older diagnostics dropped")

    def test_errors_of_handlers_do_not_keep_what_these_had(self) -> None:
        def handler(request: Any) -> None:
            had = bytearray(50_000)
            raise ValueError(len(had), request.path)

        server = HTTPServer(handler=handler, keep=KEEP)
        server.start()
        growth = Growth(server)
        with clients(server, 1) as [client]:
            for number in range(1500):
                client.sendall(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
                assert b"50000" in client.recv(1000)
        assert growth.test < 30
        with pytest.raises(ExceptionGroup, match="1000 errors, and 500 more, in") as raised:
            server.stop()
        first, *_, last = raised.value.exceptions
        assert first.__traceback__ is not None
        assert any("in handler" in text for text in last.__notes__)


class TestDatagrams:
    def test_a_slow_handler_has_a_bounded_number_of_threads(self, release: threading.Event) -> None:
        handler = Held(release)
        before = psutil.Process().num_threads()
        with UDPServer(handler=handler) as server, datagrams() as client:
            self.send(server, client, 1500, b"x")
            assert eventually(lambda: handler.began == 512, WAIT)
            assert not eventually(lambda: handler.began > 512, 0.5)
            assert psutil.Process().num_threads() - before <= 520
            assert len(server.received) == 1500  # the pipe is read all the same
            [told] = server.diagnostics
            assert told.text == "512 handlers run: more of them wait until some have returned"
            release.set()
            assert eventually(lambda: handler.began == 1500, WAIT)

    @staticmethod
    def send(server: UDPServer, client: socket.socket, count: int, data: bytes) -> None:
        """Send datagrams, so that none is lost in the kernel."""
        for number in range(1, count + 1):
            client.sendto(data, server.server_address[:2])
            if number % 20 == 0:
                assert len(server.received) + server.received.dropped == number

    def test_those_that_wait_for_a_handler_are_bounded_and_the_rest_dropped(
        self, release: threading.Event
    ) -> None:
        handler = Held(release)
        with UDPServer(handler=handler, keep=KEEP) as server, datagrams() as client:
            growth = Growth(server)
            self.send(server, client, 1000, bytes(60_000))
            assert growth.test < 60
            assert server.received.dropped > 900
            texts = [told.text for told in server.diagnostics]
            assert sum("new ones are dropped" in text for text in texts) == 1
            release.set()
            assert eventually(lambda: handler.began > 200, WAIT)
            assert not eventually(lambda: handler.began > ROOM // 60_000, 0.5)

    def test_replies_that_a_client_does_not_read_are_dropped_and_delay_no_other(
        self, tmp_path: Any
    ) -> None:
        def handler(datagram: Any) -> None:
            for _ in range(5000 if datagram.data == b"many" else 1):
                datagram.reply(bytes(1000))

        path = str(tmp_path / "server")
        with UDPServer(path, handler) as server, ExitStack() as stack:
            pair: list[socket.socket] = []
            for name in "ab":
                sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
                sock.bind(str(tmp_path / name))
                sock.settimeout(WAIT)
                pair.append(sock)
            growth = Growth(server)
            pair[0].sendto(b"many", path)
            assert eventually(lambda: bool(server.diagnostics), WAIT)
            [told] = server.diagnostics
            assert told.text.startswith("replies wait for this client, which does not read")
            pair[1].sendto(b"one", path)
            assert len(pair[1].recv(2000)) == 1000
            assert growth.child < 10
            pair[0].setblocking(False)
            came = 0

            def all_came() -> bool:
                nonlocal came
                with suppress(BlockingIOError):
                    while pair[0].recv(2000):
                        came += 1
                return len(server.diagnostics) == 2 and (
                    server.diagnostics[1].text.startswith(f"{5000 - came} replies were dropped")
                )

            assert eventually(all_came, WAIT)
