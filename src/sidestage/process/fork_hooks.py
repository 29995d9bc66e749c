"""Hooks for a fork of the test: our threads end before it, the copy drops what it inherited.

CPython 3.12 and newer warn when a process with threads forks. So our idle threads end before the
fork, which waits until the kernel no longer lists them, and start again after it. The forked copy
closes the descriptors of every server. Thus a server's process sees the end of its pipe when the
original is gone, and nothing in the copy touches the original's servers.

The end of the test's process needs the same list of what serves: see ``wait_for_threads``.
"""

from __future__ import annotations

import importlib
import itertools
import operator
import os
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from ..pristine import imports, system
from ..pristine.imports import importing_once
from ..pristine.waits import Deadline, NotInTime

_GONE_SECONDS = 1.0  # for the kernel to drop ended threads: microseconds on an idle machine
_LAUNCH_SECONDS = 2.0  # for another thread to finish launching a process


class Forkable(Protocol):
    """Something with threads and descriptors that a fork has to prepare."""

    def park(self) -> None:
        """Before a fork: let the idle threads end."""

    def resume(self) -> None:
        """After a fork, in the original: start threads again."""

    def wait_for_threads(self) -> None:
        """Wait until every thread that was started has begun to run."""

    def forget_all(self) -> None:
        """In a forked copy: close the descriptors and do nothing to the original's processes."""


class Registry:
    """Weak references to all that a fork has to prepare.

    Unlike a WeakSet, it can be iterated while another thread adds to it.
    """

    def __init__(self) -> None:
        self._refs: dict[int, weakref.ref[Forkable]] = {}

    def __iter__(self) -> Iterator[Forkable]:
        members = [ref() for ref in list(self._refs.values())]
        return iter([member for member in members if member is not None])

    def add(self, member: Forkable) -> None:
        """Call the methods of ``member`` at every fork, until it is discarded or collected."""
        key, refs = id(member), self._refs
        refs[key] = weakref.ref(member, lambda _: refs.pop(key, None))

    def discard(self, member: Forkable) -> None:
        """Remove ``member`` if it is there."""
        self._refs.pop(id(member), None)

    def clear(self) -> None:
        """Remove all members."""
        self._refs.clear()


live = Registry()
# Held from launch to owner, so no fork sees a process between; and while descriptors are made which
# the copy has to close.
launch_lock = system.RLock()


def wait_for_launch(deadline: Deadline) -> None:
    """Wait until no other thread holds ``launch_lock``; raises TimeoutError at the deadline.

    Acquire it by ``with`` then, which no signal handler can leave locked. What happens here is one
    call of C, for the same reason.
    """
    lock = launch_lock
    try:
        list(itertools.starmap(operator.call, ((lock.acquire, False), (lock.release,))))
    except RuntimeError:  # another thread holds it; else nobody need ask for the time
        steps = ((lock.acquire, True, deadline.left()), (lock.release,))
        try:
            list(itertools.starmap(operator.call, steps))
        except RuntimeError:  # not acquired, so not released
            raise NotInTime("another thread is still launching a process") from None


_copy_hooks: list[Callable[[], None]] = []
_installed = False


def install_hooks() -> None:
    """Register with ``os.register_at_fork``; only the first call in a process does anything.

    Forked copies inherit the registration.
    """
    global _installed
    if not _installed and hasattr(os, "register_at_fork"):
        _installed = True
        # logging registers fork hooks when it is imported. If a start imported it while a fork
        # waits in our ``_before``, its second half would release a lock that it had not acquired.
        with importing_once():
            importlib.import_module("logging")
        os.register_at_fork(
            before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
        )


def wait_for_threads() -> None:
    """At the exit of the process: wait until all threads that were started have begun to run.

    The older releases of 3.11 crash when a thread first runs while the interpreter ends, because
    they have freed its state by then.
    """
    for member in live:
        member.wait_for_threads()


def call_in_copies(forget: Callable[[], None]) -> None:
    """Call ``forget`` in every forked copy, after all members of ``live`` have let go."""
    _copy_hooks.append(forget)


# These count threads only after our hook has run, which starts ours again (gh-137109, mended in
# 3.13.10 and 3.14.1).
_COUNTS_TOO_LATE = (3, 13) <= sys.version_info < (3, 13, 10) or (
    (3, 14) <= sys.version_info < (3, 14, 1)
)


class _ThreadWarningFilter:
    """Ignores the one warning that the fork under way would give because of our threads.

    It takes the place of the compiled pattern in an entry of ``warnings.filters``.
    """

    def __init__(self) -> None:
        self._entry: Any = ("ignore", self, DeprecationWarning, None, 0)

    def install(self) -> None:
        """Ignore the next such warning."""
        warnings.filters.insert(0, self._entry)  # type: ignore[attr-defined]  # a list

    def remove(self) -> None:
        """Restore the filters; does nothing if they have been restored already."""
        if self._entry in warnings.filters:
            warnings.filters.remove(self._entry)  # type: ignore[attr-defined]  # a list

    def match(self, text: str) -> bool:
        """Whether ``text`` is that warning's; if so, the filter removes itself."""
        found = "is multi-threaded, use of" in text
        if found:
            self.remove()
        return found


_filter = _ThreadWarningFilter()
_alone = False  # whether the thread that forks was the only one
_lock_held = False  # whether that thread holds ``launch_lock``


def _before() -> None:
    global _alone, _lock_held
    _lock_held = launch_lock.acquire(True, _LAUNCH_SECONDS)
    for member in live:
        member.park()
    deadline = Deadline(_GONE_SECONDS)
    while system.ended_threads:
        tid = system.ended_threads.popleft()
        while _kernel_knows(tid) and not deadline.passed():
            os.sched_yield()
    if _COUNTS_TOO_LATE:
        _filter.remove()
        _alone = bool(list(live)) and _one_thread()


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
    for member in live:
        member.resume()
    _release()


def _after_in_child() -> None:
    global launch_lock, _lock_held
    for member in live:
        member.forget_all()
    live.clear()
    imports.forget()
    for forget in _copy_hooks:
        forget()
    launch_lock, _lock_held = system.RLock(), False  # the thread that held it is not in the copy


def _release() -> None:
    global _lock_held
    if _lock_held:
        _lock_held = False
        launch_lock.release()
