"""How each process of ours begins: cut off from what the test had open, watching its owner.

The watch comes before the imports, which take most of the time that a process needs to be up.
"""

from __future__ import annotations

import importlib
import os

from .orphan import OrphanWatch


def main(room: str, commands_fd: int, events_fd: int, owner: int, *arguments: int) -> None:
    """Run ``main`` of the module ``room`` of this package until the process may end."""
    _close_inherited({commands_fd, events_fd})
    os.chdir("/")  # the test's directory may have to be removed
    watch = OrphanWatch(owner)
    module = importlib.import_module(f".{room}", __package__)
    module.main(commands_fd, events_fd, watch, *arguments)


def _close_inherited(kept: set[int]) -> None:
    """Close what the test had opened as inheritable: a port held open here would outlive it."""
    low = 3
    for fd in sorted(kept):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
