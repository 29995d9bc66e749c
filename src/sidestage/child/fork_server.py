"""A process that is up and serves nobody: it forks the processes that do, in milliseconds.

What it forks becomes a child of the test, not of its own (CLONE_PARENT), so that the test waits
for it, signals it and reaps it like any other. It is a copy of an interpreter that has imported
what servers need and done nothing: it has one thread, no loop and no socket.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
from collections.abc import Iterator

from . import host
from .owner_watch import OwnerWatch
from .service import protocols, service_of

NONE = "-"  # in a request, for a process whose protocol is not one of ours
_imported: set[str] = set()

_CLONE_PARENT = 0x8000
# Of clone(2): Python has nothing that takes this flag, the C library only what begins in a function
# of C. Not clone3, which has one number everywhere: containers commonly forbid it.
_CLONE = {"x86_64": 56, "aarch64": 220}


def main(commands_fd: int, events_fd: int, watch: OwnerWatch) -> None:
    """Fork what the owner asks for until it is gone; this returns in what was forked, at its end.

    A request is a line: the protocol that the new process will serve first, and the numbers of the
    owner's descriptors that become its commands, events and stderr. The answer is a line with its
    pid, or with 0 if there can be none.
    """
    gc.freeze()
    for request in _requests(commands_fd, watch):
        fds: list[int] = []
        try:
            protocol, *numbers = request.split()
            _import(protocol.decode())  # what it will serve: its copies need not
            fds += _borrow(watch.owner, numbers)
            pid = _fork()
        except Exception:  # noqa: BLE001 - whatever is missing here: others start without us
            pid = -1
        if pid == 0:
            os.close(commands_fd)
            os.close(events_fd)
            _serve(watch, *fds)
            return
        for fd in fds:
            os.close(fd)
        os.write(events_fd, b"%d\n" % max(0, pid))


def _requests(commands_fd: int, watch: OwnerWatch) -> Iterator[bytes]:
    """The owner's requests; ends this process with the owner."""
    poll = select.poll()
    poll.register(commands_fd, select.POLLIN)
    if watch.pidfd is not None:
        poll.register(watch.pidfd, select.POLLIN)
    later = protocols()
    idle = 0.0  # milliseconds
    while True:
        ready = dict(poll.poll(idle))
        if commands_fd in ready and (request := os.read(commands_fd, 512)):
            yield request
        elif ready or not watch.alive():
            os._exit(0)
        elif protocol := next(later, None):
            _import(protocol)
        else:
            idle = watch.interval * 1000


def _import(protocol: str) -> None:
    """Import a protocol's service, once; what copies share must not be written to.

    One that cannot be imported is left to the process that will serve it, which reports it.
    """
    if protocol in _imported or protocol == NONE:
        return
    _imported.add(protocol)
    with contextlib.suppress(Exception):
        service_of(protocol)
    gc.collect()
    gc.freeze()  # a collection in a copy would write to all that is shared, and so copy it


def _borrow(owner: int, numbers: list[bytes]) -> Iterator[int]:
    """Descriptors of the owner's, opened here by their numbers there."""
    flags = (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY | os.O_APPEND)
    for number, flag in zip(numbers, flags, strict=True):
        yield os.open(f"/proc/{owner}/fd/{int(number)}", flag)


def _fork() -> int:
    """Fork a child of our own parent; raises, or returns -1, where that cannot be done."""
    import ctypes  # takes several milliseconds

    number = ctypes.c_long(_CLONE[os.uname().machine])
    python = ctypes.PyDLL(None)  # calls keep the GIL
    arguments = [ctypes.c_long(value) for value in (_CLONE_PARENT, 0, 0, 0, 0)]
    python.PyOS_BeforeFork()
    pid = int(python.syscall(number, *arguments))
    if pid:
        python.PyOS_AfterFork_Parent()
        return pid
    try:
        python.PyOS_AfterFork_Child()
    except BaseException:  # noqa: BLE001 - a copy must not go on as what it is a copy of
        os._exit(1)
    return 0


def _serve(watch: OwnerWatch, commands_fd: int, events_fd: int, stderr_fd: int) -> None:
    """Run the host in what was forked, as ``launch`` does in a new interpreter."""
    os.setpgid(0, 0)
    os.dup2(stderr_fd, 1)
    os.dup2(stderr_fd, 2)
    os.close(stderr_fd)
    if watch.pidfd is not None:
        with contextlib.suppress(OSError):
            os.close(watch.pidfd)
    host.main(commands_fd, events_fd, OwnerWatch(watch.owner))
