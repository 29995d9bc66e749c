"""The life of a server, whatever its backend: states, both halves of start and stop, interruptions.

The state changes only by the table ``MOVES``; an illegal move raises and changes nothing. A signal
handler may raise anywhere. So each move notes who made it, and whoever is interrupted undoes, or
finishes at its next call, what it has moved.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

from ..backends.base import Backend
from ..dispatch.slot import Slot
from ..errors import ServerStopped, StateError
from ..journal.facts import Diagnostic, Label, StopReport
from ..journal.journal import Journal
from ..pristine import system, waits
from ..pristine.waits import Deadline, Event, NotInTime, Turn, Wakeup


class State(enum.Enum):
    """Where in its life a server is."""

    __hash__ = object.__hash__  # in C: each move looks some up

    NEW = "NEW"
    STARTING = "STARTING"
    READY = "READY"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    FAILED = "FAILED"


MOVES: dict[State, frozenset[State]] = {
    State.NEW: frozenset({State.STARTING}),
    State.STARTING: frozenset({State.READY, State.FAILED}),
    State.READY: frozenset({State.STOPPING, State.FAILED}),
    State.STOPPING: frozenset({State.STOPPED}),
    State.STOPPED: frozenset({State.STARTING}),
    State.FAILED: frozenset({State.STARTING, State.STOPPING}),
}
_MOVING = frozenset({State.STARTING, State.STOPPING})
_RESTING = frozenset({State.NEW, State.STOPPED, State.FAILED})
_NEVER, _NO_STOP = Deadline(None), StopReport(rung="none")


# A start or a stop: known by identity, and with the caller that makes it.
_Turn = tuple[int]


class _Handling(NamedTuple):
    """Whether a backend calls a handler, or answers alone, and what it knows to be declared."""

    backend: Backend
    handled: bool
    declared: int  # the position


class Lifecycle:
    """The life of one server; threads may move it, and wait for what the others do."""

    # Here, because most of these are set once or never in the short life of a test's server.
    backend: Backend | None = None  # from READY until it has stopped
    report = _NO_STOP
    _changes = 0  # of the slot
    _told: _Handling | None = None  # as what serves was made to, last
    _state = State.NEW
    _turn: _Turn | None = None  # of the last start or stop
    _starting: Backend | None = None
    _deadline = _NEVER  # of the start
    _stopping: Backend | None = None

    def __init__(self, label: Label, journal: Journal[Any], ready: Event, slot: Slot) -> None:
        self._label = label
        self._journal = journal
        self._ready = ready
        self._slot = slot
        self._following = Turn()  # whose it is to make the backend follow the slot
        self._owner = system.getpid()
        self._guard = system.RLock()
        self._moved = Wakeup()

    # State ---------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state at present; a server whose backend has died is FAILED."""
        if self._state is State.READY:
            self._notice_death()
        return self._state

    def serving(self) -> Backend | None:
        """What serves now and can be asked; ``None`` in a forked copy."""
        if self.state not in (State.READY, State.STOPPING) or self.forked_copy:
            return None
        return self.backend

    def _notice_death(self) -> None:
        backend = self.backend
        if backend is not None and backend.death is not None:
            self._move(State.FAILED, of=backend)

    @property
    def forked_copy(self) -> bool:
        """Whether this is the copy of a server in a forked process."""
        return self._owner != system.getpid()

    def _move(self, to: State, turn: _Turn | None = None, of: Backend | None = None) -> bool:
        """Move if that is legal; returns whether it was.

        ``turn`` is noted together with the move: whoever is interrupted can see if it was made.
        ``of`` is the backend that the caller has looked at: another thread may have replaced it.
        """
        with self._guard:
            was, turn = self._state, turn or self._turn
            moved = to in MOVES[was] and (of is None or of is self.backend)
            # A signal handler may have moved it since; none comes into this line.
            self._state, self._turn, moved = (to, turn, True) if moved and self._state is was else (self._state, self._turn, False)  # fmt: skip  # noqa: E501
            ready = self._ready
            # Again if a signal handler has moved the state meanwhile.
            while moved and ready.on is not (self._state is State.READY):
                (ready.set if self._state is State.READY else ready.clear)()
        if to not in _MOVING:
            self._moved.notify()  # whoever waits for the end of a start or a stop
        return moved

    def _illegal(self, to: State) -> StateError:
        if to is State.STARTING:
            return StateError(
                f"{self._label} is started already: it is {self._state.value}; `with` starts a "
                "server itself: write `with server:`, not `with server.start():`"
            )
        return StateError(f"{self._label} is {self._state.value} and cannot be {to.value}")

    def moving(self) -> bool:
        """Whether another thread is starting or stopping the server."""
        return self._state in _MOVING

    @property
    def rests(self) -> bool:
        """Whether nothing serves, and nobody has begun to start it."""
        return self._state in _RESTING

    def settle(self, deadline: Deadline) -> bool:
        """Wait until nobody is starting or stopping it; returns ``False`` at the deadline."""
        return self._moved.wait_until(lambda: self._state not in _MOVING, deadline)

    def follow_slot(self, deadline: Deadline) -> None:
        """Have what serves now, if anything, keep to the handler and expectations set now.

        Several threads may set one at the same time. Whoever starts the server meanwhile looks for
        itself, once it is READY. Raises TimeoutError at the deadline, RuntimeError if no thread
        can be had.
        """
        self._changes += 1
        following, me = self._following, waits.caller()
        while (wanted := self._wanted()) is not None and wanted != self._told:
            try:
                if following.take(me):
                    try:  # noqa: SIM105 - a context manager takes as long as the call
                        wanted.backend.handle(wanted.handled, deadline)
                    except ServerStopped:  # meanwhile: its next run will have it
                        pass
                    self._told = wanted
                elif following.is_mine(me):
                    return  # a signal handler has come into this call, which sees it afterwards
                elif not self._moved.wait_until(lambda: not following.locked(), deadline):
                    raise NotInTime(
                        f"another thread is still setting a handler of {self._label}, or what "
                        "it expects"
                    )
            finally:
                if following.holder is me:
                    following.holder = None
                    self._moved.notify()

    def _wanted(self) -> _Handling | None:
        backend = self.backend
        if backend is None or self._state is not State.READY or self.forked_copy:
            return None
        return _Handling(backend, self._slot.handler is not None, self._slot.position)

    # Start ---------------------------------------------------------------------------------------

    def begin_start(self, make_backend: Callable[[], Backend], deadline: Deadline) -> None:
        """The first half of a start: everything up to the wait for the backend.

        Raises StateError if the server may not start, and what the backend raises.
        """
        if self._owner != system.getpid():
            raise StateError(
                f"{self._label} belongs to process {self._owner}, of which this one is a "
                "forked copy: make a server of its own here"
            )
        turn = (system.caller_id(),)
        try:
            if self._state is State.READY:
                self._notice_death()
            if not self._move(State.STARTING, turn):
                raise self._illegal(State.STARTING)
            self._deadline = deadline
            if self.backend is not None:
                self._bury()
            self._starting = backend = make_backend()
            backend.begin(deadline)
            if self._starting is not backend:
                raise self._unwanted(backend)
        except BaseException:
            if self._turn is turn:
                self.cancel_start()
            raise

    def _bury(self) -> None:
        """Let go of a backend that has died."""
        dead = self.backend
        if dead is not None:
            dead.ask(0.0)
            dead.end()
            self.backend = self._told = None

    def _unwanted(self, backend: Backend) -> StateError:
        """The error when a signal handler stops the server in the middle of its start."""
        self._starting = backend  # which has gone on, and must be abandoned again
        return StateError(f"{self._label} was stopped while it started")

    def finish_start(self, note_bound: Callable[[list[Any]], None]) -> None:
        """The second half: wait until the backend serves.

        ``note_bound`` gets the addresses before the server is ready. Raises what the backend
        raises.
        """
        backend = self._starting
        if backend is None:
            raise StateError(f"{self._label} has no start to finish: call begin_start first")
        try:
            changes = self._changes
            note_bound(backend.finish(self._deadline))
            if self._starting is not backend:
                raise self._unwanted(backend)
            self.backend = backend
            if not self._move(State.READY):
                raise self._illegal(State.READY)
            self._notice_death()  # it may have died, and cleared the event, before it was set
            self._starting = None
            if self._changes != changes:  # a handler was set meanwhile
                self.follow_slot(self._deadline)
        except BaseException:
            self.cancel_start()
            raise

    def cancel_start(self) -> None:
        """Undo a start that is not finished: its second half does not come, or has failed."""
        if self._starting is None and self._state not in (State.STARTING, State.READY):
            return
        self._ready.clear()
        # Kept until it is abandoned: if this is interrupted, too, the next stop repeats it.
        self._starting = backend = self._starting or self.backend
        self.backend = self._told = None
        if backend is not None:
            backend.abandon()
        self._move(State.FAILED)
        self._starting = None

    # Stop ----------------------------------------------------------------------------------------

    def begin_stop(self, deadline: Deadline) -> bool:
        """The first half of a stop: ask the backend. Returns whether there is a second half."""
        if self._owner != system.getpid():
            return False
        if self._state in _MOVING or self._starting is not None:
            self._finish_what_was_interrupted()
            if self._state is State.STARTING:
                self.settle(deadline)
        backend = self.backend
        if backend is None:
            return False
        turn = (system.caller_id(),)
        try:
            if not self._move(State.STOPPING, turn, backend):
                return False
            self._stopping = backend
            backend.ask(deadline.left())
        except BaseException:
            if self._turn is turn:
                self._abandon_stop()
            raise
        return True

    def finish_stop(self, *, begun: bool = False) -> StopReport:
        """The second half: wait until the backend has stopped, by force if need be.

        With ``begun``, the caller has made the first half, and a signal handler may have ended it.
        """
        backend = self._stopping
        if backend is None and begun:
            return self.report
        if backend is None:
            raise StateError(f"{self._label} has no stop to finish: call begin_stop first")
        try:
            self.report = backend.end()
            self._stopped()
        except BaseException:  # Ctrl-C, say: then without any more waiting
            self._abandon_stop()
            raise
        for left in self.report.connections:
            text = f"dropped by the stop: {left.state}"
            self._journal.diagnosed(Diagnostic(client_address=left.client_address, text=text))
        return self.report

    def _finish_what_was_interrupted(self) -> None:
        """An exception can come at any moment, by a signal: then this thread is not done yet."""
        turn = self._turn
        if turn is None or turn[0] != system.caller_id():
            return
        if self.backend is not None and self.backend.in_handler():
            return  # a handler stops its server once more
        if self._state is not State.STOPPING:
            self.cancel_start()
        else:
            self._abandon_stop()

    def _abandon_stop(self) -> None:
        backend = self.backend
        if backend is not None:
            backend.abandon()
        self._stopped()

    def _stopped(self) -> None:
        self.backend = self._stopping = self._told = None
        self._move(State.STOPPED)

    def drop(self) -> None:
        """End the backend of a server that nobody holds any more."""
        backend, self.backend = self.backend, None
        self._told = None
        if backend is not None:
            backend.abandon()
