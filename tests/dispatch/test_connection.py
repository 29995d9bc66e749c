"""A thread that is blocked in a connection is woken by whatever ends the connection."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from kit.raw_http import RawClient
from kit.scripts import eventually
from sidestage import HTTPServer, ServerDied, ServerStopped, TCPServer

LONG = 30.0  # seconds; a bound for what ends at once unless it is broken
FLOOD = bytes(1 << 20)
CONNECT = "CONNECT t:80 HTTP/1.1\r\nHost: t:80\r\n\r\n"


def flood(connection: Any) -> None:
    """Send more than a client that does not read lets through."""
    while True:
        connection.sendall(FLOOD)


READS: dict[str, Callable[[Any], Any]] = {
    "recv": lambda c: c.recv(10),
    "recv_exactly": lambda c: c.recv_exactly(10),
    "MSG_WAITALL": lambda c: c.recv(10, socket.MSG_WAITALL),
    "MSG_PEEK": lambda c: c.recv(10, socket.MSG_PEEK),
    "recv_into": lambda c: c.recv_into(bytearray(10)),
    "rfile": lambda c: c.rfile.read(10),
    "lines": lambda c: list(c.rfile),
    "makefile": lambda c: c.makefile("r").read(),
    "with a long time-out": lambda c: (c.settimeout(LONG * 2), c.recv(10))[1],
}
WRITES: dict[str, Callable[[Any], Any]] = {
    "sendall": flood,
    "wfile": lambda c: [c.wfile.write(FLOOD) for _ in range(1000)],
    "makefile": lambda c: c.makefile("wb").write(FLOOD * 100),
}
ALL = [*((READS, name) for name in READS), *((WRITES, name) for name in WRITES)]
every_io = pytest.mark.parametrize("kind, name", ALL, ids=[name for _, name in ALL])


class Blocked:
    """An operation on a connection, which another thread is blocked in."""

    def __init__(self, connection: Any, operation: Callable[[Any], Any]) -> None:
        self.outcome: Future[Any] = Future()
        self._connection, self._operation = connection, operation
        threading.Thread(target=self._run, daemon=True).start()
        call = connection._call
        waiting = (call.inflow._changed, call.outflow._changed)
        assert eventually(lambda: any(changed._waiters for changed in waiting), LONG)

    def _run(self) -> None:
        try:
            self.outcome.set_result(self._operation(self._connection))
        except BaseException as error:  # noqa: BLE001 - the outcome
            self.outcome.set_exception(error)

    def error(self) -> BaseException | None:
        """What it has raised, once it is woken."""
        return self.outcome.exception(LONG)


class Session:
    """A server of either kind, a client, and the connection as the handler gets it."""

    def __init__(self, kind: str) -> None:
        self.connected: Future[Any] = Future()
        self.done: Future[Callable[[Any], Any]] = Future()  # what the handler does last
        self.server: Any
        if kind == "TCP":
            self.server = TCPServer(handler=self._handle)
        else:
            self.server = HTTPServer(handler=self._open_tunnel)
        self._is_tunnel = kind != "TCP"

    def _open_tunnel(self, request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        self._handle(request.connection)

    def _handle(self, connection: Any) -> None:
        self.connected.set_result(connection)
        self.done.result(LONG)(connection)

    def open(self) -> tuple[socket.socket, Any]:
        client = RawClient(self.server)
        if self._is_tunnel:
            client.send(CONNECT)
            assert client.status() == 200
        return client.sock, self.connected.result(LONG)

    def finish(self, last: Callable[[Any], Any] = lambda connection: None) -> None:
        """Let the handler do ``last`` and return."""
        if not self.done.done():
            self.done.set_result(last)


@pytest.fixture(params=["TCP", "tunnel"])
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    session = Session(request.param)
    with session.server:
        try:
            yield session
        finally:
            session.finish()


@every_io
@pytest.mark.parametrize("way", ["close", "reset"])
def test_a_close_in_another_thread(kind: Any, name: str, way: str, session: Session) -> None:
    client, connection = session.open()
    with client:
        blocked = Blocked(connection, kind[name])
        getattr(connection, way)()
        error = blocked.error()
        assert isinstance(error, OSError)
        assert error.errno == errno.EBADF


@every_io
@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
def test_the_end_of_the_handler(kind: Any, name: str, fails: bool, session: Session) -> None:
    def fail(connection: Any) -> None:
        raise LookupError

    client, connection = session.open()
    with client:
        blocked = Blocked(connection, kind[name])
        session.finish(fail) if fails else session.finish()
        error = blocked.error()
        assert isinstance(error, OSError)
        assert error.errno == errno.EBADF
    with pytest.raises(LookupError) if fails else contextlib.nullcontext():
        session.server.stop()


@every_io
def test_a_reset_by_the_client(kind: Any, name: str, session: Session) -> None:
    client, connection = session.open()
    blocked = Blocked(connection, kind[name])
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert isinstance(blocked.error(), ConnectionResetError)


@every_io
def test_a_stop_of_the_server(kind: Any, name: str, session: Session) -> None:
    client, connection = session.open()
    with client:
        blocked = Blocked(connection, kind[name])
        stop = threading.Thread(target=session.server.stop, args=(1.0,))
        stop.start()
        assert isinstance(blocked.error(), ServerStopped)
        session.finish()
        stop.join(LONG)


@every_io
def test_the_death_of_the_server(kind: Any, name: str, session: Session) -> None:
    client, connection = session.open()
    with client:
        blocked = Blocked(connection, kind[name])
        os.kill(session.server.pid, signal.SIGKILL)
        assert isinstance(blocked.error(), ServerStopped)
        session.finish()
        with pytest.raises(ServerDied):
            session.server.stop()


@pytest.mark.parametrize("how", [socket.SHUT_RD, socket.SHUT_RDWR])
@pytest.mark.parametrize("name", ["recv", "MSG_WAITALL", "MSG_PEEK", "rfile", "makefile", "lines"])
def test_a_shutdown_for_reading_is_the_end(how: int, name: str, session: Session) -> None:
    client, connection = session.open()
    with client:
        blocked = Blocked(connection, READS[name])
        connection.shutdown(how)
        assert not blocked.outcome.result(LONG)


@pytest.mark.parametrize("how", [socket.SHUT_WR, socket.SHUT_RDWR])
@pytest.mark.parametrize("name", WRITES)
def test_a_shutdown_for_writing_breaks_the_pipe(how: int, name: str, session: Session) -> None:
    client, connection = session.open()
    with client:
        blocked = Blocked(connection, WRITES[name])
        connection.shutdown(how)
        assert isinstance(blocked.error(), BrokenPipeError)
        session.finish()
        while client.recv(1 << 20):  # what was sent before still comes, and then the end
            pass


def test_nothing_is_sent_after_a_shutdown(session: Session) -> None:
    """Another thread was about to send, past all checks."""
    client, connection = session.open()
    with client:
        outflow = connection._call.outflow
        send = outflow._send

        def late(message: Any) -> None:
            outflow._send = send
            connection.shutdown_write()
            send(message)

        outflow._send = late
        with pytest.raises(BrokenPipeError):
            connection.sendall(b"too late")
        session.finish()
        assert client.recv(100) == b""
    assert session.server.errors == ()
    assert session.server.stop().clean


@pytest.mark.filterwarnings("ignore::sidestage.LeftRunningWarning")
def test_a_connection_that_another_thread_has_closed_stays_closed(session: Session) -> None:
    client, connection = session.open()
    with client:
        client.sendall(b"unread")
        Blocked(connection, flood)
        connection.close()
        for use in (lambda: connection.recv(1), lambda: connection.sendall(b"x")):
            with pytest.raises(OSError, match="closed this connection") as caught:
                use()
            assert caught.value.errno == errno.EBADF
        session.server.stop()
        with pytest.raises(OSError, match="closed this connection"):
            connection.recv(1)
