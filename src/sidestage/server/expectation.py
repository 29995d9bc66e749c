"""An expectation as its user has it: adds answers, waits for what meets it, takes held calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from ..errors import StateError, WaitTimeout, shown
from ..expectations import keywords
from ..expectations.entry import Answer, Entry
from ..expectations.held import HeldCall
from ..expectations.keywords import known_keywords
from ..journal.frames import trimmed
from ..journal.journal import Received, listed
from ..wire import values
from . import verifying
from .waiting import Waiting

if TYPE_CHECKING:
    from ..expectations.table import Table
    from .server import Server

R = TypeVar("R")


class Expectation(Generic[R]):
    """What ``expect`` and ``allow`` give: says how to answer, and knows what has met it."""

    __test__ = False

    def __init__(self, server: Server[R], table: Table, entry: Entry) -> None:
        self._server = server
        self._table = table
        self._entry = entry

    # Over five arguments: what a response has, by name.
    @known_keywords(keywords.REPLY, declares=True)
    def reply(
        self,
        result: Any = None,
        status: int | None = None,
        headers: Any = None,
        *,
        content_type: str | None = None,
        delay: float = 0,
        early: bool = False,
    ) -> Self:
        """Add an answer: the first is for the first request, and the last one repeats.

        ``result`` is what a handler may return, encoded now, or a callable, which is called in
        this process with the request. The next three override what it says. The answer waits for
        ``delay`` seconds. With ``early`` it is given when the head has come.

        Returns the expectation. Raises TypeError or ValueError for what is no answer or would
        never be given, StateError if it is held.
        """
        __tracebackhide__ = True
        table, entry = self._table, self._entry
        seconds = values.seconds("delay", delay)
        if not isinstance(early, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"early must be True or False, not {shown(early)}")
        if early and entry.spec.terms.late:
            raise ValueError(
                f"early=True answers when the head has come, before {entry.spec.terms.late} "
                "can be looked at: leave out one of them"
            )
        given = table.replies.answer(result, status, headers, content_type)
        self._server._check_fault(given.fault)
        verifying.refuse_in_copy(self._server)
        table.add_answer(entry, Answer(given, seconds), early=early)
        verifying.tell(self._server)
        return self

    @known_keywords(keywords.HOLD)
    def hold(self) -> Self:
        """Have what meets it wait until the test takes it and answers; returns the expectation.

        ``handler_timeout`` does not count for it. Raises StateError if there is a reply, and
        ValueError if it is never met.
        """
        __tracebackhide__ = True
        verifying.refuse_in_copy(self._server)
        self._table.have_held(self._entry)
        verifying.tell(self._server)
        return self

    @known_keywords(keywords.TAKE_OF_ONE)
    def take(self, timeout: float = 5.0) -> HeldCall[R]:
        """Wait for a call that is held, and take it: the first that has come.

        Raises WaitTimeout after ``timeout`` seconds, ServerDied if the server's process ends, and
        StateError if it does not ``hold``, or where it would block an event loop: write
        ``await take_async()`` there.
        """
        __tracebackhide__ = True
        return self._taking().run(timeout)

    @known_keywords(keywords.TAKE_OF_ONE)
    async def take_async(self, timeout: float = 5.0) -> HeldCall[R]:
        """As ``take``, while asyncio's loop goes on."""
        __tracebackhide__ = True
        return await self._taking().run_off_loop(timeout)

    def _taking(self) -> Taking[R]:
        __tracebackhide__ = True
        entry = self._entry
        if not entry.holds:
            raise StateError(f"{entry.spec} holds no calls to take: write .hold() after it")
        return Taking(
            self._server, self._table, lambda held: held._is_of(entry), f"held for {entry.spec}"
        )

    @property
    def requests(self) -> Received[R]:
        """A snapshot of the requests that have met it, as far as they are kept."""
        self._server._catch_up()
        return self._requests()

    def _requests(self) -> Received[R]:
        entry, journal = self._entry, self._server._journal
        found = journal.selection(filter(entry.is_met_by, journal.records()))
        found.dropped = max(0, entry.count - len(found))
        return found

    @property
    def count(self) -> int:
        """How often it was met: counted when it was chosen."""
        self._server._catch_up()
        return self._entry.count

    @known_keywords(keywords.WAIT)
    def wait(self, count: int = 1, timeout: float = 5.0) -> Received[R]:
        """Wait until it was met ``count`` times; returns ``requests``.

        Raises WaitTimeout after ``timeout`` seconds, ServerDied if the server's process ends, and
        StateError where it would block an event loop: write ``await wait_async()`` there.
        """
        __tracebackhide__ = True
        return _Meeting(self, count).run(timeout)

    @known_keywords(keywords.WAIT)
    async def wait_async(self, count: int = 1, timeout: float = 5.0) -> Received[R]:
        """As ``wait``, while asyncio's loop goes on."""
        __tracebackhide__ = True
        return await _Meeting(self, count).run_off_loop(timeout)

    def remove(self) -> None:
        """Forget it: it takes no more requests, and is not verified. Again does nothing."""
        verifying.refuse_in_copy(self._server)
        self._table.remove([self._entry])
        verifying.tell(self._server)

    def __repr__(self) -> str:
        return f"<Expectation: {self._entry.spec}, met {self._entry.count} times>"


