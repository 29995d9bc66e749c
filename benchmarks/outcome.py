"""The result of one part of the soak, and the table of all results."""

from __future__ import annotations

import os
import platform
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path


@dataclass
class Outcome:
    """What was done, how often, what was measured, and the violations."""

    what: str
    times: str = ""
    measured: str = ""
    violations: list[str] = field(default_factory=list)


def counted(counter: Counter[str]) -> str:
    """List the counts, the largest first."""
    return ", ".join(f"{what} {count:,}" for what, count in counter.most_common())


def progress(what: str, count: int, number: int) -> None:
    """Print the progress, ten times in all."""
    if count % max(1, number // 10) == 0:
        print(f"{what}: {count} of {number}", flush=True)


def table(outcomes: Iterable[Outcome], seed: int) -> str:
    """A Markdown table, under a line that says where and when it was measured."""
    return "\n".join([_surroundings(seed), "", *_lines(outcomes)])


def cpu() -> str:
    """The CPU's model, or the architecture if the kernel does not report it."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.machine()


def _surroundings(seed: int) -> str:
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {cpu()}, {os.cpu_count()} cores, {platform.system()}, "
        f"{platform.python_implementation()} {platform.python_version()}; seed {seed}."
    )


def _lines(outcomes: Iterable[Outcome]) -> Iterator[str]:
    yield "| what was done | how often | what was measured | violations |"
    yield "| --- | ---: | --- | ---: |"
    for outcome in outcomes:
        wrong = len(outcome.violations)
        cells = outcome.what, outcome.times, outcome.measured, f"**{wrong}**" if wrong else "0"
        yield f"| {' | '.join(cells)} |"
