"""Events that come at a chosen line of a module, as an exception of a signal handler may."""

from __future__ import annotations

import contextlib
import linecache
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import sidestage

_OURS = str(Path(str(sidestage.__file__)).parent)


class Interruption(BaseException):
    """Comes out of nowhere, like KeyboardInterrupt, which would end the test run."""


def interrupt() -> None:
    """Raise Interruption."""
    raise Interruption


class Tracer(ABC):
    """Counts moments of some work, and calls ``act`` at the one with index ``at``.

    Only the thread that calls ``run`` is traced.
    """

    def __init__(self, at: int, act: Callable[[], object] = interrupt) -> None:
        self.count = 0
        self.where = "nowhere"
        self._at = at
        self._act = act

    @property
    def ended(self) -> bool:
        """Whether the work was done before the chosen moment came."""
        return self.count <= self._at

    def run(self, work: Callable[[], object]) -> None:
        """Call ``work``; an Interruption ends it and is not raised."""
        with contextlib.suppress(Interruption), self._tracing():
            work()

    @abstractmethod
    def _tracing(self) -> contextlib.AbstractContextManager[None]:
        """Trace in the body."""


class LineTracer(Tracer):
    """The moments are those before each line of ``module``."""

    def __init__(self, module: ModuleType, at: int, act: Callable[[], object] = interrupt) -> None:
        super().__init__(at, act)
        self._file = module.__file__

    @contextlib.contextmanager
    def _tracing(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != self._file:
            return None
        entered: set[int] = set()

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            if event == "line" and not _leaves_with(frame, entered):
                self._line(frame)
            return trace

        return trace

    def _line(self, frame: FrameType) -> None:
        index, self.count = self.count, self.count + 1
        if index == self._at:
            self.where = f"{frame.f_code.co_name}, line {frame.f_lineno}"
            self._act()


def _leaves_with(frame: FrameType, entered: set[int]) -> bool:
    """Whether a ``with`` block ends at this line: CPython runs no signal handler there."""
    text = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    if not text.lstrip().startswith("with "):
        return False
    left = frame.f_lineno in entered
    entered.add(frame.f_lineno)
    return left


class CallTracer(Tracer):
    """The moments are those at which CPython runs signal handlers.

    These are the beginning of a function and the end of a call of C, in all of our code.
    """

    @contextlib.contextmanager
    def _tracing(self) -> Iterator[None]:
        sys.setprofile(self._notice)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _notice(self, frame: FrameType, event: str, argument: Any) -> None:
        if event not in ("call", "c_return") or not frame.f_code.co_filename.startswith(_OURS):
            return
        index, self.count = self.count, self.count + 1
        if index == self._at:
            if _is_lost_in(frame):
                self._at += 1
                return
            called = f", after {argument}" if event == "c_return" else ""
            self.where = f"{frame.f_code.co_qualname}, line {frame.f_lineno}{called}"
            self._act()


def _is_lost_in(frame: FrameType | None) -> bool:
    """Whether Python ignores what is raised there, but for a message."""
    while frame is not None:
        if frame.f_code.co_name in ("__del__", "<genexpr>"):
            return True
        frame = frame.f_back
    return False
