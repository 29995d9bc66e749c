"""From what a test declares of HTTP to the terms of an expectation, and to its answers."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import shown
from ...expectations.entry import Given, Terms, times_of
from ...expectations.table import Replies
from ...patterns.words import not_given
from ...server import verifying
from ...server.checks import check_takes_one
from ...server.expectation import Expectation
from . import messages
from .faults import Fault, response_and_fault
from .matching.declared import matchers_of
from .matching.matchers import BODY_PARTS, Matchers, encode
from .matching.nearest import describe, explain_unmet
from .matching.view import RequestView
from .messages import Canned
from .request import HTTPRequest
from .response import (
    ALLOWED,
    MAY_RETURN,
    HTTPResponse,
    encoded,
    encoded_for,
    header_fields,
    pairs,
    reason_of,
)

if TYPE_CHECKING:
    from .expecting import Expecting

_BODY_BYTES = (bytes, bytearray, memoryview)
_encode = msgspec.msgpack.Encoder().encode
_MAY_TAKE = (
    "reply takes str, bytes, a dict or list (JSON), an int (status), (body, status[, headers]), "
    "an HTTPResponse, a fault, or None; on an expectation also a function of the request"
)
_ASYNC = 0x80 | 0x200  # of ``co_flags``: a coroutine, or an asynchronous generator


# Over five arguments: those of ``expect`` and ``allow``, and which of them it is.
def declare(
    server: Expecting,
    method: Any,
    path: Any,
    where: Callable[[HTTPRequest], object] | None,
    times: Any,
    parts: dict[str, Any],
    *,
    allow: bool,
    place: str,
) -> Expectation[HTTPRequest]:
    """Declare an expectation, in force for what clients send from now on.

    Raises TypeError or ValueError for what can never match, and StateError in a forked copy.
    """
    __tracebackhide__ = True
    verifying.refuse_in_copy(server)
    terms, wanted = terms_of(method, path, where, **parts), times_of(times, allow=allow)
    table = server._table()
    entry = table.declare(terms, wanted, allow=allow, place=place)
    verifying.tell(server)
    return Expectation(server, table, entry)


# What meets it -----------------------------------------------------------------------------------


def terms_of(
    method: Any, path: Any, where: Callable[[HTTPRequest], object] | None, **parts: Any
) -> Terms:
    """The terms of an expectation; raises TypeError or ValueError for what can never match."""
    alone = where is None and all(part is not_given for part in parts.values())
    if alone and type(method) is type(path) is str:
        return _terms_of_line(method, path)
    if where is not None:
        _check_where(where)
    return _terms(method, path, where, parts)


# Tests repeat it. Terms never change, and nothing of the test is in those of plain text.
@functools.lru_cache(maxsize=256)
def _terms_of_line(method: str, path: str) -> Terms:
    return _terms(method, path, None, {})


def _terms(
    method: Any, path: Any, where: Callable[[HTTPRequest], object] | None, parts: dict[str, Any]
) -> Terms:
    matchers, asked = matchers_of(method, path, where_given=where is not None, **parts)
    late = [f"{name}=" for name in BODY_PARTS if getattr(matchers, name) is not None]
    return Terms(
        label=describe(matchers),
        pattern=matchers,
        matchers=encode(matchers),
        test=_test(matchers, asked, where) if matchers.asks else None,
        late=" and ".join(late),
        nearest=functools.partial(_nearest, matchers, asked),
    )


def _check_where(where: Any) -> None:
    if not callable(where):
        raise TypeError(
            "where is called with the request and returns whether it matches, such as "
            f"where=lambda request: len(request.body) < 100, not {shown(where)}"
        )
    check_takes_one(where, "where", "where=lambda request: ...")
    code = getattr(where, "__code__", None)
    if code is not None and code.co_flags & _ASYNC:
        raise TypeError(
            "where must be a plain function, which says at once whether the request matches; "
            f"{shown(where)} is a coroutine function"
        )


def _test(
    matchers: Matchers, asked: list[object], where: Callable[[HTTPRequest], object] | None
) -> Callable[[HTTPRequest], object]:
    """Judges a request with the test's own objects."""

    def test(request: HTTPRequest) -> object:
        __tracebackhide__ = True
        if asked and not matchers.verdict(view_of(request), asked):
            return False
        if where is None:
            return True
        found = where(request)
        # A list of records has a method for ``await``, which raises.
        if isinstance(found, Awaitable) and not isinstance(found, list):
            if isinstance(found, Coroutine):
                found.close()  # else Python warns that nobody awaits it
            raise TypeError(
                f"where must say at once whether the request matches, and returned {shown(found)}"
            )
        return found

    return test


