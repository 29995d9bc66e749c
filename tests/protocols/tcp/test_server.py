"""TCP servers, with real sockets as clients."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import hashlib
import mmap
import platform
import socket
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidestage import Connection, ServerStopped, TCPServer, Transcript
from sidestage.journal.journal import OVERHEAD
from sidestage.wire.frames import WINDOW

MIB = 1 << 20
LONG = 30.0  # seconds; a bound for what ends at once unless it is broken


def connect(server: TCPServer) -> socket.socket:
    return socket.create_connection((server.host, server.port), timeout=LONG)


def read_all(client: socket.socket) -> bytes:
    data = bytearray()
    while part := client.recv(1 << 16):
        data += part
    return bytes(data)


def exchange(server: TCPServer, data: bytes) -> bytes:
    """Send, half-close, and read to the end."""
    with connect(server) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return read_all(client)


def expect_reset(server: TCPServer) -> None:
    """Send a byte: otherwise the reset could come before the connection is complete."""
    with connect(server) as client:
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            client.recv(1)


# Handlers and what they return -----------------------------------------------------------------


class Upper:
    """Callables of several kinds."""

    def method(self, connection: Connection) -> bytes:
        return connection.rfile.read().upper()

    async def coroutine(self, connection: Connection) -> bytes:
        return await asyncio.to_thread(lambda: connection.rfile.read().upper())

    def __call__(self, connection: Connection) -> bytes:
        return self.method(connection)


@pytest.mark.parametrize(
    "handler",
    [Upper().method, Upper().coroutine, Upper(), lambda c: bytearray(c.rfile.read().upper())],
    ids=["method", "async", "instance", "lambda"],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_what_a_handler_returns_is_sent(host: str, handler: Callable[..., Any]) -> None:
    with TCPServer((host, 0), handler) as server:
        assert exchange(server, b"shout") == b"SHOUT"


def test_localhost_is_both_loopbacks_on_one_port() -> None:
    with TCPServer(("localhost", 0), lambda c: c.client_address[0].encode()) as server:
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, server.port), LONG) as client:
                assert read_all(client) == host.encode()


@pytest.mark.parametrize("result", ["text", 7, ["list"], {}])
def test_a_result_that_is_no_reply_fails_the_test_and_resets_the_client(result: object) -> None:
    server = TCPServer(handler=lambda connection: connection.recv(1) and result).start()
    expect_reset(server)
    with pytest.raises(TypeError, match="None, or bytes to send before the close") as caught:
        server.stop()
    assert repr(result) in str(caught.value)


@pytest.mark.parametrize("error", [AssertionError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_what_a_handler_raises_is_raised_at_the_stop(error: BaseException) -> None:
    def fail(connection: Connection) -> None:
        connection.recv(1)
        raise error

    server = TCPServer(handler=fail).start()
    expect_reset(server)
    with pytest.raises(type(error)) as caught:
        server.stop()
    assert caught.value is error


def test_a_handler_can_call_its_own_server() -> None:
    def nested(connection: Connection) -> bytes:
        depth = int(connection.recv(10))
        return b"." if depth == 0 else b"." + exchange(server, b"%d" % (depth - 1))

    with TCPServer(handler=nested) as server:
        assert exchange(server, b"5") == b"......"


def test_a_handler_can_stop_its_own_server() -> None:
    reports = []
    server = TCPServer(handler=lambda connection: reports.append(server.stop())).start()
    with connect(server) as client:
        client.recv(1)
    assert server.stop().rung in ("ask", "none")
    assert [report.rung for report in reports] == ["ask"]


def test_handlers_that_block_do_not_delay_each_other() -> None:
    count = 20
    together = threading.Barrier(count, timeout=LONG)

    def meet(connection: Connection) -> bytes:
        together.wait()
        return b"met"

    with TCPServer(handler=meet) as server:
        clients = [connect(server) for _ in range(count)]
        assert [read_all(client) for client in clients] == [b"met"] * count
        for client in clients:
            client.close()


# The connection, method by method --------------------------------------------------------------


def in_handler(script: Callable[[Connection], Any], client: Callable[[socket.socket], Any]) -> Any:
    """Run ``script`` in a handler and a client; returns its result, or raises its error."""
    results = []
    done = threading.Event()

    def run(connection: Connection) -> None:
        try:
            results.append(script(connection))
        finally:
            done.set()

    with TCPServer(handler=run) as server:
        with connect(server) as sock:
            client(sock)
        assert done.wait(LONG)
    return results[0]


def say(data: bytes) -> Callable[[socket.socket], None]:
    """Send, half-close, and read to the end."""

    def client(sock: socket.socket) -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        read_all(sock)

    return client


def recv_into(connection: Connection) -> bytes:
    buffer = bytearray(10)
    assert connection.recv_exactly(0) == b""
    size = connection.recv_into(buffer, 3)
    size += connection.recv_into(memoryview(buffer)[size:])
    return bytes(buffer[:size])


@pytest.mark.parametrize(
    "read",
    [
        lambda c: c.recv_exactly(6),
        lambda c: c.recv(6, socket.MSG_WAITALL),
        lambda c: c.recv_exactly(1) + c.recv(1) + c.rfile.read(4),
        lambda c: c.rfile.readline(),
        lambda c: c.makefile("rb").read(),
        lambda c: c.makefile("rb", 0).read(6),
        lambda c: c.makefile("r", encoding="ascii").read().encode(),
        lambda c: c.connection.recv_exactly(6),
        recv_into,
    ],
)
def test_each_method_that_reads(read: Callable[[Connection], bytes]) -> None:
    assert in_handler(read, say(b"abcdef")) == b"abcdef"


def test_a_peek_leaves_the_data() -> None:
    def peek(connection: Connection) -> tuple[bytes, bytes]:
        return connection.recv(2, socket.MSG_PEEK), connection.recv_exactly(4)

    assert in_handler(peek, say(b"abcd")) == (b"ab", b"abcd")


def write_through(connection: Connection) -> None:
    assert connection.send(b"a") == 1
    connection.sendall(memoryview(b"b"))
    connection.wfile.write(b"c")
    with connection.makefile("wb") as file:
        file.write(b"d")
    with connection.makefile("w", encoding="ascii") as text:
        text.write("e")
    with connection.makefile("rwb") as both:
        both.write(b"f" + both.read(1))


def test_each_method_that_writes() -> None:
    with TCPServer(handler=write_through) as server:
        assert exchange(server, b"g") == b"abcdefg"


def test_the_end_of_the_stream_is_empty_again_and_again() -> None:
    reads = in_handler(lambda c: [c.recv(10), c.recv(10), c.recv(10)], say(b"x"))
    assert reads == [b"x", b"", b""]


def test_recv_exactly_names_what_came_before_the_client_closed() -> None:
    def read(connection: Connection) -> str:
        with pytest.raises(EOFError) as caught:
            connection.recv_exactly(10)
        return str(caught.value)

    assert in_handler(read, say(b"abc")) == "the client closed after 3 of 10 bytes: b'abc'"


def test_recv_exactly_names_what_came_before_the_time_was_up() -> None:
    def read(connection: Connection) -> str:
        connection.recv(1)
        connection.settimeout(0.01)
        with pytest.raises(TimeoutError) as caught:
            connection.recv_exactly(10)
        return str(caught.value)

    def client(sock: socket.socket) -> None:
        sock.sendall(b"abc")
        sock.recv(1)

    assert "of 10 bytes: b'" in in_handler(read, client)


@pytest.mark.parametrize("how", ["recv", "recv_exactly"])
def test_a_silent_client_times_the_handler_out(how: str) -> None:
    def read(connection: Connection) -> float | None:
        connection.settimeout(0.01)
        with pytest.raises(TimeoutError):
            getattr(connection, how)(1)
        return connection.gettimeout()

    assert in_handler(read, lambda sock: sock.recv(1)) == 0.01


def test_without_blocking_there_is_nothing_to_read() -> None:
    def read(connection: Connection) -> int:
        connection.setblocking(False)
        with pytest.raises(BlockingIOError) as caught:
            connection.recv(1)
        return caught.value.errno

    assert in_handler(read, lambda sock: sock.recv(1)) == errno.EAGAIN


def test_a_client_that_does_not_read_blocks_sendall_until_the_timeout() -> None:
    def flood(connection: Connection) -> None:
        assert connection.recv(1)  # so it has connected: connect() raises a reset
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.sendall(bytes(64 * MIB))
        connection.reset()

    over = threading.Event()

    def handler(connection: Connection) -> None:
        flood(connection)
        over.set()

    with TCPServer(handler=handler) as server, connect(server) as client:
        client.sendall(b"1")
        assert over.wait(LONG)


@pytest.mark.parametrize(
    "misuse, error",
    [
        (lambda c: c.recv(-1), ValueError),
        (lambda c: c.recv_exactly(-1), ValueError),
        (lambda c: c.recv(1, socket.MSG_OOB), ValueError),
        (lambda c: c.settimeout(-1), ValueError),
        (lambda c: c.sendall("text"), TypeError),
        (lambda c: c.shutdown(99), ValueError),
        (lambda c: c.setsockopt(1, 2, "text"), TypeError),
        (lambda c: c.setsockopt("a", 2, 1), TypeError),  # as a socket does
        (lambda c: c.setsockopt(1, 2.0, 1), TypeError),
        (lambda c: c.setsockopt(1, 2, None), TypeError),
        (lambda c: c.setsockopt(1, 2, [1, 2]), TypeError),
        (lambda c: c.setsockopt(1, 2, 1 << 31), OverflowError),
        (lambda c: c.setsockopt(1 << 70, 2, 1), OverflowError),
        (lambda c: c.settimeout(float("nan")), ValueError),
        (lambda c: c.settimeout("1"), TypeError),
        (lambda c: c.recv(1.5), TypeError),
        (lambda c: c.recv_into(bytearray(1), 2), ValueError),
        (lambda c: c.recv_into(b"1"), TypeError),
        (lambda c: c.wfile.write(5), TypeError),  # not five zeros
        (lambda c: c.wfile.writelines([[1, 2]]), TypeError),
        (lambda c: (c.shutdown_write(), c.sendall(b"x")), BrokenPipeError),
        (lambda c: (c.close(), c.recv(1)), OSError),
        (lambda c: (c.close(), c.sendall(b"x")), OSError),
        (lambda c: (c.reset(), c.shutdown(socket.SHUT_WR)), OSError),
    ],
)
def test_misuse_raises_in_the_handler_and_harms_no_other_connection(
    misuse: Callable[[Connection], Any], error: type[Exception]
) -> None:
    def handler(connection: Connection) -> bytes | None:
        if connection.recv(1) == b"1":
            with pytest.raises(error):
                misuse(connection)
            return None
        return b"fine"

    with TCPServer(handler=handler) as server:
        with connect(server) as client:
            client.sendall(b"1")
            drop(client)
        assert exchange(server, b"2") == b"fine"


def test_addresses_are_those_of_the_socket() -> None:
    names: list[Any] = []

    def handler(connection: Connection) -> None:
        names.extend([connection.getpeername(), connection.getsockname()])

    with TCPServer(handler=handler) as server, connect(server) as client:
        read_all(client)
        assert names == [client.getsockname(), client.getpeername()]


def test_an_option_reaches_the_real_socket() -> None:
    linger = b"\1\0\0\0\0\0\0\0"  # struct linger {1, 0}: a close resets

    def handler(connection: Connection) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    with TCPServer(handler=handler) as server:
        expect_reset(server)


def test_an_option_that_cannot_be_set_is_reported() -> None:
    with TCPServer(handler=lambda c: c.setsockopt(socket.SOL_SOCKET, 9999, 1)) as server:
        assert exchange(server, b"") == b""
        assert "setsockopt(1, 9999) failed" in server.diagnostics[0].text


# How connections end ---------------------------------------------------------------------------


def test_a_client_that_half_closes_still_gets_its_answer() -> None:
    with TCPServer(handler=lambda c: b"%d" % len(c.rfile.read())) as server:
        assert exchange(server, bytes(1000)) == b"1000"


def test_a_handler_that_half_closes_can_still_read() -> None:
    def handler(connection: Connection) -> None:
        connection.sendall(b"your turn")
        connection.shutdown(socket.SHUT_WR)
        heard.append(connection.rfile.read())

    heard: list[bytes] = []
    with TCPServer(handler=handler) as server:
        with connect(server) as client:
            assert read_all(client) == b"your turn"
            client.sendall(b"thanks")
        server.wait_for(1)
    assert heard == [b"thanks"]


@pytest.mark.parametrize("leave", ["reset", "close", "context"])
def test_what_a_client_sees_of_the_end(leave: str) -> None:
    def handler(connection: Connection) -> None:
        connection.sendall(b"x")
        connection.recv(1)
        if leave == "context":
            with connection:
                return
        getattr(connection, leave)()

    with TCPServer(handler=handler) as server, connect(server) as client:
        assert client.recv(1) == b"x"
        client.sendall(b"y")
        if leave == "reset":
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        else:
            assert client.recv(1) == b""


def drop(client: socket.socket) -> None:
    """Read until the connection has ended in any way."""
    with contextlib.suppress(ConnectionResetError):
        read_all(client)


def reset_now(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


@pytest.mark.parametrize("io", [lambda c: c.recv(1), lambda c: c.sendall(bytes(64 * MIB))])
def test_a_client_that_resets_wakes_the_handler(io: Callable[[Connection], Any]) -> None:
    reading, raised = threading.Event(), threading.Event()

    def handler(connection: Connection) -> None:
        reading.set()
        with pytest.raises(ConnectionResetError):
            io(connection)
        raised.set()

    with TCPServer(handler=handler) as server:
        client = connect(server)
        assert reading.wait(LONG)
        reset_now(client)
        assert raised.wait(LONG)


def test_a_client_that_leaves_is_no_error_but_a_diagnostic() -> None:
    with TCPServer(handler=lambda c: c.sendall(bytes(64 * MIB))) as server:
        client = connect(server)
        client.recv(1)
        reset_now(client)
        server.wait_for(1)
    assert not server.errors
    assert "the client left" in server.diagnostics[0].text


@pytest.mark.parametrize("size", [1, 64 * MIB], ids=["it is answered", "its client leaves"])
def test_a_connection_whose_handler_is_done_is_gone_at_once(size: int) -> None:
    """Without the garbage collector."""
    connections: list[weakref.ref[Connection]] = []

    def handler(connection: Connection) -> None:
        connections.append(weakref.ref(connection))
        connection.sendall(bytes(size))

    gc.disable()
    try:
        with TCPServer(handler=handler) as server:
            client = connect(server)
            client.recv(1)
            reset_now(client)
        assert [connection() for connection in connections] == [None]
    finally:
        gc.enable()


def test_what_a_handler_raises_about_a_client_that_left_reaches_the_stop() -> None:
    def handler(connection: Connection) -> None:
        with contextlib.suppress(ConnectionResetError):
            connection.sendall(bytes(64 * MIB))
        raise ValueError("expected")

    for _ in range(20):  # the stop is asked for while the handler notices
        with pytest.raises(ValueError, match="expected"):
            with TCPServer(handler=handler) as server:
                client = connect(server)
                client.recv(1)
                reset_now(client)


def upload(client: socket.socket) -> None:
    with contextlib.suppress(ConnectionError):
        client.sendall(bytes(8 * MIB))


@pytest.mark.parametrize("size", [5, 16 * MIB])
def test_a_reply_is_not_lost_when_the_handler_has_not_read_everything(size: int) -> None:
    with TCPServer(handler=lambda connection: bytes(size)) as server, connect(server) as client:
        sender = threading.Thread(target=upload, args=(client,))
        sender.start()
        assert len(read_all(client)) == size
        sender.join(LONG)
        assert not sender.is_alive()


@pytest.mark.parametrize("leave", [lambda c: None, lambda c: c.shutdown_write()])
def test_a_client_that_resets_unnoticed_does_not_disturb_the_server(
    leave: Callable[[Connection], None], caplog: pytest.LogCaptureFixture
) -> None:
    gone = threading.Event()

    def handler(connection: Connection) -> None:
        gone.wait(LONG)
        leave(connection)

    with TCPServer(handler=handler) as server:
        client = connect(server)
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):  # so the server reads no more, and cannot notice
            client.sendall(bytes(64 * MIB))
        reset_now(client)
        gone.set()
        server.wait_for(1)
        server.stop()
    assert not caplog.records


# Big transfers ---------------------------------------------------------------------------------

BIG = bytes(range(256)) * 4096 * 32  # 32 MiB

# What a child may need for a stream, however long it is: a window, a copy of it while its buffer
# grows, and as much again for the buffers of the pipe and what the allocator keeps.
BUFFERED = 3 * WINDOW
assert len(BIG) > 2 * BUFFERED


def test_a_big_upload_arrives_whole() -> None:
    def digest(connection: Connection) -> bytes:
        sha = hashlib.sha1()
        while data := connection.recv(1 << 20):
            sha.update(data)
        return sha.digest()

    with TCPServer(handler=digest, keep=MIB) as server:
        assert exchange(server, BIG) == hashlib.sha1(BIG).digest()
        assert server.received[0].cut == len(BIG) - MIB // 4


def test_a_big_download_arrives_whole() -> None:
    with TCPServer(handler=lambda connection: BIG) as server:
        assert exchange(server, b"") == BIG


def faults_of(server: TCPServer) -> int:
    """How often the kernel has given a page of memory to the server's process."""
    return int(Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[7])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_a_big_download_passes_through_memory_that_stays() -> None:
    """New pages for each piece took the server's process longer than all the rest."""
    pieces = 64

    def serve(connection: Connection) -> None:
        for _ in range(pieces):
            connection.sendall(bytes(MIB))

    with TCPServer(handler=serve) as server:
        before = faults_of(server)
        with connect(server) as client:
            assert len(read_all(client)) == pieces * MIB
        assert faults_of(server) - before < pieces * MIB // mmap.PAGESIZE // 4


