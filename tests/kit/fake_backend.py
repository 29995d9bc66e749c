"""A backend without a process: it does what a test has scripted, and records its calls."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

from sidestage import Server
from sidestage.backends.base import Limits, Plan
from sidestage.errors import ServerDied, StartError, StateError
from sidestage.journal.facts import OpenConnection, OpenNow, StopReport
from sidestage.journal.stats import ServerStats
from sidestage.pristine import system
from sidestage.pristine.waits import Deadline, Wakeup

Call = Literal["begin", "finish", "ask", "end", "abandon"]
Phase = Literal["new", "begun", "serving", "asked", "ended"]
Action = Callable[["FakeBackend"], object]

ADDRESS = ("127.0.0.1", 4321)
CALLS: tuple[Call, ...] = ("begin", "finish", "ask", "end", "abandon")

# The phases in which each call may come, and the phase that it leads to. ``abandon`` may come at
# any time and twice: a caller that is interrupted cannot know whether it was called already.
_EFFECTS: dict[Call, tuple[tuple[Phase, ...], Phase]] = {
    "begin": (("new",), "begun"),
    "finish": (("begun",), "serving"),
    "ask": (("serving",), "asked"),
    "end": (("asked",), "ended"),
    "abandon": (("new", "begun", "serving", "asked", "ended"), "ended"),
}


def raising(error: BaseException) -> Action:
    """An action that raises ``error``, the first time only."""
    left = [error]

    def act(backend: FakeBackend) -> None:
        if left:
            raise left.pop()

    return act


class Gate:
    """An action that blocks until it is released."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._opened = threading.Event()

    def __call__(self, backend: FakeBackend) -> None:
        self.entered.set()
        assert self._opened.wait(10), "nobody has released this gate"

    def release(self) -> None:
        self._opened.set()


class FakeHost:
    """Makes the backends of one server, all with the same script, and keeps them.

    ``before`` and ``after`` map a call to the action that runs before or after its effect.
    """

    def __init__(self) -> None:
        self.before: dict[Call, Action] = {}
        self.after: dict[Call, Action] = {}
        self.made: list[FakeBackend] = []
        self.misuse: list[str] = []
        self.connections: tuple[OpenConnection, ...] = ()  # that every stop reports as open

    def __call__(self, plan: Plan) -> FakeBackend:
        backend = FakeBackend(self, plan)
        self.made.append(backend)
        return backend

    @property
    def last(self) -> FakeBackend:
        """The backend of the last start."""
        return self.made[-1]

    def running(self) -> list[FakeBackend]:
        """The backends that were begun and not ended, even if they have died."""
        return [backend for backend in self.made if backend.phase not in ("new", "ended")]


class FakeBackend:
    """One run of a server that serves nothing."""

    def __init__(self, host: FakeHost, plan: Plan) -> None:
        self.phase: Phase = "new"
        self.calls: list[Call] = []
        self.seconds: float | None = None  # that the stop was given
        self.handled: bool | None = None  # as the last ``handle`` said
        self.limits: Limits | None = None  # as the last ``change`` said
        self.handler_threads: set[int] = set()  # whose code counts as this run's handler
        self._host = host
        self._plan = plan
        self._death: ServerDied | None = None
        self._guard = system.Lock()
        self._changed = Wakeup()

    def _do(self, call: Call) -> None:
        self.calls.append(call)
        self._act(self._host.before, call)
        with self._guard:
            allowed, after = _EFFECTS[call]
            if self.phase not in allowed:
                self._host.misuse.append(f"{call} of a backend that is {self.phase}")
                raise AssertionError(self._host.misuse[-1])
            if call != "abandon" or self.phase != "new":  # there is nothing to end yet
                self.phase = after
        self._changed.notify()
        self._act(self._host.after, call)

    def _act(self, actions: dict[Call, Action], call: Call) -> None:
        action = actions.get(call)
        if action is not None:
            action(self)

    def die(self) -> None:
        """End without being asked to."""
        with self._guard:
            served = self.phase in ("serving", "asked")
            self._death = ServerDied(str(self._plan.label), pid=0, exit_code=1)
        if served:  # else its start fails, and says so
            self._plan.ready.clear()
            self._plan.journal.died(self._death)
        self._changed.notify()

    # The interface -------------------------------------------------------------------------------

    @property
    def death(self) -> ServerDied | None:
        return self._death

    @property
    def pid(self) -> int | None:
        return None

    def begin(self, deadline: Deadline) -> None:
        self._do("begin")

    def finish(self, deadline: Deadline) -> list[Any]:
        if self._death is not None:
            raise StartError(None, f"{self._plan.label} has died")
        self._do("finish")
        return [ADDRESS]

    def ask(self, seconds: float) -> None:
        self.seconds = seconds
        self._do("ask")

    def end(self) -> StopReport:
        self._do("end")
        rung: Literal["died", "ask"] = "ask" if self._death is None else "died"
        return StopReport(rung=rung, connections=self._host.connections)

    def abandon(self) -> None:
        self._do("abandon")

    def sync(self, deadline: Deadline) -> None: ...

    def catch_up(self, deadline: Deadline) -> None: ...

    def wait_until(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        def settled() -> bool:
            return condition() or self._death is not None or self.phase == "ended"

        return self._changed.wait_until(settled, deadline) and condition()

    def wake(self) -> None:
        self._changed.notify()

    def under_way(self) -> list[str]:
        return []

    def handle(self, on: bool, deadline: Deadline) -> None:
        self.handled = on

    def change(self, limits: Limits, deadline: Deadline) -> None:
        self.limits = limits

    def in_handler(self) -> bool:
        return threading.get_ident() in self.handler_threads

    def facts(self) -> ServerStats:
        raise StateError(f"{self._plan.label} has no process")

    def open_now(self, deadline: Deadline) -> OpenNow:
        return OpenNow()

    def stderr_tail(self) -> str:
        return ""


class FakeServer(Server[Any]):
    """A server whose backends ``host`` makes."""

    scheme = "fake"
    protocol = "fake"

    def __init__(self, host: FakeHost, name: str | None = None) -> None:
        super().__init__(name=name)
        self._make_backend = host
