"""When a test and its phases begin and end: what handlers have raised fails it there."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from ..journal import causes, owners
from . import items
from .charging import raising
from .marks import check_marks

if TYPE_CHECKING:
    from .charging import Unmet


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Drop the references to the servers after the test: pytest keeps its items to the end."""
    try:
        return (yield)
    finally:
        item.stash[items.SERVERS] = []
        if (test := item.stash.get(items.TEST, None)) is not None:
            causes.end(test)
            test.causes.clear()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any],
) -> Generator[None, object, object]:
    """What a fixture declares is verified with the test, or with the server if it lasts longer."""
    with owners.setting_up(_as_told(fixturedef.argname), fixturedef.scope):
        return (yield)


@functools.lru_cache(maxsize=1024)  # a run has few, and sets them up for each test
def _as_told(fixture: str) -> str:
    """A fixture as messages name it: pytest makes one of setUpClass, setup_module and the like."""
    found = re.fullmatch(r"_(?:unittest|xunit)_(\w+?)_fixture_.*", fixture)
    return f"fixture {fixture}" if found is None else found[1]


def _verifying() -> Any:
    """The module ``verifying``, once anything was declared."""
    return sys.modules.get("sidestage.server.verifying")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Begin a test, again if plugins repeat it; raise only what came late of those before."""
    __tracebackhide__ = True
    item.stash[items.SERVERS], item.stash[items.TOLD] = [], []
    if (before := item.stash.get(items.TEST, None)) is not None:
        causes.end(before)
    item.stash[items.TEST] = test = causes.begin(item.nodeid)
    result = yield from raising(item, lambda failure: test not in failure.cause.tests)
    check_marks(item)  # not before other plugins have begun the test, too
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Raise handlers' errors in the test itself, so that it fails and not its teardown."""
    __tracebackhide__ = True

    def unmet() -> Unmet:
        verifying = _verifying()
        return {} if verifying is None else verifying.of_test(item.stash[items.TEST])

    return (yield from raising(item, catch_up=True, verify=unmet))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Raise what came after the test's body, from servers that outlive the test.

    What the test has declared answers its clean-up, and is removed then.
    """
    __tracebackhide__ = True
    if (verifying := _verifying()) is None:
        return (yield from raising(item))
    verifying.settle(item.stash[items.TEST])
    # A server of a class or a fixture that is only stopped there is verified with its last test.
    unmet = functools.partial(verifying.of_ended, verifying.serving())
    try:
        # Nobody reads what expectations alone answer: it would fail the next test.
        return (yield from raising(item, catch_up=True, verify=unmet))
    finally:
        verifying.forget_test(item.stash[items.TEST])
