"""Layers between socket and protocol: bytes pass them in order, and nothing else changes."""

from __future__ import annotations

import asyncio
import http.client
import smtplib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from kit.clients import connect, read_all, read_line
from kit.connections import Connection, Receiver
from kit.runs import pid_of, pooled
from kit.scripts import gone
from kit.upper.servers import (
    SWAP,
    TESTS,
    UPPER,
    UpperHTTPServer,
    UpperSMTPServer,
    UpperTCPServer,
)
from sidestage import HTTPServer, Server, SMTPServer, StartError, TCPServer, UDPServer
from sidestage.child import service as child_service
from sidestage.child.net.layer import Layer, stacked
from sidestage.child.net.stream import Receiver as ReceiverProtocol
from sidestage.child.net.stream import Stream
from sidestage.child.service import Service
from sidestage.process.pool import pool

LONG = 30.0  # seconds; a bound for what ends at once unless it is broken
MUCH = b"abcdefgh" * (1 << 20)  # more than all buffers on the way hold


def echo(connection: Any) -> None:
    while data := connection.recv(1 << 16):
        connection.sendall(data)


def sending(client: socket.socket, data: bytes) -> threading.Thread:
    """Send ``data`` and the end from a thread of its own."""

    def send() -> None:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


class TestTCP:
    def test_both_directions_pass_the_layer(self) -> None:
        got: list[bytes] = []

        def handler(connection: Any) -> bytes:
            got.append(connection.recv(100))
            return b"to the client"

        with UpperTCPServer(handler=handler) as server, connect(server.port) as client:
            client.sendall(b"to the handler")
            assert read_all(client) == b"TO THE CLIENT"
        assert got == [b"TO THE HANDLER"]

    def test_without_a_handler_its_data_is_recorded(self) -> None:
        with UpperTCPServer() as server, connect(server.port) as client:
            address = client.getsockname()
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b""
            (transcript,) = server.wait_for(1)
        assert (transcript.data, transcript.client_address) == (b"HELLO", address)

    def test_large_data_passes_both_ways_at_once(self) -> None:
        with UpperTCPServer(handler=echo) as server, connect(server.port) as client:
            sender = sending(client, MUCH)
            assert read_all(client) == MUCH.upper()
            sender.join(LONG)

    def test_a_client_that_does_not_read_holds_up_the_handler_and_no_byte_is_lost(self) -> None:
        written = threading.Event()

        def handler(connection: Any) -> None:
            connection.sendall(MUCH * 3)
            written.set()

        with UpperTCPServer(handler=handler) as server:
            with connect(server.port) as client, connect(server.port) as other:
                assert not written.wait(0.2)
                assert read_all(client) == (MUCH * 3).upper()
                assert read_all(other) == (MUCH * 3).upper()

    def test_a_half_close_reaches_the_handler_which_can_still_send(self) -> None:
        def handler(connection: Any) -> bytes:
            came = connection.makefile("rb").read()
            return b"after " + came

        with UpperTCPServer(handler=handler) as server, connect(server.port) as client:
            client.sendall(b"all")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"AFTER ALL"

    def test_a_half_close_of_the_handler_reaches_the_client_which_can_still_send(self) -> None:
        got: list[bytes] = []

        def handler(connection: Any) -> None:
            connection.sendall(b"all")
            connection.shutdown(socket.SHUT_WR)
            got.append(connection.recv(100))

        with UpperTCPServer(handler=handler) as server, connect(server.port) as client:
            assert read_all(client) == b"ALL"
            client.sendall(b"after")
            client.shutdown(socket.SHUT_WR)
        assert got == [b"AFTER"]

    def test_a_reset_by_the_client_is_one_for_the_handler(self) -> None:
        raised: list[Exception] = []
        ready = threading.Event()

        def handler(connection: Any) -> None:
            ready.set()
            try:
                connection.recv(100)
            except ConnectionResetError as error:
                raised.append(error)

        with UpperTCPServer(handler=handler) as server:
            with connect(server.port) as client:
                assert ready.wait(LONG)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert len(raised) == 1

    def test_a_reset_by_the_handler_is_one_for_the_client(self) -> None:
        with (
            UpperTCPServer(handler=lambda connection: connection.reset()) as server,
            pytest.raises(ConnectionResetError),  # perhaps while it connects
            connect(server.port) as client,
        ):
            client.recv(100)


