"""Every test is checked for leaks: no process, thread, descriptor or file of Sidestage is left."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.child_coverage import (
    SETTINGS,
    UNMEASURED,
    measuring,
    save_children,
    start_in_children,
)
from kit.scripts import eventually
from sidestage.process.pool import pool

pytest_plugins = ["pytester"]

# A machine for automatic runs may have it set, and then hides what users without it see.
os.environ.pop("PYTHONUNBUFFERED", None)

if measuring():
    start_in_children()

with contextlib.suppress(ModuleNotFoundError):  # only some tests need it
    from hypothesis import settings

    settings.register_profile("untimed", deadline=None)  # a busy machine fails no test
    settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the settings of pytest-timeout where it is missing.

    ``pip install -e . pytest`` is enough to run the tests that import nothing else.
    """
    if not pluginmanager.has_plugin("timeout"):
        for name in ("timeout", "timeout_method"):
            parser.addini(name, "used by pytest-timeout, which is not installed")


class Leaks:
    """The processes, descriptors, threads and files present now, except those the pool keeps."""

    def __init__(self) -> None:
        pooled = pool.processes()
        pids = {process.launched.pid for process in pooled}
        kept = {fd for process in pooled for fd in process.descriptors()}
        self.processes = _descendants(os.getpid()) - pids
        self.descriptors = {(fd, target) for fd, target in _descriptors().items() if fd not in kept}
        self.threads = {int(task.name) for task in Path("/proc/self/task").iterdir()}
        self.found = {p.name for p in Path("/tmp").glob("sidestage-*")}
        self.files = {name for name in self.found if not _is_in_use(name)}

    def since(self, before: Leaks) -> str:
        """A description of what is new since ``before``; empty if nothing is."""
        new = {
            "processes": self.processes - before.processes,
            "descriptors": self.descriptors - before.descriptors,
            "threads": self.threads - before.threads,
            "files": self.files - before.found,
        }
        return ", ".join(f"{what}: {found}" for what, found in new.items() if found)


def _is_in_use(name: str) -> bool:
    """Whether this is a directory of certificates, which lasts as long as its process."""
    made = re.fullmatch(r"sidestage-tls-(?:(\d+)-)?[0-9a-f]{16}", name)
    # Without a number it is another version's, whose process cannot be known.
    return made is not None and (made[1] is None or Path("/proc", made[1]).exists())


def _descendants(pid: int) -> set[int]:
    children: set[int] = set()
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            children |= {int(child) for child in (task / "children").read_text().split()}
    except FileNotFoundError:  # the process has ended
        pass
    return children.union(*map(_descendants, children))


def _descriptors() -> dict[int, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return found


@pytest.fixture(autouse=True, scope="module")
def frozen() -> None:
    """Exempt what is allocated so far from garbage collection, which runs after every test.

    Before each module: pytest and its plugins keep some fifty objects of every test, and of
    thousands of tests the collector would take longer than the tests.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=measuring(), scope="module")
def saved() -> Iterator[None]:
    """Save what coverage.py counts in children, before a test of another module may kill them.

    Not after each test: the next one would boot a child, which coverage.py makes slow.
    """
    yield
    save_children()


@pytest.fixture(autouse=measuring())
def measured(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep coverage.py out of the processes of tests that it would disturb."""
    if request.node.nodeid in UNMEASURED:
        monkeypatch.delenv(SETTINGS)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What handlers wait for that are to take long; set after the test at the latest."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a process, thread, descriptor or temporary file behind."""
    before = Leaks()
    yield
    gc.collect()  # objects kept alive only by a cycle are not leaks
    left = eventually(lambda: not Leaks().since(before))
    assert left, f"left by the test: {Leaks().since(before)}"
