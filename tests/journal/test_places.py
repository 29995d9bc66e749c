"""A place is a line of the test's own code, whatever is wrapped around it."""

from __future__ import annotations

import functools
import sys
import threading
from typing import Any
from unittest.mock import Mock

import pytest

from sidestage.errors import shown
from sidestage.journal.places import (
    code_of,
    is_of_test,
    place_of_code,
    place_of_error,
    place_of_frames,
)


def plain() -> None:
    """Do nothing."""


class Handler:
    def __call__(self) -> None: ...

    def method(self) -> None: ...


class Hostile:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


LINE = plain.__code__.co_firstlineno


@pytest.mark.parametrize(
    "handler, code",
    [
        (plain, plain.__code__),
        (functools.partial(functools.partial(plain), 1), plain.__code__),
        (Handler().method, Handler.method.__code__),
        (Handler(), Handler.__call__.__code__),
        (len, None),
        (None, None),
    ],
)
def test_the_code_that_a_handler_runs(handler: Any, code: object) -> None:
    assert code_of(handler) is code


def test_whatever_a_handlers_attributes_raise() -> None:
    assert code_of(Hostile()) is None


def test_a_function_of_the_test_has_a_place() -> None:
    assert place_of_code(plain.__code__) == f"test_places.py:{LINE}"


@pytest.mark.parametrize("handler", [functools.wraps, shown, Mock(), None])
def test_others_have_none(handler: Any) -> None:
    """Of the standard library, ours, or not known."""
    assert place_of_code(code_of(handler)) == ""


def test_installed_files_are_not_of_the_test() -> None:
    assert not is_of_test(pytest.__file__)
    assert not is_of_test("<frozen importlib._bootstrap>")
    assert not is_of_test("C:\\venv\\Lib\\site-packages\\requests\\api.py")
    assert is_of_test("<ipython-input-1>")


def test_the_place_of_an_error_is_the_innermost_in_the_test() -> None:
    with pytest.raises(KeyError) as missing:
        functools.reduce(lambda _, key: {}[key], ["a"], 0)
    line = missing.tb.tb_lineno
    assert place_of_error(missing.value) == f"test_places.py:{line}"
    with pytest.raises(TypeError) as caught:
        threading.Event().wait("soon")  # type: ignore[arg-type]
    line = caught.tb.tb_lineno
    assert place_of_error(caught.value) == f"test_places.py:{line}"
    assert place_of_error(KeyError()) == ""


def test_the_place_of_a_stack_is_the_innermost_in_the_test() -> None:
    frame = sys._getframe()
    assert place_of_frames([frame]) == f"test_places.py:{frame.f_lineno}"
    assert place_of_frames([]) == ""
