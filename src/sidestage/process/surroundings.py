"""What a process hands down to those that it starts: who it is, where it is, what it may use.

A server's process has it from its launch and keeps it. So the pool hands out a process only where a
new one would have the same. Not looked at is what a process of ours sets for itself (its directory,
signals, process group, descriptors), nor the environment, which nothing there reads.
"""

from __future__ import annotations

import functools
import itertools
import operator
import os
from typing import Any

from ..pristine import system
from ..pristine.imports import importing_once

# Not those that Linux ignores, or that are of queues and priorities, which no server has.
_LIMITS = ("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "NPROC", "STACK")
_NAMESPACES = "/proc/thread-self/ns"
_STATUS_BYTES = 8192  # /proc/self/status has about 1,500

Surroundings = tuple[object, object]


def surroundings() -> Surroundings:
    """What a process that the calling thread started now would have, to be compared.

    What the system does not tell is left out. The first part is ``at_a_glance``. The second, which
    takes twice as long, is of what makes a difference to files and to privileged ports only.
    """
    return at_a_glance(), (_rights(), _namespace("user"), _namespace("mnt"))


def at_a_glance() -> tuple[tuple[object, ...], int, int, int]:
    """The part of the surroundings that takes some ten microseconds."""
    root = system.stat("/")
    calls = itertools.starmap(operator.call, _calls())
    try:
        asked = tuple(calls)  # in C: each start waits for it
    except OSError:  # there are no namespaces, or no /proc
        asked = tuple(map(_asked, _calls()))
    return asked, root.st_dev, root.st_ino, _umask.now()


@functools.cache
def _calls() -> tuple[tuple[Any, ...], ...]:
    """What to call with what, to be told all that takes no second look."""
    with importing_once():
        import resource
    found: Any = system.second(resource)
    names = [f"RLIMIT_{name}" for name in _LIMITS]
    wanted = (
        (system.getresuid,),
        (system.getresgid,),
        (system.getgroups,),
        (system.getsid, 0),  # why it matters: see ``launch._spawn``
        (system.getpriority, 0, 0),  # the niceness of this process
        (system.sched_getaffinity, 0),
        *((found.getrlimit, getattr(found, name)) for name in names if hasattr(found, name)),
        (system.readlink, f"{_NAMESPACES}/net"),
        # Of new processes: ``unshare`` leaves its caller in the old one.
        (system.readlink, f"{_NAMESPACES}/pid_for_children"),
    )
    return tuple(call for call in wanted if call[0] is not None)


def _asked(call: tuple[Any, ...]) -> object:
    try:
        return operator.call(*call)
    except OSError:
        return None


def _namespace(name: str) -> str | None:
    try:
        return system.readlink(f"{_NAMESPACES}/{name}")
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
