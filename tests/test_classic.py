"""The proposal's classes: their names, signatures, and request handlers."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import smtplib
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from socketserver import StreamRequestHandler
from typing import Any

import pytest

from sidestage import StateError, classic

LONG = 30.0  # seconds; a bound for what ends at once unless it is broken
ANY = ("127.0.0.1", 0)


def ask_tcp(server: Any, data: bytes) -> bytes:
    with socket.create_connection(server.server_address[:2], LONG) as client:
        client.sendall(data)
        with contextlib.suppress(OSError):  # the handler may have reset it by now
            client.shutdown(socket.SHUT_WR)
        return client.makefile("rb").read()


def ask_udp(server: Any, data: bytes) -> bytes:
    with socket.socket(server.address_family, socket.SOCK_DGRAM) as client:
        client.settimeout(LONG)
        client.sendto(data, server.server_address)
        return client.recv(1 << 16)


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("TestTCPServer", "addr handler poll_interval bind_and_activate"),
        ("TestUDPServer", "addr handler poll_interval bind_and_activate"),
        ("TestUnixStreamServer", "addr handler poll_interval bind_and_activate"),
        ("TestUnixDatagramServer", "addr handler poll_interval bind_and_activate"),
        ("TestHTTPServer", "addr handler poll_interval log sslctx"),
        ("TestSMTPServer", "addr handler poll_interval sockmap"),
    ],
)
def test_the_names_and_signatures_are_the_proposals(name: str, parameters: str) -> None:
    server_class = getattr(classic, name)
    taken = inspect.signature(server_class).parameters.values()
    positional = [one.name for one in taken if one.kind is one.POSITIONAL_OR_KEYWORD]
    assert positional == parameters.split()
    assert server_class.__test__ is False


def test_a_tcp_handler_gets_a_stream_request_handler() -> None:
    def handler(request: StreamRequestHandler) -> None:
        assert request.client_address == request.connection.getpeername()
        request.wfile.write(request.rfile.readline().upper() + request.connection.recv(10))

    with classic.TestTCPServer(ANY, handler, 0.01, True) as server:
        assert ask_tcp(server, b"one\n") == b"ONE\n"


def test_a_udp_handler_gets_a_datagram_request_handler() -> None:
    def handler(request: Any) -> None:
        assert request.packet == request.rfile.read()
        request.wfile.write(request.packet.upper())

    with classic.TestUDPServer(ANY, handler, 0.01) as server:
        assert ask_udp(server, b"one") == b"ONE"


def test_a_udp_handler_may_use_the_servers_socket() -> None:
    def handler(request: Any) -> None:
        request.socket.sendto(b"directly", request.client_address)

    with classic.TestUDPServer(ANY, handler) as server:
        assert ask_udp(server, b"one") == b"directly"


def test_an_smtp_handler_gets_the_four_arguments_as_text() -> None:
    got: list[Any] = []
    with classic.TestSMTPServer(ANY, lambda *args: got.append(args), 0.01, {}) as server:
        with smtplib.SMTP("127.0.0.1", server.port, "me", LONG) as client:
            peer = client.sock.getsockname()
            client.sendmail("a@x", ["b@y", "c@y"], "Subject: s\r\n\r\ntext\r\n")
    assert got == [(peer, "a@x", ["b@y", "c@y"], "Subject: s\n\ntext")]


def test_an_smtp_server_may_override_process_message() -> None:
    class Refusing(classic.TestSMTPServer):
        def process_message(self, peer: Any, mailfrom: str, rcpttos: list[str], data: str) -> str:
            return f"550 not {mailfrom}"

    with Refusing(ANY, lambda *args: None) as server:
        with smtplib.SMTP("127.0.0.1", server.port, "me", LONG) as client:
            with pytest.raises(smtplib.SMTPDataError, match="not a@x"):
                client.sendmail("a@x", "b@y", "text")


def answer(request: Any) -> None:
    """An HTTP handler in the style of ``http.server``."""
    body = f"{request.command} {request.path}".encode()
    request.send_response(200)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "BREW"])
def test_an_http_handler_serves_any_method(method: str) -> None:
    with classic.TestHTTPServer(ANY, answer, 0.01) as server:
        client = HTTPConnection("127.0.0.1", server.server_port, timeout=LONG)
        client.request(method, "/x?y")
        assert client.getresponse().read() == f"{method} /x?y".encode()
        client.close()
        assert server.server_name == "127.0.0.1"


@pytest.mark.parametrize("log", [True, False])
def test_an_http_server_logs_to_stderr_if_asked(
    log: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with classic.TestHTTPServer(ANY, answer, 0.01, log) as server:
        urllib.request.urlopen(server.url + "/logged").close()
    assert ("GET /logged" in capsys.readouterr().err) is log


@pytest.fixture
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The SSLContexts of server and client."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = pytest.importorskip("test").__path__[0]
    for name in ("certdata/keycert.pem", "keycert.pem"):
        if (Path(folder) / name).exists():
            server.load_cert_chain(Path(folder) / name)
            client = ssl.create_default_context(cafile=str(Path(folder) / name))
            return server, client
    pytest.skip("this Python has no test certificates")


def test_an_http_server_with_a_context_speaks_https(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    ours, theirs = contexts
    with classic.TestHTTPServer(("localhost", 0), answer, 0.01, False, ours) as server:
        assert server.url == f"https://localhost:{server.port}"
        with urllib.request.urlopen(server.url + "/safe", context=theirs) as response:
            assert response.read() == b"GET /safe"


def test_a_big_body_crosses_tls_in_both_directions(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    def echo(request: Any) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        request.send_response(200)
        request.end_headers()
        request.wfile.write(body)

    ours, theirs = contexts
    body = bytes(range(256)) * 8192  # 2 MiB
    with classic.TestHTTPServer(("localhost", 0), echo, sslctx=ours) as server:
        with urllib.request.urlopen(server.url, data=body, context=theirs) as response:
            assert response.read() == body


def test_a_handshake_that_fails_is_no_error_but_a_diagnostic(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    with classic.TestHTTPServer(ANY, answer, sslctx=contexts[0]) as server:
        with socket.create_connection(server.server_address, LONG) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                while client.recv(100):
                    continue
                raise ConnectionResetError  # an alert, and then a plain end
        server.wait_for(1)
    assert "the TLS handshake failed" in server.diagnostics[0].text


# What may be changed before the start ----------------------------------------------------------


@pytest.mark.parametrize(
    "server_class, ask",
    [(classic.TestTCPServer, ask_tcp), (classic.TestUDPServer, ask_udp)],
)
def test_the_request_handler_class_may_be_replaced_before_the_start(
    server_class: Any, ask: Callable[[Any, bytes], bytes]
) -> None:
    server = server_class(ANY, lambda request: request.wfile.write(request.rfile.read()))

    class Framed(server.RequestHandlerClass):  # type: ignore[misc,name-defined]
        def handle(self) -> None:
            self.wfile.write(b"<")
            super().handle()
            self.wfile.write(b">")

    server.RequestHandlerClass = Framed
    with server:
        assert ask(server, b"handled") == b"<handled>"


@pytest.mark.parametrize(
    "base, ask", [(classic.TestTCPServer, ask_tcp), (classic.TestUDPServer, ask_udp)]
)
@pytest.mark.parametrize("host", ["localhost", "", "::1"])
def test_the_address_family_is_a_class_attribute(
    base: Any, ask: Callable[[Any, bytes], bytes], host: str
) -> None:
    six: Any = type("Six", (base,), {"address_family": socket.AF_INET6})
    with six((host, 0), lambda request: request.wfile.write(request.rfile.read())) as server:
        assert ":" in server.server_address[0]
        assert ask(server, b"six") == b"six"


@pytest.mark.parametrize(
    "server_class, kind",
    [
        (classic.TestUnixStreamServer, socket.SOCK_STREAM),
        (classic.TestUnixDatagramServer, socket.SOCK_DGRAM),
    ],
)
def test_the_unix_servers_take_a_path(server_class: Any, kind: int, tmp_path: Path) -> None:
    heard: list[bytes] = []
    done = threading.Event()

    def handler(request: Any) -> None:
        heard.append(request.rfile.read())
        done.set()

    with server_class(str(tmp_path / "s"), handler, 0.01) as server:
        with socket.socket(server.address_family, kind) as client:
            client.connect(server.server_address)
            client.sendall(b"hello")
        assert done.wait(LONG)
    assert heard == [b"hello"]


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "a:80"])
@pytest.mark.parametrize("base", [classic.TestUnixStreamServer, classic.TestUnixDatagramServer])
def test_the_unix_servers_take_any_text_for_a_path(
    base: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their address family says what it is."""
    monkeypatch.chdir(tmp_path)
    with base(name, print) as server:
        assert server.server_address == name
        assert (tmp_path / name).is_socket()


