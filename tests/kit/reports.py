"""What a server explains, without what differs from run to run."""

from __future__ import annotations

import re
from typing import Any

_VARIES = (
    (re.compile(r"^ +\d+\.\d{3} s", re.MULTILINE), "  TIME"),
    (re.compile(r"\d+\.\d (?:ms|s)\b"), "T"),
    (re.compile(r"\b\w+\.py:\d+"), "FILE:LINE"),
    (re.compile(r"127\.0\.0\.1:\d+"), "CLIENT"),
)


def told(server: Any, lines: int | None = 30) -> list[str]:
    """What ``server`` explains after the line that names it."""
    return masked(server.explain(lines))[1:]


def masked(text: str) -> list[str]:
    """The lines of a report, with times, places and ports replaced."""
    for pattern, name in _VARIES:
        text = pattern.sub(name, text)
    return text.splitlines()
