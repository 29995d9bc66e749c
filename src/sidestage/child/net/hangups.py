"""Resets of connections that nobody reads: their clients have stopped sending, or have to wait.

The loop's selector tells only of what can be read or written: after a client's end the former is
always true. The kernel tells of errors to whoever waits for nothing (epoll(7), EPOLLERR).
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Any


class Hangups:
    """Watches sockets of one process, on one loop (Linux)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll: Any = select.epoll()
        self._watched: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._look)

    def watch(self, fd: int, reset: Callable[[], None]) -> None:
        """Call ``reset``, once, when the peer of the socket ``fd`` has reset the connection."""
        self._watched[fd] = reset
        self._epoll.register(fd, 0)

    def forget(self, fd: int) -> None:
        """Watch ``fd`` no longer: it is read again, or is to be closed."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self) -> None:
        """Watch nothing any more."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _look(self) -> None:
        for fd, events in self._epoll.poll(0):
            reset = self._watched.get(fd)
            self.forget(fd)  # or it is reported again at once
            if reset is not None and events & select.EPOLLERR:  # else both sides have ended
                reset()


def make_hangups(loop: asyncio.AbstractEventLoop) -> Hangups | None:
    """One for ``loop``; ``None`` where the system has nothing like it: then a write finds out."""
    return Hangups(loop) if hasattr(select, "epoll") else None
