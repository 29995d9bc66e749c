"""Processes started as a server's are, which then play another part."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidestage.pristine.waits import Deadline
from sidestage.process import launch
from sidestage.process.fork_client import ForkClient
from sidestage.process.handle import ServerProcess

# What an actor finds: its pipes, and a way to say that it has come so far.
_SCRIPT = """
import os, signal, sys, threading
commands_fd, events_fd, owner = map(int, sys.argv[int(sys.argv[1]) + 2:])
def say(text): os.write(events_fd, text.encode() + b"\\n")
def wait_for_end(): os.read(commands_fd, 1)
"""

# The real thing, with something in it replaced.
_HOST = """
import asyncio, os, signal, sys, threading
end_of_paths = int(sys.argv[1]) + 2
sys.path += sys.argv[2:end_of_paths]
numbers = sys.argv[end_of_paths:]
from sidestage.child import boot, host
Host = host.Host
"""


def own_threads() -> set[str]:
    """The kernel's names of this process's threads."""
    return {thread.name for thread in Path("/proc/self/task").iterdir()}


def own_descriptors() -> set[str]:
    """The numbers of this process's descriptors."""
    return {fd.name for fd in Path("/proc/self/fd").iterdir()}


Actor = Callable[[str], ServerProcess]


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Actor]:
    """Starts a process that runs a source; whatever is left of it is killed at the end."""
    processes: list[ServerProcess] = []

    def start(source: str) -> ServerProcess:
        with monkeypatch.context() as patch:
            patch.setattr(launch, "_BOOT", _boot(_SCRIPT + textwrap.dedent(source)))
            processes.append(ServerProcess(launch.launch()))
        return processes[-1]

    yield start
    for process in processes:
        end(process)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has every process started from now on be a server's in which a source has replaced things."""

    def replace(source: str) -> None:
        monkeypatch.setattr(ForkClient, "fork", lambda self: None)
        monkeypatch.setattr(launch, "_BOOT", host_boot(source))

    return replace


def host_boot(source: str) -> str:
    """What boots a server's process in which ``source`` has replaced things."""
    return _boot(_HOST + textwrap.dedent(source) + "\nboot.main('host', *map(int, numbers))\n")


def _boot(source: str) -> str:
    return source.replace("{", "{{").replace("}", "}}")


def end(process: ServerProcess) -> None:
    """Kill and reap it, and let go of its descriptors."""
    process.kill()
    process.wait(Deadline(10))
    process.close()


def hear(process: ServerProcess) -> str:
    """The next line that an actor has said."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(process.launched.events_fd, 1)
        assert byte, "the actor has left without a word"
        line += byte
    return line.decode().strip()
