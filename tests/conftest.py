"""What every test is held to: nothing of ours is left when it is over."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from sidestage.pool import pool

pytest_plugins = ["pytester"]

SETTLE = 5.0  # seconds for what a test has let go to be gone


class Leaks:
    """What this process has at one moment, beside what the pool keeps on purpose."""

    def __init__(self) -> None:
        pooled = list(pool)
        pids = {child.process.launched.pid for child in pooled}
        kept = {fd for child in pooled for fd in child.process.descriptors()}
        self.processes = {
            p.pid for p in psutil.Process().children(recursive=True) if p.pid not in pids
        }
        self.descriptors = {
            (fd, target) for fd, target in _descriptors().items() if fd not in kept
        }
        self.threads = {int(name) for name in os.listdir("/proc/self/task")}
        self.files = {p.name for p in Path("/tmp").glob("sidestage-*")}

    def since(self, before: Leaks) -> str:
        """What has come since ``before``, as text; empty if nothing has."""
        new = {
            "processes": self.processes - before.processes,
            "descriptors": self.descriptors - before.descriptors,
            "threads": self.threads - before.threads,
            "files": self.files - before.files,
        }
        return ", ".join(f"{what}: {found}" for what, found in new.items() if found)


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the listing's own
            continue
    return found


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """No process, thread, descriptor or temporary file more than before, pool aside."""
    gc.collect()
    before = Leaks()
    yield
    gc.collect()
    left = eventually(lambda: not Leaks().since(before))
    assert left, f"left by the test: {Leaks().since(before)}"


def eventually(condition: Callable[[], bool], seconds: float = SETTLE) -> bool:
    """Whether ``condition`` comes true; for what has no event to wait for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.005)
    return True
