"""A busy life of a test process: servers of all kinds start, serve, fail, stop and are lost.

The soak runs one itself while its children are killed. As a script it is a process to be killed: it
prints a line once it is up, and records in a file what it does, which ports it has bound and which
of its forked copies live on.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import os
import random
import signal
import smtplib
import socket
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sidestage import HTTPServer, SMTPServer, StartError, TCPServer, UDPServer

START, STOP, WAIT, CLIENT = 3.0, 0.5, 1.0, 2.0  # time-outs, in seconds
SYNC = 0.5  # for calls that have none of their own, once the soak has made it so short
LONGEST = 60.0  # seconds that a process lives if it is not killed
LOSING = "SIGSTOP"  # on its way: a process that dies now cannot end one that stops after
MANY = 200_000  # bytes of a body that does not fit into one chunk

T = TypeVar("T")


_numbers = itertools.count(1)


class Boom(Exception):
    """The error that handlers raise; no two are equal, or they would be told as one."""

    def __init__(self) -> None:
        super().__init__(next(_numbers))


class Fate(Protocol):
    """Judges the events of a life."""

    def does(self, what: str) -> None:
        """An action begins."""

    def serves(self, server: Any) -> None:
        """A server is ready."""

    def leaves(self, server: Any) -> None:
        """The life is about to stop a server."""

    def not_started(self, error: StartError) -> None:
        """A start has failed."""

    def failed(self, server: Any, error: Exception) -> None:
        """A client, or a call to the server, has failed."""

    def stopped(self, server: Any, pid: int, errors: list[BaseException], booms: int) -> None:
        """A stop has raised these errors; ``booms`` handlers had raised Boom."""


class Calls:
    """Compares the duration of each call with its time-out."""

    def __init__(self, fate: Fate) -> None:
        self.overruns: dict[str, float] = {}  # the worst, in seconds
        self.number = 0
        self._fate = fate

    def __call__(self, name: str, limit: float, call: Callable[[], T]) -> T:
        self._fate.does(name)
        self.number += 1
        began = time.monotonic()
        try:
            return call()
        finally:
            overrun = time.monotonic() - began - limit
            self.overruns[name] = max(overrun, self.overruns.get(name, overrun))


class Life:
    """Does random actions, one after the other."""

    def __init__(self, seed: int, fate: Fate, *, leave_copies: bool) -> None:
        self.calls = Calls(fate)
        self._dice = random.Random(seed)
        self._fate = fate
        self._leave_copies = leave_copies
        self._copies: list[int] = []
        self._booms: dict[int, int] = {}  # of each server, by its id: since it was started

    def step(self) -> None:
        """Do one action, which takes some hundredths of a second."""
        acts = {self._serve: 8, self._serve_two: 2, self._lose: 1, self._fork: 1}
        self._dice.choices(list(acts), list(acts.values()))[0]()

    def _serve(self) -> None:
        kind = self._dice.choice(KINDS)
        self._with(kind, lambda server: self._use(kind, server))

    def _serve_two(self) -> None:
        one, other = self._dice.choices(KINDS, k=2)

        def use(first: Any) -> None:
            self._with(other, lambda second: self._use(other, second))
            self._use(one, first)

        self._with(one, use)

    def _lose(self) -> None:
        """Let a server hang, so that its stop must kill it and the next start needs another."""

        def use(server: Any) -> None:
            self._fate.does(LOSING)
            os.kill(server.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, server.pid, os.WSTOPPED | os.WNOWAIT)

        if self._leave_copies:  # otherwise others see to that
            self._with(self._dice.choice(KINDS), use)

    def _fork(self) -> None:
        self._fate.does("fork")
        pid = os.fork()
        if pid == 0:
            self._fate.does(f"copy {os.getpid()}")
            if self._leave_copies:
                time.sleep(LONGEST)
            os._exit(0)
        self._copies.append(pid)
        if not self._leave_copies or len(self._copies) > 1:
            oldest = self._copies.pop(0)
            os.kill(oldest, signal.SIGKILL)
            os.waitpid(oldest, 0)

    # A server from its start to its stop -------------------------------------------------------

    def _with(self, kind: Kind, use: Callable[[Any], None]) -> None:
        handler = kind.handler if self._dice.random() < 0.7 else None
        server = kind.server(handler=handler, start_timeout=START, stop_timeout=STOP)
        try:
            self.calls("start", START, server.start)
        except StartError as error:
            self._fate.not_started(error)
            return
        self._booms[id(server)] = 0
        self._fate.serves(server)
        try:
            use(server)
        except Exception as error:  # noqa: BLE001 - judged elsewhere
            self._fate.failed(server, error)
        self._stop(server)

    def _stop(self, server: Any) -> None:
        self._fate.leaves(server)
        pid = server.pid or 0
        errors: list[BaseException] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self.calls("stop", STOP, server.stop)
            except BaseExceptionGroup as group:
                errors.extend(group.exceptions)
            except Exception as error:  # noqa: BLE001 - judged elsewhere
                errors.append(error)
        self._fate.stopped(server, pid, errors, self._booms[id(server)])

    def _use(self, kind: Kind, server: Any) -> None:
        asked = self._dice.randrange(4)
        for _ in range(asked):
            self._ask(kind, server)
        self.calls("wait_for", WAIT, lambda: server.wait_for(asked, WAIT))
        self.calls("received", SYNC, lambda: server.received)
        if self._dice.random() < 0.1:
            self._restart(server)
            self._ask(kind, server)

    def _ask(self, kind: Kind, server: Any) -> None:
        self._fate.does("request")
        handled = server.handler is not None
        boom = handled and self._dice.random() < 0.1
        self._booms[id(server)] += boom
        answer = kind.ask(server, "boom" if boom else self._dice.choice(("little", "much")))
        if handled and not boom and answer != kind.expected:
            raise AssertionError(f"{server!r} answered {answer!r}")

    def _restart(self, server: Any) -> None:
        """Stop, which raises errors and reports a death, and start again on the same port."""
        port = server.port
        self._stop(server)
        self._booms[id(server)] = 0
        self.calls("restart", START + STOP, server.restart)
        self._fate.serves(server)
        if server.port != port:
            raise AssertionError(f"{server!r} was at port {port} before")


# The kinds of servers, their handlers and clients -------------------------------------------------


class Kind:
    """A server, a handler, and a client that requests a small or large body or an error."""

    def __init__(
        self, server: type[Any], handler: Any, ask: Callable[[Any, str], object], expected: object
    ) -> None:
        self.server = server
        self.handler = handler
        self.ask = ask
        self.expected = expected


def _handle_http(request: Any) -> Any:
    if request.path == "/boom":
        raise Boom
    return (piece for piece in [request.body] * 2)


def _ask_http(server: Any, what: str) -> object:
    body = b"x" * (MANY if what == "much" else 100)
    connection = http.client.HTTPConnection(server.host, server.port, timeout=CLIENT)
    with closing(connection):
        connection.request("POST", f"/{what}", body)
        return connection.getresponse().read() == body * 2


def _handle_mail(mail: Any) -> None:
    if mail.mail_from.startswith("boom"):
        raise Boom


def _ask_smtp(server: Any, what: str) -> object:
    line = "x" * 70 + "\r\n"
    text = "Subject: hello\r\n\r\n" + line * (MANY // len(line) if what == "much" else 1)
    address = server.host, server.port
    with smtplib.SMTP(*address, local_hostname="localhost", timeout=CLIENT) as client:
        try:
            client.sendmail(f"{what}@example.org", ["you@example.org"], text)
        except smtplib.SMTPDataError as error:
            if what != "boom":
                raise
            return error.smtp_code
    return True


def _handle_tcp(connection: Any) -> Any:
    data = connection.rfile.read()
    if data == b"boom":
        raise Boom
    return data


def _ask_tcp(server: Any, what: str) -> object:
    sent = b"x" * MANY if what == "much" else what.encode()
    with socket.create_connection(server.server_address, timeout=CLIENT) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        parts = []
        try:
            while part := client.recv(65536):
                parts.append(part)
        except ConnectionResetError:
            if what != "boom":
                raise
        return b"".join(parts) == sent


def _handle_udp(datagram: Any) -> Any:
    if datagram.packet == b"boom":
        raise Boom
    return datagram.packet


def _ask_udp(server: Any, what: str) -> object:
    sent = b"x" * 1000 if what == "much" else what.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(CLIENT)
        client.sendto(sent, server.server_address)
        return what == "boom" or server.handler is None or client.recv(2000) == sent


KINDS = (
    Kind(HTTPServer, _handle_http, _ask_http, True),
    Kind(SMTPServer, _handle_mail, _ask_smtp, True),
    Kind(TCPServer, _handle_tcp, _ask_tcp, True),
    Kind(UDPServer, _handle_udp, _ask_udp, True),
)


# In peace -----------------------------------------------------------------------------------------


class Peace:
    """The judge of a life in which nothing may go wrong; it records the actions."""

    def __init__(self, note: Callable[[str], object]) -> None:
        self.does = note
        self._note = note

    def serves(self, server: Any) -> None:
        self._note(f"port {server.port}")

    def leaves(self, server: Any) -> None:
        """As it should."""

    def not_started(self, error: StartError) -> None:
        raise error

    def failed(self, server: Any, error: Exception) -> None:
        raise error

    def stopped(self, server: Any, pid: int, errors: list[BaseException], booms: int) -> None:
        if [type(error) for error in errors] != [Boom] * booms:
            raise AssertionError(f"{errors} were raised, and not {booms} times Boom")


def main() -> None:
    """Live until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("notes", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    fd = os.open(options.notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    life = Life(
        options.seed,
        Peace(lambda line: os.write(fd, f"{line}\n".encode())),
        leave_copies=True,
    )
    deadline = time.monotonic() + LONGEST
    life.step()
    sys.stdout.write("up\n")
    sys.stdout.flush()
    while time.monotonic() < deadline:
        life.step()


if __name__ == "__main__":
    main()
