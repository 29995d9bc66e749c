"""Clients in other processes are served while the test's main thread computes.

A handler needs the GIL, so it waits for it like any thread. What a server answers by itself, and
records, does not: its process has a GIL of its own.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import random
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from kit.matrix import Rows
from kit.servers import ServerUnderTest, Sidestage, fetch

rows = Rows("A busy main thread", __file__)

PATIENCE = 1.0  # seconds that a client waits for what needs no handler
MUCH_PATIENCE = 20.0  # and for a handler, which may have to wait for the GIL a few times


# Clients outside ---------------------------------------------------------------------------------


class Clients:
    """A process that sends requests one by one, on command."""

    _SOURCE = """
import http.client, json, smtplib, socket, sys

protocol, port, count, size, patience = json.loads(sys.argv[1])
address = ("127.0.0.1", port)

def send_http(number):
    client = http.client.HTTPConnection(*address, timeout=patience)
    client.request("PUT" if size else "GET", f"/{number}", b"x" * size, {"Connection": "close"})
    return client.getresponse().status

def send_smtp(number):
    with smtplib.SMTP(*address, "localhost", timeout=patience) as client:
        return client.sendmail("me@x", ["you@x"], f"Subject: {number}\\r\\n\\r\\nhello")

def send_tcp(number):
    with socket.create_connection(address, timeout=patience) as client:
        client.sendall(str(number).encode())
        client.shutdown(socket.SHUT_WR)
        return client.recv(100).decode()

def send_udp(number):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(patience)
        client.connect(address)
        client.send(str(number).encode())
        return client.recv(100).decode() if size else "sent"

send = {"HTTP": send_http, "SMTP": send_smtp, "TCP": send_tcp, "UDP": send_udp}[protocol]
print("ready", flush=True)
input()
answers = []
try:
    for number in range(count):
        answers.append(send(number))
except Exception as error:
    answers.append(f"{type(error).__name__} after {number} requests")