def test_a_handler_that_does_not_read_costs_no_memory() -> None:
    release = threading.Event()
    with TCPServer(handler=lambda connection: release.wait(LONG) and None, keep=MIB) as server:
        before = server.stats().rss
        with connect(server) as client:
            client.settimeout(0.3)
            with pytest.raises(TimeoutError):
                client.sendall(BIG)
            assert server.stats().rss - before < BUFFERED
            release.set()


def test_a_client_that_does_not_read_costs_no_memory() -> None:
    def flood(connection: Connection) -> None:
        assert connection.recv(1)  # so it has connected
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.sendall(BIG)
        grown.append(server.stats().rss - before)
        connection.reset()

    grown: list[int] = []
    with TCPServer(handler=flood) as server:
        before = server.stats().rss
        with connect(server) as client:
            client.sendall(b"1")
            server.wait_for(1, LONG)
    assert grown[0] < BUFFERED


# What is received ------------------------------------------------------------------------------


def test_a_transcript_has_addresses_data_and_end() -> None:
    with TCPServer() as server:
        with connect(server) as client:
            name = client.getsockname()
            client.sendall(b"hello")
        transcript = server.wait_for(1)[0]
        assert transcript == Transcript(
            client_address=name,
            server_address=server.server_address,
            data=b"hello",
            ended="closed by the client",
        )


