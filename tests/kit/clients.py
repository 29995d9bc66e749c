"""The four protocols behind one interface: a handler that does some work, and clients of it.

A row that is about handlers is written once, for HTTP with whatever subject, and for the other
protocols too if the subject is ours.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kit.scripts import eventually
from kit.servers import Sidestage, Subject

Work = Callable[[], object]

SECONDS = 8.0  # for what has to come, on a machine with other things to do


class Side(ABC):
    """A server whose handler does some work, and a client that sends it requests.

    A client gets ``success``, or ``failure`` if the work raises; ``None`` stands for nothing.
    """

    protocol: str
    success: str
    failure: str | None
    ours = True

    @abstractmethod
    def another(self) -> Side:
        """One more of the kind."""

    @abstractmethod
    def start(self, work: Work) -> None:
        """Serve with a handler that does ``work``."""

    @property
    @abstractmethod
    def server(self) -> Any:
        """Sidestage's."""

    @property
    def port(self) -> int:
        """Where it serves."""
        port: int = self.server.port
        return port

    @abstractmethod
    def call(self) -> socket.socket:
        """Connect and send a request."""

    @abstractmethod
    def answer(self, client: socket.socket) -> str:
        """What ``client`` gets for it."""

    def ask(self) -> str:
        """What a client gets for a request."""
        with self.call() as client:
            return self.answer(client)

    def stop(self, timeout: float = 5.0) -> None:
        """Stop, and raise what the handler has raised."""
        self.server.stop(timeout)

    def names_as_open(self, client: socket.socket) -> bool:
        """Whether the report of the stop names the request of ``client``, and no other."""
        found = self.server.stop_report.connections
        return [connection.client_address for connection in found] == [client.getsockname()]


class HTTP(Side):
    """What all subjects speak."""

    protocol, success, failure = "HTTP", "200", "500"

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.ours = isinstance(subject, Sidestage)

    def another(self) -> HTTP:
        return HTTP(type(self.subject)())

    def start(self, work: Work) -> None:
        def answer(path: str) -> str:
            work()
            return path

        self.subject.start(answer)

    @property
    def server(self) -> Any:
        assert isinstance(self.subject, Sidestage)
        return self.subject.server

    @property
    def port(self) -> int:
        return self.subject.port

    def call(self) -> socket.socket:
        return send(self.port)

    def answer(self, client: socket.socket) -> str:
        return status(client)

    def stop(self, timeout: float = 5.0) -> None:
        self.subject.stop(timeout)


class Ours(Side):
    """A server of ours, of which a test may set the handler and the options."""

    kind: str
    result: object = None  # what the handler returns
    _server: Any = None

    def another(self) -> Ours:
        return type(self)()

    def start(self, work: Work) -> None:
        def handler(request: Any) -> object:
            work()
            return self.result

        self.serve(handler)

    def serve(self, handler: Callable[[Any], Any], **options: Any) -> None:
        """Serve with a handler that gets the request."""
        import sidestage

        self._server = getattr(sidestage, self.kind)(handler=handler, **options).start()

    @property
    def server(self) -> Any:
        return self._server


class OurHTTP(Ours):
    """HTTP, where the handler is more than its work."""

    kind, protocol, success, failure = "HTTPServer", "HTTP", "200", "500"

    def call(self) -> socket.socket:
        return send(self.port)

    def answer(self, client: socket.socket) -> str:
        return status(client)


class SMTP(Ours):
    """A request is a mail."""

    kind, protocol, success, failure = "SMTPServer", "SMTP", "250", "451"

    def call(self) -> socket.socket:
        client = connect(self.port)
        assert line(client).startswith("220")
        for command in ("HELO x", "MAIL FROM:<me@x>", "RCPT TO:<you@x>", "DATA"):
            client.sendall(f"{command}\r\n".encode())
            assert line(client)[:1] in {"2", "3"}, command
        client.sendall(b"Subject: hello\r\n\r\nhello\r\n.\r\n")
        return client

    def answer(self, client: socket.socket) -> str:
        return line(client)[:3] or "no answer"


