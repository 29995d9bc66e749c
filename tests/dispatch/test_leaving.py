"""A stop does not wait for clients that are not there, and names the handlers that run on."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import smtplib
import socket
import struct
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kit.scripts import eventually
from sidestage import (
    HTTPServer,
    LeftRunningWarning,
    ServerManager,
    SMTPServer,
    StopReport,
    TCPServer,
)

WAIT = 10.0  # seconds; no test comes near it
SOON = 1.5  # seconds that no stop here comes near; each took more than three before
HERE = Path(__file__).name
HEAD = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
MAIL = b"EHLO me\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n\r\n.\r\n"

Serve = Callable[..., Any]
ASKED: dict[Serve, bytes] = {HTTPServer: HEAD, SMTPServer: MAIL}
with_each = pytest.mark.parametrize("serve", ASKED, ids=lambda serve: serve.protocol)


class Handling:
    """A handler that is told when to end, and tells when it has begun."""

    def __init__(self, release: threading.Event) -> None:
        self.begun, self.ended, self.release = threading.Event(), threading.Event(), release
        self.error: BaseException | None = None

    def blocks(self, request: Any) -> None:
        self.begun.set()
        self.release.wait()
        self.ended.set()

    def sees_it(self, request: Any) -> None:
        self.begun.set()
        assert request.client_gone.wait(WAIT)
        self.ended.set()

    async def coroutine(self, request: Any) -> None:
        self.begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.ended.set()

    async def clings(self, request: Any) -> None:
        self.begun.set()
        while not self.release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        self.ended.set()


@pytest.fixture
def handling(release: threading.Event) -> Handling:
    return Handling(release)


def connected(server: Any, handling: Handling) -> socket.socket:
    """A client whose request the handler has."""
    client = socket.create_connection((server.host, server.port), WAIT)
    client.sendall(ASKED[type(server)])
    assert handling.begun.wait(WAIT)
    return client


def finish(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def timed(stop: Callable[[], Any]) -> Any:
    began = time.monotonic()
    done = stop()
    assert time.monotonic() - began < SOON
    return done


@contextlib.contextmanager
def named(where: str = "") -> Iterator[None]:
    """One handler is named as left running, at this line of this file."""
    with pytest.warns(LeftRunningWarning) as caught:
        yield
    [warned] = caught
    assert where in str(warned.message)
    assert f"{HERE}:{line_of('self.release.wait()')}, in blocks" in str(warned.message)


def line_of(text: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


# Plain handlers --------------------------------------------------------------------------------


@with_each
@pytest.mark.parametrize("leave", [finish, reset, socket.socket.close])
def test_a_stop_does_not_wait_for_a_handler_whose_client_is_gone(
    serve: Serve, leave: Callable[[socket.socket], None], handling: Handling
) -> None:
    server = serve(handler=handling.blocks).start()
    with connected(server, handling) as client:
        leave(client)
        with named():
            report = timed(server.stop)
        assert report.rung == "ask"
        assert not report.connections
    handling.release.set()
    assert handling.ended.wait(WAIT)
    assert not server.errors


@with_each
def test_nor_for_one_whose_client_leaves_in_the_stop(serve: Serve, handling: Handling) -> None:
    server = serve(handler=handling.blocks).start()
    with connected(server, handling) as client:
        began, stopping = time.monotonic(), threading.Event()

        def leave() -> None:
            assert eventually(lambda: server.state.value == "STOPPING")
            finish(client)
            stopping.set()

        thread = threading.Thread(target=leave)
        thread.start()
        with named():
            server.stop()
        assert time.monotonic() - began < SOON
        thread.join()
    handling.release.set()
    assert handling.ended.wait(WAIT)


def test_five_clients_that_give_up(handling: Handling) -> None:
    """As ``time.sleep(8)`` behind a time-out of a tenth of a second."""
    began = time.monotonic()
    for _ in range(5):
        with HTTPServer(handler=lambda request: handling.release.wait(8) and None) as server:
            client = http.client.HTTPConnection(server.host, server.port, timeout=0.1)
            client.request("GET", "/slow")
            with pytest.raises(TimeoutError):
                client.getresponse()
            client.close()
            with pytest.warns(LeftRunningWarning):
                server.stop()
    assert time.monotonic() - began < 2


def test_a_client_of_mail_that_gives_up(handling: Handling) -> None:
    with SMTPServer(handler=handling.blocks) as server:
        with pytest.raises(smtplib.SMTPServerDisconnected, match="timed out"):
            with smtplib.SMTP(server.host, server.port, timeout=0.2) as client:
                client.sendmail("me@x", ["you@y"], "hello")
        with named("the mail from 'me@x'"):
            timed(server.stop)
        handling.release.set()
        assert handling.ended.wait(WAIT)


@with_each
def test_a_client_that_has_stopped_sending_reads_what_is_answered(
    serve: Serve, handling: Handling
) -> None:
    """While the server runs, and in the moment that the stop leaves."""
    server = serve(handler=handling.sees_it).start()
    with connected(server, handling) as client:
        finish(client)
        assert not handling.ended.wait(0.05), "it may still read"
        assert server.stop().clean
        assert handling.ended.is_set()
        reply = b"".join(iter(lambda: client.recv(1000), b""))
        assert reply.endswith(b"\r\n\r\n" if serve is HTTPServer else b"250 OK\r\n")
    assert not server.diagnostics


@with_each
def test_a_reset_is_told_to_the_handler_at_once(serve: Serve, handling: Handling) -> None:
    with serve(handler=handling.sees_it) as server:
        with connected(server, handling) as client:
            reset(client)
            assert handling.ended.wait(WAIT)
        [record] = server.received
        assert record.client_gone.is_set()


def test_a_failed_write_is_told_too() -> None:
    told = threading.Event()

    def handler(request: Any) -> Iterator[bytes]:
        while not request.client_gone.wait(0.001):
            yield b"x"
        told.set()

    with HTTPServer(handler=handler) as server:
        with socket.create_connection(server.server_address) as client:
            client.sendall(HEAD)
            client.recv(1000)
        assert told.wait(WAIT)


@with_each
def test_who_is_there_is_not_gone(serve: Serve) -> None:
    seen: list[bool] = []
    with serve(handler=lambda request: seen.append(request.client_gone.is_set())) as server:
        with socket.create_connection((server.host, server.port)) as client:
            client.sendall(ASKED[serve])
            [record] = server.wait_for(1)
            assert eventually(lambda: seen == [False])
            assert not record.client_gone.is_set()
            assert record.client_gone is record.client_gone


@with_each
def test_the_end_of_a_stop_is_told_as_well(serve: Serve, handling: Handling) -> None:
    server = serve(handler=handling.sees_it).start()
    with connected(server, handling):
        server.stop(0.4)  # which waits for this client, as it is there
        assert handling.ended.wait(WAIT)
        assert len(server.stop_report.connections) == 1


@with_each
def test_an_answer_that_came_too_late_is_told_as_well(serve: Serve, handling: Handling) -> None:
    with serve(handler=handling.sees_it, handler_timeout=0.05) as server:
        with connected(server, handling):
            assert handling.ended.wait(WAIT)


@with_each
def test_a_reset_after_the_end_is_told_at_once(serve: Serve, handling: Handling) -> None:
    with serve(handler=handling.sees_it) as server:
        with connected(server, handling) as client:
            finish(client)
            assert not handling.ended.wait(0.05)
            reset(client)
            assert handling.ended.wait(WAIT)


@pytest.mark.parametrize("leave", [reset, socket.socket.close])
def test_a_client_that_gives_up_in_an_upload_is_not_waited_for(
    leave: Callable[[socket.socket], None], handling: Handling
) -> None:
    """The end is behind what the handler does not read."""
    server = HTTPServer(handler=handling.blocks).start()
    with socket.create_connection(server.server_address, WAIT) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.sendall(bytes(50_000_000))
        assert handling.begun.wait(WAIT)
        leave(client)
        with named("POST /"):
            timed(server.stop)
    handling.release.set()
    assert handling.ended.wait(WAIT)


def test_an_upload_that_goes_on_is_waited_for(handling: Handling) -> None:
    def handler(request: Any) -> str:
        handling.begun.set()
        handling.release.wait(0.4)  # longer than the stop is patient with those who are gone
        return str(len(request.body))

    server = HTTPServer(handler=handler).start()
    size = 15_000_000
    with socket.create_connection(server.server_address, WAIT) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        client.settimeout(0.05)
        sent = 0
        with pytest.raises(TimeoutError):  # the server reads no more
            while sent < size:
                sent += client.send(bytes(min(size - sent, 1 << 16)))
        client.settimeout(WAIT)
        sending = threading.Thread(target=client.sendall, args=(bytes(size - sent),))
        sending.start()
        assert handling.begun.wait(WAIT)
        server.stop(WAIT)
        sending.join(WAIT)
        assert b"".join(iter(lambda: client.recv(1000), b"")).endswith(b"15000000")
    assert server.stop_report.clean


def test_a_tcp_client_that_has_stopped_sending_is_waited_for() -> None:
    begun, finished = threading.Event(), threading.Event()

    def handler(connection: Any) -> bytes:
        begun.set()
        assert connection.recv(1) == b""
        finished.wait(0.3)  # three times what a stop leaves those who are gone
        return b"done"

    with TCPServer(handler=handler) as server, socket.create_connection(server.server_address) as c:
        assert begun.wait(WAIT)
        finish(c)
        assert server.stop().clean
        assert c.recv(100) == b"done"


@pytest.mark.parametrize("early", [True, False])
def test_a_tunnel_whose_client_has_stopped_sending_is_waited_for(
    early: bool, handling: Handling
) -> None:
    """Whether that was before the tunnel was open or after."""

    def handler(request: Any) -> None:
        handling.begun.set()
        assert handling.release.wait(WAIT)
        request.send_response(200)
        request.end_headers()
        assert request.connection.recv(1) == b""
        handling.ended.set()
        threading.Event().wait(0.3)
        request.connection.sendall(b"done")

    with HTTPServer(handler=handler) as server:
        with socket.create_connection(server.server_address) as client:
            client.sendall(b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n")
            assert handling.begun.wait(WAIT)
            if early:
                finish(client)
                server._sync()  # the child has seen it
            handling.release.set()
            if not early:
                assert client.recv(1) == b"H"
                finish(client)
            assert handling.ended.wait(WAIT)
            assert server.stop().clean
            assert b"".join(iter(lambda: client.recv(1000), b"")).endswith(b"\r\n\r\ndone")


def test_a_handler_that_stops_its_own_server_is_not_left_behind(handling: Handling) -> None:
    reports: list[StopReport] = []

    def handler(request: Any) -> None:
        handling.begun.set()
        assert handling.release.wait(WAIT)
        reports.append(server.stop())
        handling.ended.set()

    server = HTTPServer(handler=handler).start()
    with connected(server, handling) as client:
        finish(client)
        handling.release.set()
        assert handling.ended.wait(WAIT)
    assert reports[0].rung == "ask"
    assert not reports[0].running


# Coroutines ------------------------------------------------------------------------------------


Leave = Callable[[Any], None]


def on_own_loop(serve: Serve, handler: Any, leave: Leave, then: Any = None) -> Any:
    server = serve(handler=handler).start()
    leave(server)
    timed(server.stop)
    if then is not None:
        then()
    return server


def on_the_callers_loop(serve: Serve, handler: Any, leave: Leave, then: Any = None) -> Any:
    async def main() -> Any:
        async with serve(handler=handler) as server:
            await asyncio.to_thread(leave, server)
            began = time.monotonic()
        assert time.monotonic() - began < SOON
        if then is not None:
            then()
        return server

    return asyncio.run(main())


with_each_loop = pytest.mark.parametrize("run", [on_own_loop, on_the_callers_loop])


@with_each
@with_each_loop
@pytest.mark.parametrize("how", [finish, reset])
def test_a_stop_cancels_a_coroutine_whose_client_is_gone(
    run: Any, serve: Serve, how: Callable[[socket.socket], None], handling: Handling
) -> None:
    with contextlib.ExitStack() as clients:

        def leave(server: Any) -> None:
            client = clients.enter_context(connected(server, handling))
            how(client)
            if how is finish:
                assert not handling.ended.wait(0.05), "it may still read"

        server = run(serve, handling.coroutine, leave)
    assert isinstance(handling.error, asyncio.CancelledError)
    assert server.errors == ()
    assert server.stop_report.clean
    assert not server.stop_report.running
    assert "the client left before the handler was done" in str(server.diagnostics)


@with_each
@with_each_loop
def test_a_reset_cancels_a_coroutine_while_the_server_runs(
    run: Any, serve: Serve, handling: Handling
) -> None:
    def leave(server: Any) -> None:
        reset(connected(server, handling))
        assert handling.ended.wait(WAIT)

    server = run(serve, handling.coroutine, leave)
    assert isinstance(handling.error, asyncio.CancelledError)
    assert server.errors == ()
    assert server.received[0].answer is None


def test_a_coroutine_that_cancels_itself_has_an_error(handling: Handling) -> None:
    async def handler(request: Any) -> None:
        raise asyncio.CancelledError("its own")

    server = HTTPServer(handler=handler).start()
    client = http.client.HTTPConnection(server.host, server.port, timeout=WAIT)
    client.request("GET", "/")
    assert client.getresponse().status == 500
    client.close()
    with pytest.raises(asyncio.CancelledError, match="its own"):
        server.stop()


def test_what_a_cancelled_coroutine_raises_is_its_error(handling: Handling) -> None:
    async def handler(request: Any) -> None:
        try:
            await handling.coroutine(request)
        finally:
            raise ValueError("while it was cancelled")

    server = HTTPServer(handler=handler).start()
    reset(connected(server, handling))
    assert handling.ended.wait(WAIT)
    with pytest.raises(ValueError, match="while it was cancelled"):
        server.stop()


@with_each
@with_each_loop
def test_one_that_does_not_let_itself_be_cancelled_is_left_behind(
    run: Any, serve: Serve, handling: Handling
) -> None:
    with contextlib.ExitStack() as clients:

        def leave(server: Any) -> None:
            client = clients.enter_context(connected(server, handling))
            finish(client)

        line = line_of("await asyncio.sleep(0.01)")
        with pytest.warns(LeftRunningWarning, match=f"{HERE}:{line}, in clings"):
            server = run(serve, handling.clings, leave, handling.release.set)
    assert handling.ended.wait(WAIT)
    assert server.errors == ()


def test_one_that_blocks_its_loop_is_named_with_the_line(handling: Handling) -> None:
    async def handler(request: Any) -> None:
        handling.blocks(request)

    with HTTPServer(handler=handler) as server, connected(server, handling) as client:
        finish(client)
        with named("GET /slow"):
            timed(server.stop)
        handling.release.set()
        assert handling.ended.wait(WAIT)


def test_the_end_of_a_stop_cancels_those_whose_clients_are_there(handling: Handling) -> None:
    async def main() -> Any:
        async with HTTPServer(handler=handling.coroutine, stop_timeout=1.5) as server:
            client = await asyncio.to_thread(connected, server, handling)
        with client:
            assert handling.ended.wait(WAIT)
            assert len(server.stop_report.connections) == 1
        return server

    server = asyncio.run(main())
    assert isinstance(handling.error, asyncio.CancelledError)
    assert server.errors == ()


def test_a_stop_on_the_loop_itself_waits_for_no_coroutine_of_it(handling: Handling) -> None:
    """They could not go on anyway; they are cancelled once the loop runs."""

    async def main() -> Any:
        server = HTTPServer(handler=handling.coroutine).start()
        with await asyncio.to_thread(connected, server, handling) as client:
            finish(client)
            report = timed(server.stop)
            assert not report.running
            assert await asyncio.to_thread(handling.ended.wait, WAIT)
        return server

    server = asyncio.run(main())
    assert server.errors == ()


def test_a_tcp_coroutine_learns_of_a_reset_by_reading() -> None:
    errors: list[BaseException] = []
    begun, ended = threading.Event(), threading.Event()

    async def handler(connection: Any) -> None:
        begun.set()
        try:
            await asyncio.to_thread(connection.recv, 1)
        except OSError as error:
            errors.append(error)
            await asyncio.sleep(0.01)  # what it does then is its own affair
            ended.set()

    with TCPServer(handler=handler) as server:
        client = socket.create_connection(server.server_address)
        assert begun.wait(WAIT)
        reset(client)
        assert ended.wait(WAIT)
    assert isinstance(errors[0], ConnectionResetError)


# What is told ----------------------------------------------------------------------------------


def test_handlers_at_one_line_are_told_together(release: threading.Event) -> None:
    server = HTTPServer(handler=lambda request: release.wait() and None).start()
    clients = [socket.create_connection(server.server_address) for _ in range(3)]
    for client in clients:
        client.sendall(HEAD)
    server.wait_for(3)
    for client in clients:
        client.close()
    with pytest.warns(LeftRunningWarning, match="GET /slow and 2 more at .*in <lambda>") as caught:
        server.stop()
    assert len(caught) == 1
    assert len(server.stop_report.running) == 1
    assert "runs on: GET /slow and 2 more" in str(server.stop_report)


@pytest.mark.parametrize("awaited", [False, True])
def test_a_generator_is_named_where_it_is(awaited: bool, handling: Handling) -> None:
    """Also one that a coroutine has returned."""

    def pieces() -> Iterator[bytes]:
        yield b"first"
        handling.blocks(None)
        yield b"last"

    async def coroutine(request: Any) -> Any:
        return pieces()

    handler = coroutine if awaited else lambda request: pieces()
    server = HTTPServer(handler=handler).start()
    with connected(server, handling) as client:
        finish(client)
        with named("GET /slow"):
            timed(server.stop)
    handling.release.set()
    assert handling.ended.wait(WAIT)


def test_it_is_told_once(handling: Handling) -> None:
    server = HTTPServer(handler=handling.blocks).start()
    with connected(server, handling) as client:
        finish(client)
        with named():
            server.restart()
        server.stop()  # any warning would be an error here
    handling.release.set()
    assert handling.ended.wait(WAIT)


def test_it_can_be_filtered(handling: Handling) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", LeftRunningWarning)
        with HTTPServer(handler=handling.blocks) as server:
            connected(server, handling).close()
    assert not caught
    handling.release.set()
    assert handling.ended.wait(WAIT)


def test_where_it_is_an_error_everything_is_stopped_all_the_same(handling: Handling) -> None:
    manager = ServerManager(one=HTTPServer(handler=handling.blocks), two=HTTPServer())
    with pytest.raises(LeftRunningWarning, match="'one'"), manager:
        connected(manager["one"], handling).close()
    assert [server.state.value for server in manager.values()] == ["STOPPED", "STOPPED"]
    handling.release.set()
    assert handling.ended.wait(WAIT)


def test_a_handler_that_ends_in_time_is_not_named(handling: Handling) -> None:
    def handler(request: Any) -> None:
        handling.begun.set()
        request.client_gone.wait(WAIT)
        handling.release.wait(0.03)  # to tidy up

    with HTTPServer(handler=handler) as server:
        connected(server, handling).close()
        timed(server.stop)
    assert not server.stop_report.running


def test_a_handler_that_waits_in_a_package_is_named_by_its_own_line(handling: Handling) -> None:
    condition = threading.Condition()

    def handler(request: Any) -> None:
        handling.begun.set()
        with condition:
            condition.wait_for(handling.release.is_set)  # the line
        handling.ended.set()

    with HTTPServer(handler=handler) as server:
        connected(server, handling).close()
        with pytest.warns(LeftRunningWarning, match=f"{HERE}:{line_of('# the line')}, in handler"):
            server.stop()
    handling.release.set()
    with condition:
        condition.notify_all()
    assert handling.ended.wait(WAIT)
