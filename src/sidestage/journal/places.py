"""Where the code of the test is, in a few characters: ``test_shop.py:12``."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable
from types import CodeType, FrameType, FunctionType, TracebackType
from typing import Any

_LIBRARY = threading.__file__.replace("\\", "/").rpartition("/")[0] + "/"
_OURS = __file__.replace("\\", "/").rpartition("/journal/")[0] + "/"
_INSTALLED = ("/site-packages/", "/dist-packages/", "<frozen ")
_CALL = "__call__"
_DEEP = 100  # objects that wrap a handler, at most


@functools.lru_cache(maxsize=1024)  # a test run has few files, and asks for each call
def is_of_test(file: str) -> bool:
    """Whether ``file`` is neither of Python, nor installed, nor ours."""
    file = file.replace("\\", "/")
    return not (file.startswith((_LIBRARY, _OURS)) or any(part in file for part in _INSTALLED))


def named(file: str, line: int) -> str:
    """A line as messages name it."""
    return f"{file.replace(chr(92), '/').rpartition('/')[2]}:{line}"


def place_of_frames(frames: Iterable[FrameType]) -> str:
    """The line of the first of ``frames`` that is in the test's code; empty if none is."""
    for frame in frames:
        if is_of_test(frame.f_code.co_filename):
            return named(frame.f_code.co_filename, frame.f_lineno)
    return ""


def place_of_error(error: BaseException) -> str:
    """The innermost line of the test's code that ``error`` came through; empty if none is known."""
    place, trace = "", error.__traceback__
    while trace is not None:
        place = _place_of_trace(trace) or place
        trace = trace.tb_next
    return place


def _place_of_trace(trace: TracebackType) -> str:
    file = trace.tb_frame.f_code.co_filename
    return named(file, trace.tb_lineno) if is_of_test(file) else ""


def place_of_code(code: CodeType | None) -> str:
    """The line where a function of the test begins; empty if it is none."""
    if code is None or not is_of_test(code.co_filename):
        return ""
    return named(code.co_filename, code.co_firstlineno)


def code_of(handler: Any) -> CodeType | None:
    """The code that calling ``handler`` runs, if it is written in Python; never raises."""
    if type(handler) is FunctionType:  # most are, and no class may derive from it
        return handler.__code__
    try:
        for _ in range(_DEEP):
            if not isinstance(handler, functools.partial):
                break
            handler = handler.func
        for found in (handler, getattr(type(handler), _CALL, None)):
            code = getattr(found, "__code__", None)
            if isinstance(code, CodeType):
                return code
    except Exception:  # noqa: BLE001 - whatever the attributes of the test's own class raise
        return None
    return None
