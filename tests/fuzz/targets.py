"""What is fuzzed."""

from __future__ import annotations

from collections.abc import Callable

from fuzz import hostile_child, http_child, http_moments, pipe
from fuzz.cases import Target

TARGETS: dict[str, Callable[[], Target]] = {
    "http-heads": lambda: http_child.HTTPCuts("http-heads", 0.25, http_child.heads),
    "http-bodies": lambda: http_child.HTTPCuts("http-bodies", 0.15, http_child.bodies),
    "http-pipelines": lambda: http_child.HTTPCuts("http-pipelines", 0.2, http_child.pipelines),
    "http-moments": lambda: http_moments.HTTPMoments(0.1),
    "frames": lambda: pipe.Frames(0.15),
    "commands": lambda: pipe.Commands(0.01),
    "events": lambda: hostile_child.HostileChild(0.002),
}
