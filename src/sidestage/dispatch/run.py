"""One run of a server, from its start to its stop: the child, its events, its handlers.

A server object may start again and again; what belongs to one time between start and stop is
here, so that nothing of it can reach the next. Whatever a handler of an earlier run still sends
ends here with ServerStopped.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
import logging
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ServerDied, ServerStopped, SidestageError
from ..journal.facts import Diagnostic
from ..journal.failures import note
from ..pristine.waits import Deadline
from ..process.channel import NEVER, ChannelClosed
from ..process.pool import Child
from ..wire import messages as wire
from . import stacks
from .calls import ClientLeft, Exchange, Link
from .coroutines import CoroutineRunner
from .threads import Dispatcher, Job

if TYPE_CHECKING:
    import asyncio

# Over all runs: what an earlier one asked of the same child is never taken for a later answer.
_tokens = itertools.count(1)
_current: contextvars.ContextVar[Exchange] = contextvars.ContextVar("sidestage_exchange")
_SETTLE_SECONDS = 0.1  # for a handler to notice that its client is gone
_LOOP_SECONDS = 1.0  # for a loop of ours to end; a coroutine that blocks it is left behind
_LEAST_SECONDS = 0.1  # of these, also where the stop's time is over
_EXIT_SECONDS = 1.0  # for a process whose pipe has ended to have ended itself


class Owner(Protocol):
    """What a run needs of its server."""

    def describe(self) -> str:
        """The server as a person would name it."""
        ...

    def _handle(self, request: Any) -> Any:
        """Call the handler."""
        ...

    def _handler_failed(self, error: BaseException) -> None:
        """A handler raised."""

    def _diagnosed(self, diagnostic: Diagnostic) -> None:
        """A client misbehaved."""

    def _dropped(self, count: int) -> None:
        """The child had to drop records."""

    def _died(self) -> None:
        """The child is gone without having been asked to."""


class _Nobody:
    """In the place of a server that nobody holds any more: it is being ended."""

    def describe(self) -> str:
        return "a server that was never stopped"

    def _handle(self, request: Any) -> Any:
        raise ServerStopped(f"this belongs to {self.describe()}")

    def _handler_failed(self, error: BaseException) -> None:
        pass

    def _diagnosed(self, diagnostic: Diagnostic) -> None:
        pass

    def _dropped(self, count: int) -> None:
        pass

    def _died(self) -> None:
        pass


_NOBODY = _Nobody()


def _nothing(link: Link, message: Any) -> None:
    """What becomes of a message that comes after the end."""


class Run:
    """A child that serves, as the parent knows it."""

    def __init__(
        self,
        owner: Owner,
        child: Child,
        loop: asyncio.AbstractEventLoop | None,
        opener: Callable[[Link, Any], Exchange | None],
    ) -> None:
        self.child = child
        self.addresses: list[wire.Address] | None = None
        self.failure: wire.Failed | None = None
        self.stopped: wire.Stopped | None = None
        self.death: ServerDied | None = None
        self.stopping = False
        self.over = False
        self.finished = 0  # exchanges
        self.dispatcher = Dispatcher(child.channel, self)
        self._owner_ref = weakref.ref(owner)  # idle threads must not keep a forgotten server
        self._opener = opener
        self._exchanges: dict[int, Exchange] = {}
        self._draining = False
        self._synced = 0
        self._context = contextvars.copy_context()
        self._coroutines = CoroutineRunner(loop)

    @property
    def _owner(self) -> Owner:
        return self._owner_ref() or _NOBODY

    def answered(self) -> bool:
        """Whether the child has said how binding went."""
        return self.addresses is not None or self.failure is not None

    # To the child ------------------------------------------------------------------------------

    def send(self, *messages: wire.Message, deadline: Deadline = NEVER) -> None:
        """Send to the child; raises ServerStopped when the run is over, TimeoutError too late."""
        if self.over:
            raise self._gone()
        try:
            self.child.channel.send(*messages, deadline=deadline)
        except ChannelClosed:
            raise self._gone() from None

    def _gone(self) -> ServerStopped:
        return ServerStopped(f"{self._owner.describe()} has stopped, so its clients are gone")

    def confirm(self, message: Callable[[int], wire.Message], deadline: Deadline) -> bool:
        """Send a message that is made with a token, and wait until the child has confirmed it."""
        token = next(_tokens)
        try:
            self.send(message(token), deadline=deadline)
        except TimeoutError:  # it does not even read
            return False
        return self.dispatcher.wait_until(lambda: self._synced >= token, deadline)

    def ask_to_stop(self, drain: float, deadline: Deadline) -> None:
        """Have the child stop, draining for at most ``drain`` seconds; waits for no answer."""
        self.stopping = True
        stop = wire.Stop(drain=drain, spare=self.current_call(), finished=self.finished)
        with contextlib.suppress(ChannelClosed, TimeoutError):
            self.child.channel.send(stop, deadline=deadline)

    def sync(self, deadline: Deadline) -> None:
        """See to it that all that the child knows is known here."""
        if self.dispatcher.finished:
            return
        try:
            self.confirm(lambda token: wire.Sync(token=token), deadline)
        except ServerStopped:  # it does not read any more: then its own pipe ends, too
            self.dispatcher.wait_until(lambda: False, deadline)

    def start_handling(self, deadline: Deadline) -> None:
        """Run handlers from now on."""
        self.dispatcher.start_threads(lambda: self._switch(True, deadline))

    def stop_handling(self, deadline: Deadline) -> None:
        """Have the child answer by itself from now on."""
        self._switch(False, deadline)

    def _switch(self, on: bool, deadline: Deadline) -> None:
        self.confirm(lambda token: wire.Handle(on=on, token=token), deadline)

    def recorded(self) -> None:
        """A record was made outside of an event: wake who waits for it."""
        self.dispatcher.changed.notify()

    # From the child ----------------------------------------------------------------------------

    def event(self, message: wire.Event) -> Job | None:
        """Take note of an event; returns what is to be run for it, if anything."""
        return _REACTIONS[type(message)](self, message)

    def _hello(self, message: wire.Hello) -> None:
        if message.version != wire.WIRE_VERSION:
            raise SidestageError(
                f"the server's process speaks version {message.version} of the wire, this one "
                f"{wire.WIRE_VERSION}: Sidestage was replaced while it ran; start the tests again"
            )

    def _ready(self, message: wire.Ready) -> None:
        self.addresses = message.addresses

    def _failed(self, message: wire.Failed) -> None:
        self.failure = message

    def _note_synced(self, message: wire.Synced) -> None:
        self._synced = max(self._synced, message.token)

    def _overdue(self, message: wire.Overdue) -> None:
        with contextlib.suppress(ServerStopped):
            self.send(wire.Postpone(token=message.token, wanted=stacks.at_prompt()))

    def _note_stopped(self, message: wire.Stopped) -> None:
        self.stopped = message
        self.dispatcher.finish()

    def _dropped(self, message: wire.Dropped) -> None:
        self._owner._dropped(message.count)

    def _log(self, message: wire.LogLine) -> None:
        logging.getLogger(message.name).log(message.level, "%s", message.text)

    def _diagnostic(self, message: wire.Diagnostic) -> None:
        self._owner._diagnosed(Diagnostic(client_address=message.peer, text=message.text))

    def _note_draining(self, message: wire.Draining) -> None:
        self._draining = True
        for exchange in list(self._exchanges.values()):
            exchange.stopping(self._gone())
        self._release_child()

    def _open(self, message: Any) -> Job | None:
        exchange = self._opener(self, message)
        if exchange is None:
            return None
        self._exchanges[exchange.call] = exchange
        if self._draining:
            exchange.stopping(self._gone())
        return functools.partial(self._invoke, exchange)

    def _stream_event(self, message: wire.Data | wire.End | wire.Ack | wire.Lost) -> None:
        exchange = self._exchanges.get(message.call)
        if exchange is not None:
            exchange.event(message)

    def defect(self, error: BaseException) -> None:
        """Taking note of an event has failed: nothing is lost silently."""
        self._owner._handler_failed(error)

    def disconnected(self) -> None:
        """The pipe from the child has ended."""
        for exchange in list(self._exchanges.values()):
            exchange.broken(self._gone())
        if self.over:
            return
        process = self.child.process
        if not process.wait(Deadline(_EXIT_SECONDS)):  # what it sent was no frame of ours
            process.kill()
            process.wait(Deadline(_EXIT_SECONDS))
        self.mourn()

    def mourn(self) -> None:
        """The process has ended, and nobody had asked it to."""
        process = self.child.process
        self.death = ServerDied(
            self._owner.describe(),
            pid=process.launched.pid,
            exit_code=process.exit_code,
            stderr=self.child.stderr_tail(),
        )
        self._owner._died()

    # Handlers ----------------------------------------------------------------------------------

    def _invoke(self, exchange: Exchange) -> None:
        __tracebackhide__ = True
        if self.over:  # nobody would hear of it; the report names it
            return
        context = self._context.copy()
        try:
            if (coroutine := context.run(self._call, exchange)) is not None:
                done = functools.partial(self._awaited, exchange, context)
                self._coroutines.submit(coroutine, context, done)
                return
        except BaseException as error:  # noqa: BLE001 - raised in the test, at the stop
            self._failed_handler(exchange, error)
        self.forget(exchange)

    def _call(self, exchange: Exchange) -> Awaitable[Any] | None:
        """Call the handler, and answer; returns what is to be awaited first, if anything."""
        __tracebackhide__ = True
        _current.set(exchange)
        result = self._owner._handle(exchange.request)
        if isinstance(result, Awaitable):
            return result
        exchange.complete(result)
        return None

    def _awaited(
        self, exchange: Exchange, context: contextvars.Context, task: asyncio.Future[Any]
    ) -> None:
        # On the loop: what follows may block, so a handler thread has to do it.
        self.dispatcher.run_soon(functools.partial(self._complete, exchange, context, task))

    def _complete(
        self, exchange: Exchange, context: contextvars.Context, task: asyncio.Future[Any]
    ) -> None:
        try:
            context.run(lambda: exchange.complete(task.result()))
        except BaseException as error:  # noqa: BLE001 - raised in the test, at the stop
            self._failed_handler(exchange, error)
        self.forget(exchange)

    def _failed_handler(self, exchange: Exchange, error: BaseException) -> None:
        if isinstance(error, ServerStopped) and (self.stopping or self.over):
            pass  # as it is to be; but the child is not to wait for more
        elif isinstance(error, ClientLeft):
            text = f"the client left before the handler was done with {exchange.describe()}"
            self._owner._diagnosed(Diagnostic(client_address=exchange.client_address, text=text))
        else:
            note(
                error,
                f"raised by the handler of {self._owner.describe()} "
                f"for {exchange.describe()} from {exchange.client_address or 'an unnamed client'}",
            )
            self._owner._handler_failed(error)
        with contextlib.suppress(ServerStopped, ConnectionError):  # nobody is there to be told
            exchange.fail(error)

    def forget(self, exchange: Exchange) -> None:
        """No event for this exchange matters any more."""
        if self._exchanges.pop(exchange.call, None) is not None:
            self.finished += 1
            self.dispatcher.changed.notify()
        if self._draining:
            self._release_child()

    def _release_child(self) -> None:
        """While it drains, the child waits for handlers that it does not know of (UDP)."""
        if not self._exchanges and not self.over and self.stopped is None:
            try:
                self.send(wire.Close(call=0, reset=False))
            except ServerStopped:
                return

    def settle(self, deadline: Deadline) -> None:
        """Let the handlers finish that the child does not wait for, as their clients are gone.

        What they do now is raise an error or return; one that does neither is not waited for.
        """
        spared = self.current_call()
        self.dispatcher.changed.wait_until(
            lambda: not self._exchanges.keys() - {spared}, deadline.sooner(_SETTLE_SECONDS)
        )

    def current_call(self) -> int:
        """The call of this run whose handler is the caller; 0 if none is."""
        exchange = _current.get(None)
        return exchange.call if exchange is not None and exchange.link is self else 0

    def unfinished(self) -> list[Exchange]:
        """The exchanges that were open at the stop, beside those that the child has told of."""
        exchanges = list(self._exchanges.values())
        if self.stopped is None:
            return exchanges
        return [exchange for exchange in exchanges if not exchange.drained_by_child]

    # The end -----------------------------------------------------------------------------------

    def detach(self, seconds: float = _LOOP_SECONDS) -> None:
        """Cut every tie between this run's handlers and the child; never waits for a handler.

        A loop of ours that runs coroutine handlers has ``seconds`` to end.
        """
        self.over = True
        for exchange in list(self._exchanges.values()):
            exchange.broken(self._gone())
        self.dispatcher.close()
        self._coroutines.close(Deadline(min(max(_LEAST_SECONDS, seconds), _LOOP_SECONDS)))
        self._opener = _nothing  # it has the records, and one of those may have this run

    def wait_for_threads(self) -> None:
        """Let those begin that were started."""
        self.dispatcher.wait_for_threads()

    def park(self) -> None:
        """Before a fork: have no idle thread."""
        self.dispatcher.park()
        self._coroutines.park()

    def resume(self) -> None:
        """After a fork: go on."""
        self.dispatcher.resume()
        self._coroutines.resume()

    def forget_all(self) -> None:
        """In a forked copy: let go of everything, touch nothing of the original's."""
        self.over = True
        self.dispatcher.forget()
        self._coroutines.forget()
        self.child.process.close()


_REACTIONS: dict[type, Callable[[Run, Any], Job | None]] = {
    wire.Hello: Run._hello,
    wire.Ready: Run._ready,
    wire.Failed: Run._failed,
    wire.Synced: Run._note_synced,
    wire.Overdue: Run._overdue,
    wire.Dropped: Run._dropped,
    wire.Draining: Run._note_draining,
    wire.Stopped: Run._note_stopped,
    wire.Diagnostic: Run._diagnostic,
    wire.LogLine: Run._log,
    **dict.fromkeys((wire.Data, wire.End, wire.Ack, wire.Lost), Run._stream_event),
    **dict.fromkeys(
        (wire.Request, wire.MailIn, wire.Opened, wire.Packet, wire.TranscriptIn), Run._open
    ),
}
