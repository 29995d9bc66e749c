"""Real servers over real sockets, with a handler and without, in batches.

After each batch a good request is served, ``received`` agrees with what the clients got, the stop
is clean and the same process serves the next batch, and neither process has grown.
"""

from __future__ import annotations

import random
import socket
import struct
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import psutil

from fuzz.cases import Fault, Target
from kit.resources import own_descriptors, own_threads
from kit.scripts import eventually
from sidestage.process.pool import pool

WAIT = 10.0  # seconds for a server to answer; none comes near it
_WARM_UP = 4  # batches, before anything is measured
_GROWTH = 16 * 1024  # KiB that a process may grow: allocators round up, caches fill
_OPTIONS = {"keep": 1 << 24}

Handler = Callable[[Any], Any]


def connect(server: Any) -> socket.socket:
    """A client of ``server``."""
    return socket.create_connection(server.server_address[:2], timeout=WAIT)


def read_all(client: socket.socket) -> bytes:
    """What comes until the server ends the connection; raises Fault if it does not."""
    came = bytearray()
    try:
        while data := client.recv(1 << 16):
            came += data
    except TimeoutError:
        raise Fault(f"the connection does not end; so far: {bytes(came[-200:])!r}") from None
    except ConnectionResetError:
        pass
    return bytes(came)


def send_all(client: socket.socket, pieces: list[bytes]) -> bool:
    """Send the pieces; returns whether the server has taken all of them."""
    try:
        for piece in pieces:
            client.sendall(piece)
    except TimeoutError:
        raise Fault("the server does not read") from None
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def reset(client: socket.socket) -> None:
    """Close so that the server gets a reset (RST)."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


class Sockets(Target):
    """One server, restarted for each batch, with another handler each time."""

    kind: type[Any]
    handlers: tuple[Handler | None, ...]
    batch = 200
    whole = True
    shrinks = 0

    def __init__(self) -> None:
        super().__init__()
        self.handler: Handler | None = None
        self.server: Any = None
        self._batches = 0
        self._pid = 0
        self._before: dict[int, dict[str, int]] = {}  # by handler

    @abstractmethod
    def ask(self) -> None:
        """Send a good request; raises Fault if it is not served."""

    @abstractmethod
    def compare(self) -> None:
        """Compare what is recorded with what the clients got: raises Fault."""

    def begin(self) -> None:
        pool.close()
        self._batches, self._pid, self._before = 0, 0, {}

    def begin_batch(self) -> None:
        self.handler = self.handlers[self._batches % len(self.handlers)]
        self.server = self.kind(handler=self.handler, **_OPTIONS)
        self.server.start()
        if not self._pid:
            self._pid = self.server.pid
        self._batches += 1

    def end_batch(self) -> None:
        server, self.server = self.server, None
        try:
            self._check(server)
        finally:
            server.stop()
        if not server.stop_report.clean:
            raise Fault(f"the stop was not clean: {server.stop_report}")

    def _check(self, server: Any) -> None:
        self.server = server
        if server.pid != self._pid:
            wanted, self._pid = self._pid, server.pid
            raise Fault(f"another process serves: {server.pid}, not {wanted}")
        self.ask()
        self.compare()
        self.server = None
        for diagnostic in server.diagnostics:
            if "Traceback" in diagnostic.text or "Exception" in diagnostic.text:
                raise Fault(f"an exception in the child: {diagnostic.text}")
        if tail := server.stderr_tail():
            raise Fault(f"the child has written to stderr: {tail}")
        self._check_growth()

    def end(self) -> None:
        if self.server is not None:  # an interrupted batch
            self.server.stop()
            self.server = None
        pool.close()

    # Growth --------------------------------------------------------------------------------------

    def _measured(self) -> dict[str, int]:
        child = psutil.Process(self._pid)
        return {
            "test_kib": psutil.Process().memory_info().rss // 1024,
            "child_kib": child.memory_info().rss // 1024,
            "descriptors": len(own_descriptors()),
            "child_descriptors": child.num_fds(),
            "threads": len(own_threads()),
            "child_threads": child.num_threads(),
        }

    def _check_growth(self) -> None:
        """Compare with the first batch after the warm-up that had the same handler."""
        if self._batches <= _WARM_UP:
            return
        before = self._before.setdefault(self._batches % len(self.handlers), self._measured())

        def excess() -> dict[str, int]:
            more = {name: count - before[name] for name, count in self._measured().items()}
            for name in ("test_kib", "child_kib"):
                self.growth[name] = max(more[name], self.growth.get(name, 0))
            return {
                name: count
                for name, count in more.items()
                if count > (_GROWTH if name.endswith("kib") else 0)
            }

        if not eventually(lambda: not excess()):
            raise Fault(f"growth: {excess()}")


def sizes(dice: random.Random, most: int) -> int:
    """A size of which the small ones and the borders are likely."""
    return dice.choice((0, 1, dice.randrange(100), dice.randrange(most + 1), most))
