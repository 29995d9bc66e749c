"""Which tests an error belongs to: those that ran when its request came."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from sidestage.journal import causes
from sidestage.journal.causes import Cause, Test
from sidestage.pristine.waits import Clock


@pytest.fixture(autouse=True)
def no_test_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """None but those that a test begins here."""
    monkeypatch.setattr(causes, "_tests", causes._tests.__class__(maxlen=10))
    monkeypatch.setattr(causes, "_running", {})


def elsewhere(call: Callable[[], object]) -> None:
    """Make a call in another thread."""
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def begun_elsewhere(name: str) -> Test:
    begun: list[Test] = []
    elsewhere(lambda: begun.append(causes.begin(name)))
    return begun[0]


def now() -> tuple[Test, ...]:
    return causes.tests_at(Clock.monotonic())


def test_one_after_the_other() -> None:
    assert now() == ()
    one = causes.begin("one")
    assert now() == (one,)
    causes.end(one)
    assert now() == (one,)  # what comes between tests has come late
    two = causes.begin("two")
    assert now() == (two,)
    assert causes.tests_at(one.began) == (one,)


def test_at_once_in_several_threads() -> None:
    one = causes.begin("one")
    alone = Clock.monotonic()
    two = begun_elsewhere("two")
    both = Clock.monotonic()
    causes.end(one)
    assert causes.tests_at(alone) == (one,)
    assert causes.tests_at(both) == (one, two)
    assert now() == (two,)
    causes.end(two)
    assert now() == (two,)


def test_inside_another_of_the_same_thread() -> None:
    outer = causes.begin("outer")
    inner = causes.begin("inner")
    assert now() == (inner,)
    assert not inner.overlaps
    error = Cause(ValueError(), "", Clock.monotonic())
    assert error.charged_to(inner)
    assert not Cause(ValueError(), "", outer.began).charged_to(inner)  # the outer one will see it


def test_of_several_at_once_none_is_charged() -> None:
    one, two = causes.begin("one"), begun_elsewhere("two")
    error = Cause(ValueError(), "", Clock.monotonic())
    assert not error.charged_to(one)
    assert not error.charged_to(two)
    assert error.during() == "one or two"


def test_one_that_came_before_all_tests_is_charged_to_the_first_if_it_runs_alone() -> None:
    error = Cause(ValueError(), "", Clock.monotonic())
    one = causes.begin("one")
    assert error.charged_to(one)
    begun_elsewhere("two")
    assert not error.charged_to(one)


def test_of_many_at_once_some_are_named() -> None:
    all_run = threading.Barrier(7, timeout=30)

    def run() -> None:
        causes.begin("one")
        all_run.wait()

    threads = [threading.Thread(target=run) for _ in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    error = Cause(ValueError(), "", Clock.monotonic())
    assert error.during() == "one or one or one or one or 3 others"


def test_the_current_one_is_that_of_the_caller() -> None:
    one, two = causes.begin("one"), begun_elsewhere("two")
    assert causes.current() is one
    found: list[Test | None] = []
    elsewhere(lambda: found.append(causes.current()))
    assert found == [two]
