"""Where both processes spend their time while wrk keeps them busy, sampled by py-spy."""

from __future__ import annotations

import collections
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import clients

from sidestage import HTTPServer

SECONDS, RATE = 6, 250  # of samples, and samples a second
_PY_SPY = Path(sys.executable).with_name("py-spy")
_PARTS, _FUNCTIONS = 12, 8  # of each table and line

# What the C function that a sample ends in stands for, before any Python function is asked.
_WAITING = {"poll", "epoll_wait"}
_KERNEL = {"send", "recv", "read", "write", "epoll_ctl"}
_LIBRARIES = {"parser": "httptools", "llhttp": "httptools", "_core": "msgspec"}
_FRAME = re.compile(r"(?P<function>[^;]+?) \((?P<file>[^;]*?)(?::\d+)?\)")

Counts = collections.Counter[str]


def lines() -> list[str]:
    """Markdown: a table of parts, and the functions with the most samples."""
    if not clients.have_wrk() or not _PY_SPY.exists():
        return []
    child, functions = _profile(lambda request: "hello", in_child=True)
    test, test_functions = _profile(lambda request: "hello", in_child=False)
    canned, canned_functions = _profile(None, in_child=True)
    if not (child and test and canned):
        return []
    table = [
        "| 16 connections (wrk): time spent in | child | test | child, canned |",
        "| --- | ---: | ---: | ---: |",
    ]
    most = (child + test + canned).most_common(_PARTS)
    for part, _ in most:
        shares = " | ".join(_share(counts, part) for counts in (child, test, canned))
        table.append(f"| {part} | {shares} |")
    table.append("")
    for process, counts in (
        ("child", functions),
        ("test", test_functions),
        ("child, canned", canned_functions),
    ):
        often = ", ".join(
            f"`{name}` {_share(counts, name)}" for name, _ in counts.most_common(_FUNCTIONS)
        )
        table += [f"Python functions with the most time of their own ({process}): {often}.", ""]
    return table


def _share(counts: Counts, name: str) -> str:
    return f"{100 * counts[name] / counts.total():.0f} %"


def _profile(handler: Any, *, in_child: bool) -> tuple[Counts, Counts]:
    """Count the samples of a busy process by part and by function."""
    with HTTPServer(handler=handler) as server, tempfile.TemporaryDirectory() as directory:
        raw = Path(directory, "raw")
        pid = server.pid if in_child else os.getpid()
        command = [
            str(_PY_SPY), "record", "--native", "--format", "raw", "--output", str(raw),
            "--duration", str(SECONDS), "--rate", str(RATE), "--pid", str(pid),
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as spy:
            while spy.poll() is None:
                clients.wrk(server.port)
        return _counted(raw.read_text().splitlines()) if raw.exists() else (Counts(), Counts())


def _counted(stacks: list[str]) -> tuple[Counts, Counts]:
    parts, functions = Counts(), Counts()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        frames = [match.group("function", "file") for match in _FRAME.finditer(stack)]
        if frames and not _waits(*frames[-1]):
            parts[_part(frames)] += int(count)
            if function := _function(frames):
                functions[function] += int(count)
    return parts, functions


def _waits(function: str, file: str) -> bool:
    # Samples in the C library without a name are waits for a lock, such as the GIL.
    return function in _WAITING or (function.startswith("0x") and file.startswith("libc."))


def _part(frames: list[tuple[str, str]]) -> str:
    if frames[-1][0] in _KERNEL:
        return f"kernel: `{frames[-1][0]}`"
    for _, file in reversed(frames):
        stem = Path(file).name.partition(".")[0]
        if not file.endswith(".py") and stem in _LIBRARIES:
            return _LIBRARIES[stem]
        if file.startswith("asyncio/") or file == "selectors.py":
            return "asyncio"
        if file.startswith("sidestage/"):
            return f"`{file.removeprefix('sidestage/').removesuffix('.py')}`"
    return "other"


def _function(frames: list[tuple[str, str]]) -> str | None:
    """The Python function of a sample, if it is not in the kernel."""
    if frames[-1][0] in _KERNEL:
        return None
    return next((name for name, file in reversed(frames) if file.endswith(".py")), None)


if __name__ == "__main__":
    print("\n".join(lines()))
