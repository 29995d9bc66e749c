"""Drivers: one interface to a server of any protocol, its handler, and its clients.

A row about handlers is written once: it runs with HTTP for every server under test, and with the
other protocols for Sidestage.
"""

from __future__ import annotations

import random
import socket
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kit.scripts import eventually
from kit.servers import ServerUnderTest, Sidestage

Work = Callable[[], object]

SECONDS = 8.0  # a limit for what must happen, also on a busy machine
HANGS = 15.0  # the limit of a row in which a peer may hang


class Driver(ABC):
    """A server whose handler does some work, and a client that sends it requests.

    A client gets ``success``, or ``failure`` if the work raises; ``None`` means no answer.
    """

    protocol: str
    success: str
    failure: str | None
    is_sidestage = True

    @abstractmethod
    def another(self) -> Driver:
        """A new driver of the same kind."""

    @abstractmethod
    def start(self, work: Work) -> None:
        """Start the server with a handler that does ``work``."""

    @property
    @abstractmethod
    def server(self) -> Any:
        """Sidestage's server object."""

    @property
    def port(self) -> int:
        """The server's port."""
        port: int = self.server.port
        return port

    @abstractmethod
    def send_request(self) -> socket.socket:
        """Connect and send a request."""

    @abstractmethod
    def read_answer(self, client: socket.socket) -> str:
        """The answer to the request that ``client`` has sent."""

    def request(self) -> str:
        """Send a request, and return the answer."""
        with self.send_request() as client:
            return self.read_answer(client)

    def stop(self, timeout: float = 5.0) -> None:
        """Stop the server; raises what the handler has raised."""
        self.server.stop(timeout)

    def reports_as_open(self, client: socket.socket) -> bool:
        """Whether the stop report lists the connection of ``client`` and no other."""
        found = self.server.stop_report.connections
        return [connection.client_address for connection in found] == [client.getsockname()]


class HTTP(Driver):
    """HTTP, which all servers under test speak."""

    protocol, success, failure = "HTTP", "200", "500"

    def __init__(self, sut: ServerUnderTest) -> None:
        self.sut = sut
        self.is_sidestage = isinstance(sut, Sidestage)

    def another(self) -> HTTP:
        return HTTP(type(self.sut)())

    def start(self, work: Work) -> None:
        def answer(path: str) -> str:
            work()
            return path

        self.sut.start(answer)

    @property
    def server(self) -> Any:
        assert isinstance(self.sut, Sidestage)
        return self.sut.server

    @property
    def port(self) -> int:
        return self.sut.port

    def send_request(self) -> socket.socket:
        return send_http(self.port)

    def read_answer(self, client: socket.socket) -> str:
        return read_status(client)

    def stop(self, timeout: float = 5.0) -> None:
        self.sut.stop(timeout)


class SidestageDriver(Driver):
    """Drives a server of Sidestage; a test may set the handler and the options."""

    kind: str
    result: object = None  # what the handler returns
    _server: Any = None

    def another(self) -> SidestageDriver:
        return type(self)()

    def start(self, work: Work) -> None:
        def handler(request: Any) -> object:
            work()
            return self.result

        self.serve(handler)

    def serve(self, handler: Callable[[Any], Any], **options: Any) -> None:
        """Start the server with a handler that gets the request."""
        import sidestage

        self._server = getattr(sidestage, self.kind)(handler=handler, **options).start()

    @property
    def server(self) -> Any:
        return self._server


class SidestageHTTP(SidestageDriver):
    """HTTP, for handlers that need the request."""

    kind, protocol, success, failure = "HTTPServer", "HTTP", "200", "500"

    def send_request(self) -> socket.socket:
        return send_http(self.port)

    def read_answer(self, client: socket.socket) -> str:
        return read_status(client)


class SMTP(SidestageDriver):
    """A request is a mail."""

    kind, protocol, success, failure = "SMTPServer", "SMTP", "250", "451"

    def send_request(self) -> socket.socket:
        client = connect(self.port)
        assert read_line(client).startswith("220")
        for command in ("HELO x", "MAIL FROM:<me@x>", "RCPT TO:<you@x>", "DATA"):
            client.sendall(f"{command}\r\n".encode())
            assert read_line(client)[:1] in {"2", "3"}, command
        client.sendall(b"Subject: hello\r\n\r\nhello\r\n.\r\n")
        return client

    def read_answer(self, client: socket.socket) -> str:
        return read_line(client)[:3] or "no answer"


class TCP(SidestageDriver):
    """A request is a connection."""

    kind, protocol, success, failure = "TCPServer", "TCP", "fine", "a reset"
    result = b"fine"

    def serve(self, handler: Callable[[Any], Any], **options: Any) -> None:
        def reading(connection: Any) -> Any:
            connection.recv_exactly(6)  # else a reset may come before the client has connected
            return handler(connection)

        super().serve(reading, **options)

    def send_request(self) -> socket.socket:
        client = connect(self.port)
        try:
            client.sendall(b"hello\n")
        except OSError:
            client.close()
            raise
        return client

    def read_answer(self, client: socket.socket) -> str:
        try:
            return read_all(client).decode()
        except ConnectionResetError:
            return "a reset"


