"""The servers of the comparison as context managers: Sidestage's and their peers."""

from __future__ import annotations

import http.server
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from aiosmtpd.controller import Controller
from measuring import Serving
from pytest_httpserver import HTTPServer as PytestHTTPServer

from sidestage import HTTPServer, UDPServer

BODY = b"hello"
CHUNK = 1 << 16  # bytes

# HTTP --------------------------------------------------------------------------------------------


class Hello(http.server.BaseHTTPRequestHandler):
    """As fast as the module can be: keeps connections, and sends a response in one write."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True  # TCP_NODELAY

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as inherited
        """Print nothing."""


class _Threading(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # the default of 5 would make clients wait for a second


SHORT_POLL = 0.01  # seconds; the default of serve_forever is 0.5


def in_thread(server: socketserver.BaseServer, poll_interval: float = SHORT_POLL) -> Iterator[int]:
    """Serve in a thread, by default with the shortest possible stop."""
    thread = threading.Thread(target=server.serve_forever, args=(poll_interval,))
    thread.start()
    try:
        yield server.server_address[1]  # type: ignore[misc] - of sockets that have ports
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def threading_http(poll_interval: float = SHORT_POLL) -> Iterator[int]:
    """The standard library's server."""
    yield from in_thread(_Threading(("127.0.0.1", 0), Hello), poll_interval)


logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else it prints each request


@contextmanager
def pytest_httpserver() -> Iterator[int]:
    """pytest-httpserver with a handler."""
    from werkzeug import Response

    with PytestHTTPServer(host="127.0.0.1", port=0) as server:
        server.expect_request("/").respond_with_handler(lambda request: Response(BODY))
        yield server.port


def routes(count: int) -> list[str]:
    """So many paths, with the one that clients ask for in the middle."""
    paths = [f"/{number}" for number in range(count)]
    paths[count // 2] = "/"
    return paths


def pytest_httpserver_expecting(count: int) -> Serving:
    """pytest-httpserver with so many expectations that have their data."""

    @contextmanager
    def serving() -> Iterator[int]:
        with PytestHTTPServer(host="127.0.0.1", port=0) as server:
            for path in routes(count):
                server.expect_request(path).respond_with_data(BODY)
            yield server.port

    return serving


async def _app(scope: Any, receive: Any, send: Any) -> None:
    length = str(len(BODY)).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


@contextmanager
def uvicorn_thread(**options: Any) -> Iterator[int]:
    """uvicorn with httptools and uvloop in a thread, with a minimal app."""
    config = uvicorn.Config(
        _app,
        port=0,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="error",
        **options,
    )
    server = uvicorn.Server(config)
    started = threading.Event()
    startup = server.startup

    async def start(sockets: Any = None) -> None:
        await startup(sockets)
        started.set()

    server.startup = start  # type: ignore[method-assign] - it has no event to wait for
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        started.wait()
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


# TCP and UDP -------------------------------------------------------------------------------------


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(CHUNK):
            self.request.sendall(data)


@contextmanager
def threading_tcp() -> Iterator[int]:
    """The standard library's server."""
    yield from in_thread(socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo))


def echo(connection: Any) -> None:
    """The same handler for Sidestage."""
    while data := connection.recv(CHUNK):
        connection.sendall(data)


class Recorder:
    """A list of datagrams, as a test would have it."""

    def __init__(self, port: int, received: Callable[[], int]) -> None:
        self.port = port
        self.received = received


@contextmanager
def threading_udp() -> Iterator[Recorder]:
    """The standard library's server, which appends each datagram to a list."""
    datagrams: list[bytes] = []

    class Note(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            datagrams.append(self.request[0])

    server = socketserver.ThreadingUDPServer(("127.0.0.1", 0), Note)
    for port in in_thread(server):
        yield Recorder(port, lambda: len(datagrams))


@contextmanager
def our_udp() -> Iterator[Recorder]:
    """Sidestage's server, without a handler."""
    with UDPServer() as server:
        yield Recorder(server.port, lambda: len(server.received))


# SMTP --------------------------------------------------------------------------------------------


class _Mailbox:
    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        return "250 OK"


def free_port() -> int:
    """A free port, for a server that does not report which port the kernel chose."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def controller() -> Iterator[int]:
    """aiosmtpd's Controller."""
    port = free_port()
    server = Controller(_Mailbox(), hostname="127.0.0.1", port=port)
    server.start()
    try:
        yield port
    finally:
        server.stop()


# Sidestage ---------------------------------------------------------------------------------------


def ours(kind: type[Any], handler: Callable[[Any], Any] | None = None) -> Serving:
    """A Sidestage server."""

    @contextmanager
    def serving() -> Iterator[int]:
        with kind(handler=handler) as server:
            yield server.port

    return serving


def ours_expecting(count: int) -> Serving:
    """A Sidestage server with so many expectations, which its process answers."""

    @contextmanager
    def serving() -> Iterator[int]:
        with HTTPServer() as server:
            for path in routes(count):
                server.allow("GET", path).reply(BODY)
            yield server.port

    return serving
