"""One run of a server, from its start to its stop: events in, commands out, calls of the handler.

A server may start again and again; what belongs to one run is here, so that nothing of it can
reach the next. Whatever a handler of an earlier run still sends ends here with ServerStopped.
A run writes to the journal and calls the handler slot; it knows no server.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ServerDied, ServerStopped, SidestageError
from ..journal.facts import Diagnostic, Label
from ..journal.journal import OURS, Journal
from ..pristine import system
from ..pristine.waits import Deadline, Event, NotInTime
from ..process.channel import LEAST_PIPE, NEVER, ChannelClosed
from ..process.pool import Child
from ..wire import messages as wire
from ..wire.credit import LEAST_ROOM
from ..wire.frames import Undecoded
from ..wire.values import is_address
from . import declared, stacks
from .calls import Call, ClientLeft, Protocol, current
from .coroutines import CoroutineRunner, Running
from .leaving import SECONDS
from .reader import Job, Reader
from .slot import Slot
from .streams import Unacknowledged
from .threads import HandlerThreads

if TYPE_CHECKING:
    import asyncio

# Over all runs: what an earlier one asked of the same child is never taken for a later answer.
_tokens = itertools.count(1)
_LOOP_SECONDS = 1.0  # for a loop of ours to end; a coroutine that blocks it is left behind
_LEAST_SECONDS = 0.1  # of these, also where the stop has no time left
_EXIT_SECONDS = 1.0  # for a process whose pipe has ended to have ended itself


Fate = Literal["returned", "ended"]  # of the child, at the end of the run


def _drop(run: Run, message: Any, journal: Journal[Any]) -> None:
    """Open nothing for a message that comes after the end."""


def _tell_full(journal: Journal[Any], count: int) -> None:
    """No more than ``count`` handlers may run, and more would have to."""
    _diagnose(journal, f"{count} handlers run: more of them wait until some have returned")


def _diagnose(journal: Journal[Any], text: str) -> None:
    journal.diagnosed(Diagnostic(client_address=OURS, text=text))


class Run:
    """A child that serves, as the test's process knows it."""

    # Here, because an instance with more than thirty attributes takes twice as long to make.
    addresses: list[wire.Address] | None = None
    failure: wire.Failed | None = None
    stopped: wire.Stopped | None = None
    death: ServerDied | None = None
    stopping = False
    ended = False
    broken = False  # no handler can answer any more: the child has ended
    handled = False  # whether the child was told to have handlers called
    declared = 0  # the position of what is declared up to which the child was told
    finished = 0  # calls
    held = 0  # bytes of requests that the child does not count
    patience = NEVER  # with handlers whose clients are gone, in a stop
    _draining = False
    _child_waits = False  # in its drain, for no handler to be running
    _synced = 0
    _described: wire.Described | None = None  # the last answer to Describe
    _drops = False  # requests, until half of what is held is done
    _coroutines: CoroutineRunner | None = None  # until a handler is a coroutine
    _fate: Fate | None = None

    def __init__(
        self,
        child: Child,
        protocol: Protocol,
        *,
        slot: Slot,
        journal: Journal[Any],
        label: Label,
        ready: Event,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self.child = child
        self.slot = slot
        self.journal = journal
        self.label = label
        self.context = contextvars.copy_context()
        self.reader = Reader(child.channel, self, child.events)
        child.events, child.ahead_comes = [], False
        child.channel.behind = False  # whatever the run before has left: it was read to its end
        # Not a method of this, which would be a cycle.
        full = functools.partial(_tell_full, journal)
        self.threads = HandlerThreads(self.reader, protocol.at_once, full, child.process)
        self._open_call = protocol.open
        self._tells_first = protocol.tells_first
        self._asks = protocol.asks
        self._ready_event = ready
        self._loop = loop
        self._calls: dict[int, Call] = {}
        # Of all answers that are streams.
        self.unacknowledged = Unacknowledged(max(journal.keep, LEAST_ROOM))
        self._user = child.channel.user
        self._guard = system.RLock()

    def answered(self) -> bool:
        """Whether the child has said how binding went."""
        return self.addresses is not None or self.failure is not None

    def has_stopped(self) -> bool:
        """Whether the child has stopped serving."""
        return self.stopped is not None

    # To the child ------------------------------------------------------------------------------

    def send(self, *messages: wire.Message, deadline: Deadline = NEVER) -> None:
        """Send to the child; raises ServerStopped when the run has ended, TimeoutError too late.

        Raises TypeError, ValueError or OverflowError for what no message can carry.
        """
        if self.ended:
            raise self.gone()
        try:
            self.child.channel.write(messages, deadline, self._user)
        except ChannelClosed:
            self.broken = True
            raise self.gone() from None

    def try_send(self, *messages: wire.Message) -> None:
        """Send to the child, unless the run has ended."""
        with contextlib.suppress(ServerStopped):
            self.send(*messages)

    def gone(self) -> ServerStopped:
        """What tells that the run has ended."""
        return ServerStopped(f"{self.label} has stopped, so its clients are gone")

    def confirm(self, message: Callable[[int], wire.Message], deadline: Deadline) -> bool:
        """Send a message that is made with a token, and wait until the child has confirmed it."""
        token = next(_tokens)
        try:
            self.send(message(token), deadline=deadline)
        except NotInTime:  # it does not even read
            return False
        return self.reader.wait_until(lambda: self._synced >= token, deadline)

    def ask_to_stop(self, drain: float, deadline: Deadline, *, ahead: bool = False) -> bool:
        """Have the child stop, draining for at most ``drain`` seconds; waits for no answer.

        With ``ahead`` it binds for the next server then. Returns whether it could be told, or has
        ended.
        """
        self.stopping = True
        self.patience = Deadline(SECONDS)
        declared.let_go(self)
        if self.threads.is_outside_handler():  # handlers may have to wait for the caller
            drain = 0.0
        stop = wire.Stop(
            drain=drain, caller=self.current_call(), finished=self.finished, ahead=ahead
        )
        try:
            self.child.channel.write((stop,), deadline, self._user)
        except ChannelClosed:
            pass
        except NotInTime:
            return False
        return True

    def sync(self, deadline: Deadline) -> None:
        """Make everything that the child knows known here."""
        if self.reader.finished:
            return
        channel, known = self.child.channel, False
        channel.behind = False  # first: it may be set again while the answer comes
        try:
            known = self.confirm(lambda token: wire.Sync(token=token), deadline)
        except ServerStopped:  # it does not read any more: then its own pipe ends, too
            self.reader.wait_until(lambda: False, deadline)
        finally:
            channel.behind |= not known

    def describe(self, deadline: Deadline) -> wire.Described | None:
        """The connections that are open, as the child sees them; ``None`` if it does not say."""
        if self.reader.finished:
            return None
        token = next(_tokens)

        def answered() -> bool:
            return self._described is not None and self._described.token >= token

        with contextlib.suppress(ServerStopped, NotInTime):
            self.send(wire.Describe(token=token), deadline=deadline)
            if self.reader.wait_until(answered, deadline):
                return self._described
        return None

    def calls(self) -> list[Call]:
        """The calls whose handlers have not returned, in order."""
        return list(self._calls.values())

    def call(self, id: int) -> Call | None:  # noqa: A002 - it is one
        """The call of that id, if its handler has not returned."""
        return self._calls.get(id)

    def catch_up(self, deadline: Deadline) -> None:
        """Make known here what the child has told before it answered its clients."""
        channel = self.child.channel
        ask = not self._tells_first or channel.behind or channel.small
        if not ask and not self.reader.finished:
            ask = not self.reader.catch_up(deadline) or channel.behind
        if ask:
            self.sync(deadline)

    def handle(self, on: bool, deadline: Deadline) -> None:
        """Run handlers for what clients send from now on, or have the child answer by itself.

        And have it know what is declared by now. One thread at a time may call it. Raises
        ServerStopped, TimeoutError at the deadline, and RuntimeError if no thread can be had.
        """
        table = self.slot.declared
        if on or self._asks or (table is not None and table.asks):
            self.threads.start(lambda: self.sync(deadline), deadline)
        if self.handled is not on:
            self.send(wire.Handle(on=on), deadline=deadline)
            self.handled = on
        if table is not None and table.position != self.declared:
            messages, position = table.since(self.declared)
            if messages:
                self.send(*messages, deadline=deadline)
            self.declared = position

    def change(self, handler_timeout: float | None, keep: int, deadline: Deadline) -> None:
        """Have the child keep to other limits; raises ServerStopped, TimeoutError."""
        self.unacknowledged.limit = max(keep, LEAST_ROOM)
        self.send(wire.Change(handler_timeout=handler_timeout, keep=keep), deadline=deadline)

    # From the child ----------------------------------------------------------------------------

    def event(self, message: wire.Message) -> Job | None:
        """Take an event; returns the call that it opens, if any."""
        reaction = _REACTIONS.get(type(message))
        if reaction is not None:
            return reaction(self, message)
        call = self._open_call(self, message, self.journal)
        if call is not None:
            self._calls[call.id] = call
            if self._draining:
                call.stopping(self.gone())
            if call.met is not None:
                return declared.opened(self, call, call.met)
        return call

    def _hello(self, message: wire.Hello) -> None:
        if message.version != wire.WIRE_VERSION:
            raise SidestageError(
                f"the server's process speaks version {message.version} of the wire, this one "
                f"{wire.WIRE_VERSION}: Sidestage was replaced while it ran; start the tests again"
            )
        self.child.channel.small = message.pipe < LEAST_PIPE

    def _ready(self, message: wire.Ready) -> None:
        if message.addresses and all(map(is_address, message.addresses)):
            self.addresses = message.addresses
        else:
            self.reader.disconnect("it told no address")

    def _failed(self, message: wire.Failed) -> None:
        self.failure = message

    def _note_synced(self, message: wire.Synced) -> None:
        self._synced = max(self._synced, message.token)

    def _note_described(self, message: wire.Described) -> None:
        self._described = message

    def _overdue(self, message: wire.Overdue) -> None:
        with contextlib.suppress(ServerStopped):
            self.send(wire.Postpone(token=message.token, wanted=stacks.at_prompt()))

    def _note_stopped(self, message: wire.Stopped) -> None:
        self.stopped = message
        self.child.ahead_comes = message.ahead
        self._tell_calls()
        self.threads.finish()

    def _note_ahead(self, message: wire.Ahead) -> None:
        if self.stopped is not None:  # else it is of an earlier run, and no longer true
            self.child.events.append(message)

    def _dropped(self, message: wire.Dropped) -> None:
        self.journal.dropped_elsewhere(message.count, message.diagnostics)

    def _log(self, message: wire.LogLine) -> None:
        self.journal.logged(f"{message.name}: {message.text}", at=message.at)
        logging.getLogger(message.name).log(message.level, "%s", message.text)

    def _diagnostic(self, message: wire.Diagnostic) -> None:
        self.journal.diagnosed(
            Diagnostic(client_address=message.peer, text=message.text),
            at=message.at,
            connection=message.connection,
        )

    def _note_draining(self, message: wire.Draining) -> None:
        self._child_waits = message.waits
        self._tell_calls()
        if message.waits:
            self._release_child()

    def _tell_calls(self) -> None:
        """Wake the handlers that wait for their clients: these have sent all they will."""
        if not self._draining:
            self._draining = True
            for call in list(self._calls.values()):
                call.stopping(self.gone())

    def _misread(self, message: wire.Misread) -> None:
        self.defect(
            SidestageError(f"the process of {self.label} could not read a message: {message.text}")
        )

    def _undecoded(self, message: Undecoded) -> None:
        """An event could not be read: tell the test, and end its call."""
        text = f"what the process of {self.label} sent could not be read: {message.text}"
        self.defect(SidestageError(text))
        if (call := self._calls.get(message.call)) is not None:
            call.broken(ClientLeft(text))
        elif message.call:
            with contextlib.suppress(ServerStopped):
                self.send(wire.Close(call=message.call, reset=True))

    def to_call(self, message: Any) -> None:
        """Give an event to its call; drop it if that has ended."""
        call = self._calls.get(message.call)
        if call is not None:
            call.event(message)

    def _lost(self, message: wire.Lost) -> None:
        """A call has ended in the child before its handler; tell when that has returned."""
        call = self._calls.get(message.call)
        if call is not None:
            if not call.gone:  # so far it had no reason to hurry
                self.patience = Deadline(SECONDS)
            call.client_gone()
            call.event(message)
            with self._guard:
                call.owes, idle = True, call.idle
            if idle:
                call.over = ClientLeft(f"the client {call.client_address} has left")
                call.answered_elsewhere()
                self.close_call(call)
                return
            if call.cancels and message.answered is None and (message.reset or self.stopping):
                self._cancel(call)
        if message.call not in self._calls:  # maybe only now
            self._tell_returned(message.call)

    def _note_gone(self, message: wire.Gone) -> None:
        """A client has stopped sending, and the server stops or the test holds its call."""
        if (call := self._calls.get(message.call)) is not None:
            call.client_closed = True
            if self.stopping or not call.is_held:
                call.client_gone()

    def rest(self, call: Call) -> bool:
        """Nothing of ours works at ``call`` any more; returns ``False`` if the child has ended it.

        In that case nobody but the caller closes it.
        """
        with self._guard:
            call.idle = not call.owes
        return call.idle

    def take_up(self, call: Call) -> bool:
        """The caller works at ``call``, which rests; returns ``False`` if it has ended.

        The caller closes it then.
        """
        with self._guard:
            rests, call.idle = call.idle and not call.owes, False
        return rests

    def _counts(self, message: wire.Counts) -> None:
        if (table := self.slot.declared) is not None:
            table.counted(message.met)

    def _chosen(self, message: wire.Chosen) -> Call | None:
        return declared.chosen(self, message)

    def _cancel(self, call: Call) -> None:
        call.cancel()
        if call.coroutine is not None:
            self.patience = Deadline(SECONDS)

    def _tell_returned(self, call: int) -> None:
        self.try_send(wire.Returned(call=call))

    def defect(self, error: BaseException) -> None:
        """Taking an event has failed: nothing is lost silently."""
        self.journal.failed(error)

    def disconnected(self, why: str) -> None:
        """The pipe from the child has ended; ``why`` as in ``Sink``."""
        self.broken = True
        for call in list(self._calls.values()):
            call.broken(self.gone())
        if self.ended:
            return
        process = self.child.process
        if why or not process.wait(Deadline(_EXIT_SECONDS)):
            why = why or "it has closed its pipe"
            process.kill()
            process.wait(Deadline(_EXIT_SECONDS))
        self.note_death(why)

    def note_death(self, why: str = "") -> None:
        """The process has ended, and nobody had asked it to; ``why`` this one has killed it."""
        process = self.child.process
        self.death = ServerDied(
            str(self.label),
            pid=process.launched.pid,
            exit_code=process.exit_code,
            stderr=self.child.stderr_tail(),
            why=why,
        )
        if self.addresses is not None:  # else the start fails, and says so itself
            self._ready_event.clear()
            self.journal.died(self.death)

    # Calls -------------------------------------------------------------------------------------

    def await_soon(
        self, call: Call, coroutine: Awaitable[Any], context: contextvars.Context
    ) -> None:
        """Have a coroutine handler run on its loop, and ``call`` answered then."""
        runner = self._coroutines or self._new_runner()
        call.awaits = coroutine
        self.threads.began_awaiting()

        def done(task: asyncio.Future[Any]) -> None:
            # On the loop: what follows may block, so a handler thread has to do it.
            self.threads.run_soon(functools.partial(call.awaited, context, task))

        call.coroutine = running = Running()
        if call.unwanted:
            running.mark()
        runner.submit(coroutine, context, done, running)

    def _new_runner(self) -> CoroutineRunner:
        """Make the runner; it may be late, for a handler that returns after the stop or in a fork.

        ``detach``, ``park`` and ``resume`` note what they do before they look for a runner, so
        either they see it or this sees the note.
        """
        with self._guard:
            if self._coroutines is None:
                self._coroutines = CoroutineRunner(self._loop)
            runner = self._coroutines
        if self.ended:
            runner.close(Deadline(0.0))  # it takes nothing then
        if self.reader.parked:
            runner.park()
            if not self.reader.parked:  # the fork is over meanwhile
                runner.resume()  # type: ignore[unreachable]  # not: other threads set it
        return runner

    def drop_request(self, why: str) -> None:
        """Count a request that gets no call, and tell of the first one."""
        self.journal.dropped_elsewhere(1)
        self.finished += 1
        if not self._drops:
            self._drops = True
            _diagnose(self.journal, f"{self.held} bytes of {why}")

    def hold(self, size: int, most: int) -> bool:
        """Count ``size`` bytes of a request until its call closes, unless they exceed ``most``."""
        with self._guard:
            fits = self.held + size <= most
            if fits:
                self.held += size
                self._drops &= 2 * self.held > most
        return fits

    def close_call(self, call: Call) -> None:
        """Drop every further event for ``call``."""
        if self._calls.pop(call.id, None) is not None:
            self.finished += 1
            self.reader.changed.notify()
        if call.owes:
            self._tell_returned(call.id)
        if call.holds:
            with self._guard:
                self.held -= call.holds
        if self._child_waits:
            self._release_child()

    def _release_child(self) -> None:
        """In its drain the child waits for handlers that may still reply."""
        if not self._calls and not self.ended and self.stopped is None:
            self._child_waits = False
            with contextlib.suppress(ServerStopped):
                self.send(wire.Idle())

    def current_call(self) -> int:
        """The id of the call of this run whose handler is the caller; 0 if none is."""
        call = current.get(None)
        return call.id if call is not None and call.run is self else 0

    def under_way(self) -> list[str]:
        """The calls whose handlers have not returned, as messages name them; not the caller's."""
        mine = self.current_call()
        return [
            call.describe()
            for call in list(self._calls.values())
            if call.id != mine and not call.is_held
        ]

    def unfinished(self) -> list[Call]:
        """The calls that were open at the stop, beside those that the child has reported."""
        calls = list(self._calls.values())
        if not calls or self.stopped is None:
            return calls
        return [call for call in calls if not call.known_to_child]

    # The end -----------------------------------------------------------------------------------

    def detach(self, deadline: Deadline) -> None:
        """Cut every tie between this run's handlers and the child; never waits for a handler.

        A loop of ours that runs coroutine handlers has until ``deadline`` to end, and a tenth of
        a second at least.
        """
        self.ended = True
        for call in list(self._calls.values()):
            call.broken(self.gone())
        self.threads.close()
        if self._coroutines is not None:
            mine = self.current_call()
            for call in list(self._calls.values()):
                if call.id != mine:
                    call.cancel()
            seconds = max(_LEAST_SECONDS, deadline.sooner(_LOOP_SECONDS).left())
            self._coroutines.close(Deadline(seconds))
        self._open_call = _drop

    def retire(self, deadline: Deadline) -> bool:
        """Let nothing more of this run reach the child; returns whether another may have it.

        Not if the caller has come into a call of this run, which would go on with that other's.
        """
        reader = self.reader
        if reader.nested or reader.is_inside():
            return False
        return self.child.channel.retire(deadline)

    def claim(self, fate: Fate) -> bool:
        """Whether the caller is to return the child to the pool, or to end it.

        Whoever stops the run decides, once. A signal handler may come into a stop, and end the run.
        """
        self._fate = self._fate or fate
        return self._fate == fate

    def wait_for_threads(self) -> None:
        """Let threads begin that were started."""
        self.threads.wait_for_threads()

    def park(self) -> None:
        """Before a fork: have no idle thread."""
        self.threads.park()
        if self._coroutines is not None:
            self._coroutines.park()

    def resume(self) -> None:
        """After a fork: go on."""
        self.threads.resume()
        if self._coroutines is not None:
            self._coroutines.resume()

    def forget_all(self) -> None:
        """In a forked copy: let go of everything, touch nothing of the original's."""
        self.ended = True
        self.reader.forget()
        self.threads.forget()
        if self._coroutines is not None:
            self._coroutines.forget()
        self.child.process.close()


_REACTIONS: dict[type, Callable[[Run, Any], Job | None]] = {
    wire.Hello: Run._hello,
    wire.Ahead: Run._note_ahead,
    wire.Ready: Run._ready,
    wire.Failed: Run._failed,
    wire.Gone: Run._note_gone,
    wire.Synced: Run._note_synced,
    wire.Described: Run._note_described,
    wire.Overdue: Run._overdue,
    wire.Dropped: Run._dropped,
    wire.Draining: Run._note_draining,
    wire.Stopped: Run._note_stopped,
    wire.Diagnostic: Run._diagnostic,
    wire.LogLine: Run._log,
    wire.Misread: Run._misread,
    Undecoded: Run._undecoded,
    wire.Lost: Run._lost,
    wire.Chosen: Run._chosen,
    wire.Counts: Run._counts,
    **dict.fromkeys((wire.Data, wire.End, wire.Ack, wire.AckSoon), Run.to_call),
}
