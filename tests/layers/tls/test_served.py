"""Servers with TLS behave as those without, on real sockets: each test needs that once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from kit.runs import pid_of
from kit.scripts import eventually
from kit.tls_clients import LONG, Buffered, https, join, rest
from sidestage import TLS, HTTPServer, SMTPServer, TCPServer
from sidestage.errors import ServerDied
from sidestage.process.pool import pool

MUCH = bytes(range(256)) * 16384  # 4 MiB
PIECES = 24  # of them, which is more than the bound
BOUND = 48 << 20  # bytes of memory, for what may be on its way between two processes and a client


class TestHTTP:
    def test_many_requests_on_one_connection(self) -> None:
        with HTTPServer(tls=True, handler=lambda request: request.body) as server:
            with https(server) as client:
                for size in (0, 1, 16_384, 100_000, len(MUCH)):
                    client.request("POST", "/", MUCH[:size])
                    assert client.getresponse().read() == MUCH[:size]
            assert {request.connection_number for request in server.received} == {1}

    def test_expectations_are_answered_and_held(self) -> None:
        with HTTPServer(tls=True) as server, https(server) as client:
            server.expect("GET", "/orders/{id:int}").reply({"state": "paid"})
            hold = server.expect("POST", "/orders").hold()
            client.request("GET", "/orders/7")
            assert client.getresponse().read() == b'{"state": "paid"}'
            client.request("POST", "/orders", b"{}")
            with hold.take(timeout=LONG) as call:
                call.reply("made", status=201)
            assert client.getresponse().status == 201

    def test_bodies_stream_both_ways_with_back_pressure(self) -> None:
        taken, release = [], threading.Event()

        def handler(request: Any) -> Iterator[bytes]:
            taken.append(len(request.body))
            for _ in range(64):
                yield MUCH[: 1 << 20]
            release.set()

        with HTTPServer(tls=True, handler=handler) as server, https(server) as client:
            client.request("POST", "/", (MUCH[:100_000] for _ in range(20)))
            response = client.getresponse()
            assert not release.wait(0.3)  # the client does not read, so the handler waits
            size = 0
            while data := response.read(1 << 20):
                size += len(data)
            assert (taken, size) == ([2_000_000], 64 << 20)
            assert release.wait(LONG)

    def test_a_handler_that_takes_too_long_is_answered_for(self, release: threading.Event) -> None:
        def handler(request: Any) -> None:
            release.wait(LONG)

        server = HTTPServer(tls=True, handler=handler, handler_timeout=0.2)
        with server, https(server) as client:
            client.request("GET", "/")
            assert client.getresponse().status == 504
            release.set()

    def test_what_the_client_had_sent_before_the_stop_is_answered(self) -> None:
        server = HTTPServer(tls=True, handler=lambda request: "late").start()
        client = join(server)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.stop().clean
        assert rest(client).endswith(b"late")
        client.close()


class TestTCP:
    def test_a_handler_talks(self) -> None:
        def handler(connection: Any) -> bytes:
            with connection.makefile("rb") as lines:
                for line in lines:
                    connection.sendall(line.upper())
            return b"bye"

        with TCPServer(tls=True, handler=handler) as server, join(server) as client:
            with client.makefile("rwb", buffering=0) as file:
                for word in (b"one\n", b"two\n"):
                    file.write(word)
                    assert file.readline() == word.upper()

    def test_without_a_handler_a_connection_is_recorded(self) -> None:
        with TCPServer(tls=True) as server:
            with join(server) as client:
                client.sendall(MUCH[:100_000])
                with contextlib.suppress(OSError):
                    client.unwrap()
            server.wait_for(1, timeout=LONG)
            (transcript,) = server.received
            assert transcript.data == MUCH[:100_000]
            assert transcript.ended == "closed by the client"

    def test_resets_pass_both_ways(self) -> None:
        raised, ready = [], threading.Event()

        def handler(connection: Any) -> None:
            ready.set()
            try:
                connection.recv(100)
            except ConnectionResetError as error:
                raised.append(error)

        with TCPServer(tls=True, handler=handler) as server:
            with join(server) as client:
                assert ready.wait(LONG)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            assert eventually(lambda: len(raised) == 1, LONG)
            server.handler = lambda connection: connection.reset()
            # The ``ssl`` of some versions takes a reset for an end.
            with socket.socket(fileno=join(server).detach()) as client:
                client.settimeout(LONG)
                with pytest.raises(ConnectionResetError):
                    rest(client)

    def test_a_client_that_does_not_read_holds_the_handler_back(self) -> None:
        written = threading.Event()

        def handler(connection: Any) -> None:
            connection.sendall(MUCH * 8)
            written.set()

        with TCPServer(tls=True, handler=handler) as server, join(server) as client:
            assert not written.wait(0.3)
            assert rest(client) == MUCH * 8


class TestLife:
    @pytest.mark.parametrize("kind", [HTTPServer, SMTPServer, TCPServer])
    def test_a_stop_says_goodbye(self, kind: Any) -> None:
        with kind(tls=True) as server:
            client = join(server)
        rest(client)  # raises for an end without close_notify
        client.close()

    def test_a_process_serves_one_after_another(self) -> None:
        pool.close()  # so that there is only one to choose
        pids = []
        for tls in (True, None, True, TLS(minimum_version="TLSv1.3"), True):
            with HTTPServer(tls=tls, handler=lambda request: "hi") as server:
                pids.append(pid_of(server))
                if tls:
                    with https(server) as client:
                        client.request("GET", "/")
                        assert client.getresponse().read() == b"hi"
        assert len(set(pids)) == 1

    def test_many_run_at_once(self) -> None:
        with contextlib.ExitStack() as stack:
            servers = [
                stack.enter_context(HTTPServer(tls=True, handler=lambda request: "hi"))
                for _ in range(4)
            ]
            for server in servers:
                with https(server) as client:
                    client.request("GET", "/")
                    assert client.getresponse().read() == b"hi"
            assert len({pid_of(server) for server in servers}) == 4

    def test_a_restart_serves_the_same_clients(self) -> None:
        server = HTTPServer(tls=True, handler=lambda request: "hi").start()
        for _ in range(2):
            with https(server) as client:
                client.request("GET", "/")
                assert client.getresponse().read() == b"hi"
            server.restart()
        server.stop()

    def test_a_crash_is_seen_by_both(self) -> None:
        server = HTTPServer(tls=True).start()
        with join(server) as client:
            os.kill(pid_of(server), signal.SIGKILL)
            with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
                client.recv(1)
        with pytest.raises(ServerDied):
            server.stop()

    def test_a_unix_socket_does_too(self, tmp_path: Any) -> None:
        path = str(tmp_path / "socket")
        with TCPServer(path, tls=True, handler=lambda connection: b"hi") as server:
            with socket.socket(socket.AF_UNIX) as plain:
                plain.settimeout(LONG)
                plain.connect(path)
                context = server.client_context()
                with context.wrap_socket(plain, server_hostname="localhost") as client:
                    assert rest(client) == b"hi"


class TestMemory:
    def test_much_passes_both_ways_in_little_memory(self) -> None:
        """Nothing is held but what is on its way."""

        def handler(connection: Any) -> None:
            for _ in range(PIECES):
                connection.sendall(MUCH)
            size = 0
            while data := connection.recv(1 << 18):
                size += len(data)
            sizes.append(size)

        sizes: list[int] = []
        with TCPServer(tls=True, handler=handler) as server, Buffered(server) as client:
            process = psutil.Process(pid_of(server))
            before = process.memory_info().rss
            assert client.read(PIECES * len(MUCH)) == PIECES * len(MUCH)
            for _ in range(PIECES):
                client.send(MUCH)
            client.end()
            assert eventually(lambda: sizes, LONG)
            assert process.memory_info().rss - before < BOUND
        assert sizes == [PIECES * len(MUCH)]
