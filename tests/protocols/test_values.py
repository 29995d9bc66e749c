"""Whatever a handler passes is sent, or refused where it is passed; the server serves on."""

from __future__ import annotations

import contextlib
import math
import smtplib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.raw_http import RawClient
from kit.values import anything, buffers, numbers, texts
from sidestage import HTTPResponse, HTTPServer, SMTPServer, TCPServer, UDPServer

LONG = 30.0  # seconds; a bound for what ends at once unless it is broken
REFUSED = (TypeError, ValueError, OverflowError)

examples = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Attempt:
    """What a handler is to do with a value, and what came of it."""

    def __init__(self) -> None:
        self.act: Callable[[Any], Any] = lambda request: None
        self.error: BaseException | None = None

    def __call__(self, request: Any) -> Any:
        """Handle: raises nothing itself, so what the server's stop raises is of what it sends."""
        try:
            return self.act(request)
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.error = error
            return None

    def judge(self, server: Any) -> None:
        """Nothing but a refusal has been raised, and the same process serves."""
        error, self.error = self.error, None
        assert error is None or isinstance(error, REFUSED), repr(error)
        if error is not None:
            assert len(str(error)) < 2000
        for other in server.errors:
            assert isinstance(other, REFUSED), repr(other)
        with contextlib.suppress(*REFUSED, BaseExceptionGroup):
            server.raise_errors()
        assert server.state.name == "READY"


@contextlib.contextmanager
def serving(kind: Any, attempt: Attempt) -> Iterator[Any]:
    with kind(handler=attempt) as server:
        pid = server.pid
        yield server
        assert server.pid == pid
        assert server.stop().clean


# TCP ---------------------------------------------------------------------------------------------

CONNECTION: dict[str, Callable[[Any, Any], Any]] = {
    "sendall": lambda c, value: c.sendall(value),
    "send": lambda c, value: c.send(value),
    "wfile.write": lambda c, value: c.wfile.write(value),
    "wfile.writelines": lambda c, value: c.wfile.writelines([value]),
    "makefile": lambda c, value: c.makefile("wb", 0).write(value),
    "recv": lambda c, value: c.recv(value),
    "recv_exactly": lambda c, value: c.recv_exactly(min(value, 1)),
    "recv_into": lambda c, value: c.recv_into(bytearray(1), value),
    "recv flags": lambda c, value: c.recv(1, value),
    "settimeout": lambda c, value: c.settimeout(value),
    "setblocking": lambda c, value: c.setblocking(value),
    "shutdown": lambda c, value: c.shutdown(value),
    "setsockopt level": lambda c, value: c.setsockopt(value, socket.TCP_NODELAY, 1),
    "setsockopt name": lambda c, value: c.setsockopt(socket.IPPROTO_TCP, value, 1),
    "setsockopt value": lambda c, value: c.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, value
    ),
    "result": lambda c, value: value,
}


@pytest.mark.parametrize("use", CONNECTION.values(), ids=CONNECTION)
@pytest.mark.parametrize("values", [numbers, buffers, anything], ids=["numbers", "bytes", "any"])
def test_tcp(use: Callable[[Any, Any], Any], values: st.SearchStrategy[Any]) -> None:
    attempt = Attempt()

    def send(server: Any) -> None:
        with (
            contextlib.suppress(OSError),  # a wrong result resets it, at once
            socket.create_connection(server.server_address, LONG) as client,
        ):
            client.sendall(b"x" * 10)
            client.shutdown(socket.SHUT_WR)
            while client.recv(1 << 16):
                pass

    with serving(TCPServer, attempt) as server:

        @examples
        @given(values)
        def check(value: Any) -> None:
            attempt.act = lambda connection: use(connection, value)
            send(server)
            attempt.judge(server)

        check()


def test_an_option_as_socketserver_sets_it() -> None:
    """With ``disable_nagle_algorithm``, it passes a bool."""
    seen = []

    def handler(connection: Any) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        seen.append(connection.recv(1))

    with TCPServer(handler=handler) as server:
        for _ in range(2):
            with socket.create_connection(server.server_address, LONG) as client:
                client.sendall(b"x")
                assert client.recv(1) == b""
        assert server.diagnostics == ()
    assert seen == [b"x", b"x"]


