"""Starts and stops servers many times, and looks for leaks."""

from __future__ import annotations

import http.client
import smtplib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import accounts
from accounts import Account, take_account
from outcome import Outcome

from sidestage import HTTPServer, SMTPServer, TCPServer, UDPServer

WARM_UP = 50  # cycles of each server before anything is counted


@dataclass(frozen=True)
class Subject:
    """A server, a handler, and a client's request."""

    kind: type[Any]
    handler: Callable[[Any], Any]
    request: Callable[[Any], None]


def start_and_stop(cycles: int) -> Outcome:
    """Run ``cycles`` cycles of each server, after some to warm up."""
    served: set[int] = set()
    for subject in SUBJECTS:
        served |= _run(subject, min(WARM_UP, cycles))
    first = before = take_account()
    _print_head(first)
    for subject in SUBJECTS:
        began = time.perf_counter()
        served |= _run(subject, cycles)
        seconds = time.perf_counter() - began
        account = take_account(first)
        _print_row(subject.kind.__name__, account, before, f"{seconds / cycles * 1000:.2f}")
        before = account
    _print_row("all", before, first, "")
    violations = accounts.leaks(before, first)
    if len(served) > 1:  # a child is replaced when it cannot show that it is clean
        violations.append(f"LEAK: {len(served)} processes have served, one should have done")
    return Outcome(
        "start, half of the times one request, stop: each server in turn",
        f"{len(SUBJECTS) * cycles:,}",
        f"{accounts.in_words(before, first)}; {len(served)} process has served them all",
        violations,
    )


def _run(subject: Subject, cycles: int) -> set[int]:
    """Start and stop: each second time with a handler, each second pair with a request.

    Returns the processes that have served.
    """
    served = set()
    for number in range(cycles):
        handler = subject.handler if number & 1 else None
        with subject.kind(handler=handler) as server:
            served.add(server.pid)
            if number & 2:
                subject.request(server)
                server.wait_for(1)
    return served


def _ask_http(server: Any) -> None:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    try:
        connection.request("POST", "/greet", b"x" * 1000)
        assert connection.getresponse().read() is not None
    finally:
        connection.close()


def _ask_smtp(server: Any) -> None:
    with smtplib.SMTP(server.host, server.port, local_hostname="localhost", timeout=10) as client:
        client.sendmail("me@example.org", ["you@example.org"], "Subject: hello\r\n\r\nhi\r\n")


def _ask_tcp(server: Any) -> None:
    with socket.create_connection(server.server_address, timeout=10) as client:
        client.sendall(b"ping")
        client.shutdown(socket.SHUT_WR)
        while client.recv(100):
            pass


def _ask_udp(server: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"ping", server.server_address)


SUBJECTS = (
    Subject(HTTPServer, lambda request: {"path": request.path}, _ask_http),
    Subject(SMTPServer, lambda mail: None, _ask_smtp),
    Subject(TCPServer, lambda connection: connection.recv(100).upper(), _ask_tcp),
    Subject(UDPServer, lambda datagram: None, _ask_udp),
)


# Progress ---------------------------------------------------------------------------------------


def _print_head(first: Account) -> None:
    print(
        f"{'':10}{'ms a cycle':>12}",
        *(f"{name.replace('_', ' '):>{_width(name)}}" for name in accounts.NAMES),
    )
    _print_cells("at first", "", [f"{getattr(first, name)}" for name in accounts.NAMES])


def _print_row(title: str, account: Account, before: Account, pace: str) -> None:
    _print_cells(title, pace, [f"{more:+d}" for more in account.growth(before).values()])


def _print_cells(title: str, pace: str, cells: list[str]) -> None:
    aligned = (f"{cell:>{_width(name)}}" for name, cell in zip(accounts.NAMES, cells, strict=True))
    print(f"{title:10}{pace:>12}", *aligned, flush=True)


def _width(name: str) -> int:
    return max(len(name), 7) + 1
