"""Keywords that other tools have, and what to write here: an unknown one is an error that says so.

Type checkers see the functions as they are written, and report an unknown keyword by themselves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from ..journal.frames import trim
from ..pristine.imports import importing_once

F = TypeVar("F", bound=Callable[..., Any])

_COROUTINE = 0x80  # inspect.CO_COROUTINE, without the import

_QUERY = 'write query={"page": 2}'
_BODY = 'write json={...} or form={...}, text="..." or body=b"..."'
_PATH = 'the path comes second: ("GET", "/orders")'
_WHERE = "write where=lambda request: ..."
_TIMES = "write times=2, or times=range(1, 4) for one to three"
_AUTH = 'write auth=("user", "password"), or auth="..." for a bearer token'
_ANSWER = "say it in the reply: .reply({...}, 201)"
_RESULT = 'it comes first, without a name: reply({"id": 1}) is JSON, reply("text"), reply(b"bytes")'
_STATUS = "write status=503"
_TYPE = 'write content_type="text/html"'
_OF_EXPECT = "say it where the request is expected: expect(..., times=2)"
_FAULT = "pass a fault in place of the result: reply(faults.reset())"
_TAKE = "holding has no end: take(timeout=...) says how long to wait for a call"

EXPECT = {
    **dict.fromkeys(("params", "query_string", "args", "parameters"), _QUERY),
    **dict.fromkeys(("data", "content", "payload", "files"), _BODY),
    **dict.fromkeys(("uri", "url", "route", "endpoint"), _PATH),
    **dict.fromkeys(("match", "matcher", "matchers", "predicate", "when", "func"), _WHERE),
    **dict.fromkeys(("count", "number", "at_least", "at_most", "min", "max", "once"), _TIMES),
    **dict.fromkeys(("token", "bearer", "username", "user", "password", "authorization"), _AUTH),
    **dict.fromkeys(("status", "status_code", "response", "reply", "result", "delay"), _ANSWER),
    "timeout": "an expectation has no time: .wait(timeout=...) waits until it was met",
}
ALLOW = {
    **EXPECT,
    **dict.fromkeys(("count", "number", "at_most", "max", "once"), "write times=2: twice at most"),
    **dict.fromkeys(("at_least", "min"), "what must come is expected: expect(...)"),
}
REPLY = {
    **dict.fromkeys(("json", "text", "body", "data", "content", "html", "response"), _RESULT),
    **dict.fromkeys(("status_code", "code"), _STATUS),
    **dict.fromkeys(("mimetype", "mime_type", "media_type"), _TYPE),
    **dict.fromkeys(("times", "count", "repeat", "once"), _OF_EXPECT),
    **dict.fromkeys(("error", "exception", "fault"), _FAULT),
    **dict.fromkeys(("timeout", "sleep", "after", "wait", "seconds"), "write delay=0.2 (seconds)"),
    "cookies": 'write headers={"Set-Cookie": "name=value"}',
    "reason": "pass the response: reply(HTTPResponse(..., reason=...))",
}
HELD_REPLY = {
    **REPLY,
    **dict.fromkeys(
        ("delay", "timeout", "sleep", "after", "wait", "seconds"),
        "the call is answered when reply() is called: call it later",
    ),
    **dict.fromkeys(("times", "count", "repeat", "once"), "a held call is answered once"),
    "early": "write .reply(..., early=True) on the expectation; a held call has come whole",
}
HOLD = {
    **dict.fromkeys(("timeout", "seconds", "delay"), _TAKE),
    **dict.fromkeys(("times", "count"), _OF_EXPECT),
}
TAKE = {
    **dict.fromkeys(("count", "times", "number"), "it takes one call: call it again for the next"),
    **dict.fromkeys(("url", "uri"), 'write path="/orders"'),
    **dict.fromkeys(("seconds", "wait", "delay"), "write timeout=5"),
}
TAKE_OF_ONE = {
    **{name: hint for name, hint in TAKE.items() if name not in ("url", "uri")},
    **dict.fromkeys(
        ("method", "path"), "it takes what is held for this one: server.take(...) looks"
    ),
}
WAIT = {
    **dict.fromkeys(("times", "number", "n"), "write count=2"),
    **dict.fromkeys(("seconds", "wait"), "write timeout=5"),
}


def known_keywords(instead: Mapping[str, str], *, declares: bool = False) -> Callable[[F], F]:
    """Decorate a function: an unknown keyword is a TypeError that says what to write.

    ``instead`` says it for names that users may try; for others, it is the one that is like it.
    With ``declares``, each TypeError and ValueError is raised without frames of what was called.
    A coroutine function stays one, and raises it when it is awaited.
    """
    refused = (TypeError, ValueError) if declares else ()

    def decorate(function: F) -> F:
        code = function.__code__
        known = frozenset(code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount])

        @functools.wraps(function)
        def called(*arguments: Any, **given: Any) -> Any:
            __tracebackhide__ = True
            if not given.keys() <= known:
                raise _unknown(wrapped.__qualname__, given, known, instead)
            try:
                return function(*arguments, **given)
            except refused as error:
                raise error.with_traceback(None) from None
            except BaseException as error:
                trim(error)
                raise

        @functools.wraps(function)
        async def awaited(*arguments: Any, **given: Any) -> Any:
            __tracebackhide__ = True
            try:
                return await called(*arguments, **given)
            except BaseException as error:
                trim(error)
                raise

        wrapped = awaited if code.co_flags & _COROUTINE else called
        return cast(F, wrapped)

    return decorate


def _unknown(
    name: str, given: Mapping[str, Any], known: frozenset[str], instead: Mapping[str, str]
) -> TypeError:
    wrong = next(one for one in given if one not in known)
    told = f"{name}() has no argument {wrong!r}"
    if hint := instead.get(wrong):
        return TypeError(f"{told}: {hint}")
    with importing_once():
        import difflib
    near = difflib.get_close_matches(wrong, known, 1)
    if near:
        return TypeError(f"{told}: did you mean {near[0]!r}?")
    return TypeError(f"{told}; it has {', '.join(sorted(known)) or 'none'}")
