"""A handler's result that is no answer: an error that is told where the handler is written.

It is found only after the handler has returned, so its traceback would show code of ours alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, GeneratorType, MethodType, TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import shown
from ..pristine.imports import importing_once

if TYPE_CHECKING:
    import ast

ANY: Any = object()  # in place of a result, where what was returned is not known


class Place(NamedTuple):
    """Where a result comes from."""

    code: CodeType | None  # of the handler; ``None`` if it is not written in Python
    name: str
    module: str = ""
    line: int = 0  # of the statement; 0 if it is not known
    statement: str = "return"

    def __str__(self) -> str:
        if self.code is None:
            return self.name
        file = self.code.co_filename.rpartition("/")[2]
        text = f"{self.name} ({file}:{self.code.co_firstlineno})"
        return f"{text}, {self.statement} in line {self.line}" if self.line else text


class Refused(Exception):
    """What a handler has returned is no answer; ``error`` says why, and what may be returned.

    ``place`` is where it comes from, if that is known better than from the handler.
    """

    def __init__(self, error: Exception, result: Any = ANY, place: Place | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.result = result
        self.place = place

    def told_at(self, handler: Callable[..., Any] | None) -> Exception:
        """The error as the test gets it: it names ``handler``, and its traceback shows it."""
        place = self.place or _place_of(handler, self.result)
        kind = TypeError if isinstance(self.error, TypeError) else ValueError
        return kind(f"{place}: {self.error}").with_traceback(_traceback(place))


def yielded(chunks: Iterator[Any]) -> Place | None:
    """The place of what a generator has just yielded; ``None`` for another iterator."""
    if not isinstance(chunks, GeneratorType) or chunks.gi_frame is None:
        return None
    code, frame = chunks.gi_code, chunks.gi_frame
    return Place(code, code.co_qualname, _module(frame.f_globals), frame.f_lineno or 0, "yield")


def _place_of(handler: Any, result: object) -> Place:
    function, wrapped = _function_of(handler)
    if function is None:
        return Place(None, f"the handler {shown(handler)}")
    code = function.__code__
    line = 0 if wrapped else _line_of_return(code, result)
    return Place(code, function.__qualname__, _module(function.__globals__), line)


def _module(namespace: dict[str, Any]) -> str:
    return str(namespace.get("__name__", ""))


def _function_of(handler: Any) -> tuple[FunctionType | None, bool]:
    """The function that a handler is, and whether another may have changed its result."""
    wrapped = False
    for _ in range(20):  # wrappers may wrap each other in a ring
        if isinstance(handler, functools.partial):
            handler = handler.func
        elif isinstance(handler, MethodType):
            handler = handler.__func__
        elif isinstance(inner := getattr(handler, "__wrapped__", None), FunctionType):
            handler, wrapped = inner, True
        elif isinstance(handler, FunctionType):
            return handler, wrapped
        elif type(handler).__module__.startswith("unittest."):  # a mock says more than its source
            break
        else:
            handler = getattr(type(handler), "__call__", None)  # noqa: B004 - it is callable
    return None, wrapped


# The line of the return -------------------------------------------------------------------------


def _line_of_return(code: CodeType, result: object) -> int:
    """The line of the only ``return`` that can have returned ``result``; 0 if there are several."""
    try:
        with importing_once():
            import ast
            import inspect
            import textwrap

        lines, _ = inspect.findsource(code)
        first = code.co_firstlineno
        block = inspect.getblock(lines[first - 1 :])
        tree = ast.parse(textwrap.dedent("".join(block)))
        returns = [node for node in _returns(tree.body[0]) if _may_be(node.value, result)]
    except Exception:  # noqa: BLE001 - no source, half a statement, what a test has patched
        return 0
    return returns[0].lineno + first - 1 if len(returns) == 1 else 0


def _returns(tree: ast.AST) -> Iterator[ast.Return]:
    """The ``return`` statements of a function, without those of functions in it."""
    import ast

    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Return):
            yield node
        elif not isinstance(node, inner):
            yield from _returns(node)


def _may_be(value: ast.expr | None, result: object) -> bool:
    """Whether the value of a ``return`` statement may have been ``result``, by its form."""
    import ast

    match value:
        case None:
            return False
        case _ if result is ANY:
            return True
        case ast.Constant():
            return type(value.value) is type(result) and value.value == result
        case ast.Dict() | ast.DictComp():
            return isinstance(result, dict)
        case ast.List() | ast.ListComp():
            return isinstance(result, list)
        case ast.Set() | ast.SetComp():
            return isinstance(result, set)
        case ast.Tuple():
            return isinstance(result, tuple)
        case ast.JoinedStr():
            return isinstance(result, str)
        case _:
            return True


# The traceback ----------------------------------------------------------------------------------


def _unused() -> Iterator[None]:
    yield


def _traceback(place: Place) -> TracebackType | None:
    """A traceback that shows the handler: of a frame that never runs, so that no tracer sees it."""
    if place.code is None:
        return None
    first = place.code.co_firstlineno
    code = _unused.__code__.replace(
        co_filename=place.code.co_filename,
        co_name=place.code.co_name,
        co_qualname=place.code.co_qualname,
        co_firstlineno=first,
    )
    frame = FunctionType(code, {"__name__": place.module})().gi_frame
    return TracebackType(None, frame, -1, place.line or first)
