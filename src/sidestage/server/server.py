"""A server as its users see it: what it is, what came, what went wrong, start and stop.

Nothing here knows a protocol, or where the server runs.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from ..backends.base import Backend, Limits, Plan
from ..backends.hosted import HostedBackend
from ..dispatch.coroutines import running_loop
from ..dispatch.slot import Slot
from ..errors import ForcedStopWarning, LeftRunningWarning, ServerStopped, StateError
from ..journal.facts import Diagnostic, Label, StopReport
from ..journal.frames import trimmed
from ..journal.journal import Journal, Matching, Received, by_address
from ..pristine.imports import importing_once
from ..pristine.waits import Deadline, Event, NotInTime
from ..wire.values import seconds
from . import address as addresses
from . import registry
from .checks import name_or_none, one_argument_or_none
from .context import StartedInContext, leave_all, settle_all
from .during import During
from .expected import ExpectedErrors
from .lifecycle import Lifecycle, State
from .names import Named
from .settings import Settings
from .waiting import Wait, wait_idle

if TYPE_CHECKING:
    import asyncio

    from ..backends.base import Layer
    from ..journal.stats import ServerStats
    from ..wire.messages import Address

R = TypeVar("R")

KEEP = 64 * 1024 * 1024  # bytes
_ROOT = __name__.partition(".")[0]
_seconds = trimmed(seconds)


class Server(Named, StartedInContext, Settings, Generic[R]):
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

    __test__ = False  # pytest must not collect it

    address: Any  # as it was passed
    poll_interval: float  # seconds, as the others
    handler_timeout: float | None
    start_timeout: float
    stop_timeout: float
    fresh: bool
    ready: threading.Event
    scheme: str
    _label: Label
    _journal: Journal[R]
    _slot: Slot
    _lifecycle: Lifecycle
    _bound: list[Address]
    _limits: Limits | None  # that what serves was told
    protocol: ClassVar[str]  # the name of its folder
    _outside: ClassVar[tuple[str, str] | None] = None  # as ``Configure`` has it
    _layers: ClassVar[tuple[tuple[str, str], ...]] = ()  # as ``Configure`` has it
    _call_module: ClassVar[str | None] = None  # instead of that of its folder
    _matching: Matching = staticmethod(by_address)  # of the fields that ``received.of`` takes
    _check_handler = staticmethod(one_argument_or_none)
    _make_backend: Callable[[Plan], Backend] = HostedBackend
    _sync_seconds = 5.0  # for a child to confirm; one that does not is stuck

    # Over thirty lines: every option, a line each.
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
        self._begin(
            address,
            poll_interval,
            handler_timeout,
            start_timeout,
            stop_timeout,
            keep,
            fresh,
            backlog,
        )
        label, ready = Label(type(self).__name__, name_or_none(name)), Event()
        journal: Journal[R] = Journal(self.keep, self._matching)
        slot = self._make_slot(self._check_handler(handler))
        # At once: ``__setattr__`` would look at each name.
        self.__dict__.update(
            _label=label,
            _journal=journal,
            _slot=slot,
            ready=ready,
            _lifecycle=Lifecycle(label, journal, ready, slot),
            _bound=[],
            _limits=None,
        )
        registry.add(self)

    def _make_slot(self, handler: Callable[..., Any] | None) -> Slot:
        return Slot(handler)

    # What it is --------------------------------------------------------------------------------

    @property
    def name(self) -> str | None:
        """What messages and reports call it."""
        return self._label.name

    @name.setter
    def name(self, name: str | None) -> None:
        self._label.name = name_or_none(name)

    @property
    def state(self) -> State:
        """NEW, STARTING, READY, STOPPING, STOPPED or FAILED."""
        if self._lifecycle.state is State.READY:  # a stop needs no news, and the child may hang
            self._sync()
        return self._lifecycle.state

    @property
    def pid(self) -> int | None:
        """The process that serves; ``None`` while none does."""
        backend = self._lifecycle.backend
        return None if backend is None else backend.pid

    @property
    @trimmed
    def server_address(self) -> Any:
        """What was bound: ``(host, port)``, with two more items for IPv6, or a path."""
        bound = self._bound_or_raise()[0]
        return bound if isinstance(bound, str) else tuple(bound)

    @property
    @trimmed
    def host(self) -> str:
        """The host for clients; raises StateError on a Unix socket."""
        self._bound_or_raise()
        if self._listen.path is not None:
            raise StateError(f"{self.describe()} listens on a path; use server_address")
        return addresses.client_host(self._listen.host or "")

    @property
    @trimmed
    def port(self) -> int:
        """The bound port; raises StateError on a Unix socket."""
        bound = self._bound_or_raise()[0]
        if isinstance(bound, str):
            raise StateError(f"{self.describe()} listens on a path, it has no port")
        return int(bound[1])

    @property
    @trimmed
    def url(self) -> str:
        """What to give a client: ``scheme://host:port``; of a Unix socket, ``http+unix://`` and
        the encoded path for HTTP, ``unix://`` and the path for the others.
        """
        self._bound_or_raise()
        assert self._label.url is not None
        return self._label.url

    def _bound_or_raise(self) -> list[Address]:
        if not self._bound:
            raise StateError(f"{self.describe()} is not bound yet: call start() first")
        return self._bound

    def _note_bound(self, bound: list[Address]) -> None:
        self.__dict__["_bound"] = bound  # as in ``__init__``
        port = None if isinstance(bound[0], str) else int(bound[0][1])
        self._label.url = addresses.url(self.scheme, self._listen.host, port, self._listen.path)

    def describe(self) -> str:
        """The server as messages name it."""
        return str(self._label)

    def __repr__(self) -> str:
        if "_label" not in self.__dict__:  # its arguments were refused
            return f"<{type(self).__name__} that was never made>"
        parts = [type(self).__name__]
        if self.name is not None:
            parts.append(repr(self.name))
        parts.append(self._lifecycle.state.value)
        if self._label.url is not None:
            parts.append(self._label.url)
        if self.pid is not None:
            parts.append(f"pid={self.pid}")
        return f"<{' '.join(parts)}>"

    # What came ---------------------------------------------------------------------------------

    @property
    def handler(self) -> Callable[..., Any] | None:
        """What is called with each request; may be replaced while the server runs."""
        return self._slot.handler

    @handler.setter
    def handler(self, handler: Callable[..., Any] | None) -> None:
        slot, lifecycle = self._slot, self._lifecycle
        slot.handler = self._check_handler(handler)
        slot.note(handler)
        try:
            lifecycle.follow_slot(Deadline(self._sync_seconds))
        except BaseException:  # no thread to be had, say: then there is none
            if handler is not None and slot.handler is handler:
                slot.handler = None
                with contextlib.suppress(NotInTime):
                    lifecycle.follow_slot(Deadline(self._sync_seconds))
            raise

    @property
    def received(self) -> Received[R]:
        """A snapshot of everything the server got so far, oldest first; also after the stop."""
        self._catch_up()
        return self._journal.records()

    @property
    def errors(self) -> tuple[BaseException, ...]:
        """The exceptions that handlers have raised so far."""
        self._catch_up()
        return tuple(self._journal.failures.errors)

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What clients did that the protocol does not allow, and what was given up on."""
        self._catch_up()
        return self._journal.diagnostics()

    @trimmed
    def wait_for(self, count: int | Callable[[R], object], timeout: float = 5.0) -> Received[R]:
        """Block until ``count`` records are there, and return all that are kept.

        Instead of a number, pass a function of a record: this blocks until it accepts one, and
        returns all that it accepts. It is called once for a record, and again when its handler has
        answered. Records that were dropped (see ``keep``) count, too; they go to no function.

        Raises WaitTimeout after ``timeout`` seconds, or once the server is stopped or restarted;
        its message lists what did come. Raises ServerDied if the server's process ends first, and
        StateError where it would block an event loop: write ``await wait_for_async(...)`` there.
        """
        __tracebackhide__ = True
        return Wait(self, count).run(timeout)

    @trimmed
    async def wait_for_async(
        self, count: int | Callable[[R], object], timeout: float = 5.0
    ) -> Received[R]:
        """As ``wait_for``, while asyncio's loop goes on; a function is called in a thread."""
        __tracebackhide__ = True
        return await Wait(self, count).run_off_loop(timeout)

    @trimmed
    def wait_idle(self, timeout: float = 5.0) -> None:
        """Block until no request is under way: all that clients have sent is answered.

        It counts as long as its handler has not returned, even if its client has left; not while
        the test holds it. A handler that calls this does not wait for itself. Raises WaitTimeout
        after ``timeout`` seconds, and StateError where it would block an event loop.
        """
        wait_idle(self, timeout)

    def during(self) -> During[R]:
        """Look at what comes inside a ``with``: ``with server.during() as calls:``.

        Its end raises what handlers have raised for requests that came inside; under the pytest
        plugin that fails the test, as errors outside do. On asyncio's loop, write ``async with``.
        """
        return During(self)

    def clear(self) -> int:
        """Forget what came, was diagnosed and raised; returns how many errors were never raised.

        A handler that is still running may raise after this: ``wait_idle`` first.
        """
        self._catch_up()
        return self._journal.clear()

    @trimmed
    def explain(self, lines: int | None = 30) -> str:
        """A timeline as text: what came and how it was answered, what is open, what went wrong.

        The latest that came is in it, so that it has about ``lines`` lines at most; ``None`` shows
        all. Call it at any time, also after the stop.
        """
        explaining = _explaining()
        text = f"{self!r}\nreceived: {self._journal.total:,}"
        return explaining.explain(self, lines) if explaining else text

    def _besides(self) -> tuple[str, str]:
        """How a message calls that nothing came, and some lines for its end."""
        explaining = _explaining()
        return explaining.besides(self) if explaining else (" nothing", "")

    @trimmed
    def stats(self) -> ServerStats:
        """What the server's process uses now; raises StateError when none runs."""
        backend = self._lifecycle.backend
        if backend is None:
            raise StateError(
                f"{self.describe()} has no process: it is {self._lifecycle.state.value}"
            )
        return backend.facts()

    def stderr_tail(self) -> str:
        """The end of what the server's process has written to stderr; empty if none runs."""
        backend = self._lifecycle.backend
        return "" if backend is None else backend.stderr_tail()

    def _sync(self) -> None:
        """Bring the journal up to date, and notice if what serves has ended."""
        if (backend := self._lifecycle.serving()) is not None:
            backend.sync(Deadline(self._sync_seconds))

    def _catch_up(self) -> None:
        """Bring the journal up to date with what clients were answered."""
        if (backend := self._lifecycle.serving()) is not None:
            backend.catch_up(Deadline(self._sync_seconds))

    @property
    def stop_report(self) -> StopReport:
        """How the last stop went; its rung is ``none`` if there was none."""
        return self._lifecycle.report

    # Errors ------------------------------------------------------------------------------------

    def raise_errors(self) -> None:
        """Raise what handlers have raised since the last time, if anything.

        One exception as itself, several as an ExceptionGroup.
        """
        __tracebackhide__ = True
        self._catch_up()
        if (error := self._new_error()) is not None:
            raise error  # here, and no deeper: the fewer frames of ours, the better

    def _new_error(self, *, with_death: bool = False) -> BaseException | None:
        """What is to be raised and was not yet."""
        failures, lifecycle = self._journal.failures, self._lifecycle
        if not (failures.any_new or failures.death) or lifecycle.forked_copy:  # the original does
            return None
        return failures.new_error(self._label, with_death=with_death or lifecycle.backend is None)

    @trimmed
    def expected_errors(self, *kinds: type[BaseException]) -> ExpectedErrors:
        """Take errors of these classes that handlers raise inside a ``with``: they fail no test.

        It gives the list of those taken; there may be none. One that comes later is taken too, if
        its request came inside. Raises TypeError for anything but classes of exceptions.
        """
        return ExpectedErrors(self._journal.failures, kinds, self._catch_up)

    # Start -------------------------------------------------------------------------------------

    @trimmed
    def start(self) -> Self:
        """Start, wait until the server is ready, and return it.

        Raises StartError (an OSError) with the errno when it cannot bind, StartTimeout after
        ``start_timeout`` seconds, StateError when it runs already.
        """
        self.begin_start(running_loop())
        return self.finish_start()

    def _start_on(self, loop: asyncio.AbstractEventLoop | None) -> Self:
        self.begin_start(loop)
        return self.finish_start()

    @trimmed
    def begin_start(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Begin to start, without waiting: several servers start together like this.

        Coroutine handlers will run on ``loop``, or on a loop of their own without one. Follow it
        with ``finish_start``, or with ``cancel_start``. Raises StartError, StateError.
        """
        deadline = Deadline(self.start_timeout)
        lifecycle = self._lifecycle
        if lifecycle.backend is not None and (backend := lifecycle.serving()) is not None:
            # What served may have died, and nobody has looked.
            backend.sync(deadline.sooner(self._sync_seconds))
        lifecycle.begin_start(lambda: self._new_backend(loop), deadline)

    @trimmed
    def finish_start(self) -> Self:
        """Wait until the server is ready, and return it. Raises StartError, StartTimeout."""
        self._lifecycle.finish_start(self._note_bound)
        if self._limits != (self.handler_timeout, self.keep):  # they were set meanwhile
            self._change()
        return self

    def cancel_start(self) -> None:
        """Undo a start that was begun and not finished; the server is FAILED then."""
        self._lifecycle.cancel_start()

    # Over thirty lines: the fields of a plan, a line each.
    def _new_backend(self, loop: asyncio.AbstractEventLoop | None) -> Backend:
        """A backend that is to run this server once."""
        listen = self._listen
        wanted: Any = self._address
        if listen.path is None and wanted[1] != listen.port:  # a restart keeps the port
            wanted = (listen.host, listen.port)
        if listen.host not in addresses.LOOPBACKS:
            listen.resolve(self._label.title())
        directory = None
        if listen.path is not None and not listen.path.startswith(("/", "\0")):
            directory = addresses.working_directory(listen.path)
        assert isinstance(self.ready, Event)
        self.__dict__["_limits"] = limits = Limits(self.handler_timeout, self.keep)
        plan = Plan(
            label=self._label,
            journal=self._journal,
            slot=self._slot,
            ready=self.ready,
            protocol=self.protocol,
            call_module=self._call_module or f"{_ROOT}.protocols.{self.protocol}.call",
            settings=self._settings(),
            outside=self._outside,
            layers=self._stack(),
            outside_layers=self._layers,
            asked=wanted,
            host=listen.host,
            port=listen.port,
            path=listen.path,
            directory=directory,
            poll_interval=self.poll_interval,
            handler_timeout=limits.handler_timeout,
            keep=limits.keep,
            backlog=self.backlog,
            fresh=self.fresh,
            loop=loop,
        )
        return self._make_backend(plan)

    def _change(self) -> None:
        """Have the limits that may change at any time take effect."""
        limits = Limits(self.handler_timeout, self.keep)
        self._journal.set_keep(limits.keep)
        if (backend := self._lifecycle.serving()) is not None:  # else a start compares them
            self._limits = limits
            with contextlib.suppress(ServerStopped):  # meanwhile: its next run will have them
                backend.change(limits, Deadline(self._sync_seconds))

    def _settings(self) -> dict[str, Any]:
        """The fields of the protocol's settings."""
        return {}

    def _check_fault(self, fault: Any) -> None:
        """Raise ValueError if ``fault``, of an answer, has no effect on this server."""

    def _stack(self) -> tuple[Layer, ...]:
        """The layers between the streams and the protocol."""
        return ()

    # Stop --------------------------------------------------------------------------------------

    def stop(self, timeout: float | None = None) -> StopReport:
        """Stop, and report how it went; then raise what handlers have raised and nobody has seen.

        Never takes longer than ``timeout`` seconds (default: ``stop_timeout``) plus the time to
        reap the process. Exchanges in progress have half to three quarters of it to finish;
        what has not is dropped and named in the report. Stopping what does not run does nothing.
        Going further than to ask the process warns ForcedStopWarning. Raises ServerDied if the
        process had ended on its own, the exception of a handler, or an ExceptionGroup of all.
        """
        __tracebackhide__ = True
        deadline = Deadline(self.stop_timeout if timeout is None else _seconds("timeout", timeout))
        try:
            report = self._stop(deadline)
        except Exception:  # a warning that is an error, say; but Ctrl-C goes before all else
            if (error := self._new_error()) is not None:
                raise error  # noqa: B904 - the warning is its context
            raise
        if (error := self._new_error()) is not None:
            raise error
        return report

    def _stop(self, deadline: Deadline) -> StopReport:
        if self._lifecycle.begin_stop(deadline):
            return self._finish_stop(begun=True)
        return self._not_stopped_here(deadline)

    @trimmed
    def begin_stop(self, timeout: float) -> bool:
        """Begin to stop within ``timeout`` seconds, without waiting.

        Returns whether to call ``finish_stop`` after it.
        """
        return self._lifecycle.begin_stop(Deadline(seconds("timeout", timeout)))

    def finish_stop(self) -> StopReport:
        """Wait until the server has stopped; warns ForcedStopWarning, raises no handler's error."""
        return self._finish_stop(begun=False)

    def _finish_stop(self, *, begun: bool) -> StopReport:
        report = self._lifecycle.finish_stop(begun=begun)
        if report.rung not in ("ask", "died", "none"):
            warnings.warn(f"{self.describe()} {report}", ForcedStopWarning, stacklevel=4)
        elif report.running:
            text = (
                f"{self.describe()} has stopped, and a handler of it runs on, which nothing can "
                f"end from outside: {'; '.join(report.running)}. Have it wait for an event such as "
                "request.client_gone, or filter LeftRunningWarning"
            )
            warnings.warn(text, LeftRunningWarning, stacklevel=4)
        return report

    def _last_report(self) -> StopReport:
        lifecycle = self._lifecycle
        return StopReport(rung="foreign") if lifecycle.forked_copy else lifecycle.report

    def _not_stopped_here(self, deadline: Deadline) -> StopReport:
        lifecycle = self._lifecycle
        if not lifecycle.forked_copy and lifecycle.moving():
            if lifecycle.backend is not None and lifecycle.backend.in_handler():
                return StopReport(rung="underway")
            if not lifecycle.settle(deadline):
                raise StateError(f"another thread has not finished with {self.describe()} yet")
        return self._last_report()

    def _leave(self) -> None:
        __tracebackhide__ = True
        leave_all(self.stop, [self])

    def _break_off(self) -> None:
        settle_all([self])
        self.stop()

    def _stop_quietly(self) -> None:
        if self.begin_stop(self.stop_timeout):
            self.finish_stop()

    def restart(self) -> Self:
        """Stop and start again on the same port; what was received is kept.

        It starts again whatever the stop has to report, and raises that afterwards: ServerDied if
        the process had ended on its own, the exception of a handler, or an ExceptionGroup of all.
        Raises StartError if it cannot start; then the next ``stop`` raises what this one had to.
        """
        __tracebackhide__ = True
        if self._bound and not isinstance(self._bound[0], str):
            self._listen = self._listen.at_port(int(self._bound[0][1]))
        forced: Warning | None = None
        try:
            self._stop(Deadline(self.stop_timeout))
        except (ForcedStopWarning, LeftRunningWarning) as warning:  # where warnings are errors
            forced = warning
        self.start()
        if (error := self._new_error(with_death=True)) is not None:
            raise error
        if forced is not None:
            raise forced
        return self

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        lifecycle: Lifecycle | None = getattr(self, "_lifecycle", None)
        if lifecycle is None or lifecycle.backend is None:
            # Of what is declared. Import nothing here: another import may be going on.
            if (note := self.__dict__.get("_note_gone")) is not None and not finalizing():
                note(self)
            return
        if finalizing() or lifecycle.forked_copy:
            return  # at the end of this process the server's ends by itself
        try:
            warnings.warn(f"{self!r} was never stopped", ResourceWarning, source=self, stacklevel=2)
        finally:
            lifecycle.drop()


def _explaining() -> Any:
    """The module ``explaining``; ``None`` for a signal handler that has come into its import."""
    with importing_once():
        from . import explaining
    return explaining if hasattr(explaining, "scene_of") else None  # the last in it
