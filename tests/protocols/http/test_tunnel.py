"""A CONNECT that was answered 2xx: a tunnel, which the handler uses like a socket."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest

from kit.raw_http import WAIT, RawClient
from kit.scripts import eventually
from sidestage import HTTPRequest, HTTPServer, ServerStopped

MIB = 1 << 20
CONNECT = "CONNECT t:80 HTTP/1.1\r\nHost: t:80\r\n\r\n"
GET = "GET / HTTP/1.1\r\nHost: t\r\n\r\n"


class Client(RawClient):
    """A client that knows how many descriptors its server's process had before it connected."""

    def __init__(self, server: HTTPServer) -> None:
        self._server = server
        self._before = server.stats().fds
        super().__init__(server)

    def is_released(self) -> bool:
        """Whether the server closes its end."""
        return eventually(lambda: self._server.stats().fds <= self._before)


def opened(request: HTTPRequest) -> Any:
    """Answer 200, and return the tunnel."""
    request.send_response(200)
    request.end_headers()
    return request.connection


def echo(request: HTTPRequest) -> None:
    """Send back what comes until the client stops sending, and say so."""
    connection = opened(request)
    while data := connection.recv(1 << 16):
        connection.sendall(data)
    connection.sendall(b"end")


@contextlib.contextmanager
def tunnel(handler: Callable[[HTTPRequest], Any], first: bytes = b"") -> Iterator[Any]:
    """A server, and a client with a tunnel through it; ``first`` comes with the CONNECT."""
    with HTTPServer(handler=handler) as server, Client(server) as client:
        client.send(CONNECT.encode() + first)
        assert client.status() == 200
        yield server, client


# Open ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 204, 299])
def test_what_follows_a_2xx_is_the_tunnel(status: int) -> None:
    def handler(request: HTTPRequest) -> None:
        assert (request.method, request.target, request.path) == ("CONNECT", "t:80", "t:80")
        request.send_response(status)
        request.send_header("X-Proxy", "yes")
        request.end_headers()
        connection = request.connection
        assert connection is request.connection
        assert connection.getpeername() == request.client_address
        connection.sendall(connection.recv_exactly(5).upper())

    with HTTPServer(handler=handler) as server, Client(server) as client:
        client.send(CONNECT)
        first, *fields = client.head()
        assert first.startswith(f"HTTP/1.1 {status} ")
        assert "X-Proxy: yes" in fields
        names = {field.partition(":")[0] for field in fields}
        assert names.isdisjoint({"Content-Length", "Transfer-Encoding", "Connection"})
        client.send("hello")
        assert client.rest() == b"HELLO"
        answer = server.received[0].answer
        assert answer is not None
        assert (answer.status, answer.size) == (status, 5)
        assert not server.diagnostics


def test_the_tunnel_is_open_before_the_handler_is_done() -> None:
    with tunnel(echo) as (_, client):
        for word in (b"one", b"two", GET.encode(), b"\0\xff"):
            client.send(word)
            assert client.read(len(word)) == word
        client.end()
        assert client.rest() == b"end"


def test_what_comes_with_the_connect_is_of_the_tunnel() -> None:
    with tunnel(echo, GET.encode()) as (server, client):
        assert client.read(len(GET)) == GET.encode()
        client.send("more")
        client.end()
        assert client.rest() == b"moreend"
        assert len(server.received) == 1


def test_what_comes_before_the_answer_is_of_the_tunnel() -> None:
    turn = threading.Event()

    def handler(request: HTTPRequest) -> None:
        assert turn.wait(WAIT)
        echo(request)

    with HTTPServer(handler=handler) as server, Client(server) as client:
        client.send(CONNECT + "early, ")
        server.wait_for(1)
        client.send("and ")
        turn.set()
        assert client.status() == 200
        client.send("late ")
        client.end()
        assert client.rest() == b"early, and late end"


