"""Accepts clients: each has its connection in the pass of the loop in which it is seen."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from .stream import Receiver, Stream

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RETRY_SECONDS = 1.0  # when there was no descriptor for a client, which waits in the kernel


class Acceptor:
    """A listening socket whose clients each get what ``receiver`` makes."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        backlog: int,
        receiver: Callable[[], Receiver],
    ) -> None:
        self._loop = loop
        self._sock = sock
        # For the loop: of a socket that it does not know yet, asyncio on Python 3.11 composes a
        # text, which takes calls of the kernel.
        self._fd = sock.fileno()
        self._backlog = backlog
        self._receiver = receiver
        self._retry: asyncio.TimerHandle | None = None
        self._no_delay = sock.family != getattr(socket, "AF_UNIX", None)
        self._listen()

    def _listen(self) -> None:
        self._loop.add_reader(self._fd, self._accept)

    def _accept(self) -> None:
        for _ in range(self._backlog + 1):  # as many as can be waiting, and then the others' turn
            try:
                client, peername = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:  # that one is gone again
                continue
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._wait(error)
                return
            self._begin(client, peername)

    def _begin(self, client: socket.socket, peername: object) -> None:
        try:
            client.setblocking(False)
            if self._no_delay:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # it is gone again
            client.close()
            return
        Stream(self._loop, client, peername, self._receiver()).start()

    def _wait(self, error: OSError) -> None:
        context = {"message": "a client could not be accepted", "exception": error}
        self._loop.call_exception_handler(context)
        self._loop.remove_reader(self._fd)
        self._retry = self._loop.call_later(_RETRY_SECONDS, self._listen)

    def close(self) -> None:
        """Accept nobody any more."""
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._fd)
        self._sock.close()
