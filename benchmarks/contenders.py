"""The servers that are compared: Sidestage's four and their peers, with the same interface."""

from __future__ import annotations

import contextlib
import http.client
import smtplib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import servers
from measuring import Serving

from sidestage import HTTPServer, SMTPServer, TCPServer, UDPServer


@dataclass(frozen=True)
class Contender:
    """A server: ``serving()`` starts it, yields its port, and stops it."""

    name: str
    serving: Serving
    request: Callable[[int], None] | None = None  # what a small test sends
    against: str = ""  # the Sidestage server it is compared with; empty for those
    slow: bool = False  # stops slowly, so it gets few rounds


def http_request(port: int) -> None:
    """Send a GET as a test does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        body = connection.getresponse().read()
    if body != b"hello":
        raise AssertionError(f"the server answered {body!r}")


def smtp_request(port: int) -> None:
    """Send a mail as a test does."""
    with smtplib.SMTP("127.0.0.1", port, local_hostname="localhost", timeout=10) as client:
        client.sendmail("me@example.org", ["you@example.org"], "Subject: hello\r\n\r\nhi\r\n")


# Sidestage --------------------------------------------------------------------------------------


def hello(request: object) -> str:
    """A typical HTTP handler of a test."""
    return "hello"


def nothing(request: object) -> None:
    """A typical handler of a test for the other protocols."""


OURS = [
    Contender("HTTPServer", servers.ours(HTTPServer)),
    Contender("HTTPServer, handler", servers.ours(HTTPServer, hello), http_request),
    Contender("SMTPServer", servers.ours(SMTPServer)),
    Contender("SMTPServer, handler", servers.ours(SMTPServer, nothing), smtp_request),
    Contender("TCPServer", servers.ours(TCPServer)),
    Contender("TCPServer, handler", servers.ours(TCPServer, nothing)),
    Contender("UDPServer", servers.ours(UDPServer)),
    Contender("UDPServer, handler", servers.ours(UDPServer, nothing)),
]


# Peers ------------------------------------------------------------------------------------------

DEFAULT_POLL = 0.5  # seconds; the default of serve_forever()

_HTTP, _SMTP = "HTTPServer, handler", "SMTPServer, handler"

PEERS = [
    Contender(
        "ThreadingHTTPServer in a thread",
        partial(servers.threading_http, DEFAULT_POLL),
        http_request,
        _HTTP,
        slow=True,
    ),
    Contender(
        "ThreadingHTTPServer, poll_interval=0.01", servers.threading_http, http_request, _HTTP
    ),
    Contender("pytest-httpserver", servers.pytest_httpserver, http_request, _HTTP, slow=True),
    Contender("aiosmtpd Controller", servers.controller, smtp_request, _SMTP),
]
