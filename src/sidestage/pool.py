"""Children kept warm: taken by a start, given back by a clean stop.

A child in the pool serves nothing and has run nothing of the user's. What it inherited (the
working directory and the environment) is its key: a start in other surroundings takes another.
In a forked copy of the test the pool is empty, because the children belong to the original.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import pristine
from .launch import Launched, launch

if TYPE_CHECKING:
    from .process import ServerProcess
    from .wire.channel import Channel

CAP = 8  # idle children kept at most
END_SECONDS = 2.0  # granted to an idle child until it is killed

Key = tuple[str | None, int]


class Child:
    """A process with its channel, and how far it had written to stderr when last taken."""

    __slots__ = ("channel", "key", "process", "stderr_start")

    def __init__(self, process: ServerProcess, channel: Channel, key: Key) -> None:
        self.process = process
        self.channel = channel
        self.key = key
        self.stderr_start = 0

    def stderr_tail(self) -> str:
        """What the child wrote to stderr since it was taken, the last few KiB."""
        return self.process.stderr_tail(self.stderr_start)


class Pool:
    """The idle children of one process."""

    def __init__(self) -> None:
        self._lock = pristine.Lock()
        self._idle: list[Child] = []
        self._hooked = False
        self._owner = pristine.getpid()

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._idle))

    def acquire(self, *, fresh: bool = False) -> Child:
        """An idle child of the present surroundings, or a new one; raises StartError."""
        key = _surroundings()
        while not fresh and (child := self._take(key)) is not None:
            if child.process.wait(pristine.Deadline(0.0)):
                end([child])
                continue
            child.stderr_start = child.process.stderr_size()
            return child
        return self._adopt(launch(), key)

    def _take(self, key: Key) -> Child | None:
        with self._lock:
            for child in reversed(self._idle):
                if child.key == key:
                    self._idle.remove(child)
                    return child
        return None

    def release(self, child: Child) -> bool:
        """Keep a child that has nothing open; ends it, and returns False, if it is one too many."""
        if enabled():
            with self._lock:
                if len(self._idle) < CAP:
                    self._idle.append(child)
                    return True
        end([child])
        return False

    def warm(self, count: int = 1) -> None:
        """See to it that ``count`` idle children are there or booting; does not wait for them."""
        if not enabled():
            return
        key = _surroundings()
        missing = count - sum(1 for child in self if child.key == key)
        for launched in [launch() for _ in range(missing)]:
            child = self._adopt(launched, key)
            with self._lock:
                self._idle.append(child)

    def _adopt(self, launched: Launched, key: Key) -> Child:
        # Here and not above: the imports cost tens of milliseconds, the child boots meanwhile.
        from .process import ServerProcess
        from .wire.channel import Channel

        if not self._hooked:
            self._hooked = True
            atexit.register(self.close)
        process = ServerProcess(launched)
        return Child(process, Channel(launched.events_fd, launched.commands_fd), key)

    def close(self) -> None:
        """End all idle children."""
        if self._owner != pristine.getpid():
            return
        with self._lock:
            idle, self._idle = self._idle, []
        end(idle)

    def forget(self) -> None:
        """In a forked copy: close the descriptors, leave the processes alone."""
        for child in self._idle:
            child.process.close()
        self._lock = pristine.Lock()
        self._idle = []
        self._owner = pristine.getpid()


def end(children: list[Child]) -> None:
    """End children that serve nobody."""
    if children:
        from .process import end_all

        for child in children:
            child.channel.closed = True
        end_all((child.process for child in children), END_SECONDS)


def enabled() -> bool:
    """Whether children are kept: not with ``SIDESTAGE_POOL=0`` in the environment."""
    return os.environ.get("SIDESTAGE_POOL", "1") != "0"


def _surroundings() -> Key:
    try:
        cwd = pristine.getcwd()
    except OSError:  # deleted; the child inherits that too
        cwd = None
    return cwd, hash(frozenset(os.environ.items()))


pool = Pool()
