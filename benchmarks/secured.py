"""Rows over TLS: Sidestage's HTTP server and its peers, all with certificates of one kind."""

from __future__ import annotations

import atexit
import functools
import http.server
import socket
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import crowds
import interpreters
import servers
import trustme
from clients import REQUEST, fail, median_of
from measuring import Row, Serving, Side

from sidestage import HTTPServer

HOST = "127.0.0.1"
SIZE = 1 << 30  # bytes of a large body
PIECE = 1 << 20
HANDSHAKES = 200


@dataclass(frozen=True)
class Endpoint:
    """Where a client connects, and how it trusts what it finds there."""

    port: int
    context: ssl.SSLContext
    pid: int | None = None  # of the server's process, if it has one

    def connect(self) -> ssl.SSLSocket:
        """A connection with TCP_NODELAY, after its handshake."""
        client = socket.create_connection((HOST, self.port), 30)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.context.wrap_socket(client, server_hostname=HOST)


# Servers -----------------------------------------------------------------------------------------


@functools.cache
def _files() -> tuple[str, str]:
    """The paths of the authority's certificate, and of a certificate with its key."""
    directory = tempfile.TemporaryDirectory()
    atexit.register(directory.cleanup)
    authority = trustme.CA()
    trusted, leaf = Path(directory.name, "ca.pem"), Path(directory.name, "leaf.pem")
    authority.cert_pem.write_to_path(str(trusted))
    authority.issue_cert("localhost", HOST, "::1").private_key_and_cert_chain_pem.write_to_path(
        str(leaf)
    )
    return str(trusted), str(leaf)


def _peer(port: int) -> Endpoint:
    return Endpoint(port, ssl.create_default_context(cafile=_files()[0]))