class _Meeting(Waiting["Received[R]"], Generic[R]):
    """A wait for an expectation to be met a number of times."""

    _call, _awaited = "wait", "expectation.wait_async"

    def __init__(self, expectation: Expectation[R], count: int) -> None:
        super().__init__(expectation._server)
        self._expectation = expectation
        self._count = values.count("count", count)

    def look(self) -> Received[R] | None:
        return self._expectation._requests() if self._is_news() else None

    def _is_news(self) -> bool:
        return self._expectation._entry.count >= self._count

    def _in_vain(self, timeout: float) -> WaitTimeout:
        server, entry = self._server, self._expectation._entry
        _, more = server._besides()
        near = entry.nearest(server._journal.records())
        return WaitTimeout(
            f"{server.describe()}: {entry.spec} was met {entry.count} of {self._count} times "
            f"{self._limit(timeout)}\n{near}{more}",
            expected=self._count,
            received=tuple(self._expectation._requests()),
        )


class Taking(Waiting[HeldCall[R]], Generic[R]):
    """A wait for a held call that is ``wanted``, which ``what`` describes."""

    _call, _awaited = "take", "take_async"

    def __init__(
        self,
        server: Server[R],
        table: Table,
        wanted: Callable[[HeldCall[Any]], bool],
        what: str,
    ) -> None:
        super().__init__(server)
        self._table = table
        self._wanted = wanted
        self._what = what
        self._taken: HeldCall[R] | None = None

    def look(self) -> HeldCall[R] | None:
        self._taken = self._table.take(self._wanted)
        return self._taken

    def undo(self) -> None:
        if self._taken is None:
            return
        self._table.put_back(self._taken)
        if (backend := self._server._lifecycle.backend) is not None:  # others may wait for it
            backend.wake()

    def _is_news(self) -> bool:
        return self._table.has_waiting(self._wanted)

    def _in_vain(self, timeout: float) -> WaitTimeout:
        server = self._server
        nothing, more = server._besides()
        received = server._journal.records()
        taken = self._table.taken(self._wanted)
        what = f"nothing is {self._what}"
        if taken:
            what = f"nothing else is {self._what} ({taken} taken already)"
        return WaitTimeout(
            f"{server.describe()}: {what} {self._limit(timeout)}; it received"
            f"{listed(received) if received else nothing}{more}",
            expected=1,
            received=tuple(received),
        )


class InOrder:
    """What is declared inside a ``with`` is to be met in that order; made by ``in_order``."""

    def __init__(self, table: Table) -> None:
        self._table = table

    @trimmed
    def __enter__(self) -> None:
        self._table.open_order()

    def __exit__(self, *_: object) -> None:
        self._table.close_order()
