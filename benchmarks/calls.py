"""Counts the calls of Sidestage's own functions: a request, a start, a stop.

The test's process and the server's are counted separately; in the server's, a request includes the
iterations of its loop. The figures vary only with which thread wakes first, so each is the median
of several runs. ``python benchmarks/calls.py --list`` prints each call in order.
"""

from __future__ import annotations

import argparse
import http.client
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import sidestage
from sidestage import HTTPServer
from sidestage.process import launch

# Put before the child's own boot: notes its calls, and writes them to a file at a signal.
CHILD = """
import os, signal, sys, threading
calls = []
def note(frame, event, argument):
    if event == "call" and HOME in frame.f_code.co_filename:
        name = frame.f_code.co_filename.partition(HOME)[2].removesuffix(".py")
        calls.append(name + " " + frame.f_code.co_qualname)
def write(*_):
    text = chr(10).join(calls)
    calls.clear()
    with open(FILE + ".new", "w") as file:
        file.write(text)
    os.rename(FILE + ".new", FILE)
signal.signal(signal.SIGUSR2, write)
sys.setprofile(note)
"""
HOME = f"{Path(sidestage.__file__).resolve().parent}/"

Call = tuple[int, str, str]  # thread, module, function


class Trace:
    """Records the calls of Sidestage's functions in all threads while it is on."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.on = False

    def note(self, frame: FrameType, event: str, argument: Any) -> None:
        """The profile function for ``sys.setprofile``."""
        if self.on and event == "call" and frame.f_code.co_filename.startswith(HOME):
            name = frame.f_code.co_filename[len(HOME) :].removesuffix(".py")
            self.calls.append((threading.get_ident(), name, frame.f_code.co_qualname))

    @contextmanager
    def during(self) -> Iterator[list[Call]]:
        """Record in the body of the ``with``; yields the list of calls."""
        self.calls = []
        self.on = True
        try:
            yield self.calls
        finally:
            self.on = False


def child_calls(server: HTTPServer, file: Path) -> list[Call]:
    """What the server's process has called since the last time."""
    file.unlink(missing_ok=True)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGUSR2)
    while not file.exists():
        settle()
    return [(0, *line.split(" ", 1)) for line in file.read_text().splitlines()]


def hello(request: Any) -> str:
    return "hello"


def life(trace: Trace, found: dict[str, list[list[Call]]], file: Path) -> None:
    """Start a server, send requests on one connection, and stop it."""
    server = HTTPServer(handler=hello)
    with trace.during() as calls:
        server.start()
    found["start"].append(calls)
    client = http.client.HTTPConnection(server.host, server.port)
    for number in range(5):
        child_calls(server, file)
        with trace.during() as calls:
            client.request("GET", "/")
            assert client.getresponse().read() == b"hello"
            settle()
        found["request"].append(calls)
        in_child = child_calls(server, file)
        if number:  # the first includes the accept
            found["request, in the child"].append(in_child)
    client.close()
    with trace.during() as calls:
        server.stop()
    found["stop"].append(calls)


def settle() -> None:
    """Wait until a handler's thread is idle again."""
    threading.Event().wait(0.01)


def modules_in_order(calls: list[Call]) -> list[str]:
    """The modules that a list of calls goes through, without consecutive repeats."""
    found: list[str] = []
    for _, module, _ in calls:
        if not found or found[-1] != module:
            found.append(module)
    return found


def way_in(calls: list[Call]) -> list[str]:
    """The modules that a request passes until its handler is called, in order."""
    names = [function for _, _, function in calls]
    return modules_in_order(calls[: names.index("Slot.run_handler") + 1])


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lives", type=int, default=20)
    parser.add_argument("--list", action="store_true", help="print the calls of the last life")
    arguments = parser.parse_args()
    trace = Trace()
    file = Path(tempfile.mkdtemp()) / "calls"
    launch._BOOT = f"HOME, FILE = {HOME!r}, {str(file)!r}{CHILD}{launch._BOOT}"
    threading.setprofile(trace.note)
    sys.setprofile(trace.note)
    with HTTPServer(handler=hello):  # imports, the first process
        pass
    kinds = ("start", "request", "request, in the child", "stop")
    found: dict[str, list[list[Call]]] = {kind: [] for kind in kinds}
    for _ in range(arguments.lives):
        life(trace, found, file)
    sys.setprofile(None)
    shutil.rmtree(file.parent)
    report: Callable[[str], None] = print
    for what, lists in found.items():
        middle = statistics.median(len(calls) for calls in lists)
        modules = modules_in_order(lists[-1])
        report(f"{what}: {middle:.0f} calls, {len(set(modules))} modules")
        if what == "request":
            way = way_in(lists[-1])
            twice = sorted({module for module in way if way.count(module) > 1})
            report(f"    on the way in {' > '.join(way)}; entered twice: {twice or 'none'}")
        if arguments.list:
            for thread, module, function in lists[-1]:
                report(f"    {thread % 10000:>5} {module} {function}")


if __name__ == "__main__":
    main()