class TestHTTP:
    def test_both_directions_pass_the_layer(self) -> None:
        def handler(request: Any) -> str:
            assert request.method == "POST"
            return f"{request.target} {request.body.decode()} {request.headers['host']}"

        with UpperHTTPServer(handler=handler) as server, connect(server.port) as client:
            client.sendall(
                b"post /path?key=value http/1.1\r\nhost: name\r\ncontent-length: 4\r\n"
                b"connection: close\r\n\r\nbody"
            )
            head, _, body = read_all(client).partition(b"\r\n\r\n")
        assert body == b"/PATH?KEY=VALUE BODY NAME"
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert head == head.upper()
        assert b"\r\nCONTENT-LENGTH: 25" in head

    def test_without_a_handler_requests_are_recorded(self) -> None:
        with UpperHTTPServer() as server:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LONG)
            for number in range(3):
                connection.request("PUT", f"/item/{number}", b"content")
                assert connection.getresponse().read() == b""
            connection.close()
            assert [(r.target, r.body) for r in server.received] == [
                (f"/ITEM/{number}", b"CONTENT") for number in range(3)
            ]
            assert {request.connection_number for request in server.received} == {1}

    def test_large_bodies_pass_both_ways(self) -> None:
        with UpperHTTPServer(handler=lambda request: request.body) as server:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LONG)
            connection.request("POST", "/", MUCH)
            assert connection.getresponse().read() == MUCH.upper()
            connection.close()

    def test_so_do_streamed_bodies(self) -> None:
        def handler(request: Any) -> Iterator[bytes]:
            assert request.body == MUCH[:100_000].upper() * 20
            yield from (b"piece %d " % number for number in range(100))

        with UpperHTTPServer(handler=handler) as server:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LONG)
            connection.request("POST", "/", (MUCH[:100_000] for _ in range(20)))
            expected = b"".join(b"PIECE %d " % number for number in range(100))
            assert connection.getresponse().read() == expected
            connection.close()

    def test_what_is_malformed_is_refused_through_the_layer(self) -> None:
        with UpperHTTPServer() as server, connect(server.port) as client:
            client.sendall(b"nonsense\r\n\r\n")
            assert read_all(client).startswith(b"HTTP/1.1 400 BAD REQUEST\r\n")
            assert len(server.diagnostics) == 1


class TestSMTP:
    def test_both_directions_pass_the_layer(self) -> None:
        def handler(mail: Any) -> str:
            return "250 thank you"

        with UpperSMTPServer(handler=handler) as server, connect(server.port) as client:
            assert read_line(client).startswith("220 ")
            for command in ("helo x", "mail from:<me@x>", "rcpt to:<you@x>", "data"):
                client.sendall(f"{command}\r\n".encode())
                assert read_line(client)[:1] in {"2", "3"}, command
            client.sendall(b"Subject: hello\r\n\r\nlower case\r\n.\r\n")
            assert read_line(client) == "250 THANK YOU\r\n"
            (mail,) = server.received
        assert mail.data == b"SUBJECT: HELLO\r\n\r\nLOWER CASE\r\n"
        assert (mail.mail_from, mail.rcpt_tos) == ("ME@X", ["YOU@X"])

    def test_without_a_handler_a_large_mail_is_recorded(self) -> None:
        text = ("x" * 70 + "\r\n") * 20_000
        with UpperSMTPServer() as server:
            with smtplib.SMTP("127.0.0.1", server.port, timeout=LONG) as client:
                client.sendmail("me@x", "you@x", f"subject: large\r\n\r\n{text}")
            (mail,) = server.received
        assert mail.data.decode() == f"SUBJECT: LARGE\r\n\r\n{text.upper()}"


