"""A server that runs in a child process: takes a child, configures it, and ends or returns it.

A start that fails leaves nothing: its child goes back to the pool if it only could not bind, and
is ended otherwise.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..errors import ServerDied, SidestageError, StartError, StartTimeout, StateError
from ..journal.facts import OpenNow, StopReport
from ..pristine.imports import importing_once
from ..pristine.waits import Deadline, NotInTime
from ..process import fork_hooks
from ..process.launch import new_pid_namespace
from ..process.pool import end, pool
from .base import Layer, Limits, Plan

if TYPE_CHECKING:
    from ..dispatch.calls import Call, Protocol
    from ..dispatch.run import Run
    from ..journal.stats import ServerStats
    from ..pristine.socketfile import SocketFile
    from ..process.channel import Channel
    from ..process.pool import Child
    from ..wire import messages as wire
    from ..wire.messages import Message
    from .ladder import Ladder, Rungs

_EXIT_SECONDS = 5.0  # for a process that psutil finds no more to be known as dead
_AHEAD_SECONDS = 0.05  # to bind a port and say so, which takes a twentieth of a millisecond
_FIRST_FREE_TO_ALL = 1024  # the first port that needs no privilege
_ROOT = __name__.partition(".")[0]


class HostedBackend:
    """One run of a server in a child process."""

    def __init__(self, plan: Plan, rungs: Rungs | None = None) -> None:
        self.run: Run | None = None
        self._plan = plan
        self._outside = plan.is_outside
        self._rungs = rungs
        self._ladder: Ladder | None = None
        self._file: SocketFile | None = None
        self._handled = False  # as the child was told
        self._declared = 0  # the position of what is declared, as the child was told
        self._configuration: wire.Configure | None = None
        self._ahead: list[wire.Address] | None = None  # what the child had bound ahead

    @property
    def death(self) -> ServerDied | None:
        run = self.run
        return None if run is None else run.death

    @property
    def pid(self) -> int | None:
        run = self.run
        return None if run is None else run.child.process.launched.pid

    # Start ---------------------------------------------------------------------------------------

    def begin(self, deadline: Deadline) -> None:
        plan = self._plan
        try:
            fork_hooks.wait_for_launch(deadline)
            with fork_hooks.launch_lock:
                child = self._resumed(deadline) or pool.acquire(
                    functools.partial(self._configure, deadline),
                    serves=None if self._outside else _folders(plan),
                    fresh=plan.fresh or self._outside,
                    needs_rights=plan.path is not None or 0 < plan.port < _FIRST_FREE_TO_ALL,
                    deadline=deadline,
                )
                child.configured = self._configuration
                run_class, _, _ = _serving()
                self.run = run_class(
                    child,
                    _with_layers(_protocol(plan.call_module), plan.layers),
                    slot=plan.slot,
                    journal=plan.journal,
                    label=plan.label,
                    ready=plan.ready,
                    loop=plan.loop,
                )
                self.run.addresses, self.run.handled = self._ahead, self._handled
                self.run.declared = self._declared
                fork_hooks.live.add(self.run)
        except OSError as error:
            raise self._failed_by(error) from error.__cause__

    def _resumed(self, deadline: Deadline) -> Child | None:
        """An idle child that has bound ahead for a server like this, and serves it from now on."""
        plan = self._plan
        if plan.port or plan.path is not None or plan.fresh or self._outside or not pool.idle:
            return None
        wanted = self._configuration = self._new_message()

        def suits(child: Child) -> bool:
            return child.configured == wanted and self._find_ahead(child)

        resumed = None
        try:
            resumed = pool.resume(suits, functools.partial(self._send, deadline, None))
        except _wire().ChannelClosed:  # it has died in this moment
            pass
        if resumed is None:
            self._ahead = None
        return resumed

    def _find_ahead(self, child: Child) -> bool:
        """Whether an idle child has bound ahead; if it has, ``_ahead`` is what."""
        wire, channel = _wire(), child.channel
        try:
            # It may have come together with the end of the last stop.
            if not child.events and child.ahead_comes:
                channel.receive_into(child.events)
                # A moment after that, it is quicker to wait than to have it bind again.
                if not child.events:
                    channel.poll(Deadline(_AHEAD_SECONDS))
                    channel.receive_into(child.events)
        except (wire.ChannelClosed, wire.WireError):
            pass  # whoever takes it finds out what is wrong
        found: list[Any] = [event for event in child.events if isinstance(event, wire.Ahead)]
        for event in found:
            child.events.remove(event)
        addresses = found[-1].addresses if found else []
        self._ahead = addresses if all(map(wire.is_address, addresses)) else None
        return bool(self._ahead)

    def _configure(self, deadline: Deadline, channel: Channel) -> None:
        channel.buffer.learn(_protocol(self._plan.call_module).vocabulary.events)
        for layer in self._plan.layers:
            channel.buffer.learn(_layer(layer.name).events)
        self._ahead = None
        with contextlib.suppress(_wire().ChannelClosed):  # it died: the wait for Ready reports it
            if self._configuration is None:
                self._configuration = self._new_message()
            self._send(deadline, self._configuration, channel)

    def _new_message(self) -> wire.Configure:
        plan = self._plan
        vocabulary = _protocol(plan.call_module).vocabulary
        made: wire.Configure = _wire().Configure(
            protocol=plan.protocol,
            settings=_wire().pack(vocabulary.settings(**plan.settings)),
            host=plan.host,
            port=plan.port,
            path=plan.path,
            cwd=plan.directory,
            poll_interval=plan.poll_interval,
            handler_timeout=plan.handler_timeout,
            keep=plan.keep,
            backlog=plan.backlog,
            _outside=plan.outside,
            layers=tuple([(layer.name, _wire().pack(layer.settings())) for layer in plan.layers]),
            _layers=plan.outside_layers,
        )
        return made

    def _send(self, deadline: Deadline, first: wire.Configure | None, channel: Channel) -> None:
        """Have a child serve as ``first`` says, or as it has bound ahead."""
        wire = _wire()
        messages: list[Message] = [wire.Resume() if first is None else first]
        self._handled = self._plan.slot.handler is not None
        if self._handled:
            messages.append(wire.Handle(on=True))
        if (table := self._plan.slot.declared) is not None:
            declared, self._declared = table.whole()
            messages += declared
        try:
            channel.write(tuple(messages), deadline)
        except NotInTime:  # it does not even read
            raise self._not_in_time() from None

    def finish(self, deadline: Deadline) -> list[wire.Address]:
        plan = self._plan
        try:
            run = self._bound(deadline)
            if plan.path is not None:
                path = plan.path if plan.directory is None else f"{plan.directory}/{plan.path}"
                _, _, socket_file = _serving()
                self._file = socket_file(path)
            self._handle(run, deadline)
        except OSError as error:
            raise self._failed_by(error) from error.__cause__
        return run.addresses or []

    def _handle(self, run: Run, deadline: Deadline) -> None:
        try:
            run.handle(self._plan.slot.handler is not None, deadline)
        except RuntimeError as error:
            if isinstance(error, SidestageError):
                raise
            raise self._without_thread(error) from error

    def _bound(self, deadline: Deadline) -> Run:
        run = self.run
        if run is None:  # by a signal handler, which came into this start
            raise self._stopped_meanwhile()
        if not run.answered():
            run.reader.wait_until(run.answered, deadline)
        if self.run is not run:
            raise self._stopped_meanwhile()
        # One that has bound ahead does not answer, so it may have died since it was taken.
        if run.addresses is not None and not (self._ahead and run.child.process.has_ended()):
            return run
        ended = run.child.waited and run.child.process.has_ended()
        if run.failure is not None:
            raise self._refused(run.failure)
        if run.reader.connected and not ended:
            raise self._not_in_time()
        if not run.child.waited:
            raise self._died(run) from run.death
        # It had died in the pool, where nobody could notice: take another.
        self.abandon()
        self.begin(deadline)
        return self._bound(deadline)

    def _stopped_meanwhile(self) -> StateError:
        return StateError(f"{self._plan.label} was stopped while it started")

    # Stop ----------------------------------------------------------------------------------------

    def ask(self, seconds: float) -> None:
        if (run := self.run) is not None:
            _, make_ladder, _ = _serving()
            reuse = not self._outside
            self._ladder = ladder = make_ladder(run, seconds, self._rungs, reuse=reuse)
            ladder.ask()

    def end(self) -> StopReport:
        run, ladder = self.run, self._ladder
        if run is None or ladder is None:  # a signal handler abandoned it
            return StopReport(rung="kill")
        report = ladder.climb()
        self._forget(run)
        return report

    def abandon(self) -> None:
        run = self.run
        if run is None:
            return
        run.ended = True
        bound = run.failure is None
        if not bound and run.reader.connected and not self._outside:
            run.detach(Deadline(0.0))
            if run.retire(Deadline(0.0)) and run.claim("returned"):
                pool.release(run.child)
            else:
                end([run.child])
        elif run.claim("ended"):
            run.child.process.kill()  # first: a collection may come anywhere; this needs no lock
            run.detach(Deadline(0.0))
            end([run.child])
        self._forget(run)

    def _forget(self, run: Run) -> None:
        self.run = None
        fork_hooks.live.discard(run)
        if self._file is not None:  # the child could not, if it was killed
            self._file.remove(closed=True)

    # While it serves -----------------------------------------------------------------------------

    def sync(self, deadline: Deadline) -> None:
        if (run := self.run) is not None:
            run.sync(deadline)

    def catch_up(self, deadline: Deadline) -> None:
        if (run := self.run) is not None:
            run.catch_up(deadline)

    def wait_until(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        run = self.run
        return run is not None and run.reader.wait_until(condition, deadline)

    def wake(self) -> None:
        if (run := self.run) is not None:
            run.reader.changed.notify()

    def under_way(self) -> list[str]:
        return [] if (run := self.run) is None else run.under_way()

    def handle(self, on: bool, deadline: Deadline) -> None:
        if (run := self.run) is not None:
            run.handle(on, deadline)

    def change(self, limits: Limits, deadline: Deadline) -> None:
        if (run := self.run) is not None:
            run.change(limits.handler_timeout, limits.keep, deadline)

    def in_handler(self) -> bool:
        run = self.run
        return run is not None and run.current_call() != 0

    def facts(self) -> ServerStats:
        with importing_once():
            import psutil

            from ..journal.stats import ServerStats

        run = self.run
        if run is not None:
            with contextlib.suppress(psutil.Error):
                return ServerStats(**run.child.process.usage())
            run.sync(Deadline(_EXIT_SECONDS))
            if run.death is not None:
                raise run.death.with_traceback(None)
        raise StateError(f"{self._plan.label} has no process")

    def open_now(self, deadline: Deadline) -> OpenNow:
        run = self.run
        if run is None:
            return OpenNow()
        with contextlib.suppress(ImportError):  # a signal handler has come into it
            with importing_once():
                from ..dispatch.under_way import under_way
            return under_way(run, deadline)
        return OpenNow(silent=True)

    def stderr_tail(self) -> str:
        run = self.run
        return "" if run is None else run.child.stderr_tail()

    # Errors --------------------------------------------------------------------------------------

    def _failed_by(self, error: OSError) -> OSError:
        """``error`` as a start raises it: what the system refuses is a StartError."""
        if isinstance(error, SidestageError):
            return error
        if isinstance(error, NotInTime):  # another thread is still launching a process
            return self._not_in_time()
        if error.errno is None:  # a signal handler of the test has raised it
            return error
        return StartError(
            error.errno,
            f"{self._plan.label.title()} could not start: {error.strerror or error}"
            f"{_relief(error.errno)}",
            address=self._plan.asked,
        ).with_traceback(error.__traceback__)

    def _refused(self, failure: wire.Failed) -> StartError:
        plan = self._plan
        return StartError(
            failure.errno,
            f"{plan.label.title()} cannot listen on {plan.asked!r}: {failure.text}"
            f"{_advice(failure.errno, plan.asked)}",
            address=plan.asked,
        )

    def _not_in_time(self) -> StartTimeout:
        return StartTimeout(
            errno.ETIMEDOUT,
            f"{self._plan.label.title()} was not ready within its start_timeout; is the machine "
            "overloaded? A larger start_timeout gives it more",
            address=self._plan.asked,
        )

    def _without_thread(self, error: RuntimeError) -> StartError:
        if new_pid_namespace():
            cure = "a process that has entered a new PID namespace has to fork first"
        else:
            cure = "raise the limit for processes and threads (ulimit -u)"
        return StartError(
            errno.EAGAIN,
            f"{self._plan.label.title()} could not start a thread for its handler: {error}; {cure}",
            address=self._plan.asked,
        )

    def _died(self, run: Run) -> StartError:
        how = "ended" if run.death is None else run.death.how
        return StartError(
            errno.ECHILD,
            f"the process of {self._plan.label.title()} {how} before it was ready",
            address=self._plan.asked,
            stderr=run.child.stderr_tail(),
        )


def _advice(number: int | None, address: object) -> str:
    if not isinstance(address, (tuple, list)):
        if number == errno.EADDRINUSE:
            return "; a server listens on that path, or it is another kind of file"
        return "; it is taken for the path of a Unix socket"
    if number == errno.EADDRINUSE:
        return "; that port is taken, port 0 never clashes"
    if number == errno.EACCES:
        return "; ports below 1024 need privileges, port 0 does not"
    return ""


def _relief(number: int | None) -> str:
    if number in (errno.EMFILE, errno.ENFILE):
        return "; close some descriptors, or raise the limit (ulimit -n)"
    return ""


# What follows is imported once a child boots, and kept: it takes time to import, and by then a test
# may stand in the way.


@functools.cache
def _wire() -> Any:
    """The parts of the wire that are used here."""
    with importing_once():
        from ..process.channel import ChannelClosed
        from ..wire.frames import WireError, pack
        from ..wire.messages import Ahead, Configure, Handle, Resume
        from ..wire.values import is_address

    return SimpleNamespace(
        Ahead=Ahead,
        ChannelClosed=ChannelClosed,
        Configure=Configure,
        Handle=Handle,
        Resume=Resume,
        WireError=WireError,
        is_address=is_address,
        pack=pack,
    )


@functools.cache
def _serving() -> tuple[type[Run], type[Ladder], type[SocketFile]]:
    with importing_once():
        from ..dispatch.run import Run
        from ..pristine.socketfile import SocketFile
        from .ladder import Ladder

    return Run, Ladder, SocketFile


@functools.cache
def _protocol(call_module: str) -> Protocol:
    with importing_once():
        protocol: Protocol = importlib.import_module(call_module).PROTOCOL
    return protocol


def _folders(plan: Plan) -> str:
    """What a process will serve, as the pool takes it."""
    return ",".join([plan.protocol, *(layer.name for layer in plan.layers)])


@functools.cache
def _layer(name: str) -> wire.Vocabulary:
    with importing_once():
        vocabulary: wire.Vocabulary = importlib.import_module(
            f"{_ROOT}.layers.{name}.messages"
        ).VOCABULARY
    return vocabulary


def _with_layers(protocol: Protocol, layers: tuple[Layer, ...]) -> Protocol:
    """``protocol`` where the events of ``layers`` are answered by them."""
    asking = [layer for layer in layers if layer.asks]
    if not asking:
        return protocol
    answers = {kind: layer.answer for layer in asking for kind in _layer(layer.name).events}

    def opened(run: Run, message: Any, journal: Any) -> Call | None:
        if (answer := answers.get(type(message))) is None:
            return protocol.open(run, message, journal)
        run.try_send(answer(message))
        return None

    return protocol._replace(open=opened, asks=True)


def prepare() -> None:
    """Do ahead what a first start would have to: a child, and the imports of this process."""
    pool.warm()
    with importing_once():
        import pkgutil

        package = importlib.import_module(f"{_ROOT}.protocols")
        names = [found.name for found in pkgutil.iter_modules(package.__path__)]
        protocols = [_protocol(f"{_ROOT}.protocols.{name}.call") for name in names]
        importlib.import_module(f"{_ROOT}.process.fork_client")
        importlib.import_module("psutil")  # for a stop that has to go further than to ask
    _wire()
    _serving()
    for child in pool:
        for protocol in protocols:
            child.channel.buffer.learn(protocol.vocabulary.events)
