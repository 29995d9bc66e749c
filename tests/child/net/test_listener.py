"""Clients are accepted as long as there are descriptors for them."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import resource
import socket
import struct
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

from kit.connections import Connection
from kit.scripts import eventually
from sidestage import HTTPServer, TCPServer
from sidestage.child.net.listener import Acceptor


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


def test_a_listener_closed_before_its_retry_accepts_no_client(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Listener(socket.socket):
        def accept(self) -> NoReturn:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    timers: list[asyncio.TimerHandle] = []
    call_later = connection.loop.call_later

    def noted(*arguments: Any) -> asyncio.TimerHandle:
        timers.append(call_later(*arguments))
        return timers[-1]

    monkeypatch.setattr(connection.loop, "call_later", noted)
    listener = Listener()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    acceptor = Acceptor(connection.iteration, listener, 10, lambda: connection.receiver)
    with socket.create_connection(listener.getsockname(), 10):
        connection.run_until(lambda: bool(connection.failures))
    assert [timer.cancelled() for timer in timers] == [False]
    acceptor.close()
    assert [timer.cancelled() for timer in timers] == [True]


def test_it_knows_of_clients_that_are_not_accepted(connection: Connection) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    acceptor = Acceptor(connection.iteration, listener, 10, lambda: connection.receiver)
    assert not acceptor.has_clients()
    with socket.create_connection(listener.getsockname(), 10):
        assert acceptor.has_clients()
        connection.run_until(lambda: connection.iteration.taken > 0)
        assert not acceptor.has_clients()
    acceptor.close()


def test_small_writes_are_not_held_back(connection: Connection) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    acceptor = Acceptor(connection.iteration, listener, 10, lambda: connection.receiver)
    with socket.create_connection(listener.getsockname(), 10):
        connection.run_until(lambda: connection.receiver.calls == ["made"])
        accepted = connection.receiver.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    connection.run_until(lambda: "lost" in connection.receiver.calls)
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