print(json.dumps(answers), flush=True)
"""

    def __init__(
        self, protocol: str, port: int, count: int, *, size: int = 0, patience: float
    ) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", self._SOURCE),
                json.dumps([protocol, port, count, size, patience]),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        assert self._stdout.readline() == b"ready\n"

    def fileno(self) -> int:
        """A descriptor that becomes readable when they are done."""
        return self._stdout.fileno()

    def go(self) -> None:
        """Begin."""
        os.write(self._stdin.fileno(), b"go\n")

    def answers(self) -> list[Any]:
        """Wait until they are done; returns their answers."""
        answers: list[Any] = json.loads(self._stdout.readline())
        self._process.communicate()
        return answers


# What the main thread does -----------------------------------------------------------------------


class _PollFd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


def hold_the_gil(*clients: Clients, seconds: float = 15.0) -> bool:
    """Hold the GIL in one C call until all are done, or for some seconds."""
    poll = ctypes.PyDLL(None).poll  # a PyDLL's functions, unlike a CDLL's, keep it
    for client in clients:
        fd = _PollFd(client.fileno(), select.POLLIN, 0)
        if not poll(ctypes.byref(fd), 1, int(seconds * 1000)):
            return False
    return True


def compute_until_done(clients: Clients, step: Callable[[], object]) -> None:
    """Repeat a step until the clients are done."""
    done = threading.Event()

    def wait() -> None:
        select.select([clients], [], [])
        done.set()

    threading.Thread(target=wait).start()
    while not done.is_set():
        step()


def _python() -> None:
    total = 0
    for number in range(10_000):
        total += number * number


def _long_c_calls() -> Callable[[], object]:
    """A call that holds the GIL for about 0.2 s; a regular expression or JSON are no better."""
    dice = random.Random(1)
    numbers = [dice.random() for _ in range(300_000)]
    return lambda: sorted(numbers)


# Rows --------------------------------------------------------------------------------------------


def serve_with_handlers(step: Callable[[], Callable[[], object]], sut: ServerUnderTest) -> None:
    sut.start(lambda path: path)
    clients = Clients("HTTP", sut.port, 3, patience=MUCH_PATIENCE)
    clients.go()
    compute_until_done(clients, step())
    assert clients.answers() == [200] * 3
    sut.stop()
    if isinstance(sut, Sidestage):
        for protocol, handler, answer in (
            ("SMTP", lambda mail: None, {}),
            ("TCP", lambda connection: connection.recv(10), "0"),
            ("UDP", lambda datagram: datagram.packet, "0"),
        ):
            with _server(protocol, handler) as server:
                clients = Clients(protocol, server.port, 1, size=1, patience=MUCH_PATIENCE)
                clients.go()
                compute_until_done(clients, step())
                assert clients.answers() == [answer]


rows.add("pure Python: handlers answer", limit=55)(
    functools.partial(serve_with_handlers, lambda: _python)
)
rows.add("C calls of 0.2 s: handlers answer between them", limit=55)(
    functools.partial(serve_with_handlers, _long_c_calls)
)


def _server(protocol: str, handler: Callable[[Any], Any] | None = None) -> Any:
    import sidestage

    return getattr(sidestage, f"{protocol}Server")(handler=handler)


@rows.add("the GIL is held: canned replies come", limit=55)
def serve_canned(sut: ServerUnderTest) -> None:
    sut.start_canned()
    clients = Clients("HTTP", sut.port, 20, patience=PATIENCE)
    clients.go()
    hold_the_gil(clients)
    answers = clients.answers()
    assert answers == [200] * 20, answers[-1]
    sut.wait_for(20)
    sut.stop()


@rows.add("the GIL is held: expectations reply", limit=55, peers=False)
def serve_expectations(sut: ServerUnderTest) -> None:
    with _server("HTTP") as server:
        expected = server.expect("GET", "/{number:int}", times=20).reply("hot")
        clients = Clients("HTTP", server.port, 20, patience=PATIENCE)
        clients.go()
        assert hold_the_gil(clients)
        answers = clients.answers()
        assert answers == [200] * 20, answers[-1]
    assert expected.count == 20


@rows.add("the GIL is held for 1 s: requests to handlers wait", limit=55)
def keep_requests_waiting(sut: ServerUnderTest) -> None:
    sut.start(lambda path: path)
    several = [Clients("HTTP", sut.port, 5, patience=MUCH_PATIENCE) for _ in range(4)]
    for clients in several:
        clients.go()
    assert not hold_the_gil(several[0], seconds=1.0), "it was answered without its handler"
    for clients in several:
        assert clients.answers() == [200] * 5
    sut.wait_for(20)
    sut.stop()


@rows.add("the GIL is held: mails, connections, datagrams are recorded", limit=55, peers=False)
def record_all_protocols(sut: ServerUnderTest) -> None:
    with _server("SMTP") as smtp, _server("TCP") as tcp, _server("UDP") as udp:
        servers = {"SMTP": smtp, "TCP": tcp, "UDP": udp}
        several = [
            Clients(protocol, server.port, 20, patience=PATIENCE)
            for protocol, server in servers.items()
        ]
        for clients in several:
            clients.go()
        assert hold_the_gil(*several)
        assert [clients.answers() for clients in several] == [[{}] * 20, [""] * 20, ["sent"] * 20]
    # Stopped at once, and nothing is missing.
    numbers = [str(number) for number in range(20)]
    assert [mail.message["Subject"] for mail in smtp.received] == numbers
    assert [transcript.data.decode() for transcript in tcp.received] == numbers
    assert [datagram.packet.decode() for datagram in udp.received] == numbers


@rows.add("the GIL is held: 20 MB are recorded", limit=55, peers=False)
def record_much(sut: ServerUnderTest) -> None:
    """Record far more than a pipe holds while nothing reads it."""
    with _server("HTTP") as server:
        clients = Clients("HTTP", server.port, 200, size=100_000, patience=PATIENCE)
        clients.go()
        assert hold_the_gil(clients)
        answers = clients.answers()
        assert answers == [200] * 200, answers[-1]
    assert [request.path for request in server.received] == [f"/{n}" for n in range(200)]
    assert {len(request.body) for request in server.received} == {100_000}


@rows.add("another thread is busy: start, request, stop", limit=55)
def serve_beside_a_busy_thread(sut: ServerUnderTest) -> None:
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            _python()

    threading.Thread(target=compute).start()
    try:
        for _ in range(3):
            sut.start(lambda path: path)
            assert fetch(sut.port, "/path") == "/path"
            sut.stop()
    finally:
        over.set()


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
