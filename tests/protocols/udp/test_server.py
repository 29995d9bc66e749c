"""UDP servers, with real sockets as clients."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kit.scripts import eventually
from sidestage import Datagram, UDPServer
from sidestage.journal.journal import OVERHEAD

LONG = 30.0  # seconds; a bound for what ends at once unless it is broken


@pytest.fixture(params=["127.0.0.1", "::1"])
def host(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(LONG)
        yield sock


def ask(server: UDPServer, data: bytes, host: str = "127.0.0.1") -> bytes:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(LONG)
        sock.connect((host, server.port))  # takes replies from there only
        sock.send(data)
        return sock.recv(1 << 16)


class Upper:
    """Callables of several kinds."""

    def method(self, datagram: Datagram) -> bytes:
        return datagram.packet.upper()

    async def coroutine(self, datagram: Datagram) -> bytes:
        await asyncio.sleep(0)
        return datagram.data.upper()

    def replying(self, datagram: Datagram) -> None:
        datagram.reply(datagram.rfile.read().upper())

    def writing(self, datagram: Datagram) -> None:
        datagram.wfile.write(datagram.data.upper())


@pytest.mark.parametrize("how", ["method", "coroutine", "replying", "writing"])
def test_the_sender_gets_the_reply(host: str, how: str) -> None:
    with UDPServer((host, 0), getattr(Upper(), how)) as server:
        assert ask(server, b"shout", host) == b"SHOUT"


def test_localhost_is_both_loopbacks_and_replies_come_from_the_one_asked() -> None:
    with UDPServer(("localhost", 0), lambda d: d.client_address[0].encode()) as server:
        assert ask(server, b"", "127.0.0.1") == b"127.0.0.1"
        assert ask(server, b"", "::1") == b"::1"


def test_a_list_is_several_replies_in_order(client: socket.socket) -> None:
    with UDPServer(handler=lambda d: [b"one", bytearray(b"two"), b""]) as server:
        client.sendto(b"?", server.server_address)
        assert [client.recv(10) for _ in range(3)] == [b"one", b"two", b""]


@pytest.mark.parametrize("result", ["text", 7, [b"fine", "not"], {"a": 1}])
def test_a_result_that_is_no_reply_fails_the_test_and_sends_nothing(
    client: socket.socket, result: object
) -> None:
    server = UDPServer(handler=lambda datagram: result).start()
    client.sendto(b"?", server.server_address)
    server.wait_for(1)
    with pytest.raises(TypeError, match=r"None, bytes \(one reply\) or a list"):
        server.stop()
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(10)


@pytest.mark.parametrize(
    "data, error", [(b"x" * 65508, ValueError), ("text", TypeError), (None, TypeError)]
)
def test_a_reply_that_cannot_be_sent_raises_in_the_handler(data: Any, error: type) -> None:
    def handler(datagram: Datagram) -> bytes:
        with pytest.raises(error, match="datagram"):
            datagram.reply(data)
        return b"raised"

    with UDPServer(handler=handler) as server:
        assert ask(server, b"?") == b"raised"


def test_a_datagram_of_the_largest_size_of_ipv6_comes_back_whole() -> None:
    """Eight bytes less than the protocol's 65535: it has no header in its payload."""
    data = bytes(65527)
    with UDPServer(("::1", 0), handler=lambda datagram: datagram.packet) as server:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            client.settimeout(LONG)
            client.sendto(data, ("::1", server.port))
            assert client.recv(1 << 17) == data


def test_of_several_replies_none_is_sent_if_one_cannot_be(client: socket.socket) -> None:
    server = UDPServer(handler=lambda d: b"fine" if d.packet == b"2" else [b"x", bytes(65508)])
    with server:
        client.sendto(b"1", server.server_address)
        server.wait_for(1)
        client.sendto(b"2", server.server_address)
        assert client.recv(100) == b"fine"
        server.wait_idle()  # the handlers run at once
        with pytest.raises(ValueError, match="may have 65507 bytes, not 65508"):
            server.raise_errors()


def test_a_reply_over_a_unix_socket_has_a_limit(tmp_path: Path) -> None:
    with UDPServer(tmp_path / "s", handler=lambda d: bytes((1 << 20) + 1)) as server:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.bind(str(tmp_path / "c"))
            client.sendto(b"x", server.server_address)
            server.wait_for(1)
            assert eventually(lambda: bool(server.errors))
        with pytest.raises(ValueError, match="may have 1048576 bytes"):
            server.raise_errors()


@pytest.mark.parametrize("size", [0, 1, 1472, 65507])
def test_a_datagram_of_any_size_comes_back_whole(size: int) -> None:
    with UDPServer(handler=lambda datagram: datagram.packet) as server:
        assert ask(server, b"x" * size) == b"x" * size


