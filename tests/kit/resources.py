"""The descriptors and threads of this process, as the kernel lists them."""

from __future__ import annotations

from pathlib import Path


def own_threads() -> set[str]:
    """The kernel's names of this process's threads."""
    return {thread.name for thread in Path("/proc/self/task").iterdir()}


def own_descriptors() -> set[str]:
    """The numbers of this process's open descriptors."""
    return {fd.name for fd in Path("/proc/self/fd").iterdir()}
