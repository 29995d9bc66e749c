"""What one process sends and the other cannot take: named, and survived where that is possible."""

from __future__ import annotations

import contextlib
import os
import smtplib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kit.fake_children import host
from kit.raw_http import RawClient
from sidestage import (
    HTTPResponse,
    HTTPServer,
    ServerDied,
    SidestageError,
    SMTPServer,
    StartError,
    TCPServer,
    UDPServer,
)
from sidestage.dispatch.calls import current
from sidestage.process.pool import pool
from sidestage.protocols.http.messages import Respond
from sidestage.protocols.smtp.messages import MailReply
from sidestage.protocols.udp.messages import SendTo
from sidestage.wire import frames
from sidestage.wire.frames import HEAD, MAX_FRAME
from sidestage.wire.messages import Data, Lost, SetOption

__all__ = ["host"]  # the fixture

LONG = 30.0  # seconds; a bound for what ends at once unless it is broken
GET = "GET / HTTP/1.1\r\nHost: t\r\n\r\n"
ANY: Any = None


def ask_http(server: Any) -> str:
    with RawClient(server) as client:
        client.send(GET)
        try:
            return str(client.answer()[0])
        except (ConnectionResetError, ValueError, IndexError):
            return "a reset"


def ask_smtp(server: Any) -> str:
    with smtplib.SMTP(server.host, server.port) as client:
        try:
            client.sendmail("me@x", ["you@x"], b"Subject: x\r\n\r\nx")
        except smtplib.SMTPDataError as error:
            return str(error.smtp_code)
        return "250"


def ask_tcp(server: Any) -> str:
    with socket.create_connection(server.server_address, LONG) as client:
        client.sendall(b"x")
        try:
            return client.recv(100).decode()
        except ConnectionResetError:
            return "a reset"


def ask_udp(server: Any) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(LONG)
        client.connect(server.server_address)
        client.send(b"x")
        return client.recv(100).decode()


def read(request: Any) -> bytes:
    """Reply for TCP, once the client's byte is there."""
    request.recv(1)
    return b"fine"


def send_badly(message: Callable[[int], Any]) -> None:
    """Send what the server's process cannot decode, as the call whose handler this is."""
    call = current.get()
    call.run.send(message(call.id))


