"""What traces a thread that ``threading`` did not start: coverage, debuggers, profilers."""

from __future__ import annotations

import sys
import threading


class Tracers:
    """The hooks of the thread that made it; they may come and go while it lives."""

    __slots__ = ("_profile", "_trace")

    def __init__(self) -> None:
        self._trace: object = None
        self._profile: object = None

    def follow(self) -> None:
        """Have the hooks that a thread would have that started now."""
        trace, profile = threading.gettrace(), threading.getprofile()
        if trace is not self._trace:
            self._trace = trace
            sys.settrace(trace)
        if profile is not self._profile:
            self._profile = profile
            sys.setprofile(profile)