def test_a_transcript_is_shown_in_a_line() -> None:
    with TCPServer() as server:
        with connect(server) as client:
            client.sendall(bytes(MIB))
        shown = repr(server.wait_for(1)[0])
    assert shown.startswith("<Transcript from ('127.0.0.1', ")
    assert shown.endswith("closed by the client>")
    assert len(shown) < 200


@pytest.mark.parametrize(
    "handler, client, ended",
    [
        (None, reset_now, "reset by the client"),
        (lambda c: c.recv(1), reset_now, "reset by the client"),
        (lambda c: c.recv(1), socket.socket.close, "closed by the client"),
        (lambda c: None, read_all, "closed by the handler"),
        (
            lambda c: c.recv(1) and c.reset(),
            lambda s: (s.sendall(b"x"), drop(s)),
            "reset by the handler",
        ),
    ],
)
def test_a_transcript_says_which_side_ended_it(handler: Any, client: Any, ended: str) -> None:
    with TCPServer(handler=handler) as server:
        sock = connect(server)
        client(sock)
        sock.close()
        assert server.wait_for(1)[0].ended == ended


def test_a_transcript_says_that_the_server_stopped() -> None:
    server = TCPServer(handler=lambda c: c.recv(1) and None).start()
    with connect(server):
        server.stop()
    assert [transcript.ended for transcript in server.received] == [
        "closed by the stop of the server"
    ]