def test_a_client_may_have_ended_before_the_answer() -> None:
    turn = threading.Event()

    def handler(request: HTTPRequest) -> None:
        assert turn.wait(WAIT)
        echo(request)

    with HTTPServer(handler=handler) as server, Client(server) as client:
        client.send(CONNECT + "hello ")
        client.end()
        server.wait_for(1)
        assert len(server.received) == 1  # what came before this is acted on
        turn.set()
        assert client.status() == 200
        assert client.rest() == b"hello end"


def test_a_connect_waits_for_its_turn() -> None:
    """And what follows it, even if it looks like HTTP."""

    def handler(request: HTTPRequest) -> Any:
        return echo(request) if request.method == "CONNECT" else "first"

    with HTTPServer(handler=handler) as server, Client(server) as client:
        client.send(GET + CONNECT + GET)
        assert client.answer() == (200, b"first")
        assert client.status() == 200
        client.end()
        assert client.rest() == GET.encode() + b"end"
        assert [request.method for request in server.received] == ["GET", "CONNECT"]


@pytest.mark.parametrize("first", [0, MIB])
def test_much_goes_through_both_ways(first: int) -> None:
    """At once, and without a loss."""
    data = bytes(range(256)) * (4 * MIB // 256)
    with tunnel(echo, data[:first]) as (_, client):

        def send() -> None:
            client.send(data[first:])
            client.end()

        sender = threading.Thread(target=send)
        sender.start()
        assert client.rest() == data + b"end"
        sender.join(WAIT)


def test_files_over_the_tunnel() -> None:
    def handler(request: HTTPRequest) -> None:
        connection = opened(request)
        with connection.makefile("rw", newline="\n") as file:
            for line in file:
                file.write(line.upper())
                file.flush()
        connection.wfile.write(b"end")

    with tunnel(handler) as (_, client):
        for word in ("one\n", "two\n"):
            client.send(word)
            assert client.line() == word.upper().encode()
        client.end()
        assert client.rest() == b"end"


def test_a_silent_client_times_the_handler_out() -> None:
    def handler(request: HTTPRequest) -> None:
        connection = opened(request)
        connection.settimeout(0.01)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.sendall(b"timed out")

    with tunnel(handler) as (_, client):
        assert client.rest() == b"timed out"


def test_addresses_are_those_of_the_socket() -> None:
    found: list[Any] = []

    def handler(request: HTTPRequest) -> None:
        connection = opened(request)
        found.extend((connection.getpeername(), connection.getsockname()))

    with tunnel(handler) as (server, client):
        assert client.rest() == b""
        assert found == [client.sock.getsockname(), server.server_address]


def test_an_option_reaches_the_real_socket() -> None:
    def handler(request: HTTPRequest) -> None:
        connection = opened(request)
        connection.setsockopt(-1, -1, 1)
        connection.sendall(b"done")

    with tunnel(handler) as (server, client):
        assert client.rest() == b"done"
        assert "setsockopt(-1, -1) failed" in server.diagnostics[0].text


# Its end ---------------------------------------------------------------------------------------


def test_a_client_that_half_closes_still_gets_its_answer() -> None:
    def handler(request: HTTPRequest) -> None:
        connection = opened(request)
        assert connection.recv(100) == b"hello"
        assert connection.recv(100) == b""
        assert connection.recv(100) == b""
        connection.sendall(b"bye")

    with tunnel(handler, b"hello") as (server, client):
        client.end()
        assert client.rest() == b"bye"
        assert not server.diagnostics


def test_a_handler_that_half_closes_can_still_read() -> None:
    got: list[bytes] = []
    done = threading.Event()

    def handler(request: HTTPRequest) -> None:
        connection = opened(request)
        connection.sendall(b"bye")
        connection.shutdown(socket.SHUT_WR)
        with pytest.raises(BrokenPipeError):
            connection.sendall(b"x")
        while data := connection.recv(1 << 16):
            got.append(data)
        done.set()

    with tunnel(handler) as (server, client):
        assert client.rest() == b"bye"
        client.send(b"x" * MIB)
        client.end()
        assert done.wait(WAIT)
        assert b"".join(got) == b"x" * MIB
        assert not server.diagnostics


@pytest.mark.parametrize("how", ["returns", "closes"])
def test_a_handler_that_is_done_closes_the_tunnel(how: str) -> None:
    """Once all is sent; a client that goes on sending is not reset before it has that."""

    def handler(request: HTTPRequest) -> None:
        connection = opened(request)
        connection.recv_exactly(1)
        connection.sendall(b"x" * MIB)
        if how == "closes":
            connection.close()
            with pytest.raises(OSError, match="has closed this connection"):
                connection.recv(1)

    with tunnel(handler, b"hello, unread") as (server, client):
        assert client.rest() == b"x" * MIB
        assert client.is_released()
        assert not server.errors


def test_a_tunnel_whose_handler_is_done_at_once_is_closed() -> None:
    with tunnel(lambda request: opened(request) and None) as (_, client):
        assert client.rest() == b""
        assert client.is_released()


def test_a_handler_may_reset_its_client() -> None:
    seen = threading.Event()

    def handler(request: HTTPRequest) -> None:
        connection = opened(request)
        assert seen.wait(WAIT)
        connection.reset()

    with tunnel(handler) as (_, client):
        seen.set()
        with pytest.raises(ConnectionResetError):
            client.rest()


def read_forever(connection: Any) -> None:
    while connection.recv(100):
        pass


def write_forever(connection: Any) -> None:
    while True:
        connection.sendall(bytes(1 << 16))


@pytest.mark.parametrize("use", [read_forever, write_forever])
def test_a_client_that_resets_wakes_the_handler(use: Callable[[Any], None]) -> None:
    woken = threading.Event()

    def handler(request: HTTPRequest) -> None:
        try:
            use(opened(request))
        except ConnectionResetError:
            woken.set()
            raise

    with tunnel(handler) as (server, client):
        client.reset()
        assert woken.wait(WAIT)
        assert eventually(lambda: any("client left" in d.text for d in server.diagnostics))
        assert client.is_released()
        assert not server.errors


def test_a_handler_that_raises_closes_the_tunnel_and_fails_the_test() -> None:
    def handler(request: HTTPRequest) -> None:
        opened(request).sendall(b"part")
        raise LookupError("midway")

    with pytest.raises(LookupError, match="midway"), tunnel(handler) as (_, client):
        assert client.rest() == b"part"


def test_a_handler_that_returns_more_than_its_tunnel_is_an_error() -> None:
    with pytest.raises(TypeError, match="must return None"):
        with tunnel(lambda request: opened(request) and "and this") as (_, client):
            assert client.rest() == b""


def test_a_stop_wakes_a_handler_that_waits_in_the_tunnel() -> None:
    woken = threading.Event()

    def handler(request: HTTPRequest) -> None:
        try:
            opened(request).recv(1)
        except ServerStopped:
            woken.set()
            raise

    with tunnel(handler) as (server, client):
        report = server.stop()
        assert woken.wait(WAIT)
        assert (report.rung, report.connections, report.seconds < 3) == ("ask", (), True)
        assert client.rest() == b""
        assert not server.errors


def test_what_was_sent_before_the_stop_reaches_the_handler() -> None:
    got: list[bytes] = []
    waiting = threading.Event()

    def handler(request: HTTPRequest) -> None:
        connection = opened(request)
        waiting.wait(WAIT)
        got.append(connection.recv_exactly(5))
        connection.sendall(b"bye")

    with tunnel(handler) as (server, client):
        client.send(b"hello")
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        waiting.set()
        stopper.join(WAIT)
        assert got == [b"hello"]
        assert client.rest() == b"bye"


@pytest.mark.filterwarnings("ignore::sidestage.LeftRunningWarning")
@pytest.mark.parametrize("half_closed", [False, True])
def test_a_stop_names_a_tunnel_that_stays_open(half_closed: bool) -> None:
    release = threading.Event()

    def handler(request: HTTPRequest) -> None:
        connection = opened(request)
        if half_closed:
            connection.shutdown(socket.SHUT_WR)
        release.wait(WAIT)

    with tunnel(handler) as (server, client):
        if half_closed:
            assert client.rest() == b""
        report = server.stop(timeout=1.0)
        release.set()
    assert [left.state[:25] for left in report.connections] == ["CONNECT t:80: tunnel open"]


def test_a_stop_wakes_a_handler_that_has_half_closed() -> None:
    woken = threading.Event()

    def handler(request: HTTPRequest) -> None:
        connection = opened(request)
        connection.shutdown(socket.SHUT_WR)
        try:
            read_forever(connection)
        finally:
            woken.set()

    with tunnel(handler) as (server, client):
        assert client.rest() == b""
        report = server.stop()
        assert woken.wait(WAIT)
        assert (report.rung, report.connections) == ("ask", ())
        assert not server.errors


# No tunnel -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [302, 403, 503])
@pytest.mark.parametrize("how", ["returned", "by hand", "streamed"])
def test_another_answer_is_an_ordinary_response(status: int, how: str) -> None:
    """After which the connection goes on: the next request is answered too."""

    def handler(request: HTTPRequest) -> Any:
        if request.method != "CONNECT":
            return "next"
        if how == "returned":
            return "no", status
        request.send_response(status)
        if how == "streamed":
            request.send_header("Content-Length", 2)
        request.end_headers()
        request.wfile.write(b"no")
        if how == "streamed":
            request.wfile.flush()
        return None

    with HTTPServer(handler=handler) as server, Client(server) as client:
        client.send(CONNECT)
        assert client.answer() == (status, b"no")
        client.send(GET)
        assert client.answer() == (200, b"next")
        client.send(CONNECT + GET)  # and when the request was there before
        assert client.answer() == (status, b"no")
        assert client.answer() == (200, b"next")
        assert not server.errors


def test_a_connect_that_was_refused_may_be_tried_again() -> None:
    def handler(request: HTTPRequest) -> Any:
        if "Proxy-Authorization" not in request.headers:
            return "who are you?", 407
        return echo(request)

    with HTTPServer(handler=handler) as server, Client(server) as client:
        client.send(CONNECT)
        assert client.answer() == (407, b"who are you?")
        client.send(CONNECT.replace("\r\n\r\n", "\r\nProxy-Authorization: me\r\n\r\n") + "hello")
        client.end()
        assert client.status() == 200
        assert client.rest() == b"helloend"


def whole(request: HTTPRequest) -> str:
    return "body"


def status_alone(request: HTTPRequest) -> int:
    return 200


def whole_by_hand(request: HTTPRequest) -> None:
    request.send_response(200)
    request.end_headers()


@pytest.mark.parametrize("handler", [whole, status_alone, whole_by_hand, None])
def test_a_2xx_without_a_use_of_the_tunnel_closes_it(
    handler: Callable[[HTTPRequest], Any] | None,
) -> None:
    """Also without a handler. RFC 9110 9.3.6: a 2xx has no body and no length."""
    with HTTPServer(handler=handler) as server, Client(server) as client:
        client.send(CONNECT + "unread")
        first, *fields = client.head()
        assert first == "HTTP/1.1 200 OK"
        names = {field.partition(":")[0] for field in fields}
        assert names.isdisjoint({"Content-Length", "Transfer-Encoding"})
        assert client.rest() == b""
        client.close()
        assert client.is_released()
        assert not server.errors


def iterator(request: HTTPRequest) -> Any:
    return iter([b"one", b"two"])


def flushed(request: HTTPRequest) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(b"one")
    request.wfile.flush()
    request.wfile.write(b"two")


@pytest.mark.parametrize("handler", [iterator, flushed])
def test_a_stream_goes_through_the_tunnel_and_ends_it(
    handler: Callable[[HTTPRequest], Any],
) -> None:
    with tunnel(handler) as (server, client):
        assert client.rest() == b"onetwo"
        client.close()
        assert client.is_released()
        assert not server.errors


def too_early(request: HTTPRequest) -> None:
    _ = request.connection


def without_end_headers(request: HTTPRequest) -> None:
    request.send_response(200)
    _ = request.connection


def after_403(request: HTTPRequest) -> None:
    request.send_response(403)
    request.end_headers()
    _ = request.connection


def after_200(request: HTTPRequest) -> None:
    opened(request)


@pytest.mark.parametrize(
    "handler, method",
    [
        (too_early, "CONNECT"),
        (without_end_headers, "CONNECT"),
        (after_403, "CONNECT"),
        (after_200, "GET"),
        (after_200, "POST"),
    ],
)
def test_there_is_no_connection_without_a_connect_that_was_answered_2xx(
    handler: Callable[[HTTPRequest], None], method: str
) -> None:
    target = "t:80" if method == "CONNECT" else "/"
    with (
        pytest.raises(ValueError, match="CONNECT"),
        HTTPServer(handler=handler) as server,
        Client(server) as client,
    ):
        client.send(f"{method} {target} HTTP/1.1\r\nHost: t\r\n\r\n")
        assert client.status() == 500


def test_a_record_has_no_connection() -> None:
    with tunnel(echo) as (server, client):
        client.end()
        assert client.rest() == b"end"
        with pytest.raises(ValueError, match="has been answered"):
            _ = server.received[0].connection


# Through a proxy -------------------------------------------------------------------------------


def relay(request: HTTPRequest) -> None:
    """Connect to the target, and pass on what either side sends until both have ended."""
    host, _, port = request.target.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=WAIT) as origin:
        connection = opened(request)

        def upstream() -> None:
            while data := connection.recv(1 << 16):
                origin.sendall(data)
            origin.shutdown(socket.SHUT_WR)

        there = threading.Thread(target=upstream)
        there.start()
        while data := origin.recv(1 << 16):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        there.join(WAIT)


