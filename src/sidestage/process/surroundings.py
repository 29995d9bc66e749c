"""What a process hands down to those that it starts: who it is, where it is, what it may use.

A server's process has it from its launch and keeps it. So the pool hands out a process only where a
new one would have the same. Not looked at is what a process of ours sets for itself (its directory,
signals, process group, descriptors), nor the environment, which nothing there reads.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Hashable
from typing import Any

from ..pristine import system
from ..pristine.imports import importing_once

# Not those that Linux ignores, or that are of queues and priorities, which no server has.
_LIMITS = ("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "NPROC", "STACK")
_STATUS_BYTES = 8192  # /proc/self/status has about 1,500

Surroundings = tuple[Hashable, Hashable]


def surroundings() -> Surroundings:
    """What a process that the calling thread started now would have, to be compared.

    What the system does not tell is left out. The first part is ``at_a_glance``. The second, which
    takes twice as long, is of what makes a difference to files and to privileged ports only.
    """
    return at_a_glance(), (_rights(), _namespace("user"), _namespace("mnt"))


def at_a_glance() -> Hashable:
    """The part of the surroundings that takes some twenty microseconds."""
    root = system.stat("/")
    get_limit, limits = _limits()
    return (
        system.getresuid and system.getresuid(),
        system.getresgid and system.getresgid(),
        system.getgroups and tuple(system.getgroups()),
        system.getsid and system.getsid(0),  # why it matters: see ``launch._spawn``
        system.getpriority and system.getpriority(0, 0),  # the niceness of this process
        system.sched_getaffinity and tuple(system.sched_getaffinity(0)),
        (root.st_dev, root.st_ino),
        _umask.now(),
        *map(get_limit, limits),
        _namespace("net"),
        # Of new processes: ``unshare`` leaves its caller in the old one.
        _namespace("pid_for_children"),
    )


@functools.cache
def _limits() -> tuple[Callable[[int], tuple[int, int]], list[int]]:
    with importing_once():
        import resource
    found: Any = system.second(resource)
    names = [f"RLIMIT_{name}" for name in _LIMITS]
    return found.getrlimit, [getattr(found, name) for name in names if hasattr(found, name)]


def _namespace(name: str) -> str | None:
    try:
        return system.readlink(f"/proc/thread-self/ns/{name}")
    except OSError:  # there are none, or no /proc
        return None


def _rights() -> bytes | None:
    """The capabilities, and what bounds them."""
    status = _status()
    start, end = status.find(b"CapInh:"), status.find(b"Cpus_allowed:")
    return None if start < 0 else status[start:end]


def _status() -> bytes:
    try:
        fd = system.open_file("/proc/thread-self/status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return system.read(fd, _STATUS_BYTES)
    finally:
        system.close(fd)


class _Umask:
    """The umask, which no system call reads without setting it.

    So it is set to what it was before. Mostly it still is, and then nothing changes, not even for a
    moment in which another thread creates a file.
    """

    def __init__(self) -> None:
        self._last: int | None = None

    def now(self) -> int:
        """The umask at present."""
        last = self._last
        if last is None:
            last = self._from_proc()
        now = system.umask(last)
        if now != last:
            system.umask(now)
        self._last = now
        return now

    def _from_proc(self) -> int:
        _, found, rest = _status().partition(b"\nUmask:")
        return int(rest.split(None, 1)[0], 8) if found else 0o77


_umask = _Umask()
