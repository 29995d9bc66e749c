"""The entry point of each child process: closes inherited descriptors and watches the owner.

The watch starts before the imports, because they take most of the boot time.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from types import ModuleType

from .owner_watch import OwnerWatch

FORK_SERVER = "fork_server"  # this module forks, so its process must have no other thread

# Optional imports of asyncio and msgspec. No child terminates TLS.
_NOT_NEEDED = ("ssl", "typing_extensions")


def main(module: str, commands_fd: int, events_fd: int, owner: int, *arguments: int) -> None:
    """Run ``main`` of this package's ``module``, and return when it does."""
    _close_inherited({commands_fd, events_fd})
    os.chdir("/")  # so that the test's directory can be removed
    watch = OwnerWatch(owner, thread=module != FORK_SERVER, pipe=commands_fd)
    _import_module(module).main(commands_fd, events_fd, watch, *arguments)


def _import_module(module: str) -> ModuleType:
    """Import a module without its optional imports, which take a sixth of the time."""
    gc.disable()  # imports create no garbage
    for name in _NOT_NEEDED:  # None makes an import fail at once
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(f".{module}", __package__)
    finally:
        for name in _NOT_NEEDED:
            del sys.modules[name]
        gc.freeze()
        gc.enable()


def _close_inherited(kept: set[int]) -> None:
    """Close inherited descriptors: a port held open here would outlive the test."""
    low = 3
    for fd in sorted(kept):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