def test_http_client_talks_to_a_server_through_the_tunnel() -> None:
    def answer(request: HTTPRequest) -> bytes:
        return request.path.encode() + request.body

    with HTTPServer(handler=answer) as origin, HTTPServer(handler=relay) as proxy:
        with closing(HTTPConnection(proxy.host, proxy.port, timeout=WAIT)) as client:
            client.set_tunnel(origin.host, origin.port)
            for size in (0, 10, 2 * MIB):
                client.request("POST", f"/{size}", b"x" * size)
                wanted = f"/{size}".encode() + b"x" * size
                assert client.getresponse().read() == wanted
        [connect] = proxy.received
        assert connect.target == f"{origin.host}:{origin.port}"
        assert [request.path for request in origin.received] == ["/0", "/10", f"/{2 * MIB}"]


def test_what_is_written_by_hand_goes_through_the_tunnel() -> None:
    """Also if the handler never asks for the connection."""

    def handler(request: HTTPRequest) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(b"greeting")

    with HTTPServer(handler=handler) as server, Client(server) as client:
        client.send(CONNECT)
        assert client.status() == 200
        assert client.rest() == b"greeting"


def test_the_client_has_the_answer_before_the_handler_uses_the_tunnel() -> None:
    answered = threading.Event()

    def handler(request: HTTPRequest) -> None:
        request.send_response(200)
        request.end_headers()
        assert answered.wait(WAIT)
        request.connection.sendall(b"hello")

    with HTTPServer(handler=handler) as server, Client(server) as client:
        client.send(CONNECT)
        assert client.status() == 200
        answered.set()
        assert client.rest() == b"hello"