@pytest.mark.parametrize("handler", [None, lambda datagram: None], ids=["no", "yes"])
def test_a_burst_is_recorded_in_order_without_loss(
    client: socket.socket, handler: Callable[..., Any] | None
) -> None:
    burst = [b"%d" % number for number in range(2000)]
    with UDPServer(handler=handler) as server:
        for data in burst:
            client.sendto(data, server.server_address)
        assert [d.data for d in server.wait_for(len(burst), LONG)] == burst


@pytest.mark.parametrize("handler", [None, lambda datagram: None], ids=["no", "yes"])
def test_nothing_sent_before_the_stop_is_lost(
    client: socket.socket, handler: Callable[..., Any] | None
) -> None:
    server = UDPServer(handler=handler).start()
    for number in range(500):
        client.sendto(b"%d" % number, server.server_address)
    server.stop()
    assert [d.data for d in server.received] == [b"%d" % number for number in range(500)]


def test_a_record_knows_its_sender_and_cannot_be_changed(client: socket.socket) -> None:
    with UDPServer() as server:
        client.sendto(b"one", server.server_address)
        datagram = server.wait_for(1)[0]
        assert datagram.client_address == ("127.0.0.1", client.getsockname()[1])
        with pytest.raises(AttributeError):
            datagram.packet = b"other"  # type: ignore[misc]
        with pytest.raises(ValueError, match="without a handler"):
            datagram.reply(b"too late")


def test_datagrams_compare_by_sender_and_bytes(client: socket.socket) -> None:
    with UDPServer() as server:
        for data in (b"a", b"a", b"b"):
            client.sendto(data, server.server_address)
        first, same, other = server.wait_for(3)
    assert first == same != other
    assert len({first, same, other}) == 2
    assert repr(first) == f"<Datagram from {first.client_address}: b'a'>"


def test_at_most_keep_bytes_are_kept_and_dropped_records_are_counted(
    client: socket.socket,
) -> None:
    with UDPServer(keep=10 * (10 + OVERHEAD)) as server:
        for number in range(20):
            client.sendto(b"%010d" % number, server.server_address)
        server.wait_for(20)
        received = server.received
    assert [int(d.data) for d in received] == list(range(10, 20))
    assert received.dropped == 10


def test_handlers_that_block_do_not_delay_each_other(client: socket.socket) -> None:
    together = threading.Barrier(10, timeout=LONG)

    def meet(datagram: Datagram) -> bytes:
        together.wait()
        return b"met"

    with UDPServer(handler=meet) as server:
        for _ in range(10):
            client.sendto(b"?", server.server_address)
        assert [client.recv(10) for _ in range(10)] == [b"met"] * 10


def test_a_handler_can_call_its_own_server() -> None:
    def nested(datagram: Datagram) -> bytes:
        depth = int(datagram.data)
        return b"." if depth == 0 else b"." + ask(server, b"%d" % (depth - 1))

    with UDPServer(handler=nested) as server:
        assert ask(server, b"5") == b"......"


def test_a_handler_can_stop_its_own_server(client: socket.socket) -> None:
    reports: list[Any] = []
    done = threading.Event()

    def handler(datagram: Datagram) -> None:
        reports.append(server.stop(LONG))
        done.set()

    server = UDPServer(handler=handler).start()
    client.sendto(b"?", server.server_address)
    assert done.wait(LONG)
    assert reports[0].rung == "ask"
    assert reports[0].seconds < LONG / 2


def test_a_reply_given_during_the_stop_reaches_its_sender(client: socket.socket) -> None:
    running, stopping = threading.Event(), threading.Event()

    def handler(datagram: Datagram) -> bytes:
        running.set()
        stopping.wait(LONG)
        threading.Event().wait(0.05)  # a slow one, so that the stop has nothing else to do
        return b"late"

    server = UDPServer(handler=handler).start()
    client.sendto(b"?", server.server_address)
    assert running.wait(LONG)
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    assert eventually(lambda: not server.ready.is_set())
    stopping.set()
    assert client.recv(10) == b"late"
    stopper.join(LONG)


def test_what_a_handler_raises_is_raised_at_the_stop_with_the_sender(
    client: socket.socket,
) -> None:
    def fail(datagram: Datagram) -> None:
        raise LookupError(datagram.data.decode())

    server = UDPServer(handler=fail).start()
    for number in range(2):
        client.sendto(b"%d" % number, server.server_address)
    server.wait_for(2)
    with pytest.raises(ExceptionGroup, match="2 errors") as caught:
        server.stop()
    assert {error.args for error in caught.value.exceptions} == {("0",), ("1",)}
    notes = caught.value.exceptions[0].__notes__
    assert "a datagram of 1 bytes" in notes[0]


def test_a_sender_that_is_gone_is_no_error() -> None:
    gone, replied = threading.Event(), threading.Event()

    def handler(datagram: Datagram) -> None:
        gone.wait(LONG)
        datagram.reply(b"anybody?")
        replied.set()

    with UDPServer(handler=handler) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"?", server.server_address)
            server.wait_for(1)
        gone.set()
        assert replied.wait(LONG)
        server.handler = lambda datagram: b"still here"
        assert ask(server, b"?") == b"still here"
