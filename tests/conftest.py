"""What every test is held to: nothing of ours is left when it is over."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.scripts import eventually
from sidestage.process.pool import pool

pytest_plugins = ["pytester"]

# A machine for automatic runs may have it set, and then hides what users without it see.
os.environ.pop("PYTHONUNBUFFERED", None)


class Leaks:
    """What this process has at one moment, beside what the pool keeps on purpose."""

    def __init__(self) -> None:
        pooled = pool.processes()
        pids = {process.launched.pid for process in pooled}
        kept = {fd for process in pooled for fd in process.descriptors()}
        self.processes = _descendants(os.getpid()) - pids
        self.descriptors = {(fd, target) for fd, target in _descriptors().items() if fd not in kept}
        self.threads = {int(task.name) for task in Path("/proc/self/task").iterdir()}
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


def _descendants(pid: int) -> set[int]:
    children: set[int] = set()
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            children |= {int(child) for child in (task / "children").read_text().split()}
    except FileNotFoundError:  # it has ended meanwhile
        pass
    return children.union(*map(_descendants, children))


def _descriptors() -> dict[int, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except FileNotFoundError:  # the listing's own
            continue
    return found


def pytest_collection_finish() -> None:
    """What is there by now stays; the collector need not go through it after every test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """No process, thread, descriptor or temporary file more than before, pool aside."""
    before = Leaks()
    yield
    gc.collect()  # what only a cycle still holds is no leak
    left = eventually(lambda: not Leaks().since(before))
    assert left, f"left by the test: {Leaks().since(before)}"