class TestStop:
    def test_what_clients_had_sent_is_answered_through_the_layer(self) -> None:
        server = UpperTCPServer().start()
        with connect(server.port) as client:
            client.sendall(b"last words")
            client.shutdown(socket.SHUT_WR)
            assert server.stop().clean
        assert [transcript.data for transcript in server.received] == [b"LAST WORDS"]

    def test_a_handler_may_finish(self, release: threading.Event) -> None:
        running = threading.Event()

        def slow(request: Any) -> str:
            running.set()
            release.wait(LONG)
            return "late"

        server = UpperHTTPServer(handler=slow, stop_timeout=LONG).start()
        with connect(server.port) as client:
            client.sendall(b"get / http/1.1\r\nhost: x\r\n\r\n")
            assert running.wait(LONG)
            stopper = threading.Thread(target=server.stop)
            stopper.start()
            release.set()
            assert read_all(client).endswith(b"LATE")
        stopper.join(LONG)
        assert server.stop_report.clean

    @pytest.mark.filterwarnings("ignore::sidestage.LeftRunningWarning")
    def test_what_is_still_open_is_named(self, release: threading.Event) -> None:
        running = threading.Event()

        def stuck(connection: Any) -> None:
            running.set()
            release.wait(LONG)

        server = UpperTCPServer(handler=stuck).start()
        with connect(server.port) as client:
            assert running.wait(LONG)
            report = server.stop(1.0)
            assert [open_.client_address for open_ in report.connections] == [client.getsockname()]
        assert report.rung == "ask"


class TestOrder:
    @pytest.mark.parametrize(
        "layers, up, down",
        [
            ((UPPER, SWAP), b"abc", b"ABC"),
            ((SWAP, UPPER), b"ABC", b"abc"),
            ((SWAP, SWAP), b"aBc", b"aBc"),
            ((SWAP, SWAP, SWAP), b"AbC", b"AbC"),
        ],
    )
    def test_the_first_is_next_to_the_socket(
        self, layers: tuple[tuple[str, str], ...], up: bytes, down: bytes
    ) -> None:
        got: list[bytes] = []

        def handler(connection: Any) -> bytes:
            got.append(connection.recv(100))
            return b"aBc"

        server = type("Layered", (TCPServer,), {"_layers": layers})(handler=handler)
        with server, connect(server.port) as client:
            client.sendall(b"aBc")
            assert read_all(client) == down
        assert got == [up]


class TestProcess:
    """What has imported code from outside serves nothing else, before or after."""

    def test_it_is_not_taken_from_the_pool_nor_given_to_it(self) -> None:
        pool.warm()
        before = pooled()
        pids = []
        for _ in range(2):
            with UpperTCPServer() as server:
                pids.append(pid_of(server))
        assert len(set(pids)) == 2
        assert not before & set(pids)
        assert pooled() == before
        assert all(map(gone, pids))

    def test_what_was_bound_ahead_without_layers_is_not_taken_with_them(self) -> None:
        with TCPServer() as server:
            pid = pid_of(server)
        with UpperTCPServer(handler=echo) as server, connect(server.port) as client:
            assert pid_of(server) != pid
            client.sendall(b"x")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"X"

    def test_a_layer_that_is_not_there_fails_the_start(self) -> None:
        pool.warm()
        before = pooled()
        kind: type[TCPServer] = type("Layered", (TCPServer,), {"_layers": ((TESTS, "kit.none"),)})
        with pytest.raises(StartError, match=r"kit\.none"):
            kind().start()
        assert pooled() == before

    @pytest.mark.parametrize("kind", [HTTPServer, SMTPServer, TCPServer, UDPServer])
    def test_no_server_of_sidestages_has_any(self, kind: type[Server[Any]]) -> None:
        assert kind._layers == ()


