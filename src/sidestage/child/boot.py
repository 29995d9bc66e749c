"""How each process of ours begins: cut off from what the test had open, watching its owner.

The watch comes before the imports, which take most of the time that a process needs to be up.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from types import ModuleType

from .owner_watch import OwnerWatch

FORK_SERVER = "fork_server"  # the module that must have no thread when it forks

# What asyncio and msgspec try to import and do without: TLS is not terminated in our processes.
_NOT_NEEDED = ("ssl", "typing_extensions")


def main(module: str, commands_fd: int, events_fd: int, owner: int, *arguments: int) -> None:
    """Run ``main`` of this package's ``module`` until the process may end."""
    _close_inherited({commands_fd, events_fd})
    os.chdir("/")  # the test's directory may have to be removed
    watch = OwnerWatch(owner, thread=module != FORK_SERVER)
    _import_module(module).main(commands_fd, events_fd, watch, *arguments)


def _import_module(module: str) -> ModuleType:
    """The module, without what a sixth of the time would go to."""
    gc.disable()  # nothing that is imported becomes garbage
    for name in _NOT_NEEDED:  # an import of what is None there fails at once
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(f".{module}", __package__)
    finally:
        for name in _NOT_NEEDED:
            del sys.modules[name]
        gc.freeze()
        gc.enable()


def _close_inherited(kept: set[int]) -> None:
    """Close what the test had opened as inheritable: a port held open here would outlive it."""
    low = 3
    for fd in sorted(kept):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
