"""What real servers explain, exactly as it is written but for times, ports and line numbers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import smtplib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from kit.clients import connect, read_all
from kit.reports import masked, told
from kit.scripts import eventually, run_script
from sidestage import (
    Connection,
    Datagram,
    HTTPRequest,
    HTTPServer,
    Mail,
    SMTPServer,
    TCPServer,
    UDPServer,
    WaitTimeout,
)

HEAD = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"


def fetch(server: HTTPServer, path: str, body: bytes | None = None, **headers: str) -> int:
    """Send a request; returns the status."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urlopen(Request(server.url + path, body, fields), timeout=30) as response:
            status: int = response.status
    except HTTPError as error:
        error.close()
        status = error.code
    return status


@contextlib.contextmanager
def failing(server: Any) -> Iterator[None]:
    """Run a server, and let its stop raise what it has to."""
    server.start()
    try:
        yield
    finally:
        with contextlib.suppress(Exception):
            server.stop()


class TestHTTP:
    def test_no_request(self) -> None:
        with HTTPServer(name="shop") as server:
            lines = server.explain().splitlines()
            assert lines == [repr(server), "received: 0"]
            assert lines[0].startswith("<HTTPServer 'shop' READY http://127.0.0.1:")

    def test_a_wrong_request(self) -> None:
        def handler(request: HTTPRequest) -> object:
            assert request.query["format"] == "csv", "want csv"
            return {"id": 1}

        server = HTTPServer(handler=handler)
        with failing(server):
            assert fetch(server, "/reports?format=pdf", X_Id="7") == 500
            lines = [re.sub(r"500, \d+ bytes", "500, N bytes", line) for line in told(server)]
            assert lines == [
                "received: 1",
                "  TIME  #1   GET /reports?format=pdf -> 500, N bytes after T by FILE:LINE",
                "                 X-Id: 7",
                "  TIME  #1   handler raised AssertionError: want csv, at FILE:LINE",
            ]

    def test_what_was_sent_with_it(self) -> None:
        with HTTPServer(handler=lambda request: (b"made", 201)) as server:
            fetch(
                server,
                "/orders",
                b'{"sku": 7}',
                Content_Type="application/json",
                Authorization="Bearer s3cret",
                Accept="application/json",
            )
            assert told(server) == [
                "received: 1",
                "  TIME  #1   POST /orders -> 201, 4 bytes after T by FILE:LINE",
                "                 Authorization: Bearer (6 characters); Accept: application/json",
                """                 body (application/json): 10 bytes '{"sku": 7}'""",
            ]

    def test_the_lines_are_those_of_the_test(self) -> None:
        def first(request: HTTPRequest) -> None:
            """Answer nothing."""

        def second(request: HTTPRequest) -> None:
            raise LookupError

        server = HTTPServer(handler=first)
        with failing(server):
            fetch(server, "/first")
            server.handler = second
            fetch(server, "/second")
            places = re.findall(r"test_explaining\.py:(\d+)", server.explain())
        line = second.__code__.co_firstlineno
        assert places == [str(first.__code__.co_firstlineno), str(line), str(line + 1)]

    def test_a_handler_that_runs(self, release: threading.Event) -> None:
        def handler(request: HTTPRequest) -> None:
            release.wait(30)

        with HTTPServer(handler=handler) as server, connect(server.port) as client:
            client.sendall(HEAD)
            server.wait_for(1)
            assert eventually(lambda: " at test_explaining.py:" in server.explain())
            assert (
                f"at test_explaining.py:{handler.__code__.co_firstlineno + 1}" in server.explain()
            )
            assert told(server) == [
                "received: 1",
                "  TIME  #1   GET /slow -> not answered",
                "open now:",
                "  #1   GET /slow: handler running for T at FILE:LINE",
            ]
            release.set()

    def test_a_coroutine_that_runs(self) -> None:
        async def nap() -> None:
            await asyncio.sleep(30)

        async def handler(request: HTTPRequest) -> None:
            await nap()

        server = HTTPServer(handler=handler, stop_timeout=0.2)
        with failing(server), connect(server.port) as client:
            client.sendall(HEAD)
            server.wait_for(1)
            place = f"at test_explaining.py:{nap.__code__.co_firstlineno + 1}"
            assert eventually(lambda: place in server.explain())
            assert told(server)[-1] == "  #1   GET /slow: handler running for T at FILE:LINE"

    def test_half_a_request(self) -> None:
        with HTTPServer() as server, connect(server.port) as one, connect(server.port) as two:
            one.sendall(b"GET / HTTP/1")
            two.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
            with connect(server.port), connect(server.port) as four:
                four.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                server.wait_for(1)
                text = told(server)
        assert text == [
            "received: 1",
            "  TIME  #4   GET / -> 200, 0 bytes, no handler",
            "open now:",
            "  #1   connected, has sent 12 bytes of a request, waiting for the rest",
            "  #2   POST /x: has sent 3 of 10 bytes of the body, waiting for the rest",
            "  #3   connected, has sent nothing yet",
            "  #4   idle after its last request",
        ]

    def test_a_body_that_the_handler_waits_for(self) -> None:
        """A report does not wait for the rest, as ``record.body`` does."""
        with HTTPServer(handler=lambda request: request.body) as server:
            with connect(server.port) as client:
                client.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
                server.wait_for(1)
                assert eventually(lambda: "3 bytes" in server.explain())
                assert told(server) == [
                    "received: 1",
                    "  TIME  #1   POST /x -> not answered",
                    "                 body: 3 bytes 'abc' so far, of 10 announced",
                    "open now:",
                    "  #1   POST /x: handler running for T at FILE:LINE",
                ]
                client.sendall(b"defghij")
                client.recv(100)

    def test_a_client_that_hangs(self) -> None:
        """It reads nothing of an answer that is larger than what is on its way."""

        def handler(request: HTTPRequest) -> Iterator[bytes]:
            while True:
                yield b"x" * (1 << 20)

        server = HTTPServer(handler=handler, stop_timeout=0.2)
        with failing(server), connect(server.port) as client:
            client.sendall(HEAD)
            server.wait_for(1)
            assert eventually(lambda: "is being sent" in server.explain())
            assert told(server) == [
                "received: 1",
                "  TIME  #1   GET /slow -> not answered",
                "open now:",
                "  #1   GET /slow: its answer is being sent for T",
            ]

    def test_a_time_out(self, release: threading.Event) -> None:
        server = HTTPServer(handler=lambda request: release.wait(30) and None, handler_timeout=0.05)
        with server:
            assert fetch(server, "/slow") == 504
            text = told(server)
            release.set()
        assert text == [
            "received: 1",
            "  TIME  #1   GET /slow -> 504, 20 bytes after T, not by the handler",
            "  TIME  #1   the handler gave no answer to GET /slow within 0.05 s: sent 504",
            "open now:",
            (
                "  #1   GET /slow: handler running for T at FILE:LINE, "
                "and its client has gone on without it"
            ),
        ]

    def test_a_server_that_was_killed(self) -> None:
        server = HTTPServer()
        with failing(server):
            fetch(server, "/")
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            assert eventually(lambda: server.state.name == "FAILED")
            assert masked(server.explain()) == [
                f"<HTTPServer FAILED http://CLIENT pid={server.pid}>",
                "received: 1",
                "  TIME  #1   GET / -> 200, 0 bytes, no handler",
                "  TIME       the server's process was killed by SIGKILL",
            ]

    def test_a_server_that_hangs(self) -> None:
        with HTTPServer() as server:
            fetch(server, "/")
            assert server.pid is not None
            os.kill(server.pid, signal.SIGSTOP)
            try:
                begin = time.monotonic()
                assert told(server) == [
                    "received: 1",
                    "  TIME  #1   GET / -> 200, 0 bytes, no handler",
                    "open now:",
                    "  the server's process has not told in time what else is open",
                ]
                assert time.monotonic() - begin < 2
            finally:
                os.kill(server.pid, signal.SIGCONT)

    def test_binary_bodies(self) -> None:
        with HTTPServer() as server:
            fetch(server, "/logo", b"\x89PNG\r\n\x1a\n\x1b[2J", Content_Type="image/png")
            assert told(server) == [
                "received: 1",
                "  TIME  #1   POST /logo -> 200, 0 bytes, no handler",
                r"                 body (image/png): 12 bytes b'\x89PNG\r\n\x1a\n\x1b[2J'",
            ]

    def test_a_megabyte(self) -> None:
        with HTTPServer(handler=lambda request: str(len(request.body))) as server:
            fetch(server, "/big?" + "q" * 5000, b"a" * (1 << 20), Content_Type="text/plain")
            assert told(server) == [
                "received: 1",
                f"  TIME  #1   POST /big?{'q' * 110}... -> 200, 7 bytes after T by FILE:LINE",
                f"                 body (text/plain): 1,048,576 bytes '{'a' * 80}'...",
            ]

    def test_forty_requests(self) -> None:
        with HTTPServer() as server:
            for number in range(40):
                fetch(server, f"/{number}")
            assert told(server) == [
                "received: 40",
                "  13 earlier",
                *(
                    f"  TIME  {f'#{number + 1}':<4} GET /{number} -> 200, 0 bytes, no handler"
                    for number in range(13, 40)
                ),
            ]
            assert len(server.explain(None).splitlines()) == 42

    def test_what_is_refused(self) -> None:
        with HTTPServer() as server, connect(server.port) as client:
            client.sendall(b"NONSENSE\r\n\r\n")
            read_all(client)
            assert told(server)[:2] == [
                "received: 0",
                "  TIME  #1   sent 400 Bad Request: b'NONSENSE' is no request line (RFC 9112 3)",
            ]

    def test_an_answer_that_breaks_off(self) -> None:
        def handler(request: HTTPRequest) -> Iterator[bytes]:
            yield b"part"
            raise ValueError("no more")

        server = HTTPServer(handler=handler)
        with failing(server), connect(server.port) as client:
            client.sendall(HEAD)
            read_all(client)
            assert eventually(lambda: "no complete answer" in server.explain())
            assert told(server)[:3] == [
                "received: 1",
                "  TIME  #1   GET /slow -> no complete answer by FILE:LINE",
                "  TIME  #1   handler raised ValueError: no more, at FILE:LINE",
            ]