@pytest.mark.parametrize("handler", [None, lambda c: c.rfile.read() and None], ids=["no", "yes"])
def test_nothing_sent_before_the_stop_is_lost(handler: Any) -> None:
    server = TCPServer(handler=handler).start()
    data = bytes(2 * MIB)
    for _ in range(10):
        with connect(server) as client:
            client.sendall(b"small")
    with connect(server) as client:
        client.sendall(data) if handler is None else client.sendall(data[: MIB // 8])
    server.stop()
    sizes = sorted(len(transcript.data) for transcript in server.received)
    assert sizes == [5] * 10 + [2 * MIB if handler is None else MIB // 8]
    assert not server.errors


def test_a_big_upload_before_the_stop_reaches_its_handler_whole() -> None:
    def slurp(connection: Connection) -> None:
        opened.set()
        sizes.append(len(connection.rfile.read()))

    opened, sizes = threading.Event(), []
    server = TCPServer(handler=slurp).start()
    with connect(server) as client:
        client.sendall(bytes(2 * MIB))
    server.stop()
    assert sizes == [2 * MIB]


def test_at_most_keep_bytes_are_kept_and_dropped_records_are_counted() -> None:
    with TCPServer(keep=5 * (200 + OVERHEAD)) as server:
        for count in range(1, 11):
            with connect(server) as client:
                client.sendall(bytes([count]) * 200)
            server.wait_for(count)
        received = server.received
    assert [r.data[0] for r in received] == [6, 7, 8, 9, 10]
    assert received.dropped == 5


# Stop ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignore", [True, False], ids=["caught", "raised"])
def test_a_stop_wakes_a_handler_that_reads_and_that_is_no_error(ignore: bool) -> None:
    reading, woken = threading.Event(), threading.Event()

    def handler(connection: Connection) -> None:
        reading.set()
        try:
            connection.recv(1)
        except ServerStopped:
            woken.set()
            if not ignore:
                raise

    server = TCPServer(handler=handler).start()
    with connect(server) as client:
        assert reading.wait(LONG)
        assert server.stop(LONG).seconds < LONG / 2
        assert woken.wait(LONG)
        assert read_all(client) == b""
    assert not server.errors


def test_an_idle_client_does_not_delay_a_stop() -> None:
    server = TCPServer().start()
    with connect(server) as client:
        client.sendall(b"partial")
        assert server.stop(LONG).seconds < LONG / 2
        assert read_all(client) == b""
    assert [(r.data, r.ended) for r in server.received] == [(b"partial", "closed by the server")]


def test_a_client_that_sends_without_end_does_not_hold_up_a_stop() -> None:
    server = TCPServer().start()
    with connect(server) as client:
        sender = threading.Thread(target=send_until_refused, args=(client,))
        sender.start()
        assert server.stop().rung == "ask"
        sender.join(LONG)
        assert not sender.is_alive()


def send_until_refused(client: socket.socket) -> None:
    deadline = time.monotonic() + LONG
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < deadline:
            client.sendall(bytes(1 << 16))


def test_a_reply_in_progress_reaches_its_client_through_a_stop() -> None:
    replying = threading.Event()

    def handler(connection: Connection) -> bytes:
        replying.set()
        return bytes(8 * MIB)

    server = TCPServer(handler=handler).start()
    with connect(server) as client:
        assert replying.wait(LONG)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        assert len(read_all(client)) == 8 * MIB
        stopper.join(LONG)
    assert server.stop_report.rung == "ask"
