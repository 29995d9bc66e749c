"""Processes launched like a server's that run something else: a script, or a patched host."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator

import pytest

from sidestage.pristine.waits import Deadline
from sidestage.process import launch
from sidestage.process.fork_client import ForkClient
from sidestage.process.handle import ServerProcess

# Runs before a fake child's own source: its pipes, and two functions that use them.
_SCRIPT = """
import os, signal, sys, threading
commands_fd, events_fd, owner = map(int, sys.argv[int(sys.argv[1]) + 2:])
def report(text): os.write(events_fd, text.encode() + b"\\n")
def wait_for_stop(): os.read(commands_fd, 1)
"""

# Imports what a server's process runs, so that a source can patch it.
_HOST = """
import asyncio, os, signal, sys, threading
end_of_paths = int(sys.argv[1]) + 2
sys.path += sys.argv[2:end_of_paths]
numbers = sys.argv[end_of_paths:]
from sidestage.child import boot, host
Host = host.Host
"""

StartFakeChild = Callable[[str], ServerProcess]


@pytest.fixture
def fake_child(monkeypatch: pytest.MonkeyPatch) -> Iterator[StartFakeChild]:
    """Start a process that runs the given source; kill what is left of it after the test."""
    processes: list[ServerProcess] = []

    def start(source: str) -> ServerProcess:
        with monkeypatch.context() as patch:
            patch.setattr(launch, "_BOOT", _escaped(_SCRIPT + textwrap.dedent(source)))
            processes.append(ServerProcess(launch.launch()))
        return processes[-1]

    yield start
    for process in processes:
        kill_and_reap(process)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Patch the host of every server's process started from now on with the given source."""

    def patch(source: str) -> None:
        monkeypatch.setattr(ForkClient, "fork", lambda self, *_: None)
        monkeypatch.setattr(launch, "_BOOT", patched_boot(source))

    return patch


def patched_boot(source: str) -> str:
    """The boot code of a server's process that runs ``source`` before it serves."""
    return _escaped(_HOST + textwrap.dedent(source) + "\nboot.main('host', *map(int, numbers))\n")


def _escaped(source: str) -> str:
    """``launch`` fills in its boot code with ``str.format``."""
    return source.replace("{", "{{").replace("}", "}}")


def kill_and_reap(process: ServerProcess) -> None:
    """End the process and close its descriptors."""
    process.kill()
    process.wait(Deadline(10))
    process.close()


def read_line(process: ServerProcess) -> str:
    """The next line that a fake child has reported."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(process.launched.events_fd, 1)
        assert byte, "the fake child ended without a report"
        line += byte
    return line.decode().strip()
