"""The servers that are compared: Sidestage's four and their peers, started and stopped alike."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import logging
import smtplib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from aiosmtpd.controller import Controller
from pytest_httpserver import HTTPServer as PytestHTTPServer

from sidestage import HTTPServer, SMTPServer, TCPServer, UDPServer

Serving = Callable[[], AbstractContextManager[int]]


@dataclass(frozen=True)
class Contender:
    """A server: entering ``serving()`` makes and starts it and gives its port, leaving stops it."""

    name: str
    serving: Serving
    request: Callable[[int], None] | None = None  # what a small test sends
    against: str = ""  # which of ours it is compared with; empty for ours
    slow: bool = False  # stops so slowly that few rounds must do


def http_request(port: int) -> None:
    """One GET, as a test would send it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/greet")
        body = connection.getresponse().read()
    if body != b"hello":
        raise AssertionError(f"the server answered {body!r}")


def smtp_request(port: int) -> None:
    """One mail, as a test would send it."""
    with smtplib.SMTP("127.0.0.1", port, local_hostname="localhost", timeout=10) as client:
        client.sendmail("me@example.org", ["you@example.org"], "Subject: hello\r\n\r\nhi\r\n")


# Sidestage --------------------------------------------------------------------------------------


def hello(request: object) -> str:
    """What an HTTP handler of a test may look like."""
    return "hello"


def nothing(request: object) -> None:
    """What any other handler of a test may look like."""


def sidestage(kind: type[Any], handler: Callable[[Any], Any] | None = None) -> Serving:
    """A server of ours."""

    @contextmanager
    def serving() -> Iterator[int]:
        with kind(handler=handler) as server:
            yield server.port

    return serving


OURS = [
    Contender("HTTPServer", sidestage(HTTPServer)),
    Contender("HTTPServer, handler", sidestage(HTTPServer, hello), http_request),
    Contender("SMTPServer", sidestage(SMTPServer)),
    Contender("SMTPServer, handler", sidestage(SMTPServer, nothing), smtp_request),
    Contender("TCPServer", sidestage(TCPServer)),
    Contender("TCPServer, handler", sidestage(TCPServer, nothing)),
    Contender("UDPServer", sidestage(UDPServer)),
    Contender("UDPServer, handler", sidestage(UDPServer, nothing)),
]


# Peers ------------------------------------------------------------------------------------------


class _Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as inherited
        """Print nothing."""


def threaded(poll_interval: float) -> Serving:
    """The standard library's server in a thread."""

    @contextmanager
    def serving() -> Iterator[int]:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hello)
        thread = threading.Thread(target=server.serve_forever, args=(poll_interval,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    return serving


logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would print each request


@contextmanager
def pytest_httpserver() -> Iterator[int]:
    """pytest-httpserver, without its fixture (which keeps one server for the whole run)."""
    with PytestHTTPServer(host="127.0.0.1", port=0) as server:
        server.expect_request("/greet").respond_with_data("hello")
        yield server.port


class _Mailbox:
    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        return "250 OK"


def free_port() -> int:
    """A port for a server that cannot tell which one the kernel chose."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def controller() -> Iterator[int]:
    """aiosmtpd's Controller, on a port found beforehand."""
    port = free_port()
    server = Controller(_Mailbox(), hostname="127.0.0.1", port=port)
    server.start()
    try:
        yield port
    finally:
        server.stop()


DEFAULT_POLL = 0.5  # seconds, what serve_forever() does unless told
SHORT_POLL = 0.01

_HTTP, _SMTP = "HTTPServer, handler", "SMTPServer, handler"

PEERS = [
    Contender(
        "ThreadingHTTPServer in a thread", threaded(DEFAULT_POLL), http_request, _HTTP, slow=True
    ),
    Contender("ThreadingHTTPServer, poll_interval=0.01", threaded(SHORT_POLL), http_request, _HTTP),
    Contender("pytest-httpserver", pytest_httpserver, http_request, _HTTP, slow=True),
    Contender("aiosmtpd Controller", controller, smtp_request, _SMTP),
]
