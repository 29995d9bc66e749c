"""A mixed load for all four servers: clients that ask, are slow or reset; handlers that raise.

It runs in rounds. At the end of each, the servers stop, and every answer, every record and every
error of a handler must have arrived.
"""

from __future__ import annotations

import faulthandler
import hashlib
import http.client
import random
import smtplib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any

from accounts import in_words, leaks, take_account
from life import Boom
from outcome import Outcome, counted

from sidestage import HTTPServer, SMTPServer, TCPServer, UDPServer
from sidestage.process.pool import pool

ROUND = 15.0  # seconds
CLIENTS = 6
MEBIBYTE = 1 << 20
KEEP = 4 * MEBIBYTE  # of what each has received
TIMEOUT = 20.0  # seconds for anything a client waits for
STUCK = 120.0  # seconds that a round may take longer than it should
GROWTH = 64 * 1024  # KiB: bodies of a MiB leave holes; if one in a hundred leaked, it were more
SHOWN = 20  # of what went wrong


def keep_busy(minutes: float, seed: int) -> Outcome:
    """Run for some minutes, after one round to warm up."""
    totals: Counter[str] = Counter()
    wrong: list[str] = []
    pool.close()  # so that all have the same four processes
    _round(seed, min(ROUND, minutes * 60))
    before = take_account()
    end = time.monotonic() + minutes * 60
    rounds = 0
    while (rest := end - time.monotonic()) > 0:
        rounds += 1
        faulthandler.dump_traceback_later(ROUND + STUCK, exit=True)
        done, lines = _round(seed + rounds, min(ROUND, rest))
        totals.update(done)
        wrong += lines
        print(f"load: {sum(totals.values()):,} exchanges, {len(wrong)} wrong", flush=True)
    faulthandler.cancel_dump_traceback_later()
    account = take_account(before, GROWTH)
    return Outcome(
        f"mixed load on all four servers, {CLIENTS} clients at a time",
        f"{minutes:g} min",
        f"{sum(totals.values()):,} exchanges, {len(wrong)} with a wrong answer, record or error: "
        f"{counted(totals)}; {in_words(account, before)}",
        wrong[:SHOWN] + leaks(account, before, GROWTH),
    )


def _round(seed: int, seconds: float) -> tuple[Counter[str], list[str]]:
    """Counts actions and errors, without references to servers."""
    round_ = _Round(seed, seconds)
    round_.run()
    return round_.done, round_.wrong