def view_of(request: HTTPRequest) -> RequestView:
    """A record as matchers see it; waits for the rest of its body."""
    message = request._message
    body, cut = request.body, request.body_cut
    return RequestView(message.method, message.target, message.fields, body, cut)


def head_of(request: HTTPRequest) -> RequestView:
    """The head of a record, likewise; it waits for nothing."""
    message = request._message
    return RequestView(message.method, message.target, message.fields)


def _nearest(matchers: Matchers, asked: list[object], records: Sequence[Any]) -> str:
    complete = [record for record in records if not record._is_open]
    met = [record._by for record in complete]
    return "\n".join(explain_unmet(matchers, list(map(view_of, complete)), asked, met))


# How it is answered ------------------------------------------------------------------------------


def answer_of(result: Any, status: Any, headers: Any, content_type: Any) -> Given:
    """What ``reply`` is given, encoded for the child, or as what is to be called.

    Raises TypeError or ValueError for what is no answer.
    """
    if callable(result) and not isinstance(result, HTTPResponse):
        check_takes_one(result, "a function that reply is given", "reply(lambda request: ...)")
        _refuse_overriding(result, status, headers, content_type)
        return Given(call=result)
    fault = None
    if isinstance(result, Fault):
        _refuse_overriding(result, status, headers, content_type)
        response, fault = response_and_fault(result)
    else:
        response = response_of(result, status, headers, content_type)
    if response.trailers is not None or not isinstance(response.body, (str, *_BODY_BYTES)):
        what = "trailers" if response.trailers is not None else "an iterator"
        raise TypeError(
            f"a reply is encoded now, to be sent more than once, and {shown(result)} has {what}: "
            "pass a callable that makes it, reply(lambda request: ...)"
        )
    return Given(_encode(_canned(response, fault)), fault=fault)


def _refuse_overriding(result: Any, status: Any, headers: Any, content_type: Any) -> None:
    given = {"status": status, "headers": headers, "content_type": content_type}
    if named := [name for name, value in given.items() if value is not None]:
        raise ValueError(
            f"{' and '.join(named)} would have no effect: {shown(result)} says the whole "
            "response, such as (body, status, headers)"
        )


def _canned(response: HTTPResponse, fault: messages.Fault | None) -> Canned:
    body, status = response.body, response.status
    return Canned(
        status=status,
        reason=reason_of(status) if response.reason is None else response.reason,
        headers=pairs(response),
        body=encoded(body) if isinstance(body, str) else bytes(body),
        fault=fault,
    )


def response_of(result: Any, status: Any, headers: Any, content_type: Any) -> Any:
    """The response of what a handler may return, with what overrides it; a fault as it is."""
    if isinstance(result, Fault):
        _refuse_overriding(result, status, headers, content_type)
        return result
    try:
        made = HTTPResponse.of(result)
    except TypeError as error:
        text = str(error)
        if MAY_RETURN not in text:
            raise
        raise TypeError(text.replace(MAY_RETURN, _MAY_TAKE)) from error.__cause__
    if status is None and headers is None and content_type is None:
        return made
    if isinstance(result, tuple):
        raise TypeError(
            f"reply(body, status, headers) takes these apart: write reply(*{shown(result)}), "
            f"or the tuple alone; the result may be {ALLOWED}"
        )
    over = HTTPResponse(status=made.status if status is None else status, headers=headers or {})
    fields = [*pairs(over)]
    if content_type is not None:
        fields += header_fields("Content-Type", content_type)
    names = {name.lower() for name, _ in fields}
    kept = [pair for pair in pairs(made) if pair[0].lower() not in names]
    text = result.body if isinstance(result, HTTPResponse) else result
    body = encoded_for(text, fields) if isinstance(text, str) else made.body
    return HTTPResponse(body, over.status, [*kept, *fields], made.reason, made.trailers)


REPLIES = Replies(answer_of, response_of)
