"""The fork server: an idle process that forks server processes in milliseconds.

A forked process becomes a child of the test's process, not of the fork server (CLONE_PARENT), so
the test waits for it, signals it and reaps it like any other child. It stays in the group of the
fork server until the test has heard of it, which finds it there if the fork server is killed. The
fork server has imported what servers need and nothing else: it has one thread, no event loop and no
socket.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
from collections.abc import Iterator

from . import host
from .owner_watch import OwnerWatch
from .service import layer_of, protocols, service_of

NONE = "-"  # in a request: what serves is not built in, so there is nothing to import
_imported: set[str] = set()

_CLONE_PARENT = 0x8000
# Numbers of the system call clone(2). Python has no function that takes the flag, and the C
# library's clone() starts in a C function. clone3 has the same number on all architectures, but
# containers commonly forbid it.
_CLONE = {"x86_64": 56, "aarch64": 220}


def main(commands_fd: int, events_fd: int, watch: OwnerWatch) -> None:
    """Fork server processes until the owner ends. In a forked process, this returns when it ends.

    A request is a line: the protocol that the new process will serve first and its layers, with
    commas, and the numbers of the owner's descriptors that become its commands, events and stderr;
    and the directory that the owner leaves if it dies, encoded in hex, once it has one.
    The answer is a line with the new pid, or with 0 on failure.
    """
    gc.freeze()
    for request in _requests(commands_fd, watch):
        fds: list[int] = []
        try:
            serves, *words = request.split()
            numbers, bequests = words[:3], words[3:]
            for path in bequests:
                watch.inherit(os.fsdecode(bytes.fromhex(path.decode())))
            _import(*serves.decode().split(","))  # once here, so that forked processes need not
            fds += _borrow(watch, numbers)
            pid = _fork()
        except Exception:  # noqa: BLE001 - on any failure the owner starts a new interpreter
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
    """Yield the owner's requests; end this process when the owner ends.

    Between requests it imports the protocols, one by one.
    """
    poll = select.poll()
    poll.register(commands_fd, select.POLLIN)
    if watch.pidfd is not None:
        poll.register(watch.pidfd, select.POLLIN)
    later = protocols()
    idle = 0.0  # milliseconds
    while True:
        ready = dict(poll.poll(idle))
        if commands_fd in ready and (request := os.read(commands_fd, 4096)):
            yield request
        elif ready or not watch.alive():
            watch.settle()
            os._exit(0)
        elif protocol := next(later, None):
            _import(protocol)
        else:
            idle = watch.interval * 1000


def _import(protocol: str, *layers: str) -> None:
    """Import a protocol's service and layers once, and freeze them for the garbage collector.

    What cannot be imported is left to the process that will serve it, which reports it.
    """
    new = {protocol, *layers} - _imported
    if not new or protocol == NONE:
        return
    _imported.update(new)
    with contextlib.suppress(Exception):
        service_of(protocol)
        for layer in layers:
            layer_of(layer)
    gc.collect()
    gc.freeze()  # a collection in a fork would write to the shared pages, which copies them


def _borrow(watch: OwnerWatch, numbers: list[bytes]) -> Iterator[int]:
    """Open the owner's descriptors here, by their numbers in the owner."""
    owner = _number_in_proc(watch)
    flags = (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY | os.O_APPEND)
    for number, flag in zip(numbers, flags, strict=True):
        yield os.open(f"/proc/{owner}/fd/{int(number)}", flag)


def _number_in_proc(watch: OwnerWatch) -> int:
    """The owner's number in /proc: not its pid if that is of another PID namespace.

    Raises OSError if it has none there, or if there is no pidfd that tells.
    """
    with open(f"/proc/self/fdinfo/{watch.pidfd}", "rb") as info:  # noqa: PTH123 - no pathlib here
        words = info.read().split()
    number = int(words[words.index(b"Pid:") + 1])
    if number < 1:
        raise ProcessLookupError(number)
    return number


def _fork() -> int:
    """Fork a sibling: a child of this process's parent. Raises or returns -1 on failure."""
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
    except BaseException:  # noqa: BLE001 - a fork must never go on as a second fork server
        os._exit(1)
    return 0


def _serve(watch: OwnerWatch, commands_fd: int, events_fd: int, stderr_fd: int) -> None:
    """Run the host in the forked process, as ``launch`` does in a new interpreter."""
    os.dup2(stderr_fd, 1)
    os.dup2(stderr_fd, 2)
    os.close(stderr_fd)
    if watch.pidfd is not None:
        with contextlib.suppress(OSError):
            os.close(watch.pidfd)
    host.main(commands_fd, events_fd, OwnerWatch(watch.owner, pipe=commands_fd))
