"""The smallest server in another process with its handler in the test's.

It parses nothing and keeps nothing: a client's bytes go through a pipe to a thread of the
benchmark, which sends them back through another pipe; then the client gets its answer.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bare import RESPONSE

SIZE = 64  # bytes of a relayed message, after a byte for the number of its connection


class Relay:
    """The server's process; ``answer`` is sent to clients, or, if empty, what they have sent."""

    def __init__(self, answer: bytes, to_handler: int, from_handler: int) -> None:
        self._answer = answer
        self._to_handler = to_handler
        self._from_handler = from_handler
        self._selector = selectors.DefaultSelector()
        self._clients: list[socket.socket] = []

    def serve(self) -> None:
        """Serve until the pipe from the handler ends."""
        listener = socket.create_server(("127.0.0.1", 0))
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._from_handler, selectors.EVENT_READ)
        print(listener.getsockname()[1], flush=True)
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._pass_on(key.data)
                elif key.fileobj is listener:
                    self._accept(listener)
                elif not self._answer_all():
                    return

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(client, selectors.EVENT_READ, len(self._clients))
        self._clients.append(client)

    def _pass_on(self, number: int) -> None:
        client, data = self._clients[number], b""
        with contextlib.suppress(ConnectionError):
            data = client.recv(SIZE)
        if data:
            os.write(self._to_handler, bytes([number]) + data.ljust(SIZE))
        else:
            self._selector.unregister(client)

    def _answer_all(self) -> bool:
        messages = os.read(self._from_handler, 1 << 16)
        for at in range(0, len(messages), SIZE + 1):
            answer = self._answer or messages[at + 1 : at + 1 + SIZE]
            with contextlib.suppress(ConnectionError):
                self._clients[messages[at]].send(answer)
        return bool(messages)


@contextmanager
def relay(answer: bytes = RESPONSE) -> Iterator[int]:
    """Run that server, with a thread as its handler."""
    from_child, to_handler = os.pipe()
    from_handler, to_child = os.pipe()
    command = [sys.executable, __file__, answer.hex(), str(to_handler), str(from_handler)]
    theirs = (to_handler, from_handler)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=theirs) as process:
        for fd in theirs:
            os.close(fd)
        handler = threading.Thread(target=_handle, args=(from_child, to_child))
        handler.start()
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()
            handler.join()
            for fd in (from_child, to_child):
                os.close(fd)


def _handle(from_child: int, to_child: int) -> None:
    while messages := os.read(from_child, 1 << 16):
        os.write(to_child, messages)


if __name__ == "__main__":
    Relay(bytes.fromhex(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])).serve()
