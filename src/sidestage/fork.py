"""At a fork of the test: the threads are gone before it, the copy lets go of what it inherited.

CPython 3.12 and newer warn when a process with threads forks, so the idle reader threads end
before, until the kernel knows them no more, and start again after. In the copy every server is
foreign: its descriptors are closed, so that the child sees the end of the pipe when the original
is gone, and nothing that runs there touches the original's servers.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

from . import pristine
from .pool import pool
from .pristine import Deadline

if TYPE_CHECKING:
    from .run import Run

_GONE_SECONDS = 0.1  # for ended threads to leave the kernel's list; it takes microseconds

runs: weakref.WeakSet[Run] = weakref.WeakSet()
_installed = False


def install_hooks() -> None:
    """Register with ``os.register_at_fork``, once in a process and its copies."""
    global _installed
    if not _installed and hasattr(os, "register_at_fork"):
        _installed = True
        os.register_at_fork(
            before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
        )


def _before() -> None:
    ended = [tid for run in list(runs) for tid in run.dispatcher.park()]
    deadline = Deadline(_GONE_SECONDS)
    for tid in ended:
        while _kernel_knows(tid) and not deadline.passed():
            os.sched_yield()


def _kernel_knows(tid: int) -> bool:
    try:
        pristine.stat(f"/proc/self/task/{tid}")
    except OSError:
        return False
    return True


def _after_in_parent() -> None:
    for run in list(runs):
        run.dispatcher.resume()


def _after_in_child() -> None:
    for run in list(runs):
        run.forget_all()
    runs.clear()
    pool.forget()