class TestOthers:
    def test_mail(self) -> None:
        def handler(mail: Mail) -> str:
            return "550 no such user"

        with SMTPServer(handler=handler) as server:
            with smtplib.SMTP(server.host, server.port, timeout=30) as client:
                with pytest.raises(smtplib.SMTPDataError):
                    client.sendmail("me@x", ["a@x", "b@x", "c@x", "d@x"], "Subject: tea\r\n\r\nhot")
            with connect(server.port) as half:
                half.recv(100)
                half.sendall(b"EHLO me\r\n")
                half.recv(1000)
                text = told(server)
        assert text == [
            "received: 1",
            (
                "  TIME  #1   mail from 'me@x' to 'a@x', 'b@x', 'c@x' and 1 more, 21 bytes"
                " -> 550, 16 bytes after T by FILE:LINE"
            ),
            "                 Subject: tea",
            r"                 body: 5 bytes 'hot\r\n'",
            "open now:",
            "  #2   after EHLO, without a mail",
        ]

    def test_datagrams(self) -> None:
        with UDPServer() as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(30)
            client.sendto(b"first", server.server_address)
            server.wait_for(1)
            server.handler = lambda datagram: datagram.data * 2
            client.sendto(b"\xff", server.server_address)
            client.recv(100)
            assert eventually(lambda: "2 bytes" in server.explain())
            assert told(server) == [
                "received: 2",
                "  TIME       datagram from CLIENT: 5 bytes 'first'",
                (
                    r"  TIME       datagram from CLIENT: 1 byte b'\xff'"
                    " -> sent 2 bytes after T by FILE:LINE"
                ),
            ]

    def test_a_datagram_whose_handler_runs(self, release: threading.Event) -> None:
        def handler(datagram: Datagram) -> None:
            release.wait(30)

        with UDPServer(handler=handler) as server:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"first", server.server_address)
            server.wait_for(1)
            assert eventually(lambda: " at test_explaining.py:" in server.explain())
            assert told(server)[1:] == [
                "  TIME       datagram from CLIENT: 5 bytes 'first' -> not answered",
                "open now:",
                "  -    a datagram of 5 bytes: handler running for T at FILE:LINE",
            ]
            release.set()

    def test_tcp(self, release: threading.Event) -> None:
        def handler(connection: Connection) -> bytes:
            connection.sendall(connection.recv(100).upper())
            release.wait(30)
            return b"!"

        with TCPServer(handler=handler) as server, connect(server.port) as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"HELLO"
            assert eventually(lambda: "sent 5 bytes" in server.explain())
            assert told(server) == [
                "received: 0",
                "open now:",
                (
                    "  #1   a connection: handler running for T at FILE:LINE, "
                    "received 5 bytes 'hello', sent 5 bytes"
                ),
            ]
            release.set()
            assert read_all(client) == b"!"
            server.wait_for(1)
            assert told(server)[:2] == [
                "received: 1",
                (
                    "  TIME  #1   connection that sent 5 bytes 'hello'"
                    " -> sent 6 bytes, closed by the handler after T by FILE:LINE"
                ),
            ]

    def test_tcp_without_a_handler(self) -> None:
        with TCPServer() as server, connect(server.port) as one, connect(server.port):
            one.sendall(b"\0\1")
            assert eventually(lambda: "2 bytes" in server.explain())
            assert told(server) == [
                "received: 0",
                "open now:",
                r"  #1   connected, has sent 2 bytes b'\x00\x01'",
                "  #2   connected, has sent nothing yet",
            ]