class TestStack:
    """The stack alone, without a process."""

    @pytest.fixture
    def connection(self) -> Iterator[Connection]:
        connection = Connection()
        yield connection
        connection.close()

    def test_an_empty_one_is_the_protocol_itself(self) -> None:
        receiver = Receiver()
        assert stacked(receiver, []) is receiver

    @pytest.mark.parametrize("layers", [[], [Layer]])
    def test_a_service_asks_its_protocol_itself_where_there_is_no_layer(
        self, monkeypatch: pytest.MonkeyPatch, layers: list[Any]
    ) -> None:
        made: list[Callable[[], ReceiverProtocol]] = []

        def acceptor(iteration: Any, sock: Any, backlog: int, receiver: Any) -> Any:
            made.append(receiver)

        monkeypatch.setattr(child_service, "Acceptor", acceptor)
        given: Any = Connectionless()
        Service.serve(given, [cast("socket.socket", None)])
        assert made == [given.receiver]
        given.layers = layers
        made.clear()
        Service.serve(given, [cast("socket.socket", None)])
        assert made == [given._top_of_stack if layers else given.receiver]

    def test_a_stream_gives_its_bytes_to_the_protocol_through_each(
        self, connection: Connection
    ) -> None:
        receiver, steps = Receiver(), list[str]()

        class Noting(Layer):
            def data_received(self, data: bytes | memoryview) -> None:
                steps.append(type(self).__name__)
                super().data_received(data)

            def write(self, data: bytes | bytearray | memoryview) -> None:
                steps.append(f"{type(self).__name__} down")
                super().write(data)

        class First(Noting): ...

        class Second(Noting): ...

        stack = stacked(receiver, [First, Second])
        stream = Stream(connection.iteration, connection.served, "peer", stack)
        connection.stream = stream
        stream.start(b"hello")
        assert receiver.data == b"hello"
        assert receiver.transport.get_extra_info("peername") == "peer"
        receiver.transport.writelines([b"an", b"swer"])
        receiver.transport.close()
        assert steps == ["First", "Second", "Second down", "First down"]
        assert connection.rest() == b"answer"
        assert receiver.calls == ["made", "lost"]

    def test_a_layer_passes_on_everything(self) -> None:
        above, below = Noting(), Noting()
        layer = Layer(cast("Any", above))
        layer.below = cast("Any", below)
        for name in UPWARDS:
            arguments = {"data_received": (b"x",), "connection_lost": (None,)}.get(name, ())
            assert getattr(layer, name)(*arguments) in (name, None)
        for name in DOWNWARDS:
            arguments = {"write": (b"x",), "get_extra_info": ("socket", 1)}.get(name, ())
            assert getattr(layer, name)(*arguments) in (name, None)
        assert above.calls == list(UPWARDS)
        assert below.calls == list(DOWNWARDS)

    def test_no_method_of_a_transport_is_forgotten(self) -> None:
        own = {name for name in vars(Stream) if not name.startswith("_")} - {"start", "send"}
        assert own <= vars(Layer).keys()


UPWARDS = ("data_received", "eof_received", "pause_writing", "resume_writing", "connection_lost")
DOWNWARDS = (
    "get_extra_info",
    "is_reading",
    "pause_reading",
    "resume_reading",
    "write",
    "get_write_buffer_size",
    "can_write_eof",
    "write_eof",
    "is_closing",
    "close",
    "close_lingering",
    "abort",
    "reset",
    "has_unread",
)


class Noting:
    """Notes which of its methods are called; each returns its name."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., str]:
        def note(*arguments: object) -> str:
            self.calls.append(name)
            return name

        return note


class Connectionless:
    """What a service is before it serves."""

    def __init__(self) -> None:
        self.layers: list[Any] = []
        self.iteration: Any = None
        self.config: Any = type("Config", (), {"backlog": 1})
        self._acceptors: list[Any] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def receiver(self) -> ReceiverProtocol:
        raise AssertionError

    def _top_of_stack(self) -> ReceiverProtocol:
        raise AssertionError
