"""Locks for ``with`` that a signal handler which raises cannot leave locked.

Other versions of CPython do this by themselves. 3.14 runs signal handlers between the call of
``__enter__`` and the body, and if one raises then, it never calls ``__exit__`` (gh-148874, mended
in 3.15).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

AFFECTED = sys.version_info[:2] == (3, 14)


class InterruptibleLock:
    """A lock of ``_thread``, with the methods that we use.

    Signal handlers run when bytecode has called something, and neither a step of an iterator nor
    the return from ``__enter__`` is a call. ``__exit__`` is a call, but of a function written in C,
    which releases the lock first.
    """

    __slots__ = ("__exit__", "_acquisitions", "_is_owned", "acquire", "locked", "release")

    def __init__(self, make: Callable[[], Any]) -> None:
        lock = make()
        self.acquire: Callable[..., bool] = lock.acquire
        self.release: Callable[[], None] = lock.release
        self.locked: Callable[[], bool] = lock.locked
        self._is_owned: Callable[[], bool] = getattr(lock, "_is_owned", lock.locked)  # of an RLock
        self.__exit__: Callable[..., None] = lock.__exit__
        self._acquisitions = iter(lock.acquire, None)  # endless: it never returns None

    def __enter__(self) -> None:
        for _ in self._acquisitions:
            return
