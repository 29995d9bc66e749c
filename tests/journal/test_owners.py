"""Whose an expectation is: the test's, or the fixture's that is being set up."""

from __future__ import annotations

import pytest

from sidestage.journal import causes, owners
from sidestage.journal.owners import Owner


@pytest.fixture
def test(monkeypatch: pytest.MonkeyPatch) -> causes.Test:
    """The test that runs."""
    running = causes.Test("test_it")
    monkeypatch.setattr(causes, "current", lambda: running)
    return running


def test_is_the_test_that_runs(test: causes.Test) -> None:
    assert owners.current() == Owner(test, "")


def test_is_the_test_of_a_fixture_of_its_scope(test: causes.Test) -> None:
    with owners.setting_up("api", "function"):
        assert owners.current() == Owner(test, "api")
    assert owners.current() == Owner(test, "")


@pytest.mark.parametrize("scope", ["class", "module", "package", "session"])
def test_is_no_test_in_a_fixture_that_lasts_longer(test: causes.Test, scope: str) -> None:
    with owners.setting_up("inner", "function"), owners.setting_up("api", scope):
        assert owners.current() == Owner(None, "api")


def test_a_fixture_that_fails_is_over(test: causes.Test) -> None:
    with pytest.raises(KeyError), owners.setting_up("api", "module"):
        raise KeyError
    assert owners.current() == Owner(test, "")
