"""Many at the same time: blocking handlers, idle connections, servers; and large bodies."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psutil
from clients import connect, fail

from sidestage import HTTPServer, ServerManager

MIB = 1 << 20


# Handlers that block -----------------------------------------------------------------------------


@contextmanager
def blocking(seconds: float = 0.1) -> Iterator[int]:
    """An HTTP server whose handler blocks."""

    def handler(request: Any) -> str:
        time.sleep(seconds)
        return "done"

    with HTTPServer(handler=handler) as server:
        yield server.port


def at_once(port: int, count: int = 16) -> float:
    """Milliseconds until all requests, sent at the same time, have their answers."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(port)) for _ in range(count)]
        began = time.perf_counter()
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for client in clients:
            client.recv(65536) or fail("no answer")
        return (time.perf_counter() - began) * 1000


# Idle connections --------------------------------------------------------------------------------


def idle_connections(count: int) -> tuple[float, float]:
    """With idle connections: a request's microseconds, and the child's KiB per connection."""
    from clients import serial

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 200)), hard))
    with HTTPServer(handler=lambda request: "hello") as server, ExitStack() as stack:
        serial(server.port, 50)
        child = psutil.Process(server.pid or 0)
        before = child.memory_info().rss
        for _ in range(count):
            stack.enter_context(connect(server.port))
        latency = serial(server.port, 200)
        return latency, (child.memory_info().rss - before) / 1024 / max(1, count)


# Servers -----------------------------------------------------------------------------------------


def many_servers(count: int) -> tuple[float, float, float]:
    """Seconds to start servers in parallel and to stop them, and the MiB (USS) of each."""
    manager = ServerManager({str(number): HTTPServer() for number in range(count)})
    began = time.perf_counter()
    with manager:
        started = time.perf_counter()
        memory = [psutil.Process(s.pid).memory_full_info().uss for s in manager.values()]
        stopping = time.perf_counter()
    return started - began, time.perf_counter() - stopping, sum(memory) / count / MIB


# Large bodies ------------------------------------------------------------------------------------


class Streams:
    """A server whose handler streams a large body, and how much both processes grow."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.piece = bytes(MIB)

    def handler(self, request: Any) -> Any:
        """Read a body to its end, or send one."""
        if request.method == "POST":
            total = 0
            while data := request.rfile.read(1 << 18):
                total += len(data)
            return str(total)
        return iter([self.piece] * (self.size // MIB)) if self.size >= MIB else bytes(self.size)


def rss(pid: int | None = None) -> int:
    """The resident bytes of a process."""
    return int(psutil.Process(pid).memory_info().rss)


def stream(size: int, *, upload: bool) -> tuple[float, float, float]:
    """MiB per second through a handler, and the MiB that the test's process and the child grow."""
    streams = Streams(size)
    with HTTPServer(handler=streams.handler, keep=MIB) as server, connect(server.port) as client:
        before = rss(), rss(server.pid)
        began = time.perf_counter()
        if upload:
            head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
            _send(client, head.encode(), streams.piece, size)
        else:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = _receive(client, until_end=not upload)
        seconds = time.perf_counter() - began
        if not upload and received < size:
            fail(f"{received} of {size} bytes came")
        grown = (rss() - before[0]) / MIB, (rss(server.pid) - before[1]) / MIB
    return size / MIB / seconds, *grown


def _send(client: socket.socket, head: bytes, piece: bytes, size: int) -> None:
    client.sendall(head)
    view = memoryview(piece)
    while size:
        part = min(size, len(piece))
        client.sendall(view[:part])
        size -= part


def _receive(client: socket.socket, *, until_end: bool) -> int:
    buffer, received = bytearray(MIB), 0
    while size := client.recv_into(buffer):
        received += size
        if not until_end:
            break
    return received


def empty_the_pool() -> None:
    """Let the next servers start in new processes."""
    from sidestage.process.pool import pool

    pool.close()
