"""Late imports: each of our modules is imported once, with ``sys.path`` as it was at the start.

Much is imported only when the first server starts. By then a test may have changed ``sys.path`` so
that another module is found first. And pyfakefs removes from ``sys.modules`` what is imported while
it is active, so that a second import would make a second set of classes.
"""

from __future__ import annotations

import sys
from types import ModuleType

from . import system

_path = tuple(sys.path)
_kept: dict[str, ModuleType] = {}
_lock = system.RLock()  # held while sys.path is changed


class importing_once:  # noqa: N801 - reads as a keyword: `with importing_once():`
    """Protects the imports in its body: each late import of Sidestage's code needs it."""

    __slots__ = ("_modules", "_saved")

    def __enter__(self) -> None:
        if not _kept.keys() <= sys.modules.keys():  # rarely, and the check is quick
            for name, module in _kept.copy().items():  # another thread may add to it
                sys.modules.setdefault(name, module)
        self._modules = len(sys.modules)
        self._saved: list[str] | None = None
        if tuple(sys.path) != _path:
            _lock.acquire()
            self._saved = sys.path
            sys.path = [*_path, *(entry for entry in sys.path if entry not in _path)]

    def __exit__(self, *_: object) -> None:
        if self._saved is not None:
            sys.path = self._saved
            _lock.release()
        if len(sys.modules) != self._modules or not _kept:
            ours = __name__.partition(".")[0]
            _kept.update(
                (name, module)
                for name, module in sys.modules.copy().items()
                if name == ours or name.startswith(f"{ours}.")
            )


def forget() -> None:
    """In a forked copy: the thread that held the lock is not there, so make a new one."""
    global _lock
    _lock = system.RLock()