class _Large(servers.Hello):
    """Sends and reads large bodies too."""

    def do_GET(self) -> None:  # noqa: N802 - the name is the base's
        if self.path != "/large":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(SIZE))
        self.end_headers()
        for _ in range(SIZE // PIECE):
            self.wfile.write(_LARGE)

    def do_POST(self) -> None:  # noqa: N802 - likewise
        left = int(self.headers["Content-Length"])
        while left:
            left -= len(self.rfile.read(min(left, 1 << 18)))
        super().do_GET()


_LARGE = bytes(PIECE)


class _Threading(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def get_request(self) -> tuple[Any, Any]:
        """Leave the handshake to the thread of the connection."""
        client, address = super().get_request()
        wrapped = self.context.wrap_socket(  # type: ignore[attr-defined]
            client, server_side=True, do_handshake_on_connect=False
        )
        return wrapped, address


@contextmanager
def threading_https() -> Iterator[Endpoint]:
    """The standard library's server with a context."""
    server = _Threading((HOST, 0), _Large)
    server.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)  # type: ignore[attr-defined]
    server.context.load_cert_chain(_files()[1])  # type: ignore[attr-defined]
    for port in servers.in_thread(server):
        yield _peer(port)


@contextmanager
def uvicorn_https() -> Iterator[Endpoint]:
    """uvicorn in a thread, as it is measured without TLS."""
    with servers.uvicorn_thread(ssl_certfile=_files()[1]) as port:
        yield _peer(port)


def ours(handler: Callable[[Any], Any] | None) -> Serving:
    """A Sidestage server."""

    @contextmanager
    def serving() -> Iterator[Endpoint]:
        with HTTPServer(handler=handler, tls=True, keep=PIECE) as server:
            yield Endpoint(server.port, server.client_context(), server.pid)

    return serving


def hello(request: Any) -> Any:
    """A typical handler, which sends and reads large bodies too."""
    if request.method == "POST":
        while request.rfile.read(1 << 18):
            continue
    elif request.path == "/large":
        return iter([_LARGE] * (SIZE // PIECE))
    return "hello"


# Clients -----------------------------------------------------------------------------------------


def exchange(client: ssl.SSLSocket) -> None:
    """Send a request, and read the whole answer: some send its head in a record of its own."""
    client.sendall(REQUEST)
    answer = b""
    while not (b"\r\n\r\n" in answer and answer.endswith(_end_of(answer))):
        answer += client.recv(65536) or fail("the server has closed the connection")


def _end_of(answer: bytes) -> bytes:
    return b"\r\n\r\n" if b"ength: 0\r\n" in answer else servers.BODY


def handshakes(endpoint: Endpoint) -> float:
    """The median microseconds of a connection with its handshake and a request."""

    def once() -> None:
        with endpoint.connect() as client:
            exchange(client)

    return median_of(once, HANDSHAKES)


def serial(endpoint: Endpoint, count: int = 500) -> float:
    """The median microseconds of a request on one connection."""
    with endpoint.connect() as client:
        return median_of(partial(exchange, client), count)


def upload(endpoint: Endpoint) -> float:
    """MiB per second of a large body to the server."""
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n"

    def act(client: ssl.SSLSocket) -> None:
        client.sendall(head.encode())
        for _ in range(SIZE // PIECE):
            client.sendall(_LARGE)
        if not client.recv(PIECE).startswith(b"HTTP/1.1 200 "):
            fail("the upload was refused")

    return _rate(endpoint, act)


def download(endpoint: Endpoint) -> float:
    """MiB per second of a large body from the server."""

    def act(client: ssl.SSLSocket) -> None:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        buffer, received = bytearray(PIECE), 0
        while received < SIZE:
            received += client.recv_into(buffer) or fail(f"{received} bytes came")

    return _rate(endpoint, act)


def _rate(endpoint: Endpoint, act: Callable[[ssl.SSLSocket], None]) -> float:
    with endpoint.connect() as client:
        before = crowds.rss(endpoint.pid)
        began = time.perf_counter()
        act(client)
        seconds = time.perf_counter() - began
        if (grown := (crowds.rss(endpoint.pid) - before) / PIECE) > 32:
            fail(f"memory has grown by {grown:.0f} MiB")
    return SIZE / PIECE / seconds


# Starts ------------------------------------------------------------------------------------------


def _program(arguments: str) -> interpreters.Program:
    return interpreters.Program(
        "from sidestage import HTTPServer",
        f"server = HTTPServer({arguments}).start()",
        "server.stop()",
    )


def first_start(_: None) -> float:
    """Milliseconds that the first start in a process takes more with TLS than without."""
    with_tls, without = (
        sum(interpreters.timed(_program(arguments))) for arguments in ("tls=True", "")
    )
    return with_tls - without


def later_start(_: None) -> float:
    """Milliseconds that later starts take more with TLS than without, their stops included."""
    cycles: dict[bool, list[float]] = {True: [], False: []}
    for number in range(102):
        for tls, times in cycles.items():
            began = time.perf_counter()
            with HTTPServer(tls=tls):
                pass
            if number > 1:
                times.append((time.perf_counter() - began) * 1000)
    with_tls, without = map(statistics.median, cycles.values())
    return with_tls - without


# Rows --------------------------------------------------------------------------------------------

_THREADING = "ThreadingHTTPServer with a context, in a thread"
_UVICORN = "uvicorn with TLS, in a thread"


def _row(
    name: str,
    act: Callable[[Any], float],
    *bounds: float | None,
    handler: Callable[[Any], Any] | None = hello,
    more: bool = False,
) -> Row:
    threading, uvicorn = bounds
    peers = [Side(_THREADING, threading_https, bound=threading)]
    if not more:
        peers.append(Side(_UVICORN, uvicorn_https, bound=uvicorn))
    return Row(
        f"TLS: {name}",
        "MiB/s" if more else "µs",
        Side("HTTPServer" + (", handler" if handler else ", canned reply"), ours(handler)),
        tuple(peers),
        act,
        rounds=5,
        more_is_better=more,
    )


def _start(name: str, act: Callable[[None], float], limit: float) -> Row:
    return Row(f"TLS: {name}", "ms", Side("HTTPServer", _nothing), (), act, rounds=5, limit=limit)


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


ROWS = [
    _row("a handshake and a request", handshakes, 1, 1),
    _row("a handshake and a request, canned reply", handshakes, 1, 1, handler=None),
    _row("request on a kept connection", serial, 0.75, None),
    _row("request on a kept connection, canned reply", serial, 0.75, None, handler=None),
    _row("upload of 1 GiB", upload, 1, None, more=True),
    _row("download of 1 GiB", download, 1, None, more=True),
    _start("first start in a process, more than without", first_start, 150),
    _start("later start and stop, more than without", later_start, 3),
]
