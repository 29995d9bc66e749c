"""Where in its life a server is, and the table of moves; an illegal move changes nothing."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import StateError
from ..pristine import system
from ..pristine.waits import Deadline, Wakeup


class State(enum.Enum):
    """Where in its life a server is."""

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
_PASSING = frozenset({State.STARTING, State.STOPPING})


if TYPE_CHECKING:
    _Event = threading.Event
else:  # of another kind where it is a mock already
    _Event = threading.Event if isinstance(threading.Event, type) else object


class Ready(_Event):
    """An event with nothing in it that a test could have patched when it was made."""

    def __init__(self) -> None:  # the inherited one would make a Condition and a Lock
        self._set = False
        self._changed = Wakeup()

    def is_set(self) -> bool:
        """Whether the server is ready."""
        return self._set

    def set(self) -> None:
        """Wake all that wait."""
        self._set = True
        self._changed.notify()

    def clear(self) -> None:
        """Have the next to wait block."""
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the server is ready; returns ``False`` after ``timeout`` seconds."""
        return self._changed.wait_until(self.is_set, Deadline(timeout))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {'set' if self._set else 'unset'}>"


class Lifecycle:
    """The state of one server; threads may move it, and wait for what the others do."""

    def __init__(self) -> None:
        self.state = State.NEW
        self.by: object = None  # what made the last move, where that matters
        self._guard = system.Lock()
        self._moved = Wakeup()

    def move(self, to: State, who: Callable[[], str], by: object = None) -> None:
        """Move on; raises StateError, in which the server is called ``who()``, if it may not."""
        if not self.try_move(to, by):
            if to is State.STARTING:
                raise StateError(f"{who()} is started already: it is {self.state.value}")
            raise StateError(f"{who()} is {self.state.value} and cannot be {to.value}")

    def try_move(self, to: State, by: object = None) -> bool:
        """Move on if that is legal; returns whether it was.

        ``by`` is noted together with the move: whoever is interrupted here can tell if it was made.
        """
        with self._guard:
            legal = to in MOVES[self.state]
            if legal:
                self.state, self.by = to, by
        if legal:
            self._moved.notify()
        return legal

    def passing(self) -> bool:
        """Whether another thread is starting or stopping the server."""
        return self.state in _PASSING

    def settle(self, deadline: Deadline) -> bool:
        """Wait until nobody is starting or stopping it; returns ``False`` at the deadline."""
        return self._moved.wait_until(lambda: not self.passing(), deadline)
