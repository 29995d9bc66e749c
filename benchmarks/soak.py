"""Start and stop servers for a long time and look for what is left: ``make soak``.

After some cycles to warm up, none may leave a descriptor, thread, process, zombie or temporary file
behind, and neither this process nor the server's may grow. Exits with status 1 if one does.
"""

from __future__ import annotations

import argparse
import gc
import http.client
import os
import smtplib
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import psutil

from sidestage import HTTPServer, SMTPServer, TCPServer, UDPServer

WARM_UP = 50  # cycles of each server before anything is counted
GROWTH = 1024  # KiB that a process may grow by: allocators round up, a leak goes on
SETTLE = 5.0  # seconds for what was let go to be gone


@dataclass(frozen=True)
class Subject:
    """A server, a handler, and a client's request."""

    kind: type[Any]
    handler: Callable[[Any], Any]
    request: Callable[[Any], None]


@dataclass(frozen=True)
class Account:
    """What the two processes have at one moment."""

    descriptors: int
    threads: int
    processes: int
    zombies: int
    files: int
    rss_kib: int
    child_descriptors: int
    child_threads: int
    child_rss_kib: int

    def growth(self, before: Account) -> dict[str, int]:
        """How much more there is than before."""
        return {
            field.name: getattr(self, field.name) - getattr(before, field.name)
            for field in fields(self)
        }

    def excess(self, before: Account) -> dict[str, int]:
        """Of the growth, what may not be."""
        return {
            name: more
            for name, more in self.growth(before).items()
            if more > (GROWTH if name.endswith("rss_kib") else 0)
        }


def main() -> int:
    """Run it all, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=1000, help="of each server (default: 1000)")
    cycles = parser.parse_args().cycles
    with tempfile.TemporaryDirectory() as directory:
        os.environ["TMPDIR"] = tempfile.tempdir = directory  # all that is in there is ours
        return _soak(cycles)


def _soak(cycles: int) -> int:
    served: set[int] = set()
    for subject in SUBJECTS:
        served |= _run(subject, WARM_UP)
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
    leaks = [
        f"LEAK: {more} {name.replace('_', ' ')} more than after the warm-up"
        for name, more in before.excess(first).items()
    ]
    if len(served) > 1:  # a child is replaced when it cannot show that it is clean
        leaks.append(f"LEAK: {len(served)} processes have served, one should have done")
    print("\n".join(leaks) or f"No leak; one process has served {len(SUBJECTS) * cycles} cycles.")
    return 1 if leaks else 0


# Cycles -----------------------------------------------------------------------------------------


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


# Accounts ---------------------------------------------------------------------------------------


def take_account(allowed: Account | None = None) -> Account:
    """What there is now; given what is allowed, once it is no more than that or time is up."""
    deadline = time.monotonic() + SETTLE
    gc.collect()
    account = _account()
    while allowed and account.excess(allowed) and time.monotonic() < deadline:
        time.sleep(0.05)
        account = _account()
    return account


def _account() -> Account:
    this = psutil.Process()
    children = this.children(recursive=True)
    zombies = [child for child in children if child.status() == psutil.STATUS_ZOMBIE]
    living = [child for child in children if child not in zombies]
    return Account(
        descriptors=this.num_fds(),
        threads=_threads(this.pid),
        processes=len(living),
        zombies=len(zombies),
        files=sum(1 for _ in Path(tempfile.gettempdir()).rglob("*")),
        rss_kib=_rss(this.pid),
        child_descriptors=sum(child.num_fds() for child in living),
        child_threads=sum(_threads(child.pid) for child in living),
        child_rss_kib=sum(_rss(child.pid) for child in living),
    )


def _threads(pid: int) -> int:
    """As the kernel counts them: also those that Python does not know."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def _rss(pid: int) -> int:
    """Resident KiB: from smaps_rollup, because statm is behind by what each CPU has cached."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rollup.partition("Rss:")[2].split()[0])


# Table ------------------------------------------------------------------------------------------

_FIELDS = [field.name for field in fields(Account)]


def _print_head(first: Account) -> None:
    print(
        f"{'':10}{'ms a cycle':>12}",
        *(f"{name.replace('_', ' '):>{_width(name)}}" for name in _FIELDS),
    )
    _print_cells("at first", "", [f"{getattr(first, name)}" for name in _FIELDS])


def _print_row(title: str, account: Account, before: Account, pace: str) -> None:
    _print_cells(title, pace, [f"{more:+d}" for more in account.growth(before).values()])


def _print_cells(title: str, pace: str, cells: list[str]) -> None:
    aligned = (f"{cell:>{_width(name)}}" for name, cell in zip(_FIELDS, cells, strict=True))
    print(f"{title:10}{pace:>12}", *aligned, flush=True)


def _width(name: str) -> int:
    return max(len(name), 7) + 1


if __name__ == "__main__":
    sys.exit(main())