class TestWhenever:
    def test_before_the_start_and_after_the_stop(self) -> None:
        server = HTTPServer()
        assert server.explain() == "<HTTPServer NEW>\nreceived: 0"
        with server:
            fetch(server, "/")
        assert masked(server.explain()) == [
            "<HTTPServer STOPPED http://CLIENT>",
            "received: 1",
            "  TIME  #1   GET / -> 200, 0 bytes, no handler",
        ]

    def test_in_a_handler(self) -> None:
        said: list[str] = []

        def handler(request: HTTPRequest) -> None:
            said.extend(told(server))

        with HTTPServer(handler=handler) as server:
            fetch(server, "/")
        assert said == [
            "received: 1",
            "  TIME  #1   GET / -> not answered",
            "open now:",
            "  #1   GET /: handler running for T at FILE:LINE",
        ]

    def test_in_a_coroutine_handler(self) -> None:
        said: list[str] = []

        async def handler(request: HTTPRequest) -> None:
            said.extend(told(server))

        with HTTPServer(handler=handler) as server:
            fetch(server, "/")
        assert said[-1] == "  #1   GET /: handler running for T at FILE:LINE"

    def test_where_a_signal_handler_has_come_into_its_import(self) -> None:
        printed = run_script("""
            import sys
            from sidestage import HTTPServer

            def come_in(event, arguments):
                if event == "import" and arguments[0] == "sidestage.reports" and not said:
                    said.append("")
                    said.append(server.explain())

            with HTTPServer() as server:
                said = []
                sys.addaudithook(come_in)
                assert server.explain() == said[1], said
                said.append("no more")
            print("as well")
        """)
        assert printed == "as well\n"

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_in_a_forked_copy(self) -> None:
        with HTTPServer(handler=lambda request: None) as server, connect(server.port) as client:
            fetch(server, "/")
            client.sendall(b"GET")
            expected = server.explain()
            reading, writing = os.pipe()
            if (pid := os.fork()) == 0:
                try:
                    os.write(writing, server.explain().encode())
                finally:
                    os._exit(0)
            os.close(writing)
            with os.fdopen(reading) as pipe:
                said = pipe.read()
            os.waitpid(pid, 0)
        assert "waiting for the rest" in expected
        assert said.splitlines()[1:] == expected.splitlines()[1:3]

    def test_it_takes_a_moment_only(self) -> None:
        with HTTPServer(handler=lambda request: request.body) as server:
            for _ in range(40):
                fetch(server, "/", b"\xff" * (1 << 16))
            seconds = []
            for _ in range(5):
                before = time.thread_time()
                server.explain()
                seconds.append(time.thread_time() - before)
        assert min(seconds) < 0.005

    def test_many_connections_are_counted(self) -> None:
        with HTTPServer() as server, contextlib.ExitStack() as clients:
            for _ in range(30):
                clients.enter_context(connect(server.port))
            lines = told(server)
            assert lines[1:3] == ["open now:", "  #1   connected, has sent nothing yet"]
            assert lines[-1] == "  22 more"
            assert len(lines) == 11