class _Round:
    """Run all four servers for some seconds."""

    def __init__(self, seed: int, seconds: float) -> None:
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._seed = seed
        self._end = time.monotonic() + seconds
        self._recorded: Counter[str] = Counter()  # what must be in `received`, by server
        self._raised: Counter[str] = Counter()  # what handlers have raised
        self._guard = threading.Lock()
        self.http = HTTPServer(handler=self._handle_http, keep=KEEP)
        self.smtp = SMTPServer(handler=self._handle_mail, keep=KEEP)
        self.tcp = TCPServer(handler=self._handle_tcp, keep=KEEP)
        self.udp = UDPServer(handler=self._handle_udp, keep=KEEP)

    def run(self) -> None:
        servers: dict[str, Any] = {
            "HTTP": self.http,
            "SMTP": self.smtp,
            "TCP": self.tcp,
            "UDP": self.udp,
        }
        for server in servers.values():
            server.start()
        clients = [threading.Thread(target=self._ask, args=[n]) for n in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        for name, server in servers.items():
            self._stop(name, server)

    def _stop(self, name: str, server: Any) -> None:
        errors: list[BaseException] = []
        try:
            server.stop(TIMEOUT)
        except BaseExceptionGroup as group:
            errors.extend(group.exceptions)
        except Exception as error:  # noqa: BLE001 - counted
            errors.append(error)
        if [type(error) for error in errors] != [Boom] * self._raised[name]:
            self.wrong.append(f"{name}: {self._raised[name]} handlers raised, reported: {errors}")
        received = server.received
        count = len(received) + received.dropped
        if count < self._recorded[name]:
            self.wrong.append(f"{name}: {self._recorded[name]} came, {count} are recorded")
        if server.stop_report.rung != "ask":
            self.wrong.append(f"{name}: {server.stop_report}")

    # Clients ------------------------------------------------------------------------------------

    def _ask(self, number: int) -> None:
        dice = random.Random(f"{self._seed} {number}")
        acts: dict[tuple[str, str], Callable[[random.Random], bool]] = {
            ("HTTP", "little"): self._http_little,
            ("HTTP", "1 MiB"): self._http_much,
            ("HTTP", "an error"): self._http_error,
            ("HTTP", "dawdling"): self._http_dawdling,
            ("HTTP", "reset"): self._http_reset,
            ("SMTP", "a mail"): self._mail,
            ("SMTP", "an error"): self._mail_error,
            ("SMTP", "reset"): self._mail_reset,
            ("TCP", "1 MiB"): self._tcp_much,
            ("TCP", "an error"): self._tcp_error,
            ("TCP", "reset"): self._tcp_reset,
            ("UDP", "a datagram"): self._datagram,
            ("UDP", "an error"): self._datagram_error,
        }
        while time.monotonic() < self._end:
            (name, what), act = dice.choice(list(acts.items()))
            try:
                right = act(dice)
            except Exception as error:  # noqa: BLE001 - noted
                self._note(f"{name}, {what}: {error!r}")
            else:
                if not right:
                    self._note(f"{name}, {what}: a wrong answer")
            with self._guard:
                self.done[name] += 1
                self._recorded[name] += what != "reset"

    def _note(self, what: str) -> None:
        with self._guard:
            self.wrong.append(what)

    def _boom(self, name: str) -> None:
        with self._guard:
            self._raised[name] += 1
        raise Boom

    def _http(self, path: str, body: bytes = b"") -> tuple[int, bytes]:
        address = self.http.host, self.http.port
        with closing(http.client.HTTPConnection(*address, timeout=TIMEOUT)) as connection:
            connection.request("POST", path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def _http_little(self, dice: random.Random) -> bool:
        said = str(dice.random())
        return self._http(f"/echo/{said}") == (200, said.encode())

    def _http_much(self, dice: random.Random) -> bool:
        body = dice.randbytes(MEBIBYTE)
        return self._http("/much", body) == (200, body)

    def _http_error(self, dice: random.Random) -> bool:
        return self._http("/boom")[0] == 500

    def _http_dawdling(self, dice: random.Random) -> bool:
        said = str(dice.random())
        with _connected(self.http) as client:
            for part in ("GET /echo/", said, " HTTP/1.0\r\n", "Host: x\r\n\r\n"):
                client.sendall(part.encode())
                time.sleep(dice.uniform(0, 0.02))
            return _all_of(client).endswith(f"\r\n\r\n{said}".encode())

    def _http_reset(self, dice: random.Random) -> bool:
        with _connected(self.http) as client:
            client.sendall(b"POST /much HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
            client.sendall(b"x" * dice.randrange(1, 200_000))
            _reset(client)
        return True

    def _mail(self, dice: random.Random) -> bool:
        lines = (dice.randbytes(35).hex() for _ in range(30))
        return self._send_mail("me@example.org", "\r\n".join(lines)) == 250

    def _mail_error(self, dice: random.Random) -> bool:
        return self._send_mail("boom@example.org", "hi") >= 400

    def _send_mail(self, sender: str, text: str) -> int:
        address = self.smtp.host, self.smtp.port
        with smtplib.SMTP(*address, local_hostname="localhost", timeout=TIMEOUT) as client:
            try:
                client.sendmail(sender, ["you@example.org"], f"Subject: hello\r\n\r\n{text}\r\n")
            except smtplib.SMTPDataError as error:
                return error.smtp_code
        return 250

    def _mail_reset(self, dice: random.Random) -> bool:
        with _connected(self.smtp) as client:
            client.recv(1000)
            client.sendall(b"HELO x\r\nMAIL FROM:<a@example.org>\r\n"[: dice.randrange(1, 36)])
            _reset(client)
        return True

    def _tcp_much(self, dice: random.Random) -> bool:
        body = dice.randbytes(MEBIBYTE)
        with _connected(self.tcp) as client:
            client.sendall(b"much" + body)
            client.shutdown(socket.SHUT_WR)
            return _all_of(client) == hashlib.sha256(body).digest() + body

    def _tcp_error(self, dice: random.Random) -> bool:
        with _connected(self.tcp) as client:
            client.sendall(b"boom")
            try:
                client.shutdown(socket.SHUT_WR)
                return _all_of(client) == b""
            except OSError:  # reset already
                return True

    def _tcp_reset(self, dice: random.Random) -> bool:
        with _connected(self.tcp) as client:
            client.sendall(b"much" + b"x" * dice.randrange(200_000))
            _reset(client)
        return True

    def _datagram(self, dice: random.Random) -> bool:
        said = dice.randbytes(dice.randrange(1, 1000))
        return self._send_datagram(said) == said[::-1]

    def _datagram_error(self, dice: random.Random) -> bool:
        return self._send_datagram(b"boom", replied=False) == b""

    def _send_datagram(self, packet: bytes, *, replied: bool = True) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(TIMEOUT)
            client.sendto(packet, self.udp.server_address)
            return client.recv(2000) if replied else b""

    # Handlers -----------------------------------------------------------------------------------

    def _handle_http(self, request: Any) -> Any:
        if request.path == "/boom":
            self._boom("HTTP")
        if request.path == "/much":
            return _pieces(request.body)
        time.sleep(random.uniform(0, 0.01))
        return request.path.removeprefix("/echo/")

    def _handle_mail(self, mail: Any) -> None:
        if mail.mail_from.startswith("boom"):
            self._boom("SMTP")
        time.sleep(random.uniform(0, 0.01))

    def _handle_tcp(self, connection: Any) -> None:
        try:
            if connection.recv_exactly(4) == b"boom":
                self._boom("TCP")
            body = connection.rfile.read()
            connection.sendall(hashlib.sha256(body).digest())
            for piece in _pieces(body):
                connection.sendall(piece)
        except (ConnectionError, EOFError):
            return  # the client has reset

    def _handle_udp(self, datagram: Any) -> bytes:
        if datagram.packet == b"boom":
            self._boom("UDP")
        packet: bytes = datagram.packet
        return packet[::-1]


def _pieces(body: bytes, size: int = 1 << 16) -> Any:
    return (body[at : at + size] for at in range(0, len(body), size))


def _connected(server: Any) -> socket.socket:
    return socket.create_connection(server.server_address, timeout=TIMEOUT)


def _all_of(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def _reset(client: socket.socket) -> None:
    """Let the close send a reset (RST)."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
