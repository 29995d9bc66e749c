"""Where the handler threads of one server wait for events."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ..pristine import system
from ..pristine.system import POLLIN

_EPOLLIN, _EPOLLHUP, _EDGE = 1, 0x10, 1 << 31
_EFD_FLAGS = 0o2000000 | 0o4000  # EFD_CLOEXEC | EFD_NONBLOCK


class Gate(Protocol):
    """Threads wait here until there is something to read, or until they are woken."""

    ended: bool  # the other end of the pipe is closed: nothing comes after what can be read now

    def wait(self) -> None:
        """Block until there is something to read or the thread is woken."""
        ...

    def wake(self) -> None:
        """Wake one waiting thread, or the next one that waits."""
        ...

    def descriptors(self) -> list[int]:
        """Those that it has, beside the one that it waits for."""
        ...

    def close(self) -> None:
        """Close the descriptors; no thread may be waiting."""


class EpollGate:
    """The kernel wakes one thread each time that something comes (Linux).

    It is edge-triggered, so it need not be armed again. That saves a system call for each request,
    and with it one release and acquisition of the GIL.
    """

    _epoll: Any = None

    def __init__(self, fd: int) -> None:
        self._wakers: list[int] = []
        self.ended = False
        self._fd = fd
        assert system.eventfd is not None
        try:
            system.note(self._wakers, system.eventfd, 0, _EFD_FLAGS)
            self._epoll = system.make_epoll()
            self._epoll.register(fd, _EPOLLIN | _EDGE)
            self._epoll.register(self._wakers[0], _EPOLLIN | _EDGE)
        except BaseException:  # the error refers to this frame, and might keep them open
            self.close()
            raise

    def wait(self) -> None:
        for fd, events in self._epoll.poll(None, 1):
            if fd == self._fd and events & _EPOLLHUP:
                self.ended = True

    def wake(self) -> None:
        assert system.eventfd_write is not None
        system.eventfd_write(self._wakers[0], 1)

    def descriptors(self) -> list[int]:
        return [self._epoll.fileno(), *self._wakers]

    def close(self) -> None:
        if self._epoll is not None:
            self._epoll.close()
        # In one call of C, as in ``system.note``: each is closed once.
        with contextlib.suppress(IndexError):  # after the last one
            deque(map(system.close, iter(self._wakers.pop, None)), maxlen=0)
        # Without a finalizer now: Ctrl-C is lost where it comes into one.
        object.__setattr__(self, "__class__", EpollGate)


class _OpenGate(EpollGate):
    """One that closes itself if nobody does, as a stop may be interrupted."""

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # The end of the process closes all. Without wakers its ``__init__`` was interrupted.
        if not finalizing() and hasattr(self, "_wakers"):
            self.close()


class LockGate:
    """One thread at a time polls, and the next once that has seen something (any POSIX)."""

    def __init__(self, fd: int) -> None:
        self.ended = False  # stays so: the next read finds the end
        self._fd = fd
        self._turn = system.Lock()
        self._waker, self._wake_end = system.pipe()
        assert system.set_blocking is not None
        system.set_blocking(self._wake_end, False)
        self._poll = system.make_poll()
        self._poll.register(fd, POLLIN)
        self._poll.register(self._waker, POLLIN)

    def wait(self) -> None:
        with self._turn:
            if any(fd == self._waker for fd, _ in self._poll.poll()):
                system.read(self._waker, 1)

    def wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full of wake-ups that no thread has read yet
            system.write(self._wake_end, b"\0")

    def descriptors(self) -> list[int]:
        return [self._waker, self._wake_end]

    def close(self) -> None:
        system.close_quietly(self._waker)
        system.close_quietly(self._wake_end)


def make_gate(fd: int) -> Gate:
    """The best gate for this platform; it waits for ``fd`` to become readable."""
    if system.make_epoll is not None and system.eventfd is not None:
        return _OpenGate(fd)
    return LockGate(fd)
