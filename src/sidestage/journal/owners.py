"""Whose an expectation is: the test's that runs, or the fixture's that is being set up.

A runner of tests says what begins and ends. Without one, nobody is.
"""

from __future__ import annotations

from typing import NamedTuple

from . import causes
from .causes import Test

_OF_A_TEST = "function"


class Owner(NamedTuple):
    """Who has declared something."""

    test: Test | None = None  # with which it is verified; ``None`` is with its server
    fixture: str = ""  # in which it was declared: "fixture shop", "setUpClass"; empty is in none


class _Fixture(NamedTuple):
    name: str
    scope: str


_fixtures: list[_Fixture] = []  # that are being set up, the innermost last
_interrupted = False


class setting_up:  # noqa: N801 - reads as a keyword; a generator would cost every fixture more
    """A fixture is set up inside: what is declared is its own."""

    __slots__ = ("_fixture",)

    def __init__(self, name: str, scope: str) -> None:
        self._fixture = _Fixture(name, scope)

    def __enter__(self) -> None:
        _fixtures.append(self._fixture)

    def __exit__(self, *_: object) -> None:
        try:  # noqa: SIM105 - a context manager takes longer than the rest
            _fixtures.remove(self._fixture)
        except ValueError:  # a run of tests inside of this one has ended
            pass


def current() -> Owner:
    """Whose is what is declared now."""
    fixture = _fixtures[-1] if _fixtures else None
    if fixture is None:
        return Owner(causes.current())
    return Owner(causes.current() if fixture.scope == _OF_A_TEST else None, fixture.name)


def interrupt() -> None:
    """The run of tests was interrupted: nothing is to be verified any more."""
    global _interrupted
    _interrupted = True


def interrupted() -> bool:
    """Whether it was."""
    return _interrupted


def forget() -> None:
    """No run of tests is under way any more."""
    global _interrupted
    _interrupted = False
    _fixtures.clear()
