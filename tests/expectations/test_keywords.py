"""Keywords of other tools: an error that says what to write here."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from sidestage import HTTPServer
from sidestage.expectations import keywords
from sidestage.expectations.held import HeldCall
from sidestage.server.expectation import Expectation

NOTHING: Any = None  # nothing is done before the keywords are right


@pytest.mark.parametrize(
    "function, name, text",
    [
        (HTTPServer.expect, "params", r"HTTPServer.expect\(\) has no argument 'params'.*query={"),
        (HTTPServer.expect, "jsn", "did you mean 'json'"),
        (HTTPServer.expect, "header", "did you mean 'headers'"),
        (HTTPServer.expect, "verbose", "it has auth, body, cookies"),
        (HTTPServer.expect, "status", r"say it in the reply: .reply\("),
        (HTTPServer.allow, "at_least", r"expect\("),
        (HTTPServer.take, "count", "call it again"),
        (Expectation.reply, "json", r"reply\({"),
        (Expectation.reply, "body", "comes first, without a name"),
        (Expectation.hold, "timeout", r"take\(timeout=...\)"),
        (Expectation.hold, "x", "it has none"),
        (Expectation.take, "timeot", "did you mean 'timeout'"),
        (Expectation.wait, "times", "count=2"),
        (
            HTTPServer.take_async,
            "url",
            r"HTTPServer.take_async\(\) has no argument 'url': write path",
        ),
        (Expectation.take_async, "seconds", "timeout=5"),
        (Expectation.wait_async, "times", "count=2"),
        (HeldCall.reply, "delay", "call it later"),
        (HeldCall.reply, "status_code", "status=503"),
    ],
)
def test_an_unknown_keyword_says_what_to_write(
    function: Callable[..., Any], name: str, text: str
) -> None:
    with pytest.raises(TypeError, match=text):
        result = function(NOTHING, **{name: 1})
        if inspect.iscoroutine(result):
            asyncio.run(result)


@pytest.mark.parametrize(
    "function", [HTTPServer.take_async, Expectation.take_async, Expectation.wait_async]
)
def test_a_coroutine_function_stays_one(function: Callable[..., Any]) -> None:
    assert inspect.iscoroutinefunction(function)


@pytest.mark.parametrize(
    "function, table",
    [
        (HTTPServer.expect, keywords.EXPECT),
        (HTTPServer.allow, keywords.ALLOW),
        (HTTPServer.take, keywords.TAKE),
        (Expectation.reply, keywords.REPLY),
        (Expectation.hold, keywords.HOLD),
        (Expectation.take, keywords.TAKE_OF_ONE),
        (Expectation.wait, keywords.WAIT),
        (HTTPServer.take_async, keywords.TAKE),
        (Expectation.take_async, keywords.TAKE_OF_ONE),
        (Expectation.wait_async, keywords.WAIT),
        (HeldCall.reply, keywords.HELD_REPLY),
    ],
)
def test_what_is_known_is_shown_and_needs_no_hint(
    function: Callable[..., Any], table: dict[str, str]
) -> None:
    known = inspect.signature(function).parameters
    assert not any(one.kind is one.VAR_KEYWORD for one in known.values())
    assert not known.keys() & table.keys()


def test_python_says_what_is_missing_under_the_name_that_users_know() -> None:
    with pytest.raises(TypeError, match=r"^HTTPServer.expect\(\) missing 1 .*'path'"):
        HTTPServer().expect("GET")  # type: ignore[call-arg] # refused
