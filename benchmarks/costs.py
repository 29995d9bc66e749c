"""Where the time of a request goes: CPU time and system calls of both processes."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import clients
import psutil
import servers

from sidestage import HTTPServer, SMTPServer, TCPServer

SERIAL, MAILS = 2000, 500


def _serial(port: int) -> int:
    clients.serial(port, SERIAL)
    return SERIAL + SERIAL // 10


def _wrk(port: int) -> int:
    return int(clients.wrk(port) * clients.WRK_SECONDS)


def _echo(port: int) -> int:
    clients.echo_one(port, SERIAL)
    return SERIAL


def _mails(port: int) -> int:
    clients.mails(port, count=MAILS)
    return MAILS


# What is done, the server, how it is done, and how many requests that are.
WORK: list[tuple[str, type[Any], Any, Callable[[int], int]]] = [
    ("one request after another", HTTPServer, lambda request: "hello", _serial),
    ("16 connections (wrk)", HTTPServer, lambda request: "hello", _wrk),
    ("16 connections, canned", HTTPServer, None, _wrk),
    ("TCP echo, one connection", TCPServer, servers.echo, _echo),
    ("mails, one connection", SMTPServer, lambda mail: None, _mails),
]


def lines() -> list[str]:
    """A Markdown table."""
    table = [
        "| per request | test: user | system | child: user | system | system calls of the child |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, kind, handler, act in WORK:
        if "connections" in name and not clients.have_wrk():
            continue
        times = _times(kind, handler, act)
        calls = _calls(kind, handler, act)
        table.append(f"| {name} | {' | '.join(f'{time:.0f} µs' for time in times)} | {calls} |")
    return [*table, ""]


def _times(
    kind: type[Any], handler: Any, act: Callable[[int], int]
) -> tuple[float, float, float, float]:
    with kind(handler=handler) as server:
        child = psutil.Process(server.pid)
        before, child_before = resource.getrusage(resource.RUSAGE_SELF), child.cpu_times()
        count = act(server.port)
        after, child_after = resource.getrusage(resource.RUSAGE_SELF), child.cpu_times()
    seconds = (
        after.ru_utime - before.ru_utime,
        after.ru_stime - before.ru_stime,
        child_after.user - child_before.user,
        child_after.system - child_before.system,
    )
    user, system, child_user, child_system = (part / count * 1e6 for part in seconds)
    return user, system, child_user, child_system


def _calls(kind: type[Any], handler: Any, act: Callable[[int], int]) -> str:
    """The child's system calls per request, counted by strace if that is installed."""
    if shutil.which("strace") is None:
        return "(strace is not installed)"
    with ExitStack() as stack:
        server = stack.enter_context(kind(handler=handler))
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        summary = Path(directory, "calls")
        command = ["strace", "-f", "-c", "-o", str(summary), "-p", str(server.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as strace:
            assert strace.stderr is not None
            strace.stderr.readline()  # it has attached
            count = act(server.port)
            os.kill(strace.pid, signal.SIGINT)
        found = re.findall(r"^ *\S+ +\S+ +\S+ +(\d+).* (\w+)$", summary.read_text(), re.MULTILINE)
    shares = {name: int(number) / count for number, name in found if name != "total"}
    often = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {share:.2g}" for name, share in often if share >= 0.05)


if __name__ == "__main__":
    print("\n".join(lines()))