class TestWaitTimeout:
    def test_half_a_request_is_not_nothing(self) -> None:
        with HTTPServer(name="shop") as server, connect(server.port) as client:
            client.sendall(b"GET / HTTP/1")
            with pytest.raises(WaitTimeout) as caught:
                server.wait_for(1, timeout=0.05)
        assert str(caught.value).splitlines() == [
            "HTTPServer 'shop' received 0 of 1 within 0.05 s: nothing complete",
            "open now:",
            "  #1   connected, has sent 12 bytes of a request, waiting for the rest",
        ]

    def test_nothing_is_nothing(self) -> None:
        with HTTPServer(name="shop") as server, pytest.raises(WaitTimeout) as caught:
            server.wait_for(1, timeout=0.05)
        assert str(caught.value) == "HTTPServer 'shop' received 0 of 1 within 0.05 s: nothing"

    def test_a_connection_that_a_handler_serves(self, release: threading.Event) -> None:
        def handler(connection: Connection) -> None:
            release.wait(30)

        with TCPServer(handler=handler) as server, connect(server.port) as client:
            client.sendall(b"hello")
            with pytest.raises(WaitTimeout) as caught:
                server.wait_for(1, timeout=0.2)
            release.set()
        assert masked(str(caught.value))[1:] == [
            "open now:",
            (
                "  #1   a connection: handler running for T at FILE:LINE, "
                "received 5 bytes 'hello', sent 0 bytes"
            ),
        ]