class TCP(Ours):
    """A request is a connection."""

    kind, protocol, success, failure = "TCPServer", "TCP", "fine", "a reset"
    result = b"fine"

    def serve(self, handler: Callable[[Any], Any], **options: Any) -> None:
        def reading(connection: Any) -> Any:
            connection.recv_exactly(6)  # else a reset may come before the client has connected
            return handler(connection)

        super().serve(reading, **options)

    def call(self) -> socket.socket:
        client = connect(self.port)
        client.sendall(b"hello\n")
        return client

    def answer(self, client: socket.socket) -> str:
        try:
            return everything(client).decode()
        except ConnectionResetError:
            return "a reset"


class UDP(Ours):
    """A request is a datagram."""

    kind, protocol, success, failure = "UDPServer", "UDP", "fine", None
    result = b"fine"

    def call(self) -> socket.socket:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.settimeout(SECONDS)
        client.connect(("127.0.0.1", self.port))
        client.send(b"hello")
        return client

    def answer(self, client: socket.socket) -> str:
        return client.recv(100).decode()


def on_each_side(check: Callable[[Any], None]) -> Callable[[Subject], None]:
    """A row that does ``check`` with HTTP, and where the subject is ours with each protocol."""

    def work(subject: Subject) -> None:
        for side in _sides(subject):
            _check(check, side)

    return work


def on_each_side_at_once(check: Callable[[Any], None]) -> Callable[[Subject], None]:
    """The same, in a thread for each protocol, where there is much to wait for."""
    return lambda subject: _check_at_once(check, _sides(subject))


def on_each_of_ours(check: Callable[[Any], None]) -> Callable[[Subject], None]:
    """A row that does ``check`` with each protocol of ours."""

    def work(subject: Subject) -> None:
        for side in (OurHTTP(), SMTP(), TCP(), UDP()):
            _check(check, side)

    return work


def on_each_of_ours_at_once(check: Callable[[Any], None]) -> Callable[[Subject], None]:
    """The same, in a thread for each protocol, where there is much to wait for."""
    return lambda subject: _check_at_once(check, [OurHTTP(), SMTP(), TCP(), UDP()])


def _sides(subject: Subject) -> list[Side]:
    others = [SMTP(), TCP(), UDP()] if isinstance(subject, Sidestage) else []
    return [HTTP(subject), *others]


def _check(check: Callable[[Any], None], side: Side) -> None:
    try:
        check(side)
    except AssertionError as error:
        if side.ours:
            error.add_note(f"with {side.protocol}")
        raise


def _check_at_once(check: Callable[[Any], None], sides: list[Side]) -> None:
    with ThreadPoolExecutor(len(sides)) as pool:
        list(pool.map(lambda side: _check(check, side), sides))


def connect(port: int) -> socket.socket:
    """A client's connection."""
    return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)


def send(port: int, path: str = "/") -> socket.socket:
    """A connection with an HTTP request on it."""
    client = connect(port)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return client


def status(client: socket.socket) -> str:
    """The status of the one HTTP response that is to come."""
    try:
        came = everything(client)
    except (ConnectionError, TimeoutError):
        return "no answer"
    answers = came.count(b"HTTP/1.")
    if answers != 1:
        return f"{answers} answers" if answers else "no answer"
    return came.split()[1].decode()


def everything(client: socket.socket) -> bytes:
    """What comes until the end."""
    return b"".join(iter(lambda: client.recv(1 << 16), b""))


def line(client: socket.socket) -> str:
    """A line, and not a byte of the next."""
    came = b""
    while not came.endswith(b"\n") and (byte := client.recv(1)):
        came += byte
    return came.decode()


def succeed(side: Side) -> None:
    """A client is served."""
    try:
        answer = side.ask()
    except OSError as error:
        raise AssertionError("it serves no more") from error
    assert answer == side.success, f"the next client got {answer}"


def fail(side: Side) -> None:
    """A client gets the failure of its protocol; where that is nothing, the error has come."""
    with side.call() as client:
        if side.failure is None:
            known = len(side.server.errors)
            assert eventually(lambda: len(side.server.errors) > known or known > 0)
        else:
            answer = side.answer(client)
            assert answer == side.failure, f"the client got {answer}"


def error_of(work: Work) -> BaseException | None:
    """What ``work`` raises, of whatever kind."""
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - any kind is what this is about
        return error
    return None
