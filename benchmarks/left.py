"""Finds what is left of a killed process: processes with its mark, and bound ports."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

MARK = "SIDESTAGE_SOAK"
SECOND = 1.0  # until all must be gone
GIVE_UP = 10.0  # seconds until the rest is killed


def environment(mark: str) -> dict[str, str]:
    """The environment that marks a process and all that it starts."""
    return {**os.environ, MARK: mark}


def marked(mark: str) -> set[int]:
    """The live processes with ``mark`` in their environment."""
    wanted = f"{MARK}={mark}".encode()
    found = set()
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (directory / "environ").read_bytes().split(b"\0"):
                    found.add(int(directory.name))
    return found


def until_gone(mark: str, ports: Iterable[int], beside: set[int]) -> tuple[float, list[str]]:
    """Wait until nothing is left; returns the seconds, and what was left after a second.

    After ``GIVE_UP`` seconds the rest is killed.
    """
    began = time.monotonic()
    held = set(ports)
    late: list[str] = []
    while True:
        now = time.monotonic() - began
        processes = marked(mark) - beside
        held = {port for port in held if _held(port, mark)}
        if not processes and not held:
            break
        if now > SECOND and not late:
            late = [_describe(pid) for pid in processes] + [f"port {port}" for port in held]
        if now > GIVE_UP:
            break
        time.sleep(0.002)
    end(marked(mark))
    return now, late


def end(pids: Iterable[int]) -> None:
    """Kill these processes."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _held(port: int, mark: str) -> bool:
    return (_listens(port) or _is_bound(port)) and not _a_strangers(port, mark)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(0.5)  # if nothing accepts, the backlog fills up
        return client.connect_ex(("127.0.0.1", port)) != errno.ECONNREFUSED


def _is_bound(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _a_strangers(port: int, mark: str) -> bool:
    """Whether the port belongs to other processes by now."""
    ours = marked(mark) | {None}  # those without an owner may be on their way out
    owners = {
        entry.pid
        for entry in psutil.net_connections("inet")
        if entry.laddr
        and entry.laddr.port == port
        and entry.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
    }
    return bool(owners) and not owners & ours


def _describe(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return f"process {pid} ({process.status()}): {' '.join(process.cmdline())[:200]}"
    except psutil.Error:
        return f"process {pid}"