# HTTP --------------------------------------------------------------------------------------------


def by_hand(
    request: Any, status: Any = 200, reason: Any = None, body: Any = b"", **options: Any
) -> None:
    request.send_response(status, reason)
    request.end_headers()
    request.wfile.write(body)


def trailer(request: Any, value: Any) -> None:
    by_hand(request)
    request.send_trailer(value, "x")


HTTP: dict[str, Callable[[Any, Any], Any]] = {
    "result": lambda request, value: value,
    "body": lambda request, value: HTTPResponse(value),
    "pieces": lambda request, value: iter([b"first", value, b"last"]),
    "tuple": lambda request, value: (b"x", value),
    "status": lambda request, value: HTTPResponse(status=value),
    "reason": lambda request, value: HTTPResponse(reason=value),
    "trailers": lambda request, value: HTTPResponse(trailers=value),
    "late trailers": lambda request, value: HTTPResponse(trailers=lambda: value),
    "field name": lambda request, value: HTTPResponse(headers=[(value, "x")]),
    "send_response": lambda request, value: by_hand(request, status=value),
    "send_response reason": lambda request, value: by_hand(request, reason=value),
    "wfile.write": lambda request, value: by_hand(request, body=value),
    "wfile.writelines": lambda request, value: (
        (
            by_hand(request),
            request.wfile.writelines([value]),
        )[:0]
        or None
    ),
    "send_trailer": trailer,
    "send_error": lambda request, value: request.send_error(value),
    "send_error message": lambda request, value: request.send_error(400, value),
    "send_error explain": lambda request, value: request.send_error(400, None, value),
    "send_informational": lambda request, value: request.send_informational(value),
}


@pytest.mark.parametrize("use", HTTP.values(), ids=HTTP)
@pytest.mark.parametrize("values", [texts, anything], ids=["text", "any"])
def test_http(use: Callable[[Any, Any], Any], values: st.SearchStrategy[Any]) -> None:
    attempt = Attempt()

    def send(server: Any) -> None:
        with RawClient(server) as client:
            client.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                client.rest()

    with serving(HTTPServer, attempt) as server:

        @examples
        @given(values)
        def check(value: Any) -> None:
            attempt.act = lambda request: use(request, value)
            send(server)
            attempt.judge(server)

        check()


# SMTP --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        texts,
        texts.map(lambda text: f"250 {text}"),
        texts.map(lambda t: f"250-{t}\r\n250"),
        anything,
    ],
    ids=["text", "reply", "lines", "any"],
)
def test_smtp(values: st.SearchStrategy[Any]) -> None:
    attempt = Attempt()
    with serving(SMTPServer, attempt) as server, smtplib.SMTP(server.host, server.port) as client:

        @examples
        @given(values)
        def check(value: Any) -> None:
            attempt.act = lambda mail: value
            with contextlib.suppress(smtplib.SMTPDataError):
                client.sendmail("me@x", ["you@x"], b"Subject: x\r\n\r\nx")
            attempt.judge(server)

        check()
        attempt.act = lambda mail: None
        assert client.sendmail("me@x", ["you@x"], b"Subject: x\r\n\r\nx") == {}


@pytest.mark.parametrize("name", ["a\r\n250 OK", "x" * 100_000, "größe"])
def test_an_exception_whose_class_has_any_name(name: str) -> None:
    """The reply has its name, in a line of its own."""

    def handler(mail: Any) -> None:
        raise type(name, (LookupError,), {})

    server = SMTPServer(handler=handler).start()
    with smtplib.SMTP(server.host, server.port) as client:
        with pytest.raises(smtplib.SMTPDataError) as caught:
            client.sendmail("me@x", ["you@x"], b"Subject: x\r\n\r\nx")
        assert caught.value.smtp_code == 451
        assert len(caught.value.smtp_error) < 250
        assert client.noop()[0] == 250
    with pytest.raises(LookupError):
        server.stop()