# In each row: the server, what is sent in place of an answer, what the client gets, and then.
COMMANDS: dict[str, tuple[Any, Any, Any, str, str]] = {
    "Respond": (
        HTTPServer,
        lambda number: Respond(
            call=number,
            status="200",  # type: ignore[arg-type]
            reason="",
            headers=(),
            body=b"",
            length=0,
            more=False,
        ),
        ask_http,
        "a reset",
        "200",
    ),
    "MailReply": (
        SMTPServer,
        lambda number: MailReply(call=number, reply=250),  # type: ignore[arg-type]
        ask_smtp,
        "451",
        "250",
    ),
    "SetOption": (
        TCPServer,
        lambda number: SetOption(call=number, level=1, name=1, value=True),
        ask_tcp,
        "a reset",
        "fine",
    ),
    "SendTo": (
        UDPServer,
        lambda number: SendTo(listener=0, address=("127.0.0.1", 9), data="x"),  # type: ignore[arg-type]
        ask_udp,
        "fine",
        "fine",
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_cannot_be_decoded_ends_its_call_only(name: str) -> None:
    kind, message, ask, failure, success = COMMANDS[name]
    bad = threading.Event()
    over = threading.Event()

    def handler(request: Any) -> Any:
        if not bad.is_set():
            bad.set()
            if kind is TCPServer:
                request.recv(1)
            send_badly(message)
            if kind is not UDPServer:
                assert over.wait(LONG)
        elif kind is TCPServer:
            return read(request)
        return b"fine" if kind in (TCPServer, UDPServer) else None

    server = kind(handler=handler).start()
    pid = server.pid
    assert ask(server) == failure
    over.set()
    assert ask(server) == success
    assert server.pid == pid
    with pytest.raises(SidestageError, match=f"could not read a message: {name}"):
        server.stop()
    assert server.stop_report.clean


def run_of(server: Any) -> Any:
    return server._lifecycle.backend.run


@contextlib.contextmanager
def saying(server: Any, frame: bytes, *, instead: bool = False) -> Iterator[None]:
    """Have the server's process say ``frame`` before the next that it says, or in its place."""
    buffer = run_of(server).child.channel.buffer
    split = buffer.split

    def garbled(data: bytes) -> Any:
        buffer.split = split
        messages, _, needed = split(frame if instead else frame + data)
        return messages, len(data), needed

    buffer.split = garbled
    yield


def framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(HEAD, "big") + payload


def test_an_event_that_cannot_be_decoded_is_named_and_the_server_goes_on() -> None:
    server = HTTPServer(handler=lambda request: "fine").start()
    pid = server.pid
    with saying(server, framed(b"\x91\x93\x01\xa1x\xc4\x00")):  # Data, whose call is a text
        assert ask_http(server) == "200"
    assert server.pid == pid
    with pytest.raises(SidestageError, match="could not be read: Data: Expected `int`"):
        server.stop()
    assert server.stop_report.clean


def test_an_event_that_cannot_be_decoded_ends_its_call() -> None:
    """Its handler is told, in place of waiting for what will not come."""
    seen: list[BaseException] = []
    waits = threading.Event()

    def handler(connection: Any) -> None:
        connection.recv(1)
        waits.set()
        try:
            connection.recv(1)
        except ConnectionResetError as error:
            seen.append(error)
            raise

    server = TCPServer(handler=handler).start()
    with socket.create_connection(server.server_address, LONG) as client:
        client.sendall(b"x")
        assert waits.wait(LONG)
        (call,) = run_of(server)._calls.values()
        payload = b"\x91" + bytes(frames.pack(Data(call=call.id, data=b"")))
        with saying(server, framed(payload.replace(b"\xc4\x00", b"\xa1x")), instead=True):
            client.sendall(b"y")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    with pytest.raises(SidestageError, match="Data: Expected `bytes`"):
        server.stop()
    assert "could not be read" in str(seen)


def test_a_process_that_is_ready_without_an_address_fails_the_start(
    host: Callable[[str], None],
) -> None:
    host("host.listener.bind = lambda *_: []")
    with pytest.raises(StartError, match="killed by SIGKILL, because it told no address before"):
        TCPServer(fresh=True).start()


FALSE_AHEAD = """
real, told = host.listener.bound_address, []
def bound(sock):
    told.append(sock)
    return (9, "x") if len(told) == 2 else real(sock)
host.listener.bound_address = bound
"""


def test_a_process_that_tells_no_address_ahead_binds_when_it_is_asked(
    host: Callable[[str], None],
) -> None:
    pool.close()  # so that the second server gets the process of the first
    host(FALSE_AHEAD)
    with TCPServer(fresh=True) as server:
        pid = server.pid
    with TCPServer() as server, socket.create_connection(server.server_address, LONG):
        assert server.pid == pid


def test_a_call_that_cannot_be_decoded_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    server = HTTPServer(handler=lambda request: "fine").start()
    buffer = run_of(server).child.channel.buffer
    split = buffer.split

    def garbled(data: bytes) -> Any:
        messages, at, needed = split(data)
        broken = [
            frames.Undecoded("Request: garbled", type(m), m.call)
            if type(m).__name__ == "Request"
            else m
            for m in messages
        ]
        return broken, at, needed

    monkeypatch.setattr(buffer, "split", garbled)
    assert ask_http(server) == "a reset"
    with pytest.raises(SidestageError, match="Request: garbled"):
        server.stop()


def test_a_broken_length_is_the_cause_of_the_death() -> None:
    server = HTTPServer(handler=lambda request: "fine").start()
    size = MAX_FRAME + 1
    with saying(server, size.to_bytes(HEAD, "big")):
        ask_http(server)
    with pytest.raises(ServerDied) as caught:
        server.stop()
    assert f"SIGKILL, because what it sent cannot be read: a frame of {size}" in str(caught.value)
    assert "cannot be read" in caught.value.why


def test_a_broken_length_in_the_other_direction_is_in_stderr() -> None:
    server = HTTPServer(handler=lambda request: "fine").start()
    os.write(run_of(server).child.channel.commands_fd, b"\xff" * 8)
    with pytest.raises(ServerDied, match="the pipe from the owner broke: a frame of 4294967295"):
        server.wait_for(1, LONG)
    with pytest.raises(ServerDied):
        server.stop()


def test_a_configuration_that_cannot_be_decoded_is_a_start_error() -> None:
    """Not a time-out."""

    class Server(TCPServer):
        def _new_backend(self, loop: Any) -> Any:
            backend: Any = super()._new_backend(loop)
            backend._plan.backlog = "many"
            return backend

    with pytest.raises(StartError, match=r"Configure: Expected `int`, got `str`"):
        Server(start_timeout=LONG).start()


# Limits ------------------------------------------------------------------------------------------

LIMIT = 1_000_000
TEXT = "x" * (LIMIT + 1)


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller limit of a message to the server's process."""
    monkeypatch.setattr(frames, "MAX_MESSAGE", LIMIT)


def by_hand(request: Any) -> None:
    request.send_response(200)
    request.send_header("X-Long", TEXT)
    request.end_headers()


def flushed(request: Any) -> None:
    by_hand(request)
    request.wfile.flush()


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize(
    "answer",
    [
        lambda request: HTTPResponse(headers={"X-Long": TEXT}),
        lambda request: HTTPResponse(iter([b"x"]), headers={"X-Long": TEXT}),
        lambda request: HTTPResponse(reason=TEXT),
        lambda request: request.send_response(200, TEXT) or request.end_headers(),
        lambda request: request.send_informational(103, {"X-Long": TEXT}),
        by_hand,
        flushed,
    ],
    ids=["head", "of a stream", "reason", "reason by hand", "1xx", "by hand", "flushed"],
)
def test_a_response_head_beyond_the_limit_is_an_error_of_the_handler(answer: Any) -> None:
    long = threading.Event()

    def handler(request: Any) -> Any:
        return "fine" if long.is_set() else answer(request)

    server = HTTPServer(handler=handler).start()
    pid = server.pid
    assert ask_http(server) == "500"
    assert server.received[0].answer.status == 500
    long.set()
    assert ask_http(server) == "200"
    assert server.pid == pid
    with pytest.raises(ValueError, match=f"at most {LIMIT} pass between the processes at once"):
        server.stop()


@pytest.mark.usefixtures("limited")
def test_trailers_beyond_the_limit_break_the_response_off() -> None:
    server = HTTPServer(handler=lambda r: HTTPResponse(b"x", trailers={"X-Long": TEXT})).start()
    with RawClient(server) as client:
        client.send(GET)
        assert client.status() == 200
        assert b"\r\n0\r\n" not in client.rest()
    with pytest.raises(ValueError, match="at most"):
        server.stop()


def test_an_smtp_reply_beyond_the_limit_is_an_error_of_the_handler() -> None:
    server = SMTPServer(handler=lambda mail: f"250 {'x' * 70_000}").start()
    assert ask_smtp(server) == "451"
    assert server.received[0].answer.status == 451
    with pytest.raises(ValueError, match="a reply of 70,004 characters"):
        server.stop()


def test_what_the_test_is_told_of_a_long_request_is_cut() -> None:
    """In diagnostics and in the report of a stop."""
    released = threading.Event()

    def handler(request: Any) -> None:
        released.wait(LONG)

    with HTTPServer(handler=handler, handler_timeout=0.0, head_limit=1 << 22) as server:
        with RawClient(server) as client:
            client.send(f"GET /{'x' * 1_000_000} HTTP/1.1\r\nHost: t\r\n\r\n")
            assert client.answer()[0] == 504
            (diagnostic,) = server.diagnostics
            assert "more characters" in diagnostic.text
            assert len(diagnostic.text) < 2000
        released.set()


def test_a_message_for_no_call_changes_nothing() -> None:
    """The other direction of what comes late."""
    with HTTPServer(handler=lambda request: "fine") as server:
        run_of(server).send(SetOption(call=1 << 40, level=1, name=1, value=1))
        run_of(server).to_call(Lost(call=1 << 40, reset=True))
        assert ask_http(server) == "200"
