"""Checks arguments before anything starts; each error quotes the value and says what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

from ..errors import shown

_VARIADIC = 0x04  # of ``co_flags``: the function has ``*args``
_APPLICATIONS = {
    "start_response": "a WSGI application, which a WSGI server calls (wsgiref.simple_server)",
    "receive": "an ASGI application, which an ASGI server calls (uvicorn, hypercorn)",
}


def name_or_none(name: object) -> str | None:
    """Return the name of a server; raises TypeError unless it is text or ``None``."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be str or None, not {shown(name)}")
    return name


def handler_or_none(handler: Any) -> Callable[..., Any] | None:
    """Return ``handler``; raises TypeError unless it is callable or ``None``."""
    if handler is not None and not callable(handler):
        raise TypeError(f"the handler must be callable with one argument, not {shown(handler)}")
    if isinstance(handler, type) and hasattr(handler, "setup") and hasattr(handler, "handle"):
        raise TypeError(
            f"{handler.__qualname__} is a request handler class, as socketserver takes them: pass "
            "a function that is called with the request; a server of sidestage.classic has the "
            "attribute RequestHandlerClass beside its handler"
        )
    checked: Callable[..., Any] | None = handler
    return checked


def one_argument_or_none(handler: Any) -> Callable[..., Any] | None:
    """Return ``handler``; raises TypeError also if its parameters are not those of a handler.

    Only functions and methods are looked at, those of a class with ``__call__`` too.
    """
    checked = handler_or_none(handler)
    check_takes_one(handler, "the handler", "`def handler(request): return ...`")
    return checked


def check_takes_one(handler: Any, what: str, right: str) -> None:
    """Raise TypeError about ``what`` if no call of ``handler`` with one argument can succeed."""
    function, bound = handler, 0
    if isinstance(handler, MethodType):
        function, bound = handler.__func__, 1
    elif not isinstance(handler, FunctionType):
        function, bound = getattr(type(handler), "__call__", None), 1  # noqa: B004 - checked above
    if isinstance(function, FunctionType):
        _check_parameters(function, bound, what, right)


def _check_parameters(function: FunctionType, bound: int, what: str, right: str) -> None:
    code = function.__code__
    if code.co_argcount == bound + 1 and not code.co_kwonlyargcount:
        return  # as most are
    needed = code.co_argcount - len(function.__defaults__ or ())
    keywords = code.co_kwonlyargcount - len(function.__kwdefaults__ or ())
    room = bool(code.co_flags & _VARIADIC) or code.co_argcount > bound
    if needed - bound <= 1 and room and not keywords:
        return
    names = code.co_varnames[bound : code.co_argcount + code.co_kwonlyargcount]
    place = f"{code.co_filename.rpartition('/')[2]}:{code.co_firstlineno}"
    text = (
        f"{what} is called with one argument, such as the request; "
        f"{function.__qualname__}({', '.join(names)}) ({place})"
    )
    for name, application in _APPLICATIONS.items():
        if name in names:
            raise TypeError(f"{text} is {application}; write {right}")
    raise TypeError(f"{text} cannot be called so: write {right}")
