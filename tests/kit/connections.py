"""A connection of the child's transport, on an event loop that the test runs step by step."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from kit.scripts import eventually
from sidestage.child.channel import Outbox
from sidestage.child.iteration import Iteration
from sidestage.child.net.stream import Stream


class Receiver:
    """A protocol that records the calls it gets."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.calls: list[str] = []
        self.data = bytearray()
        self.keeps_open = False
        self.error: Exception | None = None
        self.begin: Callable[[], None] = lambda: None
        self.react: Callable[[], None] = lambda: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.calls.append("made")
        self.begin()

    def data_received(self, data: bytes | memoryview) -> None:
        self.data += data
        self.react()

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return self.keeps_open

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.error = exc


class Connection:
    """A stream, its receiver, and the client's socket; ``shared`` is that of another one."""

    def __init__(self, shared: Iteration | None = None) -> None:
        self._owns = shared is None
        self._nowhere = os.open(os.devnull, os.O_WRONLY)
        if shared is None:
            loop = asyncio.SelectorEventLoop()
            shared = Iteration(loop, Outbox(loop, self._nowhere))
        self.iteration, self.loop = shared, shared.loop
        self.failures: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.failures.append(context))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = socket.create_connection(listener.getsockname())
            self.served, peer = listener.accept()
        self.served.setblocking(False)
        self.client.settimeout(10)
        self.receiver = Receiver()
        self.stream = Stream(self.iteration, self.served, peer, self.receiver)

    def run(self, iterations: int = 3) -> None:
        """Run the loop for some iterations; each acts and sends at its end, as the host's do."""

        async def turn() -> None:
            for _ in range(iterations):
                await asyncio.sleep(0)
                self.iteration.act()
                self.iteration.end()

        self.loop.run_until_complete(turn())

    def run_until(self, condition: Callable[[], bool]) -> None:
        def met() -> bool:
            self.run()
            return condition()

        assert eventually(met, 10)

    def rest(self) -> bytes:
        """Read what the client gets until the end of the stream."""
        came = bytearray()
        self.client.setblocking(False)

        def ended() -> bool:
            try:
                part = self.client.recv(1 << 20)
            except BlockingIOError:
                return False
            came.extend(part)
            return not part

        self.run_until(ended)
        return bytes(came)

    def reset(self) -> None:
        """Reset the connection from the client's side."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()

    def close(self) -> None:
        self.stream.abort()
        self.run()
        if self._owns:
            self.loop.close()
        self.client.close()
        os.close(self._nowhere)