def test_a_reply_of_another_class_of_text() -> None:
    class Reply(str):
        __slots__ = ()

    with SMTPServer(handler=lambda mail: Reply("550 no")) as server:
        with smtplib.SMTP(server.host, server.port) as client:
            with pytest.raises(smtplib.SMTPDataError, match="no"):
                client.sendmail("me@x", ["you@x"], b"Subject: x\r\n\r\nx")


# UDP ---------------------------------------------------------------------------------------------

DATAGRAM: dict[str, Callable[[Any, Any], Any]] = {
    "result": lambda datagram, value: value,
    "results": lambda datagram, value: [b"first", value],
    "reply": lambda datagram, value: datagram.reply(value),
    "wfile": lambda datagram, value: datagram.wfile.write(value) and None,
}


@pytest.mark.parametrize("use", DATAGRAM.values(), ids=DATAGRAM)
@pytest.mark.parametrize("values", [buffers, anything], ids=["bytes", "any"])
def test_udp(use: Callable[[Any, Any], Any], values: st.SearchStrategy[Any]) -> None:
    attempt = Attempt()
    with serving(UDPServer, attempt) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(server.server_address)
            count = 0

            @examples
            @given(values)
            def check(value: Any) -> None:
                nonlocal count
                attempt.act = lambda datagram: use(datagram, value)
                client.send(b"x")
                count += 1
                server.wait_for(count, LONG)
                attempt.judge(server)

            check()


# Options -----------------------------------------------------------------------------------------

OPTIONS = ["address", "poll_interval", "handler_timeout", "start_timeout", "stop_timeout", "keep"]
EVERY = [
    *((kind, option) for option in [*OPTIONS, "backlog", "handler"] for kind in (TCPServer,)),
    (HTTPServer, "head_limit"),
    (SMTPServer, "size_limit"),
]


@pytest.mark.parametrize("kind, option", EVERY)
@pytest.mark.parametrize("values", [numbers, anything], ids=["numbers", "any"])
def test_an_option_is_refused_or_the_server_starts(
    kind: Any, option: str, values: st.SearchStrategy[Any]
) -> None:
    @examples
    @given(values)
    def check(value: Any) -> None:
        try:
            server = kind(**{option: value})
        except REFUSED:
            return
        if option in ("address", "handler"):  # a path or a host, and a callable: elsewhere
            return
        if option == "start_timeout":
            assert server.start_timeout >= 0  # it may be too short to start in
            return
        with server:
            with socket.create_connection(server.server_address, LONG):
                pass
            server.stop(5.0)

    check()


@pytest.mark.parametrize("option", ["poll_interval", "handler_timeout"])
@pytest.mark.parametrize("value", ["1", -1, math.nan, b"x"])
def test_an_option_that_is_set_later_is_refused_by_the_start(option: str, value: Any) -> None:
    server = TCPServer()
    with pytest.raises((TypeError, ValueError), match=option):
        setattr(server, option, value)
        server.start()
    setattr(server, option, 1)
    with server:
        pass


@given(anything)
def test_a_wait_is_refused_or_ends(value: Any) -> None:
    server = TCPServer()
    for arguments in ((value, 0.0), (0, value)):
        with contextlib.suppress(*REFUSED, TimeoutError):
            server.wait_for(*arguments)
    with contextlib.suppress(*REFUSED):
        server.stop(value)


@pytest.mark.parametrize("seconds", [1e9, 1e300, 10**300, 2**63])
def test_very_long_times(seconds: Any) -> None:
    """In place of "for ever"; the process goes on watching its owner."""
    options = dict.fromkeys(
        ["poll_interval", "handler_timeout", "start_timeout", "stop_timeout"], seconds
    )
    with HTTPServer(handler=lambda request: "fine", **options) as server:
        with RawClient(server) as client:
            client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            assert client.answer() == (200, b"fine")
        assert "Error" not in server.stderr_tail()
        assert server.stats().threads >= 2
