"""Waits for what a server is to receive, or to be done with; a wait in vain says what came.

A predicate is called in the thread of whoever waits, while nobody's turn to read is held: it may
read a body, or raise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..dispatch.coroutines import running_loop
from ..errors import StateError, WaitTimeout, shown
from ..journal.journal import listed
from ..pristine.waits import Deadline
from ..wire import values
from ..wire.values import seconds
from .context import off_loop
from .lifecycle import State

if TYPE_CHECKING:
    from ..backends.base import Backend
    from ..journal.journal import Received
    from .server import Server

R = TypeVar("R")
T = TypeVar("T")

_MOST_OPEN = 1 << 12  # records that are looked at again once they are answered: handlers at a time


class Waiting(Generic[T]):
    """A wait for something that the journal, or what is declared, will have."""

    _call = "wait_for"  # what waits
    _awaited = "server.wait_for_async"  # and what to await on a loop

    def __init__(self, server: Server[Any]) -> None:
        self._server = server
        self._journal = server._journal
        self._cancelled = False
        self._waits_at: Backend | None = None

    def look(self) -> T | None:
        """What was waited for, if it is there."""
        raise AssertionError("each has its own")

    def _is_news(self) -> bool:
        """Whether another ``look`` may find more."""
        raise AssertionError("each has its own")

    def _in_vain(self, timeout: float) -> WaitTimeout:
        raise AssertionError("each has its own")

    def undo(self) -> None:
        """What ``look`` has found comes too late for whoever waited."""

    def cancel(self) -> None:
        """Have ``run`` return soon, in another thread."""
        self._cancelled = True
        if (backend := self._waits_at) is not None:
            backend.wake()

    def run(self, timeout: float) -> T:
        """Block until it is there, for ``timeout`` seconds at most; as ``Server.wait_for``."""
        __tracebackhide__ = True
        deadline = Deadline(seconds("timeout", timeout))
        if (there := self.look()) is not None:
            return there
        lifecycle = self._server._lifecycle
        backend = None if lifecycle.forked_copy else lifecycle.backend
        if backend is not None and (there := self._wait(backend, deadline)) is not None:
            return there
        if (there := self.look()) is not None:
            return there
        if backend is not None and backend.death is not None:
            raise backend.death.with_traceback(None)
        raise self._in_vain(timeout)

    async def run_off_loop(self, timeout: float) -> T:
        """As ``Server.wait_for_async``."""
        __tracebackhide__ = True
        if (there := self.look()) is not None:
            return there
        return await off_loop(
            lambda: self.run(timeout),
            undo=self.undo,
            interrupt=self.cancel,
            advice=f"`{self._call}_async` needs asyncio's loop, and none runs here: "
            f"call `{self._call}`",
        )

    def _wait(self, backend: Backend, deadline: Deadline) -> T | None:
        __tracebackhide__ = True
        if running_loop() is not None and not deadline.passed():
            self._server._catch_up()
            if (there := self.look()) is None and backend.death is None:
                raise StateError(
                    f"{self._call} would block the event loop that runs here until "
                    f"{self._server.describe()} has received more: write "
                    f"`await {self._awaited}(...)`"
                )
            return there
        self._waits_at = backend
        while backend.wait_until(self._is_or_ends, deadline):
            there = self.look()
            if there is not None or self._cancelled or deadline.passed():
                return there
        return None

    def _is_or_ends(self) -> bool:
        return self._cancelled or self._is_news()

    def _limit(self, timeout: float) -> str:
        """How long it was waited, as the end of a sentence."""
        lifecycle = self._server._lifecycle
        if lifecycle.forked_copy:
            return "before the fork: a forked copy learns of nothing more"
        if lifecycle.state is State.READY:
            return f"within {timeout} s"
        return f"and it is {lifecycle.state.value}"


class Wait(Waiting["Received[R]"], Generic[R]):
    """One wait for a number of records, or for one that a predicate accepts.

    It counts from the record at ``since``, a position in the journal.
    """

    def __init__(
        self, server: Server[R], wanted: int | Callable[[R], object], since: int | None = None
    ) -> None:
        super().__init__(server)
        self._predicate = wanted if callable(wanted) else None
        self._count = 1 if callable(wanted) else values.count("count", wanted)
        self._since = self._journal.cleared if since is None else since
        self._seen = self._since  # the position up to which the predicate was called
        self._found: list[R] = []
        self._open: deque[R] = deque(maxlen=_MOST_OPEN)  # neither found nor answered

    def look(self) -> Received[R] | None:
        """What was waited for, if it is there; calls the predicate for what is new."""
        if self._predicate is None:
            there = self._journal.position - self._since >= self._count
            return self._journal.records(self._since) if there else None
        new = self._journal.records(self._seen)
        self._seen = max(self._seen, self._journal.cleared) + new.dropped + len(new)
        before = list(self._open)
        self._open.clear()
        self._open.extend(filter(_may_be_answered, before))
        for record in [*(one for one in before if not _may_be_answered(one)), *new]:
            if self._predicate(record):
                self._found.append(record)
            elif _may_be_answered(record):
                self._open.append(record)
        return self._journal.selection(self._found) if self._found else None

    def _is_news(self) -> bool:
        if self._predicate is None:
            return self._journal.position - self._since >= self._count
        if self._journal.position > self._seen:
            return True
        return not all(map(_may_be_answered, self._open))

    def _in_vain(self, timeout: float) -> WaitTimeout:
        server, journal = self._server, self._journal
        # First: something may come meanwhile.
        nothing, more = server._besides()
        received = journal.records(self._since)
        came = journal.position - max(self._since, journal.cleared)
        limit = self._limit(timeout)
        if received.dropped:
            limit += f" ({received.dropped} of them dropped, to keep {journal.keep} bytes at most)"
        if self._predicate is None:
            what = f"received {came} of {self._count} {limit}"
        else:
            name = getattr(self._predicate, "__qualname__", None) or shown(self._predicate)
            what = f"received nothing that {name} accepts {limit}, among {came}"
        return WaitTimeout(
            f"{server.describe()} {what}:{listed(received) if received else nothing}{more}",
            expected=self._count,
            received=tuple(received),
        )


def _may_be_answered(record: Any) -> bool:
    """Whether a handler may still answer ``record``, which then is another for a predicate."""
    return bool(getattr(record, "_is_open", False))


def wait_idle(server: Server[Any], timeout: float) -> None:
    """As ``Server.wait_idle``."""
    __tracebackhide__ = True
    left = under_way_at(server, Deadline(seconds("timeout", timeout)))
    if left:
        raise WaitTimeout(
            f"{server.describe()} is not idle after {timeout} s: its handler still runs for"
            f"{listed(left)}",
            expected=0,
            received=tuple(left),
        )


def under_way_at(server: Server[Any], deadline: Deadline) -> list[str]:
    """Block until no handler is under way; returns for what some are at the deadline.

    Raises StateError where that would block an event loop, ServerDied if the process ends first.
    """
    __tracebackhide__ = True
    lifecycle = server._lifecycle
    backend = None if lifecycle.forked_copy else lifecycle.serving()
    while backend is not None:
        backend.sync(deadline.sooner(server._sync_seconds))
        if backend.death is not None:
            raise backend.death.with_traceback(None)
        under_way = backend.under_way()
        if not under_way or deadline.passed():
            return under_way
        if running_loop() is not None:
            raise StateError(
                f"{server.describe()} still runs {len(under_way)} handlers, and waiting for them "
                "would block the event loop that runs here: write `await "
                "asyncio.to_thread(server.wait_idle)`, or `async with server.during()`"
            )
        if not backend.wait_until(lambda: not backend.under_way(), deadline):
            return backend.under_way()
    return []
