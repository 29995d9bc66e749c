"""A failure's report: opens with its cause, and has the state of the test's servers."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

import pytest
from _pytest._code.code import ReprEntryNative, ReprFileLocation  # these have no public name

from ..errors import UnmetExpectation, shown
from ..journal import causes
from ..journal.causes import Cause, Test
from ..journal.frames import Place
from ..journal.headline import client, of_call, opening
from ..pristine.waits import Clock
from . import items
from .charging import new_error
from .settings import LINES

if TYPE_CHECKING:
    from .. import Server

_STOPS_EARLY = "    the run stops here: what lasts longer than a test may have been met later"
_HIDDEN = "All traceback entries are hidden"  # so pytest says, where it shows none


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Open the report of a failure with its cause, and add the state of the test's servers."""
    report = yield
    if not report.failed:
        return report
    _open(report, item, call)
    wanted = str(item.config.getoption("sidestage_report"))
    if wanted != "none":
        lines = LINES[wanted]
        for server in _servers_of(item):
            title = f"sidestage: {server.name or server.describe()}"
            report.sections.append((title, _explained(server, lines)))
    return report


def _explained(server: Server[Any], lines: int | None) -> str:
    try:
        return server.explain(lines)
    except Exception as error:  # noqa: BLE001 - as the test may have patched what it needs
        return f"no report can be made: {shown(error)}"


def _open(report: pytest.TestReport, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Put what handlers have raised before all else, and in the line of the summary."""
    with contextlib.suppress(Exception):  # pytest would not survive one here
        new_error(item, catch_up=True)  # the phase of a subtest has not ended
    told, item.stash[items.TOLD] = item.stash.get(items.TOLD, []), []
    test = item.stash.get(items.TEST, None)
    error = None if call.excinfo is None else call.excinfo.value
    others: list[Any] = getattr(item, "_excinfo", None) or []  # of a TestCase, from its clean-up
    seen = causes.causes_of(error, *(other.value for other in others))
    known = dict.fromkeys([*told, *seen])
    of_all = sorted([*known, *_unmet(error, known)], key=lambda cause: cause.came)
    short = functools.partial(shorten, item.config)
    if lines := opening(of_all, error, test, short) or _without_cause(test, error, short):
        if call.when == "teardown" and _stops_early(item.session):
            lines.append(_STOPS_EARLY)
        place = next((cause.place for cause in of_all if cause.place is not None), None)
        _prepend(report, lines, place)
        own = {each for cause in of_all for each in cause.own}
        others[:] = [other for other in others if id(other.value) not in own]  # told here


def _without_cause(
    test: Test | None, error: BaseException | None, short: Callable[[str], str]
) -> list[str]:
    """The first lines where no handler has raised: what servers, or their calls, say of it."""
    if test is None or error is None or "sidestage.server.server" not in sys.modules:
        return []
    if lines := of_call(error, short):
        return lines
    from ..server import registry
    from ..server.plight import plight

    with contextlib.suppress(Exception):  # the test may have patched what this needs
        if lines := plight(registry.started(), error, test.began):
            lines[0] += f" → {client(error)}"
            return lines
    return []


def _stops_early(session: pytest.Session) -> bool:
    """Whether the run ends before its other tests: with ``-x``, say."""
    return bool(session.shouldfail or session.shouldstop)


def _unmet(error: BaseException | None, known: Iterable[Cause]) -> list[Cause]:
    """The unmet expectations that a test has raised itself: at the end of a ``with``, say."""
    own = {each for cause in known for each in cause.own}
    errors = error.exceptions if isinstance(error, BaseExceptionGroup) else (error,)
    unmet = [each for each in errors if isinstance(each, UnmetExpectation) and id(each) not in own]
    return [Cause(each, "", Clock.monotonic()) for each in unmet]


def _prepend(report: pytest.TestReport, lines: list[str], place: Place | None) -> None:
    """Open the report with ``lines``, the first of which is the message of the summary, too.

    ``place`` is what a failure without any line of the test is said to be at.
    """
    text = "\n".join(lines) + "\n"
    shown: Any = report.longrepr
    if isinstance(shown, str):
        report.longrepr = text + shown
    elif not hasattr(shown, "reprtraceback"):  # of doctest, say
        report.sections.insert(0, ("sidestage", text))
    else:
        _name_in_summary(shown, lines[0], place)
        traces = [each[0] for each in getattr(shown, "chain", ())] or [shown.reprtraceback]
        first = traces[0]
        first.reprentries = [ReprEntryNative([text]), *first.reprentries]
        for trace in traces:
            if (trace.extraline or "").startswith(_HIDDEN):  # ours: the opening says more
                trace.extraline = None


def _name_in_summary(shown: Any, message: str, place: Place | None) -> None:
    if shown.reprcrash is not None:
        shown.reprcrash.message = message
    elif place is not None:  # only frames that are hidden: then there is no summary at all
        shown.reprcrash = ReprFileLocation(place.file, place.line, message)
        if chain := getattr(shown, "chain", None):  # what pytest-xdist makes it of again
            trace, _, description = chain[-1]
            shown.chain = [*chain[:-1], (trace, shown.reprcrash, description)]


def shorten(config: pytest.Config, file: str) -> str:
    """``file`` relative to where pytest was started, or to its root, if it is below them."""
    for directory in (config.invocation_params.dir, config.rootpath):
        if file.startswith(f"{directory}{os.sep}"):
            return file.removeprefix(f"{directory}{os.sep}")
    return file


def _servers_of(item: pytest.Item) -> list[Server[Any]]:
    """The servers of the test, those of its module and its session that it has used, and others.

    If it has none, and has used none, all: then it may be told that nothing came.
    """
    own = item.stash.get(items.SERVERS, [])
    wider = [each for node in item.listchain()[:-1] for each in node.stash.get(items.SERVERS, [])]
    test = item.stash[items.TEST]
    used = [each for each in [*wider, *_others(test, [*own, *wider])] if _is_used(each, test.began)]
    return [*own, *used] or wider


def _others(test: Test, known: list[Server[Any]]) -> list[Server[Any]]:
    """Servers of no fixture of ours; while tests overlap, nobody knows which has used them."""
    if test.overlaps or "sidestage.server.registry" not in sys.modules:
        return []
    from ..server import registry

    ids = {id(each) for each in known}
    return [each for each in registry.live() if id(each) not in ids]


def _is_used(server: Server[Any], began: float) -> bool:
    from ..server.explaining import is_used

    try:
        return is_used(server, began)
    except Exception:  # noqa: BLE001 - as the test may have patched what it needs
        return True
