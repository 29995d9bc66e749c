"""A result that is no answer is told where the handler is written, on real servers."""

from __future__ import annotations

import contextlib
import functools
import inspect
import traceback
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any
from unittest.mock import Mock

import pytest

from kit.clients import SMTP, TCP, UDP, SidestageDriver, SidestageHTTP, error_of
from kit.scripts import eventually
from sidestage import HTTPResponse

DRIVERS = [SidestageHTTP, SMTP, UDP]


def error_for(handler: Callable[[Any], Any], kind: type[SidestageDriver]) -> BaseException:
    """What the test gets when ``handler`` was called."""
    driver = kind()
    # Set, not passed: a driver of TCP would put a handler of its own around it.
    driver.serve(lambda request: None)
    driver.server.handler = handler
    with contextlib.ExitStack() as clients:
        # A handler of TCP that reads nothing may reset a client that has not connected quite yet.
        with contextlib.suppress(ConnectionError):
            clients.enter_context(driver.send_request())
        assert eventually(lambda: driver.server.errors)
    error = error_of(driver.stop)
    assert error is not None
    return error


def place_of(error: BaseException) -> tuple[str, str]:
    """The name of the function and the line that the traceback ends with."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    assert last.filename == __file__
    return last.name, str(last.line)


def first_line(handler: Any) -> int:
    code: CodeType = inspect.unwrap(handler).__code__
    return code.co_firstlineno


@pytest.mark.parametrize(
    "kind, allowed",
    [
        (SidestageHTTP, "the handler of an HTTP server may return str, bytes"),
        (SMTP, "the handler of an SMTP server may return None (250) or a reply"),
        (TCP, "the handler of a TCP server may return None, or bytes"),
        (UDP, "the handler of a UDP server may return None, bytes (one reply) or a list"),
    ],
)
def test_names_the_handler_its_place_and_what_may_be_returned(
    kind: type[SidestageDriver], allowed: str
) -> None:
    def answer(request: Any) -> Any:
        if request is None:
            return b"never"
        return 1.5

    error = error_for(answer, kind)
    first = first_line(answer)
    assert type(error) is TypeError
    assert str(error).startswith(
        f"{answer.__qualname__} (test_refused.py:{first}), return in line {first + 3}: "
    )
    assert allowed in str(error)
    assert place_of(error) == ("answer", "return 1.5")


@pytest.mark.parametrize("kind", DRIVERS)
def test_a_coroutine_handler_is_named_too(kind: type[SidestageDriver]) -> None:
    async def answer(request: Any) -> Any:
        return 1.5

    assert place_of(error_for(answer, kind)) == ("answer", "return 1.5")


def test_the_handler_that_was_called_is_named_and_not_its_successor() -> None:
    def answer(request: Any) -> Any:
        driver.server.handler = lambda request: "fine"
        return {1}

    driver = SidestageHTTP()
    driver.serve(answer)
    driver.request()
    error = error_of(driver.stop)
    assert error is not None
    assert place_of(error) == ("answer", "return {1}")


class Handlers:
    """Handlers of several kinds; each returns nonsense."""

    def __call__(self, request: Any) -> Any:
        return {1}

    def method(self, request: Any) -> Any:
        return {2}

    @classmethod
    def of_class(cls, request: Any) -> Any:
        return {3}


def partial_of(more: int, request: Any) -> Any:
    return {more}


@pytest.mark.parametrize(
    "handler, name, line",
    [
        (Handlers(), "Handlers.__call__", "return {1}"),
        (Handlers().method, "Handlers.method", "return {2}"),
        (Handlers.of_class, "Handlers.of_class", "return {3}"),
        (functools.partial(partial_of, 4), "partial_of", "return {more}"),
    ],
)
def test_whatever_kind_of_callable_it_is(handler: Any, name: str, line: str) -> None:
    error = error_for(handler, SidestageHTTP)
    assert str(error).startswith(f"{name} (test_refused.py:")
    assert place_of(error)[1] == line


def test_of_a_lambda_the_line_is_that_of_the_lambda() -> None:
    handler = lambda request: {1}  # noqa: E731 - what the test is about
    error = error_for(handler, SidestageHTTP)
    assert f"(test_refused.py:{first_line(handler)}): " in str(error)
    assert place_of(error)[0] == "<lambda>"


def test_what_may_be_the_wrapper_s_result_has_no_line() -> None:
    @functools.lru_cache
    def answer(request: Any) -> Any:
        return "fine" if request is None else {1}

    error = error_for(answer, SidestageHTTP)
    assert str(error).startswith(f"{answer.__qualname__} (test_refused.py:{first_line(answer)}): ")


@pytest.mark.parametrize("handler", [type, Mock(return_value={1}, name="answer")])
def test_a_handler_that_is_not_in_a_file_is_named_by_its_repr(handler: Any) -> None:
    error = error_for(handler, SidestageHTTP)
    assert str(error).startswith(f"the handler {handler!r}: ")


def test_of_two_returns_that_may_be_meant_none_is_named() -> None:
    def answer(request: Any) -> Any:
        return {1} if request is None else {2}
        return {3}

    error = error_for(answer, SidestageHTTP)
    assert "line" not in str(error).partition(": ")[0]
    assert place_of(error) == ("answer", "def answer(request: Any) -> Any:")


def test_returns_of_functions_inside_and_of_other_types_do_not_count() -> None:
    def answer(request: Any) -> Any:
        def inner() -> set[int]:
            return {1}

        if request is None:
            return None
        if request.path == "/other":
            return {"a": 1}
        with contextlib.suppress(KeyError):
            return {*inner(), 2}
        return "text"

    assert place_of(error_for(answer, SidestageHTTP)) == ("answer", "return {*inner(), 2}")


def test_a_generator_is_named_with_the_line_that_it_has_come_to() -> None:
    def answer(request: Any) -> Iterator[Any]:
        yield b"good"
        yield "bad"
        yield b"good"

    error = error_for(answer, SidestageHTTP)
    first = first_line(answer)
    assert f"(test_refused.py:{first}), yield in line {first + 2}: an iterator" in str(error)
    assert place_of(error) == ("answer", 'yield "bad"')


def test_trailers_that_cannot_be_sent_are_told_at_the_handler() -> None:
    def answer(request: Any) -> Any:
        return HTTPResponse("body", trailers=lambda: {"X-Sum": None})

    error = error_for(answer, SidestageHTTP)
    assert place_of(error)[0] == "answer"
    assert "the value of X-Sum must be str" in str(error)


def test_an_iterator_of_nonsense_is_named_by_the_handler_that_returns_it() -> None:
    def answer(request: Any) -> Any:
        return iter(["bad"])

    assert place_of(error_for(answer, SidestageHTTP)) == ("answer", 'return iter(["bad"])')


def test_what_cannot_be_json_is_told_without_the_frames_of_json() -> None:
    def answer(request: Any) -> Any:
        return {"key": object()}

    error = error_for(answer, SidestageHTTP)
    assert place_of(error) == ("answer", 'return {"key": object()}')
    assert "cannot be sent as JSON" in str(error)
    assert error.__cause__ is None


def test_records_that_are_returned_are_not_awaited() -> None:
    def answer(request: Any) -> Any:
        return driver.server.received

    driver = SidestageHTTP()
    driver.serve(answer)
    driver.request()
    error = error_of(driver.stop)
    assert "cannot be sent as JSON" in str(error)


def test_what_is_returned_after_a_response_is_told_at_the_handler() -> None:
    def answer(request: Any) -> Any:
        request.send_response(200)
        request.end_headers()
        return "more"

    error = error_for(answer, SidestageHTTP)
    assert "a handler that has written its response must return None" in str(error)
    assert place_of(error) == ("answer", 'return "more"')


def test_a_reply_that_is_none_is_a_value_error_at_the_handler() -> None:
    def answer(mail: Any) -> str:
        return "fine"

    error = error_for(answer, SMTP)
    assert type(error) is ValueError
    assert place_of(error) == ("answer", 'return "fine"')


def test_what_a_generator_raises_itself_is_raised_as_it_is() -> None:
    def answer(request: Any) -> Iterator[bytes]:
        yield b""
        raise TypeError("mine")

    error = error_for(answer, SidestageHTTP)
    assert str(error) == "mine"
