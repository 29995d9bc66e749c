"""Verifies expectations: at the end of a ``with``, of ``during``, of a test, and when asked.

What was raised once is not raised again. Nothing is verified in a forked copy, after the death of
the server's process, and after the run of tests was interrupted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ServerDied, StateError, UnexpectedRequest
from ..expectations.verdicts import errors_of
from ..journal import causes, owners, unseen
from ..journal.causes import Cause, Test
from ..journal.failures import Failure, attach, combined
from ..pristine import system
from ..pristine.waits import Clock, Deadline
from . import registry

if TYPE_CHECKING:
    from ..expectations.entry import Entry
    from ..expectations.table import Table
    from .server import Server


def table_of(server: Server[Any]) -> Table | None:
    """What is declared on a server; ``None`` if nothing ever was."""
    table: Any = server._slot.declared
    found: Table | None = table
    return found


def tell(server: Server[Any]) -> None:
    """Have what serves know what is declared by now; a start says everything by itself."""
    lifecycle, table = server._lifecycle, table_of(server)
    server.__dict__["_note_gone"] = note_gone  # for ``__del__``
    position = 0 if table is None else table.position
    lifecycle.follow_slot(Deadline(server._sync_seconds))
    if table is not None and lifecycle.rests:  # after the look at the position: a start may follow
        table.forget(position)


def refuse_in_copy(server: Server[Any]) -> None:
    """Raise StateError in a forked copy, whose server is another process's."""
    if server._lifecycle.forked_copy:
        raise StateError(
            f"{server.describe()} belongs to another process, of which this one is a forked copy: "
            "nothing can be declared here"
        )


# What fails --------------------------------------------------------------------------------------


def failures_of(
    server: Server[Any], wanted: Callable[[Entry], bool] = lambda entry: True
) -> list[Failure]:
    """The expectations of a server that are unmet, of those ``wanted``; they are told then."""
    table = table_of(server)
    if table is None or server._lifecycle.forked_copy or owners.interrupted():
        return []
    if died(server):
        return []
    backend = server._lifecycle.backend
    if backend is not None and any(held._is_missed for entry in table for held in entry.left):
        backend.sync(Deadline(server._sync_seconds))  # maybe its client has closed its side by now
    records = server._journal.records
    found = errors_of(table, records, server.describe(), wanted)
    test, now = causes.current(), Clock.monotonic()
    failures = [Failure(error, Cause(error, "", now)) for error in found]
    for failure in failures:
        failure.cause.tests = () if test is None else (test,)
    return failures


def unexpected_of(server: Server[Any]) -> tuple[list[Failure], int]:
    """The unexpected requests that nobody was told of, and how many more were not kept."""
    if server._lifecycle.forked_copy or owners.interrupted():
        return [], 0

    def wanted(failure: Failure) -> bool:
        return isinstance(failure.error, UnexpectedRequest)

    return server._journal.failures.take(wanted)


def died(server: Server[Any]) -> bool:
    """Whether the server's process has ended on its own, so that nothing more can be known."""
    backend = server._lifecycle.backend
    return server.stop_report.rung == "died" if backend is None else backend.death is not None


def error_of(server: Server[Any]) -> BaseException | None:
    """What ``Server.verify`` raises."""
    unexpected, more = unexpected_of(server)
    return combined([*unexpected, *failures_of(server)], server.describe(), more=more)


# When --------------------------------------------------------------------------------------------


def leave(stop: Callable[[], object], servers: Iterable[Server[Any]]) -> None:
    """Stop ``servers`` at the end of a ``with``, and raise what is unmet or unexpected, too."""
    __tracebackhide__ = True
    raised: Exception | None = None
    try:
        stop()
    except Exception as error:  # noqa: BLE001 - raised below
        raised = error
    told = [one for server in servers if (one := _error_at_end(server, raised)) is not None]
    if raised is not None:
        for one in told:
            attach(raised, one)
        raise raised
    if len(told) == 1:
        raise told[0]
    if told:
        raise BaseExceptionGroup(f"{len(told)} servers had errors to report", told)


def _error_at_end(server: Server[Any], raised: BaseException | None) -> BaseException | None:
    if table_of(server) is None or died(server) or isinstance(raised, ServerDied):
        return None
    return error_of(server)


