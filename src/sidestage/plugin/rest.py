"""The end of the run: what belongs to no one test is an error of the run."""

from __future__ import annotations

import functools
import sys
from collections.abc import Generator
from typing import Any

import pytest
from _pytest._code.code import (  # these have no public name
    ReprEntryNative,
    ReprExceptionInfo,
    ReprFileLocation,
    ReprTraceback,
)

from ..journal import owners
from ..journal.headline import blocks
from .reports import shorten

_REST = "sidestage"  # the id of the report of what belongs to no one test

_reporting = pytest.StashKey[bool]()  # what belongs to no one test, just now


def pytest_keyboard_interrupt() -> None:
    """Nothing is verified any more, also after ``pytest.exit``."""
    owners.interrupt()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """After the tests, report what was charged to none, before the run's result is known."""
    try:
        return (yield)
    except (KeyboardInterrupt, pytest.exit.Exception):
        pytest_keyboard_interrupt()  # which pytest calls only after this
        raise
    finally:
        if not hasattr(session.config, "workeroutput"):
            _report_the_rest(session)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """Report what has come since; a worker of pytest-xdist leaves it all to the controller."""
    try:
        return (yield)
    finally:
        _report_the_rest(session)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Report what a worker of pytest-xdist has left."""
    if (rest := getattr(node, "workeroutput", {}).get(_REST)) is not None:
        _report(node.config, *rest)


def pytest_report_teststatus(
    report: pytest.TestReport, config: pytest.Config
) -> tuple[str, str, str] | None:
    """Count the rest as an error; nothing while it is reported, as tests would be at 150 %."""
    if report.nodeid != _REST:
        return None
    return "error", "", "" if config.stash.get(_reporting, False) else "ERROR"


def _report_the_rest(session: pytest.Session) -> None:
    if "sidestage.server.server" not in sys.modules:
        return
    from ..journal import unseen
    from ..server import registry

    registry.catch_up()
    rest, more = unseen.take(read=True)
    lines = blocks(rest, more, functools.partial(shorten, session.config))
    if not lines:
        return
    place = next(((*cause.place[:2],) for cause in rest if cause.place is not None), None)
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output[_REST] = lines, place
        return
    _report(session.config, lines, place)
    if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _report(config: pytest.Config, lines: list[str], place: tuple[str, int] | None) -> None:
    """Report some errors as pytest does those of a test's teardown: so every plugin knows them."""
    text = ReprEntryNative([f"{line}\n" for line in lines])
    crash = ReprFileLocation(*(place or (_REST, 0)), lines[0])
    report = pytest.TestReport(
        nodeid=_REST,
        location=(_REST, None, "the run"),
        keywords={},
        outcome="failed",
        longrepr=ReprExceptionInfo(ReprTraceback([text], None, "native"), crash),
        when="teardown",
    )
    config.stash[_reporting] = True
    config.hook.pytest_runtest_logreport(report=report)
    config.stash[_reporting] = False
