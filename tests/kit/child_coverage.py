"""Has coverage.py measure servers' processes where it measures the tests' own.

Its ``subprocess`` patch starts it from a .pth file. A server's process runs without ``site`` and
reads no such file, so the command that boots it starts coverage.py instead.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sidestage.pristine import system
from sidestage.process.pool import end, pool

SETTINGS = "COVERAGE_PROCESS_CONFIG"  # where the patch leaves them for child processes

# Tests whose own processes are not measured, each with the reason.
UNMEASURED = {
    # At its exit, coverage.py would rename its data file in the fake file system.
    "tests/hostile/test_patched.py::test_row[pyfakefs-sidestage]",
    "tests/hostile/test_expectations.py::test_row[pyfakefs-sidestage]",
    "tests/hostile/test_expectations.py::test_row[pyfakefs, before the import-sidestage]",
}

_START = (
    "import sys; sys.path.append({!r});"
    "import coverage; coverage.process_startup(); sys.path.pop()\n"
)


def measuring() -> bool:
    """Whether coverage.py measures this process and what it starts."""
    return SETTINGS in os.environ


def start_in_children() -> None:
    """Have each server's process start coverage.py first, from now on."""
    import coverage  # not above: ordinary runs do without it

    start = _START.format(str(Path(coverage.__file__).parent.parent))
    spawn = system.posix_spawn
    assert spawn is not None

    def posix_spawn(path: str, argv: list[str], *arguments: Any, **options: Any) -> int:
        code = argv.index("-c") + 1
        argv = [*argv[:code], start + argv[code], *argv[code + 1 :]]
        return spawn(path, argv, *arguments, **options)

    system.posix_spawn = posix_spawn
    pool.close()  # the plugin has booted a child before, and most tests would use that one


def save_children() -> None:
    """End the idle children: they save their data at their end, unless a later test kills them."""
    children = []
    while (child := pool._take()) is not None:
        children.append(child)
    end(children)
