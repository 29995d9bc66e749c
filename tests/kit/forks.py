"""Forked copies of a test process, and servers that must not notice them."""

from __future__ import annotations

import importlib
import os
import select
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from kit.servers import Clock, ServerUnderTest, Sidestage, fetch, refuses

_COPY_SECONDS = 6.0  # a copy that takes longer hangs
_STOP_SECONDS = 8.0  # no stop takes longer, except one that waits for what a copy holds


def echo(path: str) -> str:
    return path


# Copies ------------------------------------------------------------------------------------------


def reap(pid: int, expected: int = 0) -> None:
    """Wait for a copy, which must end in time and with the expected status."""
    fd = os.pidfd_open(pid)
    ended = select.select([fd], [], [], _COPY_SECONDS)[0]
    os.close(fd)
    if not ended:
        copy = psutil.Process(pid)
        for process in (*copy.children(recursive=True), copy):
            process.send_signal(signal.SIGABRT)  # faulthandler says where it hangs
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert ended, "the copy hangs"
    assert status == expected, f"the copy ends with status {status}"


def run_and_exit(work: Callable[[], object]) -> None:
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - printed, and reported by the status
        traceback.print_exc()
    finally:
        os._exit(status)


def run_in_copy(work: Callable[[], object]) -> None:
    """Fork a copy that runs ``work`` and exits at once; wait for it."""
    pid = os.fork()
    if pid == 0:
        run_and_exit(work)
    reap(pid)


@contextmanager
def lasting_copy() -> Iterator[int]:
    """A copy that lives until the end of the block."""
    owner = os.getpid()
    pid = os.fork()
    if pid == 0:
        run_and_exit(signal.pause)
    try:
        yield pid
    finally:
        if os.getpid() == owner:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# Servers -----------------------------------------------------------------------------------------


def server_pid(sut: ServerUnderTest) -> int | None:
    return sut.server.pid if isinstance(sut, Sidestage) else None


def stop_cleanly(sut: ServerUnderTest) -> None:
    """Stop the server: quickly, without force, and with nothing left listening."""
    port, began = sut.port, Clock.monotonic()
    sut.stop()
    assert_stopped(sut, port, began)


def assert_stopped(sut: ServerUnderTest, port: int, began: float) -> None:
    assert Clock.monotonic() - began < _STOP_SECONDS, "the stop takes too long"
    if isinstance(sut, Sidestage):
        assert sut.server.stop_report.rung == "ask"
    assert refuses(port), "the port is still open"


def assert_echo(port: int, path: str) -> None:
    """Assert that a request is answered by ``echo``."""
    answer = fetch(port, path)
    assert answer == path, f"the answer is {answer!r}"


def assert_unchanged(sut: ServerUnderTest, process: int | None) -> None:
    assert_echo(sut.port, "/after")
    assert server_pid(sut) == process


@contextmanager
def served(sut: ServerUnderTest, answer: Callable[[str], str] = echo) -> Iterator[None]:
    """Serve; after the block, the same process must still answer, and stop."""
    sut.start(answer)
    owner, process = os.getpid(), server_pid(sut)
    yield
    if os.getpid() == owner:
        assert_unchanged(sut, process)
        stop_cleanly(sut)


def use_own_server(sut: ServerUnderTest) -> None:
    """Start, use and stop a server of one's own, in a copy."""
    own = type(sut)()
    own.start(lambda path: f"{path} of {os.getpid()}")
    assert fetch(own.port, "/own") == f"/own of {os.getpid()}"
    stop_cleanly(own)


def send_request(port: int, path: str) -> socket.socket:
    """Send a request without waiting for the answer: a thread would make forks warn."""
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return client


def read_body(client: socket.socket) -> str:
    with client, client.makefile("rb") as file:
        return file.read().decode().partition("\r\n\r\n")[2]


def extend_end_limit(sut: ServerUnderTest) -> None:
    """Wait long for idle processes: one whose pipe a copy holds open does not see its end."""
    if isinstance(sut, Sidestage):
        pool = importlib.import_module("sidestage.process.pool").pool
        assert pool.end_seconds < _STOP_SECONDS
        pool.end_seconds = 60.0


def keep_no_processes(sut: ServerUnderTest) -> None:
    """Have each stop end its process."""
    os.environ["SIDESTAGE_POOL"] = "0"
    extend_end_limit(sut)


class SlowHandler:
    """Answers at once, but ``/slow`` only after ``release`` is set."""

    def __init__(self) -> None:
        self.entered, self.release = threading.Event(), threading.Event()

    def __call__(self, path: str) -> str:
        if path == "/slow":
            self.entered.set()
            self.release.wait(10)
        return path
