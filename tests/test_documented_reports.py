"""The reports of pytest in README.md and docs/ are what pytest prints.

A line ``<!-- file: NAME -->`` is before the block of a test module, and one that begins with
``<!-- report of: NAME`` before what pytest prints of it. ``with NEW for OLD in: CODE`` changes the
module first. A line ``...`` stands for any lines.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from kit.scripts import environment

_ROOT = Path(__file__).parent.parent
_FILE = re.compile(
    r"^<!-- file: (?P<name>\S+) -->\n(?:<!---[^\n]*\n)?\n?```python\n(?P<block>.*?)^```$",
    re.M | re.S,
)
_REPORT = re.compile(
    r"^<!-- report of: (?P<name>[^\s,]+)(?:, with (?P<new>\S+) for (?P<old>\S+) in: (?P<code>.*?))?"
    r" -->\n\n?```text\n(?P<block>.*?)^```$",
    re.M | re.S,
)
_VARIES = [  # from run to run
    (re.compile(r"127\.0\.0\.1(:|', )\d+"), r"127.0.0.1\1PORT"),
    (re.compile(r"pid=\d+"), "pid=PID"),
    (re.compile(r"\d+\.\d+ (m?s)\b"), r"TIME \1"),
    (re.compile(r"[_=]{5,}|-{5,}"), "-----"),  # as wide as the terminal is
]


class Report(NamedTuple):
    """A module of a document, and what is shown of its report."""

    document: str
    name: str
    module: str
    shown: str


def reports() -> list[Report]:
    """All that are marked."""
    found: list[Report] = []
    for path in [_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))]:
        text = path.read_text()
        modules = {one["name"]: one["block"] for one in _FILE.finditer(text)}
        for one in _REPORT.finditer(text):
            module = modules[one["name"]]
            if one["code"] is not None:
                assert module.count(one["code"]) == 1, one["code"]
                changed = one["code"].replace(one["old"], one["new"])
                module = module.replace(one["code"], changed)
            found.append(Report(path.name, one["name"], module, one["block"]))
        assert text.count("<!-- report of:") == len(_REPORT.findall(text)), path
    return found


def plain(text: str) -> list[str]:
    """The lines of a report, without what varies."""
    for regex, instead in _VARIES:
        text = regex.sub(instead, text)
    return text.rstrip().splitlines()


def begin_of(part: list[str], lines: list[str], start: int) -> int | None:
    """Where the lines of ``part`` stand together."""
    size = len(part)
    return next((at for at in range(start, len(lines)) if lines[at : at + size] == part), None)


def test_there_are_some() -> None:
    assert len(reports()) >= 3


@pytest.mark.parametrize("report", reports(), ids=lambda one: f"{one.document}-{one.name}")
def test_pytest_prints_what_is_shown(report: Report, tmp_path: Path) -> None:
    (tmp_path / report.name).write_text(report.module)
    command = [sys.executable, "-m", "pytest", "-p", "sidestage.pytest_plugin", report.name]
    told = {**environment(), "COLUMNS": "120", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    told.pop("PYTEST_ADDOPTS", None)
    run = subprocess.run(
        command, check=False, cwd=tmp_path, env=told, capture_output=True, timeout=60
    )
    printed = plain(run.stdout.decode())
    at = 0
    for part in "\n".join(plain(report.shown)).split("\n...\n"):
        lines = [line for line in part.splitlines() if line != "..."]
        found = begin_of(lines, printed, at)
        assert found is not None, "\n".join([*lines, "is not in", *printed[at:]])
        at = found + len(lines)
