"""A server runs on anything that has the interface of a backend."""

from __future__ import annotations

import errno
import socket

import pytest

from kit.fake_backend import FakeBackend
from kit.thread_backend import ThreadBackend, ThreadUDPServer
from sidestage import StartError, State
from sidestage.backends.base import Backend
from sidestage.backends.hosted import HostedBackend


def exchange(server: ThreadUDPServer, data: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(data, server.server_address)
        return client.recv(100)


@pytest.mark.parametrize("backend", [HostedBackend, ThreadBackend, FakeBackend])
def test_each_backend_has_the_whole_interface(backend: type[Backend]) -> None:
    wanted = {name for name in vars(Backend) if not name.startswith("_")}
    assert wanted - {"death"} <= set(dir(backend))


def test_a_server_in_a_thread_records_and_calls_its_handler() -> None:
    with ThreadUDPServer(handler=lambda datagram: datagram.data.upper()) as server:
        assert server.pid is None
        assert exchange(server, b"one") == b"ONE"
        server.handler = lambda datagram: [datagram.data, b"two"]
        assert exchange(server, b"three") == b"three"
        assert [datagram.data for datagram in server.wait_for(2)] == [b"one", b"three"]
    assert server.stop_report.rung == "ask"
    assert server.state is State.STOPPED


def test_a_server_in_a_thread_raises_what_its_handler_raised() -> None:
    def fail(datagram: object) -> None:
        raise ValueError("expected")

    server = ThreadUDPServer(handler=fail).start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", server.server_address)
        server.wait_for(1)
    with pytest.raises(ValueError, match="expected") as caught:
        server.stop()
    assert caught.value.__notes__[0].startswith("raised by the handler of ThreadUDPServer at udp:")


def test_a_server_in_a_thread_restarts_on_its_port() -> None:
    with ThreadUDPServer() as server:
        address = server.server_address
        assert server.restart().server_address == address


def test_a_server_in_a_thread_that_cannot_bind_is_failed() -> None:
    with ThreadUDPServer() as first:
        second = ThreadUDPServer(first.server_address)
        with pytest.raises(StartError, match="cannot listen on") as caught:
            second.start()
        assert caught.value.errno == errno.EADDRINUSE
        assert second.state is State.FAILED
