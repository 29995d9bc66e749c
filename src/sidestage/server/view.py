"""A server as its test sees it: what it is, what came, and what went wrong.

Nothing here starts or stops anything, or knows a protocol.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import ServerStopped, StateError, WaitTimeout
from ..journal.facts import Diagnostic, ServerStats, StopReport
from ..journal.failures import Failures
from ..journal.journal import Received, Records
from ..pristine import system
from ..pristine.imports import importing_once
from ..pristine.waits import Deadline
from . import address as addresses
from . import checks
from .checks import handler_or_none, seconds
from .lifecycle import Lifecycle, State

if TYPE_CHECKING:
    from ..dispatch.run import Run
    from ..wire import messages as wire

R = TypeVar("R")

SYNC_SECONDS = 5.0  # for a child to confirm; one that does not is stuck


class ServerView(Generic[R]):
    """What can be seen of a server; ``Server`` makes what is looked at here."""

    scheme: str
    address: addresses.AddressLike
    name: str | None
    _listen: addresses.Listen
    _handler: Callable[..., Any] | None
    _keep: int  # bytes of records
    _records: Records[R]
    _failures: Failures
    _diagnostics: list[Diagnostic]
    _lifecycle: Lifecycle
    _run: Run | None
    _bound: list[wire.Address]
    _report: StopReport
    _owner: int  # the process that it belongs to

    # What it is --------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """NEW, STARTING, READY, STOPPING, STOPPED or FAILED."""
        if self._lifecycle.state is State.READY and not self._foreign:
            self._look()
        return self._lifecycle.state

    @property
    def pid(self) -> int | None:
        """The process that serves; ``None`` while none does."""
        run = self._run
        return None if run is None else run.child.process.launched.pid

    @property
    def server_address(self) -> Any:
        """What was bound: ``(host, port)``, with two more items for IPv6, or a path."""
        bound = self._bound_or_raise()[0]
        return bound if isinstance(bound, str) else tuple(bound)

    @property
    def host(self) -> str:
        """The host for clients; raises StateError on a Unix socket."""
        self._bound_or_raise()
        if self._listen.path is not None:
            raise StateError(f"{self.describe()} listens on a path; use server_address")
        return addresses.client_host(self._listen.host or "")

    @property
    def port(self) -> int:
        """The bound port; raises StateError on a Unix socket."""
        bound = self._bound_or_raise()[0]
        if isinstance(bound, str):
            raise StateError(f"{self.describe()} listens on a path, it has no port")
        return int(bound[1])

    @property
    def url(self) -> str:
        """What to give a client: ``scheme://host:port``; of a Unix socket, ``http+unix://`` and
        the encoded path for HTTP, ``unix://`` and the path for the others.
        """
        bound = self._bound_or_raise()[0]
        port = None if isinstance(bound, str) else int(bound[1])
        return addresses.url(self.scheme, self._listen.host, port, self._listen.path)

    def _bound_or_raise(self) -> list[wire.Address]:
        if not self._bound:
            raise StateError(f"{self.describe()} is not bound yet: call start() first")
        return self._bound

    @property
    def _foreign(self) -> bool:
        """Whether this is a copy in a forked process."""
        return self._owner != system.getpid()

    def describe(self) -> str:
        """The server as messages name it."""
        named = self.name is not None or not self._bound
        return self._title() if named else f"{self._title()} at {self.url}"

    def _title(self) -> str:
        kind = type(self).__name__
        return kind if self.name is None else f"{kind} {self.name!r}"

    def __repr__(self) -> str:
        parts = [type(self).__name__]
        if self.name is not None:
            parts.append(repr(self.name))
        parts.append(self._lifecycle.state.value)
        if self._bound:
            parts.append(self.url)
        if self.pid is not None:
            parts.append(f"pid={self.pid}")
        return f"<{' '.join(parts)}>"

    # What came ---------------------------------------------------------------------------------

    @property
    def handler(self) -> Callable[..., Any] | None:
        """What is called with each request; may be replaced while the server runs."""
        return self._handler

    @handler.setter
    def handler(self, handler: Callable[..., Any] | None) -> None:
        previous, self._handler = self._handler, handler_or_none(handler)
        run = self._run
        if run is None or self._lifecycle.state is not State.READY or self._foreign:
            return
        if handler is not None and previous is None:
            try:
                run.start_handling(Deadline(SYNC_SECONDS))
            except BaseException:  # no thread to be had, say: then it is as it was before
                self._handler = None
                with contextlib.suppress(ServerStopped):
                    run.stop_handling(Deadline(SYNC_SECONDS))
                raise
        elif handler is None and previous is not None:
            run.stop_handling(Deadline(SYNC_SECONDS))

    @property
    def received(self) -> Received[R]:
        """A snapshot of everything the server got so far, oldest first; also after the stop."""
        self._look()
        return self._records.snapshot()

    @property
    def errors(self) -> tuple[BaseException, ...]:
        """The exceptions that handlers have raised so far."""
        self._look()
        return tuple(self._failures.errors)

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What clients did that the protocol does not allow, and what was given up on."""
        self._look()
        return tuple(self._diagnostics)

    def wait_for(self, count: int, timeout: float = 5.0) -> Received[R]:
        """Block until ``count`` requests were received, and return all that are kept.

        Those that were dropped (see ``keep``) count, too. Raises WaitTimeout after ``timeout``
        seconds, or as soon as the server is stopped or restarted; its message lists what did
        come. Raises ServerDied if the server's process ends first.
        """
        wanted = checks.count("count", count)
        deadline = Deadline(seconds("timeout", timeout))
        run = self._run

        def enough() -> bool:
            return self._records.total >= wanted

        if run is not None and not self._foreign:
            run.dispatcher.wait_until(enough, deadline)
        if enough():
            return self._records.snapshot()
        if run is not None and run.death is not None:
            raise run.death
        received = self._records.snapshot()
        came = "".join(f"\n  {record!r}" for record in received) or " nothing"
        if self._foreign:
            limit = "before the fork: a forked copy learns of nothing more"
        elif self._lifecycle.state is State.READY:
            limit = f"within {timeout} s"
        else:
            limit = f"and it is {self._lifecycle.state.value}"
        if received.dropped:
            limit += f" ({received.dropped} of them dropped, to keep {self._keep} bytes at most)"
        total = len(received) + received.dropped
        raise WaitTimeout(
            f"{self.describe()} received {total} of {wanted} {limit}:{came}",
            expected=wanted,
            received=tuple(received),
        )

    def stats(self) -> ServerStats:
        """What the server's process uses now; raises StateError when none runs."""
        run = self._run
        if run is None:
            raise StateError(
                f"{self.describe()} has no process: it is {self._lifecycle.state.value}"
            )
        with importing_once():
            import psutil

        try:
            return ServerStats(**run.child.process.usage())
        except psutil.Error:
            self._look()
            raise run.death or StateError(f"{self.describe()} has no process") from None

    def stderr_tail(self) -> str:
        """The end of what the server's process has written to stderr; empty if none runs."""
        run = self._run
        return "" if run is None else run.child.stderr_tail()

    def _look(self) -> None:
        """Take in what the child knows, and notice if it is gone."""
        run = self._run
        if (
            run is not None
            and self._lifecycle.state in (State.READY, State.STOPPING)
            and not self._foreign
        ):
            run.sync(Deadline(SYNC_SECONDS))

    @property
    def stop_report(self) -> StopReport:
        """How the last stop went; its rung is ``none`` if there was none."""
        return self._report

    # Errors ------------------------------------------------------------------------------------

    def raise_errors(self) -> None:
        """Raise what handlers have raised since the last time, if anything.

        One exception as itself, several as an ExceptionGroup.
        """
        __tracebackhide__ = True
        self._look()
        self._raise_all()

    def _raise_all(self) -> None:
        __tracebackhide__ = True
        if self._foreign:  # the original raises it
            return
        self._failures.raise_new(self.describe(), with_death=self._run is None)

    # For the run -------------------------------------------------------------------------------

    def _handle(self, request: Any) -> Any:
        """Call the handler."""
        __tracebackhide__ = True
        handler = self._handler
        return None if handler is None else handler(request)

    def _handler_failed(self, error: BaseException) -> None:
        """A handler raised."""
        self._failures.add(error)

    def _diagnosed(self, diagnostic: Diagnostic) -> None:
        """A client misbehaved."""
        self._diagnostics.append(diagnostic)

    def _dropped(self, count: int) -> None:
        """The child had to drop records."""
        self._records.dropped += count
