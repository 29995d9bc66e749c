"""What comes to a server for a while: of one test among several that share it, say."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from ..journal import causes
from ..journal.failures import attach, combined
from ..journal.frames import trimmed
from ..pristine.imports import importing_once
from ..pristine.waits import Clock, Deadline
from .context import off_loop
from .waiting import Wait, under_way_at

if TYPE_CHECKING:
    from ..journal.failures import Failure
    from ..journal.journal import Received
    from .server import Server

R = TypeVar("R")


class During(Generic[R]):
    """What comes to a server inside a ``with``, plain or ``async``; made by ``Server.during``.

    At its end it waits, ``handler_timeout`` at most, until no request is under way. Then it raises
    what handlers have raised for requests that came inside, and what was unexpected or declared
    inside and unmet, unless the plugin tells the test. Without the plugin, what was declared inside
    is removed.
    """

    def __init__(self, server: Server[R]) -> None:
        self._server = server
        self._journal = server._journal
        self._since: int | None = None  # positions in the journal
        self._until: int | None = None
        self._began = 0.0  # seconds on the monotonic clock

    def __enter__(self) -> Self:
        self._server._catch_up()
        self._since, self._until = self._journal.position, None
        self._began = Clock.monotonic()
        return self

    @trimmed
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        server = self._server
        try:
            if error is None:
                under_way_at(server, Deadline(server.handler_timeout))
            else:  # a test that fails need not wait for what it may have left hanging
                server._catch_up()
        finally:
            self._until = self._journal.position
        if causes.current() is not None or server._lifecycle.forked_copy:  # others tell them
            return
        taken, more = self._failures()
        raised = combined(taken, server._label, more=more)
        if raised is not None and error is not None:
            attach(error, raised)
        elif raised is not None:
            raise raised

    def _failures(self) -> tuple[list[Failure], int]:
        """What has failed inside, and how many more; what was declared there is removed."""
        failures, more = self._journal.failures.take_since(self._began)
        if self._server._slot.declared is not None:
            with importing_once():
                from . import verifying
            failures += verifying.end(self._server, self._began)
        return failures, more

    @trimmed
    async def __aenter__(self) -> Self:
        return await off_loop(self.__enter__)

    @trimmed
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        await off_loop(lambda: self.__exit__(kind, error, trace))

    @property
    def received(self) -> Received[R]:
        """A snapshot of what came inside so far, oldest first; also after its end."""
        if self._until is None:
            self._server._catch_up()
        since = self._first()
        received = self._journal.records(since)
        if self._until is not None:
            count = self._until - max(since, self._journal.cleared) - received.dropped
            del received[max(0, count) :]
        return received

    @property
    def errors(self) -> tuple[BaseException, ...]:
        """What handlers have raised so far for requests that came inside."""
        if self._until is None:
            self._server._catch_up()
        return tuple(self._journal.failures.since(self._began)) if self._since is not None else ()

    @trimmed
    def wait_for(self, count: int | Callable[[R], object], timeout: float = 5.0) -> Received[R]:
        """As ``Server.wait_for``, of what comes inside."""
        __tracebackhide__ = True
        return Wait(self._server, count, self._first()).run(timeout)

    @trimmed
    async def wait_for_async(
        self, count: int | Callable[[R], object], timeout: float = 5.0
    ) -> Received[R]:
        """As ``Server.wait_for_async``, of what comes inside."""
        __tracebackhide__ = True
        return await Wait(self._server, count, self._first()).run_off_loop(timeout)

    def _first(self) -> int:
        """Where it begins; nothing has come before its ``with``."""
        return self._journal.position if self._since is None else self._since
