"""At a fork of the test: the threads are gone before it, the copy lets go of what it inherited.

And at the end of the test: what serves then is known here, and its threads may begin first.

CPython 3.12 and newer warn when a process with threads forks, so the idle threads of ours end
before, until the kernel knows them no more, and start again after. In the copy every server is
foreign: its descriptors are closed, so that the child sees the end of the pipe when the original
is gone, and nothing that runs there touches the original's servers.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from ..pristine import imports, system
from ..pristine.imports import importing_once
from ..pristine.waits import Deadline

_GONE_SECONDS = 1.0  # for ended threads to leave the kernel's list: microseconds, if they are run
_STARTING_SECONDS = 2.0  # for a process that is being started meanwhile


class Run(Protocol):
    """What serves at present, as a fork has to know it."""

    def park(self) -> None:
        """Before a fork: have no idle thread."""

    def resume(self) -> None:
        """After a fork: go on."""

    def wait_for_threads(self) -> None:
        """Let those begin that were started."""

    def forget_all(self) -> None:
        """In a forked copy: let go of everything, touch nothing of the original's."""


class Runs:
    """Those that serve, and whoever else is not forgotten yet.

    Not a WeakSet: that one cannot be gone through while another thread adds to it.
    """

    def __init__(self) -> None:
        self._refs: dict[int, weakref.ref[Run]] = {}

    def __iter__(self) -> Iterator[Run]:
        present = [ref() for ref in list(self._refs.values())]
        return iter([run for run in present if run is not None])

    def add(self, run: Run) -> None:
        """From now on ``run`` has to know of forks."""
        key, refs = id(run), self._refs
        refs[key] = weakref.ref(run, lambda _: refs.pop(key, None))

    def discard(self, run: Run) -> None:
        """It does not matter any more."""
        self._refs.pop(id(run), None)

    def clear(self) -> None:
        """Nobody does."""
        self._refs.clear()


runs = Runs()
starting = system.RLock()  # held while a process comes to be: no fork sees it half owned
_in_copies: list[Callable[[], None]] = []
_installed = False


def install_hooks() -> None:
    """Register with ``os.register_at_fork``, once in a process and its copies."""
    global _installed
    if not _installed and hasattr(os, "register_at_fork"):
        _installed = True
        # It has hooks, too. Were it imported by a start that a fork waits for in ours, it would
        # miss the first half of that fork, and release a lock that it does not hold.
        with importing_once():
            importlib.import_module("logging")
        os.register_at_fork(
            before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
        )


def wait_for_threads() -> None:
    """At the end of the process: let the threads begin that were just started.

    One that first runs when the interpreter ends crashes the older releases of 3.11: its state is
    freed already.
    """
    for run in runs:
        run.wait_for_threads()


def in_copies(forget: Callable[[], None]) -> None:
    """Have ``forget`` called in every copy."""
    _in_copies.append(forget)


# These count the threads only after our hook has run, which starts ours again (gh-137109).
_COUNTS_TOO_LATE = (3, 13) <= sys.version_info < (3, 15)


class _AboutOurThreads:
    """A filter for the one warning that the fork under way would give on account of our threads.

    It stands in for the compiled pattern of an entry of ``warnings.filters``.
    """

    def __init__(self) -> None:
        self._entry: Any = ("ignore", self, DeprecationWarning, None, 0)

    def install(self) -> None:
        """Have the next such warning ignored."""
        warnings.filters.insert(0, self._entry)  # type: ignore[attr-defined]  # a list

    def remove(self) -> None:
        """Leave the filters as they were."""
        if self._entry in warnings.filters:
            warnings.filters.remove(self._entry)  # type: ignore[attr-defined]  # a list

    def match(self, text: str) -> bool:
        """Whether it is that warning; if so, the filter has done its work."""
        found = "is multi-threaded, use of" in text
        if found:
            self.remove()
        return found


_filter = _AboutOurThreads()
_alone = False  # whether the thread that forks was the only one
_held = False  # whether that thread holds ``starting``


def _before() -> None:
    global _alone, _held
    _held = starting.acquire(True, _STARTING_SECONDS)
    for run in runs:
        run.park()
    deadline = Deadline(_GONE_SECONDS)
    while system.ended_threads:
        tid = system.ended_threads.popleft()
        while _kernel_knows(tid) and not deadline.passed():
            os.sched_yield()
    if _COUNTS_TOO_LATE:
        _filter.remove()
        _alone = bool(list(runs)) and _one_thread()


def _one_thread() -> bool:
    try:
        return len(system.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def _kernel_knows(tid: int) -> bool:
    try:
        system.stat(f"/proc/self/task/{tid}")
    except OSError:
        return False
    return True


def _after_in_parent() -> None:
    if _alone:
        _filter.install()
    for run in runs:
        run.resume()
    _release()


def _after_in_child() -> None:
    global starting, _held
    for run in runs:
        run.forget_all()
    runs.clear()
    imports.forget()
    for forget in _in_copies:
        forget()
    starting, _held = system.RLock(), False  # whoever held it is not here


def _release() -> None:
    global _held
    if _held:
        _held = False
        starting.release()
