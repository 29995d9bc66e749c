"""The lifecycle of a server: its states, its start, the ladder of its stop.

Nothing here knows a protocol. The state changes only by the table in ``state``.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..backends.hosted import Start
from ..backends.ladder import Ladder
from ..dispatch.coroutines import running_loop
from ..errors import ForcedStopWarning, ServerDied, StateError
from ..journal.facts import Diagnostic, StopReport
from ..journal.failures import Failures
from ..journal.journal import Records
from ..pristine import system
from ..pristine.imports import importing_once
from ..pristine.socketfile import SocketFile
from ..pristine.waits import Deadline
from ..process import fork_hooks
from ..process.pool import Child, end
from . import address as addresses
from . import checks
from .checks import handler_or_none, seconds
from .context import StartedInContext
from .lifecycle import Lifecycle, Ready, State
from .view import R, ServerView

if TYPE_CHECKING:
    import asyncio
    from typing import TypedDict

    from ..dispatch.calls import Exchange, Link
    from ..dispatch.run import Run
    from ..wire import messages as wire

    class Options(TypedDict, total=False):
        """What all servers take, for the ``**options`` of those that take more."""

        name: str | None
        handler_timeout: float | None
        start_timeout: float
        stop_timeout: float
        keep: int
        fresh: bool
        backlog: int


Opener = Callable[["Link", Any, Records[Any], int], "Exchange | None"]

KEEP = 64 * 1024 * 1024  # bytes


class Server(StartedInContext, ServerView[R]):
    """What all servers have in common.

    ``address`` is ``(host, port)``, IPv4 or IPv6, where port 0 lets the kernel choose and the
    host ``localhost`` means both loopbacks on one port, or the path of a Unix socket.
    ``handler`` is called in this process with each request; without one the server records and
    answers with its protocol's plain success. ``poll_interval`` (seconds) is how often the
    child wakes to see that this process lives, beside the signals that it gets anyway.

    Keyword-only: ``name`` for messages; ``handler_timeout`` (seconds, ``None`` for no end) until
    a client is told that the handler gave no answer; ``start_timeout`` and ``stop_timeout``
    (seconds); ``keep`` (bytes) of records; ``fresh`` for a process that has served nothing
    before; ``backlog`` of connections that wait to be accepted.

    Raises TypeError or ValueError for arguments that cannot be right.
    """

    __test__ = False  # pytest is not to collect it

    protocol: ClassVar[Any]

    def __init__(
        self,
        address: addresses.AddressLike = ("127.0.0.1", 0),
        handler: Callable[..., Any] | None = None,
        poll_interval: float = 0.5,
        *,
        name: str | None = None,
        handler_timeout: float | None = 30.0,
        start_timeout: float = 10.0,
        stop_timeout: float = 5.0,
        keep: int = KEEP,
        fresh: bool = False,
        backlog: int = 1024,
    ) -> None:
        self.address = address
        self.name = name
        self.poll_interval = seconds("poll_interval", poll_interval)
        self.handler_timeout = (
            None if handler_timeout is None else seconds("handler_timeout", handler_timeout)
        )
        self.start_timeout = seconds("start_timeout", start_timeout)
        self.stop_timeout = seconds("stop_timeout", stop_timeout)
        self.fresh = fresh
        self.ready: threading.Event = Ready()
        self._listen = addresses.parse(address)
        self._keep = checks.count("keep", keep)
        self._backlog = checks.count("backlog", backlog, least=1)
        self._handler = handler_or_none(handler)
        self._records: Records[R] = Records(self._keep)
        self._failures = Failures()
        self._diagnostics: list[Diagnostic] = []
        self._lifecycle = Lifecycle()
        self._run: Run | None = None
        self._bound: list[wire.Address] = []
        self._report = StopReport(rung="none")
        self._file: SocketFile | None = None
        self._owner = system.getpid()

    # Start -------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start, wait until the server is ready, and return it.

        Raises StartError (an OSError) with the errno when it cannot bind, StartTimeout after
        ``start_timeout`` seconds, StateError when it runs already.
        """
        return self._start_on(running_loop())

    def _start_on(self, loop: asyncio.AbstractEventLoop | None) -> Self:
        """Start; coroutine handlers are to run on ``loop``."""
        self._begin_start(loop)
        return self._finish_start()

    def _begin_start(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """The first half of ``start``: everything up to the wait for the child."""
        if self._foreign:
            raise StateError(
                f"{self.describe()} belongs to process {self._owner}, of which this one is a "
                "forked copy: make a server of its own here"
            )
        wanted = self._wanted()
        start = Start(self._title(), wanted, Deadline(self.start_timeout), loop)
        try:
            self._lifecycle.move(State.STARTING, self.describe, by=start)
            self._start = start
            self._listen.resolve(self._title())
            if self._run is not None:  # of a process that has died
                dead, self._run = self._run, None
                fork_hooks.live.discard(dead)
                Ladder(dead, 0.0).climb()
            start.begin(self, fresh=self.fresh)
        except BaseException as error:  # noqa: BLE001 - raised again, as what it is or a StartError
            if self._lifecycle.by is start:
                self._start = start
                self._cancel_start()
            raise start.failed_by(error) from error.__cause__

    def _wanted(self) -> object:
        """Where to listen, as the user has said; after a restart, with the port that is kept."""
        if self._listen.path is not None or self.address[1] == self._listen.port:
            return self.address
        return (self._listen.host, self._listen.port)

    def _new_run(self, loop: asyncio.AbstractEventLoop | None, child: Child) -> Run:
        with importing_once():  # only now: a new child boots while this is imported
            from ..dispatch.run import Run

        return Run(self, child, loop, self._open_with(self._opener()))

    def _finish_start(self) -> Self:
        """The second half of ``start``: wait until the child serves."""
        try:
            run = self._start.finish(self)
            self._bound = run.addresses or []
            self._file = self._socket_file()
            if self._handler is not None:
                run.dispatcher.start_threads(lambda: None)
            self._run = run
            self._move(State.READY)
            self.ready.set()
        except BaseException as error:  # noqa: BLE001 - raised again, as what it is or a StartError
            self._cancel_start()
            raise self._start.failed_by(error) from error.__cause__
        return self

    def _cancel_start(self) -> None:
        """Undo a start that was not finished: its second half did not come, or failed."""
        if self._lifecycle.state in (State.STARTING, State.READY):
            self.ready.clear()
            self._run = None
            self._move(State.FAILED)
            self._start.cancel()

    def _socket_file(self) -> SocketFile | None:
        path, directory = self._listen.path, self._directory()
        if path is None:
            return None
        return SocketFile(path if directory is None else f"{directory}/{path}")

    def _directory(self) -> str | None:
        """What the path of the socket is relative to, if it is."""
        path = self._listen.path
        if path is None or path.startswith(("/", "\0")):
            return None
        directory = _working_directory()
        if directory is not None and not addresses.is_encodable(directory):
            raise addresses.not_encodable(f"{directory}/{path}")
        return directory

    def _configuration(self) -> wire.Configure:
        with importing_once():
            from ..wire.messages import Configure

        return Configure(
            protocol=self.protocol,
            host=self._listen.host,
            port=self._listen.port,
            path=self._listen.path,
            cwd=self._directory(),
            poll_interval=self.poll_interval,
            handled=self._handler is not None,
            handler_timeout=self.handler_timeout,
            keep=self._keep,
            backlog=self._backlog,
            **self._options(),
        )

    def _open_with(self, opener: Opener) -> Callable[[Link, Any], Exchange | None]:
        records, keep = self._records, self._keep // 4
        return lambda link, message: opener(link, message, records, keep)

    def _opener(self) -> Opener:
        """What records a message of the child and makes its exchange.

        Imported only when a child boots already: what it needs takes time to import.
        """
        raise AssertionError("each protocol has its own")

    def _options(self) -> dict[str, int]:
        """What one protocol adds to the configuration."""
        return {}

    # Stop --------------------------------------------------------------------------------------

    def stop(self, timeout: float | None = None) -> StopReport:
        """Stop, and tell how it went; then raise what handlers have raised and nobody has seen.

        Never takes longer than ``timeout`` seconds (default: ``stop_timeout``) plus the time to
        reap the process. Exchanges in progress have half to three quarters of it to finish;
        what has not is dropped and named in the report. Stopping what does not run does nothing.
        Going further than to ask the process warns ForcedStopWarning. Raises ServerDied if the
        process had ended on its own, the exception of a handler, or an ExceptionGroup of all.
        """
        __tracebackhide__ = True
        deadline = Deadline(self.stop_timeout if timeout is None else seconds("timeout", timeout))
        try:
            if self._begin_stop(deadline):
                report = self._finish_stop()
            else:
                report = self._not_stopped_here(deadline)
        except Exception:  # a warning that is an error, say; but Ctrl-C goes before all else
            self._raise_all()
            raise
        self._raise_all()
        return report

    def _last_report(self) -> StopReport:
        return StopReport(rung="foreign") if self._foreign else self._report

    def _not_stopped_here(self, deadline: Deadline) -> StopReport:
        if self._foreign:
            return self._last_report()
        if self._lifecycle.passing():
            run = self._run
            if run is not None and run.current_call():
                return StopReport(rung="underway")
            if not self._lifecycle.settle(deadline):
                raise StateError(f"another thread has not finished with {self.describe()} yet")
        return self._report

    def _begin_stop(self, deadline: Deadline) -> bool:
        """The first half of a stop: ask the child. Returns whether there is a second half."""
        if self._foreign:
            return False
        self._finish_what_was_interrupted()
        if self._lifecycle.state is State.STARTING:
            self._lifecycle.settle(deadline)
        if self._run is None:
            return False
        ladder = Ladder(self._run, deadline.left())
        try:
            if not self._lifecycle.try_move(State.STOPPING, by=ladder):
                return False
            self._ladder = ladder
            self.ready.clear()
            ladder.ask()
        except BaseException:
            if self._lifecycle.by is ladder:
                self._abandon_stop(ladder)
            raise
        return True

    def _finish_what_was_interrupted(self) -> None:
        """An exception can come at any moment, by a signal: then this thread is not done yet."""
        by = self._lifecycle.by
        if isinstance(by, (Start, Ladder)) and by.caller == system.caller_id():
            run = self._run
            if run is not None and run.current_call():  # a handler stops its server once more
                return
            if isinstance(by, Start) and self._lifecycle.state is State.STARTING:
                self._start = by
                self._cancel_start()
            elif isinstance(by, Ladder) and self._lifecycle.state is State.STOPPING:
                self._abandon_stop(by)

    def _abandon_stop(self, ladder: Ladder) -> None:
        ladder.abandon()
        self._stopped()

    def _finish_stop(self) -> StopReport:
        """The second half of a stop: climb until the server has stopped."""
        ladder = self._ladder
        try:
            self._report = ladder.climb()
            self._stopped()
        except BaseException:  # Ctrl-C, say: then without any more waiting
            self._abandon_stop(ladder)
            raise
        for left in self._report.connections:
            text = f"dropped by the stop: {left.state}"
            self._diagnosed(Diagnostic(client_address=left.client_address, text=text))
        if self._report.rung not in ("ask", "died"):
            warnings.warn(f"{self.describe()} {self._report}", ForcedStopWarning, stacklevel=3)
        return self._report

    def _stopped(self) -> None:
        run, self._run = self._run, None
        self._lifecycle.try_move(State.STOPPED)
        if run is not None:
            fork_hooks.live.discard(run)
        if self._file is not None:  # the child could not, if it was killed
            self._file.remove()

    def _stop_quietly(self) -> None:
        if self._begin_stop(Deadline(self.stop_timeout)):
            self._finish_stop()

    def restart(self) -> Self:
        """Stop and start again on the same port; what was received is kept.

        A process that had died is replaced. Raises what ``stop`` and ``start`` raise.
        """
        if self._bound and not isinstance(self._bound[0], str):
            self._listen = self._listen.at_port(int(self._bound[0][1]))
        with contextlib.suppress(ServerDied):
            self.stop()
        return self.start()

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        run = getattr(self, "_run", None)
        if run is None or finalizing() or self._foreign:
            return  # at the end of this process the server's ends by itself
        try:
            text = f"{self!r} was never stopped{self._failures.unseen()}"
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)
        finally:
            self._run = None
            run.over = True
            run.child.process.kill()  # first: a collection may come anywhere, this needs no lock
            run.detach()
            end([run.child])

    # State -------------------------------------------------------------------------------------

    def _died(self) -> None:
        """The child is gone without having been asked to."""
        if self._run is None or self._lifecycle.state is State.STARTING:
            return  # the start fails, and says so itself
        self._failures.death = self._run.death
        self.ready.clear()
        if self._lifecycle.state is State.READY:
            self._move(State.FAILED)

    def _move(self, to: State) -> None:
        self._lifecycle.move(to, self.describe)


def _working_directory() -> str | None:
    try:
        return system.getcwd()
    except OSError:  # deleted: then no relative path will bind either
        return None
