"""What can run a server: the interface that its lifecycle knows.

A backend is one run of one server, from its start to its stop: a new one is made for each start.
Nothing here says that it is a process, or how it is reached.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, dataclass_transform

from ..errors import ServerDied
from ..journal.facts import Label, OpenNow, StopReport
from ..journal.journal import Journal
from ..pristine.waits import Deadline, Event

if TYPE_CHECKING:
    import asyncio

    from ..dispatch.slot import Slot
    from ..journal.stats import ServerStats
    from ..wire.messages import Address, Message


@dataclass_transform(kw_only_default=True)
class _Checked(SimpleNamespace):
    """Have type checkers check the fields of a namespace."""


class Layer(Protocol):
    """What lies between the streams and the protocol of a server, as its backend knows it."""

    name: str  # of its folder in ``layers``
    asks: bool  # whether it may ask something of this process while it serves

    def settings(self) -> Message:
        """Its settings, which may take some time; raises OSError and others."""
        ...

    def answer(self, event: Any) -> Message:
        """The answer to an event of its vocabulary; does not raise."""
        ...


class Limits(NamedTuple):
    """The settings of a run that may change while it serves."""

    handler_timeout: float | None  # seconds
    keep: int  # bytes


class Plan(_Checked):
    """What a server has to be, for one run.

    Every import of a server defines this class. As a ``NamedTuple`` it takes ten times as long.
    """

    label: Label
    journal: Journal[Any]
    slot: Slot
    ready: Event  # cleared by the backend when what serves ends on its own
    protocol: str  # the name of its folder
    call_module: str  # the module with its ``PROTOCOL``, imported when a backend needs it
    settings: dict[str, Any]  # fields of the protocol's settings
    outside: tuple[str, str] | None  # as ``Configure`` has it
    layers: tuple[Layer, ...]  # between streams and protocol, the first on the stream
    outside_layers: tuple[tuple[str, str], ...]  # as ``Configure`` has it
    asked: object  # the listen address as messages show it
    host: str | None  # None with a path
    port: int
    path: str | None  # of a Unix socket
    directory: str | None  # that a relative path is relative to
    poll_interval: float  # seconds
    handler_timeout: float | None  # seconds
    keep: int  # bytes
    backlog: int
    fresh: bool  # nothing may have been served before by what serves
    loop: asyncio.AbstractEventLoop | None  # that coroutine handlers run on

    @property
    def is_outside(self) -> bool:
        """Whether something of it is not Sidestage's own, so that nothing of it may be reused."""
        return self.outside is not None or bool(self.outside_layers)


class Backend(Protocol):
    """One run of a server.

    ``begin`` and ``finish`` start it, ``ask`` and ``end`` stop it; ``abandon`` ends it from any
    point on that way, as after Ctrl-C. A call that raises leaves something to ``abandon``. Whoever
    is interrupted cannot know how far a call has come: ``abandon`` may be called before ``begin``,
    after ``end``, and again.
    """

    @property
    def death(self) -> ServerDied | None:
        """Set once what serves has ended without being asked to."""
        ...

    def begin(self, deadline: Deadline) -> None:
        """Begin to start, without waiting; raises StartError."""
        ...

    def finish(self, deadline: Deadline) -> list[Address]:
        """Wait until it serves; returns the addresses bound. Raises StartError, StartTimeout."""
        ...

    def ask(self, seconds: float) -> None:
        """Begin to stop within ``seconds``, without waiting."""
        ...

    def end(self) -> StopReport:
        """Finish the stop that was begun; it ends in time, by force if need be."""
        ...

    def abandon(self) -> None:
        """End now, by force, waiting for nothing."""
        ...

    def sync(self, deadline: Deadline) -> None:
        """Bring the journal up to date with what clients have sent by now."""
        ...

    def catch_up(self, deadline: Deadline) -> None:
        """Bring the journal up to date with what clients were answered by now.

        It asks nobody, where that can be known without asking.
        """
        ...

    def wait_until(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        """Block until ``condition()`` holds, writing the journal meanwhile.

        Returns ``False`` at the deadline, and when it ends before.
        """
        ...

    def wake(self) -> None:
        """Have every ``wait_until`` look at its condition again."""
        ...

    def under_way(self) -> list[str]:
        """What handlers of this run are at, a text for each, without the caller's own."""
        ...

    def handle(self, on: bool, deadline: Deadline) -> None:
        """Call the handler for what clients send from now on, or answer without it.

        And keep to what is declared by now. Does nothing if that is so already. One thread at a
        time calls it. Raises ServerStopped when it has ended, TimeoutError at the deadline.
        """
        ...

    def change(self, limits: Limits, deadline: Deadline) -> None:
        """Have ``limits`` take effect for what clients send from now on.

        Raises ServerStopped when it has ended, TimeoutError at the deadline.
        """
        ...

    def in_handler(self) -> bool:
        """Whether the caller is a handler of this run."""
        ...

    @property
    def pid(self) -> int | None:
        """The process that serves; ``None`` if it has none of its own."""
        ...

    def facts(self) -> ServerStats:
        """What it uses now; raises StateError if it cannot be known."""
        ...

    def open_now(self, deadline: Deadline) -> OpenNow:
        """What is under way: connections, and handlers with the line that each is at.

        It does not raise; at the deadline it returns what it knows.
        """
        ...

    def stderr_tail(self) -> str:
        """The end of what it has written to stderr."""
        ...
