"""Whose code an error went through: takes our frames out of it, finds the line of the test."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, NamedTuple, TypeVar, cast

FULL_TRACE = "SIDESTAGE_FULL_TRACE"  # in the environment: tracebacks keep our frames

_OURS = __file__.rpartition("journal")[0]
_LIBRARY = os.__file__.rpartition("os.py")[0]
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_DEEPEST = 50  # errors that have led to an error
_COROUTINE = 0x80  # inspect.CO_COROUTINE, without the import

F = TypeVar("F", bound=Callable[..., Any])


class Place(NamedTuple):
    """A line of the test's code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}, in {self.function}"


def without_ours(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without our frames; as it is if the environment asks for all."""
    if os.environ.get(FULL_TRACE, "0") != "0":
        return trace
    entries: list[TracebackType] = []
    ours = False
    entry = trace
    while entry is not None:
        if _is_ours(entry.tb_frame):
            ours = True
        else:
            entries.append(entry)
        entry = entry.tb_next
    if not ours:
        return trace
    kept: TracebackType | None = None
    for entry in reversed(entries):
        kept = TracebackType(kept, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return kept


def trim(error: BaseException) -> BaseException:
    """Take our frames out of the tracebacks of ``error`` and of what has led to it; return it."""
    left = [error]
    seen: set[int] = set()
    while left and len(seen) < _DEEPEST:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        trace = without_ours(each.__traceback__)
        if trace is not each.__traceback__:
            each.__traceback__ = trace
        left += [other for other in (each.__cause__, each.__context__) if other is not None]
        if isinstance(each, BaseExceptionGroup):
            left += each.exceptions
    return error


def trimmed(function: F) -> F:
    """Decorate what users call: the traceback of what it raises ends in the line of the call."""

    @functools.wraps(function)
    def called(*arguments: Any, **given: Any) -> Any:
        __tracebackhide__ = True
        try:
            return function(*arguments, **given)
        except BaseException as error:
            arguments, given = (), {}  # there may be keys among them, which no report shows
            trim(error)
            raise

    @functools.wraps(function)
    async def awaited(*arguments: Any, **given: Any) -> Any:
        __tracebackhide__ = True
        try:
            return await function(*arguments, **given)
        except BaseException as error:
            arguments, given = (), {}  # there may be keys among them, which no report shows
            trim(error)
            raise

    return cast(F, awaited if function.__code__.co_flags & _COROUTINE else called)


def innermost(error: BaseException) -> Place | None:
    """Where ``error`` was raised: the innermost line of the user's files.

    The standard library and what is installed are none of these.
    """
    found: TracebackType | None = None
    entry = error.__traceback__
    while entry is not None:
        if _is_users(entry.tb_frame):
            found = entry
        entry = entry.tb_next
    if found is None:
        return None
    code = found.tb_frame.f_code
    return Place(code.co_filename, found.tb_lineno, code.co_name)


def place_of(function: Callable[..., Any] | None) -> Place | None:
    """Where a handler is defined; ``None`` if it is not written in Python."""
    try:
        handler: Any = getattr(function, "func", function)  # of a functools.partial, too
        code = handler.__code__
        return Place(str(code.co_filename), int(code.co_firstlineno), str(code.co_name))
    except Exception:  # noqa: BLE001 - whatever the attributes of a user's object raise
        return None


def source(place: Place) -> str:
    """The text of a line; empty if it cannot be had."""
    import linecache

    try:
        return str(linecache.getline(place.file, place.line)).strip()
    except Exception:  # noqa: BLE001 - a test may have patched what this reads with
        return ""


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_OURS)


def _is_users(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    if file.startswith((_OURS, _LIBRARY, "<frozen ")):
        return False
    return not any(part in file for part in _INSTALLED)