def end(server: Server[Any], since: float) -> list[Failure]:
    """What is unmet of what was declared ``since`` a time of the clock, and is removed now."""
    table = table_of(server)
    assert table is not None

    def wanted(entry: Entry) -> bool:
        return entry.spec.began >= since

    failures = failures_of(server, wanted)
    table.remove(filter(wanted, list(table)), strict=False)
    tell(server)
    return failures


class _Gone(NamedTuple):
    """An unmet expectation of a server that nobody holds any more."""

    test: Test | None
    server: str
    failure: Failure
    process: int


_MOST_GONE = 1000
_gone: list[_Gone] = []


def note_gone(server: Server[Any]) -> None:
    """Keep what is unmet of a server that has stopped, and that nobody holds any more."""
    tests = {entry.spec.owner.test for entry in table_of(server) or ()}
    for test in tests:
        unmet = failures_of(server, lambda entry, test=test: entry.spec.owner.test is test)  # type: ignore[misc]
        _gone.extend(_Gone(test, server.describe(), one, system.getpid()) for one in unmet)
    del _gone[_MOST_GONE:]


def _taken(wanted: Callable[[_Gone], bool]) -> list[_Gone]:
    taken = [one for one in _gone if wanted(one)]
    for one in taken:
        _gone.remove(one)
    return [one for one in taken if one.process == system.getpid()]  # a copy's original tells it


def serving() -> list[Server[Any]]:
    """The servers that have expectations and have not stopped."""
    live = registry.live()
    return [one for one in live if table_of(one) is not None and not one._lifecycle.rests]


def of_ended(servers: Iterable[Server[Any]]) -> dict[str, list[Failure]]:
    """Of ``servers``, what is unmet of what no test has declared, where they have stopped now."""

    def wanted(entry: Entry) -> bool:
        return entry.spec.owner.test is None

    ended = [one for one in servers if one._lifecycle.rests]
    return {one.describe(): unmet for one in ended if (unmet := failures_of(one, wanted))}


def _of_the_rest() -> list[Cause]:
    """What is unmet and nobody has verified, at the end of everything."""
    if owners.interrupted():
        _settle_all()
    failures = [gone.failure for gone in _taken(lambda gone: True)]
    for server in registry.live():
        # Of one that serves, and does not answer any more, nothing can be said.
        with contextlib.suppress(Exception):
            if table_of(server) is not None and not server._lifecycle.forked_copy:
                server._catch_up()
                failures += failures_of(server)
    for failure in failures:
        failure.cause.tests = ()  # of no one, whichever ran last
    return [failure.cause for failure in failures]


unseen.ask(_of_the_rest)


def _settle_all() -> None:
    """Verify nothing any more of what was declared so far."""
    _gone.clear()
    settle_servers(registry.live())


def settle_servers(servers: Iterable[Server[Any]]) -> None:
    """Verify nothing any more of what is declared on ``servers``."""
    for server in servers:
        for entry in table_of(server) or ():
            entry.told = True


def of_test(test: Test) -> dict[str, list[Failure]]:
    """What is unmet of what a test has declared, by the server as messages name it."""
    found: dict[str, list[Failure]] = {}
    for gone in _taken(lambda gone: gone.test is test):
        found.setdefault(gone.server, []).append(gone.failure)
    for server in registry.live():
        if table_of(server) is not None:
            unmet = failures_of(server, lambda entry: entry.spec.owner.test is test)
            if unmet:
                found.setdefault(server.describe(), []).extend(unmet)
    return found


def settle(test: Test) -> None:
    """Verify nothing more of what a test has declared: its call is over, or there was none."""
    _taken(lambda gone: gone.test is test)
    for server in registry.live():
        for entry in table_of(server) or ():
            entry.told |= entry.spec.owner.test is test


def forget_test(test: Test) -> None:
    """Remove what a test has declared; a server is strict then only if something is left."""
    for server in registry.live():
        table = table_of(server)
        if table is None or server._lifecycle.forked_copy:
            continue
        mine = [entry for entry in table if entry.spec.owner.test is test]
        if mine:
            table.remove(mine, strict=False)
            tell(server)