class UDP(SidestageDriver):
    """A request is a datagram."""

    kind, protocol, success, failure = "UDPServer", "UDP", "fine", None
    result = b"fine"

    def send_request(self) -> socket.socket:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.settimeout(SECONDS)
        client.connect(("127.0.0.1", self.port))
        client.send(b"hello")
        return client

    def read_answer(self, client: socket.socket) -> str:
        return client.recv(100).decode()


def with_each_protocol(check: Callable[[Any], None]) -> Callable[[ServerUnderTest], None]:
    """A row that runs ``check`` with HTTP, and for Sidestage with every protocol."""

    def work(sut: ServerUnderTest) -> None:
        for driver in _drivers(sut):
            _check(check, driver)

    return work


def with_each_protocol_at_once(check: Callable[[Any], None]) -> Callable[[ServerUnderTest], None]:
    """The same with one thread per protocol, for checks that mostly wait."""
    return lambda sut: _check_at_once(check, _drivers(sut))


def with_each_sidestage_protocol(check: Callable[[Any], None]) -> Callable[[ServerUnderTest], None]:
    """A row that runs ``check`` with every protocol of Sidestage."""

    def work(sut: ServerUnderTest) -> None:
        for driver in (SidestageHTTP(), SMTP(), TCP(), UDP()):
            _check(check, driver)

    return work


def with_each_sidestage_protocol_at_once(
    check: Callable[[Any], None],
) -> Callable[[ServerUnderTest], None]:
    """The same with one thread per protocol, for checks that mostly wait."""
    return lambda sut: _check_at_once(check, [SidestageHTTP(), SMTP(), TCP(), UDP()])


def _drivers(sut: ServerUnderTest) -> list[Driver]:
    others = [SMTP(), TCP(), UDP()] if isinstance(sut, Sidestage) else []
    return [HTTP(sut), *others]


def _check(check: Callable[[Any], None], driver: Driver) -> None:
    try:
        check(driver)
    except AssertionError as error:
        if driver.is_sidestage:
            error.add_note(f"with {driver.protocol}")
        raise


def _check_at_once(check: Callable[[Any], None], drivers: list[Driver]) -> None:
    with ThreadPoolExecutor(len(drivers)) as pool:
        list(pool.map(lambda driver: _check(check, driver), drivers))


def connect(port: int) -> socket.socket:
    """A TCP connection to a local port."""
    return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)


def send_http(port: int, path: str = "/") -> socket.socket:
    """Connect and send an HTTP request."""
    client = connect(port)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return client


def read_status(client: socket.socket) -> str:
    """The status of the only HTTP response on the connection, or what came instead."""
    try:
        came = read_all(client)
    except (ConnectionError, TimeoutError):
        return "no answer"
    answers = came.count(b"HTTP/1.")
    if answers != 1:
        return f"{answers} answers" if answers else "no answer"
    return came.split()[1].decode()


def read_all(client: socket.socket) -> bytes:
    """Read until the end of the stream."""
    return b"".join(iter(lambda: client.recv(1 << 16), b""))


def read_line(client: socket.socket) -> str:
    """Read one line and nothing beyond it."""
    came = b""
    while not came.endswith(b"\n") and (byte := client.recv(1)):
        came += byte
    return came.decode()


def expect_success(driver: Driver) -> None:
    """Assert that a client gets the success of its protocol."""
    try:
        answer = driver.request()
    except OSError as error:
        raise AssertionError("it serves no more") from error
    assert answer == driver.success, f"the next client got {answer}"


def expect_failure(driver: Driver) -> None:
    """Assert that a client gets the failure of its protocol, or that the error is recorded."""
    with driver.send_request() as client:
        if driver.failure is None:
            known = len(driver.server.errors)
            assert eventually(lambda: len(driver.server.errors) > known or known > 0)
        else:
            answer = driver.read_answer(client)
            assert answer == driver.failure, f"the client got {answer}"


def error_of(work: Work) -> BaseException | None:
    """The exception that ``work`` raises, if any."""
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - any kind counts
        return error
    return None


def allow_forced_stops(driver: Driver) -> None:
    """Ignore what a stop warns of: on a busy machine, a short limit may force one."""
    if driver.is_sidestage:
        from sidestage import ForcedStopWarning, LeftRunningWarning

        warnings.simplefilter("ignore", ForcedStopWarning)
        warnings.simplefilter("ignore", LeftRunningWarning)  # what hangs is left behind


def port_of_nobody() -> int:
    """A free port that the kernel gives to no socket that asks for none: no other test takes it."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(lowest // 2, lowest)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