@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_a_reply_over_a_unix_socket_takes_its_address_in_any_form(
    kind: Any, tmp_path: Path
) -> None:
    path = tmp_path / "client"

    def handler(request: Any) -> None:
        assert request.socket.sendto(memoryview(b"a-b-")[::2], 0, kind(path)) == 2
        with pytest.raises(ValueError, match="can only go to"):
            request.socket.sendto(b"x", kind(tmp_path / "other"))
        with pytest.raises(ValueError, match="can only go to"):
            request.socket.sendto(b"x")

    with classic.TestUnixDatagramServer(tmp_path / "s", handler) as server:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.settimeout(LONG)
            client.bind(str(path))
            client.sendto(b"x", server.server_address)
            assert client.recv(10) == b"ab"


def test_a_server_is_used_as_in_the_proposal() -> None:
    server = classic.TestTCPServer(ANY, lambda r: r.wfile.write(r.rfile.read()), 0.01)
    server.start()
    assert server.ready.wait(LONG)
    assert ask_tcp(server, b"hi") == b"hi"
    server.stop(2.0)
    server.server_close()
    assert not server.ready.is_set()


@pytest.mark.parametrize(
    "server_class, ask", [(classic.TestTCPServer, ask_tcp), (classic.TestHTTPServer, ask_tcp)]
)
def test_an_async_handler_is_an_error_that_says_so(
    server_class: Any, ask: Callable[[Any, bytes], bytes]
) -> None:
    async def handler(request: Any) -> None:
        raise AssertionError("never awaited")

    server = server_class(ANY, handler).start()
    with pytest.raises(ConnectionResetError):
        ask(server, b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(TypeError, match="must not be async"):
        server.stop()


def test_what_a_handler_raises_is_raised_at_the_stop() -> None:
    def fail(request: Any) -> None:
        assert request.connection.recv(10) == b"something else"

    server = classic.TestTCPServer(ANY, fail).start()
    with pytest.raises(ConnectionResetError):
        ask_tcp(server, b"this")
    with pytest.raises(AssertionError, match="something else"):
        server.stop()


# What an HTTP handler returns ------------------------------------------------------------------


def test_an_http_handler_that_writes_no_response_and_returns_one_is_told_so() -> None:
    def handler(request: Any) -> Any:
        return {"a": 1}

    server = classic.TestHTTPServer(ANY, handler).start()
    with pytest.raises(ConnectionError):
        ask_http(server)
    with pytest.raises(
        TypeError, match=r"handler \(test_classic.py:\d+\), return in line"
    ) as caught:
        server.stop()
    assert "send_response, end_headers, wfile.write" in str(caught.value)
    assert str(caught.traceback[-1].statement).strip() == 'return {"a": 1}'


@pytest.mark.parametrize("secure", [False, True])
def test_after_a_response_what_an_http_handler_returns_is_ignored(
    secure: bool, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    def handler(request: Any) -> Any:
        request.send_response(200)
        request.end_headers()
        return request.wfile.write(b"ok")

    ours, theirs = contexts if secure else (None, None)
    with classic.TestHTTPServer(("localhost", 0), handler, sslctx=ours) as server:
        with urllib.request.urlopen(server.url, context=theirs, timeout=LONG) as response:
            assert response.read() == b"ok"


@pytest.mark.parametrize(
    "kind",
    [classic.TestHTTPServer, classic.TestTCPServer, classic.TestSMTPServer, classic.TestUDPServer],
)
def test_the_option_tls_is_refused_in_favour_of_sslctx(kind: Any) -> None:
    server = kind(ANY, print)
    with pytest.raises(AttributeError, match=r"tls cannot be set: .*sslctx=context"):
        server.tls = True
    server.tls = None  # as it is
    assert server.tls is None


@pytest.mark.parametrize("what", ["ca_file", "client_context()", "client_env()"])
def test_what_clients_need_comes_with_sslctx(what: str) -> None:
    server: Any = classic.TestHTTPServer(ANY, print)
    with pytest.raises(StateError, match=f"^{re.escape(what)} is not there: .*sslctx=context"):
        eval(f"server.{what}", {"server": server})


def test_over_tls_a_returned_response_is_told_too(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    ours, theirs = contexts
    server = classic.TestHTTPServer(("localhost", 0), lambda r: "x", sslctx=ours).start()
    with contextlib.suppress(OSError, HTTPException):  # how it ends is TLS's matter
        urllib.request.urlopen(server.url, context=theirs, timeout=LONG)
    with pytest.raises(TypeError, match="it has written none, and returned str: 'x'"):
        server.stop()


def test_a_response_in_a_buffer_counts_as_written() -> None:
    def handler(request: Any) -> Any:
        return request.wfile.write(b"HTTP/1.0 200 OK\r\n\r\nok")

    server = classic.TestHTTPServer(ANY, handler)
    server.RequestHandlerClass.wbufsize = 1 << 16  # type: ignore[attr-defined]
    with server:
        assert ask_http(server) == b"ok"


def test_of_two_requests_on_a_connection_each_has_to_be_answered() -> None:
    def handler(request: Any) -> Any:
        if request.path == "/one":
            request.send_response(204)
            request.end_headers()
        return "x"

    server = classic.TestHTTPServer(ANY, handler)
    server.RequestHandlerClass.protocol_version = "HTTP/1.1"  # type: ignore[attr-defined]
    server.start()
    with contextlib.closing(HTTPConnection("127.0.0.1", server.port, timeout=LONG)) as client:
        client.request("GET", "/one")
        assert client.getresponse().read() == b""
        client.request("GET", "/two")
        with pytest.raises(ConnectionError):
            client.getresponse()
    with pytest.raises(TypeError, match="it has written none"):
        server.stop()


def test_an_overridden_process_message_is_named_for_what_it_returns() -> None:
    class Refusing(classic.TestSMTPServer):
        def process_message(self, peer: Any, mailfrom: str, rcpttos: list[str], data: str) -> Any:
            return 550

    server = Refusing(ANY, lambda *args: None).start()
    with smtplib.SMTP("127.0.0.1", server.port, "me", LONG) as client:
        with pytest.raises(smtplib.SMTPDataError):
            client.sendmail("a@x", "b@y", "text")
    with pytest.raises(TypeError, match=r"Refusing.process_message \(test_classic.py:\d+\)"):
        server.stop()


def ask_http(server: Any) -> bytes:
    with urllib.request.urlopen(server.url, timeout=LONG) as response:
        body: bytes = response.read()
    return body
