"""The servers under test: Sidestage, and the peers it is compared with.

Each is used as its users use it, through one small interface, so that a row of the matrix is the
same code for all of them. Imports are late: a row may have to patch the process first.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import posix
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

Answer = Callable[[str], str]

_monotonic = staticmethod(time.monotonic)


class Clock:
    """The real clock, saved before a row patches it, in a place where freezegun does not look."""

    monotonic = _monotonic


class ServerUnderTest(ABC):
    """An HTTP server that answers each path with what ``answer`` makes of it."""

    name: str
    module: str

    def load(self) -> None:
        """Import the server's module, as a test module does at its top."""
        importlib.import_module(self.module)

    @abstractmethod
    def start(self, answer: Answer) -> None:
        """Start serving on a port that the kernel chooses."""

    @property
    @abstractmethod
    def port(self) -> int:
        """The port it serves on."""

    @abstractmethod
    def wait_for(self, count: int, timeout: float = 10.0) -> None:
        """Block until ``count`` requests have arrived; raises TimeoutError."""

    @abstractmethod
    def stop(self, timeout: float = 5.0) -> None:
        """Stop as its users do, within ``timeout`` seconds if it has a timeout."""

    def start_canned(self) -> None:
        """Start serving fixed replies, which need no handler."""
        self.start(lambda path: "")

    def check(self) -> None:  # noqa: B027 - most servers raise at the stop or never
        """Raise what handlers have raised, if the server has a call for that."""

    @abstractmethod
    def hang(self) -> None:
        """Bring it into the worst state that its stop must handle."""


class Sidestage(ServerUnderTest):
    """Sidestage's HTTP server."""

    name = "sidestage"
    module = "sidestage.protocols.http.server"

    def __init__(self) -> None:
        self.server: Any = None

    def start(self, answer: Answer) -> None:
        from sidestage import HTTPServer

        self.server = HTTPServer(handler=lambda request: answer(request.path)).start()

    def start_canned(self) -> None:
        from sidestage import HTTPServer

        self.server = HTTPServer().start()

    @property
    def port(self) -> int:
        port: int = self.server.port
        return port

    def wait_for(self, count: int, timeout: float = 10.0) -> None:
        self.server.wait_for(count, timeout)

    def stop(self, timeout: float = 5.0) -> None:
        self.server.stop(timeout)

    def hang(self) -> None:
        """Suspend the server's process: it answers nothing, and SIGTERM does not end it."""
        posix.kill(self.server.pid, signal.SIGSTOP)

    def stop_hung(self) -> None:
        """Stop while hanging: the stop warns, sends SIGKILL, and returns."""
        pid = self.server.pid
        self.hang()
        began = Clock.monotonic()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.stop(0.1)
        took = Clock.monotonic() - began
        warned = [warning.category.__name__ for warning in caught]
        report = self.server.stop_report
        if took > 5 or warned != ["ForcedStopWarning"] or report.rung != "kill":  # also under -O
            raise AssertionError(f"after {took} s: {report}, {caught}")
        try:
            posix.kill(pid, 0)
        except ProcessLookupError:
            return
        raise AssertionError("the process is still there")


class _Threaded(ServerUnderTest):
    """What servers in a thread share: a count of requests, and a client that keeps them busy."""

    def __init__(self) -> None:
        self._seen = 0
        self._changed = threading.Condition()

    def _count(self) -> None:
        with self._changed:
            self._seen += 1
            self._changed.notify_all()

    def wait_for(self, count: int, timeout: float = 10.0) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._seen >= count, timeout):
                raise TimeoutError(f"{self._seen} of {count} requests came")

    def hang(self) -> None:
        """Leave a keep-alive connection open after one request, as an idle client does."""
        self._idle = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        self._idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self._idle.recv(10)


class StdlibThread(_Threaded):
    """The standard library's server in a thread, as in its documentation and most tests."""

    name = "ThreadingHTTPServer"
    module = "http.server"

    def start(self, answer: Answer) -> None:
        import http.server

        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._count()
                body = answer(self.path).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited
                """Print nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def port(self) -> int:
        return self.server.server_port

    def stop(self, timeout: float = 5.0) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(timeout)
        if self.thread.is_alive():
            raise TimeoutError("the thread still runs")


class PytestHTTPServer(_Threaded):
    """pytest-httpserver."""

    name = "pytest-httpserver"
    module = "pytest_httpserver"

    def start(self, answer: Answer) -> None:
        import logging
        import re

        from pytest_httpserver import HTTPServer
        from werkzeug import Request, Response

        def respond(request: Request) -> Response:
            self._count()
            return Response(answer(request.path))

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no line on stderr per request
        self.server = HTTPServer(host="127.0.0.1", port=0)
        self.server.expect_request(re.compile(".*")).respond_with_handler(respond)
        self.server.start()

    @property
    def port(self) -> int:
        return self.server.port

    def check(self) -> None:
        self.server.check()

    def stop(self, timeout: float = 5.0) -> None:
        self.server.stop()


SERVERS: dict[str, type[ServerUnderTest]] = {
    kind.name: kind for kind in (Sidestage, StdlibThread, PytestHTTPServer)
}


# Clients ----------------------------------------------------------------------------------------


def fetch(port: int, path: str = "/", timeout: float = 10.0) -> str:
    """The body of one GET, sent from this process on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        parts = []
        while part := client.recv(65536):
            parts.append(part)
    head, _, body = b"".join(parts).decode().partition("\r\n\r\n")
    if " 200 " not in head.partition("\r\n")[0]:
        raise AssertionError(head or "no answer")
    return body


def refuses(port: int) -> bool:
    """Whether nothing listens on the port, not even a socket whose queue is full.

    A reset says that the listener was closed meanwhile; the next call then tells for sure.
    """
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
        except ConnectionRefusedError:
            return True
    return False


class OutsideClient:
    """A client in a process of its own, out of reach of what a row patches."""

    _SOURCE = """
import http.client, sys
for line in sys.stdin:
    port, path = line.split()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        said = f"{answer.status} {answer.read().decode()}"
    except Exception as error:
        said = repr(error)
    print(said, flush=True)
"""
    _poll = staticmethod(select.poll)
    _read = staticmethod(posix.read)
    _write = staticmethod(posix.write)

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", self._SOURCE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to = os.dup(self._process.stdin.fileno())
        self._from = os.dup(self._process.stdout.fileno())
        self._process.stdin.close()
        self._process.stdout.close()

    def fetch(self, port: int, path: str = "/", timeout: float = 10.0) -> str:
        """The body of one GET."""
        self._write(self._to, f"{port} {path}\n".encode())
        poll = self._poll()
        poll.register(self._from, select.POLLIN)
        if not poll.poll(timeout * 1000):
            raise TimeoutError("the client got no answer")
        status, _, body = self._read(self._from, 65536).decode().strip().partition(" ")
        if status != "200":
            raise AssertionError(f"{status} {body}")
        return body

    def close(self) -> None:
        """End the process."""
        posix.close(self._to)
        posix.close(self._from)
        self._process.wait()
