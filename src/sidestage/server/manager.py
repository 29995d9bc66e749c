"""Several servers that start together and stop in parallel, under one deadline."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..dispatch.coroutines import running_loop
from ..errors import StateError
from ..journal.failures import attach
from ..journal.frames import trim, trimmed
from ..pristine.waits import Deadline
from ..wire.values import seconds
from .context import StartedInContext, leave_all, settle_all
from .server import Server

if TYPE_CHECKING:
    import asyncio

    from ..journal.facts import StopReport

S = TypeVar("S", bound=Server[Any])

STOP_SECONDS = 5.0


class ServerManager(StartedInContext, Mapping[str, Server[Any]]):
    """A mapping from names to servers, which start and stop together.

    ``ServerManager(api=HTTPServer(), mail=SMTPServer())``; pass a mapping if a name is not an
    identifier. ``manager["api"]`` is the server. Use it as a context manager, plain or ``async``.
    """

    __test__ = False

    @trimmed
    def __init__(self, servers: Mapping[str, Server[Any]] | None = None, /, **named: Any) -> None:
        self._servers: dict[str, Server[Any]] = {}
        self._started = False
        for name, server in {**(servers or {}), **named}.items():
            self.add(name, server)

    @trimmed
    def add(self, name: str, server: S) -> S:
        """Add ``server`` under ``name``, start it if the manager is started, and return it.

        Raises ValueError if the name is taken, TypeError if it is not a server, and what
        ``Server.start`` raises.
        """
        if not isinstance(server, Server):  # pyright: ignore[reportUnnecessaryIsInstance] - users
            raise TypeError(f"{name!r} must be a server, not {server!r}")
        if name in self._servers:
            raise ValueError(f"there is a server named {name!r} already: {self._servers[name]!r}")
        if self._servers.setdefault(name, server) is not server:  # by another thread, just now
            raise ValueError(f"there is a server named {name!r} already: {self._servers[name]!r}")
        if server.name is None:
            server.name = name
        if self._started:
            try:
                server.start()
            except BaseException:
                self._servers.pop(name, None)
                raise
            if not self.started:  # another thread stops it meanwhile, and may have missed this one
                server.stop()
        return server

    # Lookup ------------------------------------------------------------------------------------

    @trimmed
    def __getitem__(self, name: str) -> Server[Any]:
        try:
            return self._servers[name]
        except KeyError:
            known = ", ".join(map(repr, self._servers)) or "none"
            raise KeyError(f"no server is named {name!r}; there are: {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._servers)

    def __len__(self) -> int:
        return len(self._servers)

    def __contains__(self, name: object) -> bool:
        return name in self._servers

    @property
    def started(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._started

    def __repr__(self) -> str:
        return f"<ServerManager {list(self._servers.values())!r}>"

    def __hash__(self) -> int:
        return id(self)

    # Start and stop ----------------------------------------------------------------------------

    @trimmed
    def start(self) -> Self:
        """Start all servers in parallel and wait until all are ready; returns the manager.

        If one fails, the others are stopped and its StartError is raised. Raises StateError if
        the manager is started already.
        """
        return self._start_on(running_loop())

    def _start_on(self, loop: asyncio.AbstractEventLoop | None) -> Self:
        if self._started:
            raise StateError(f"{self!r} runs already; stop it first")
        begun: list[Server[Any]] = []
        try:
            for server in list(self._servers.values()):
                server.begin_start(loop)
                begun.append(server)
            for server in begun:
                server.finish_start()
        except BaseException as error:
            _undo(begun, error)
            raise
        self._started = True
        return self

    def stop(self, timeout: float = STOP_SECONDS) -> dict[str, StopReport]:
        """Stop all servers in parallel, within ``timeout`` seconds; returns their reports by name.

        Raises the errors of handlers, like ``Server.stop``, once all servers have stopped.
        """
        __tracebackhide__ = True
        limit = seconds("timeout", timeout)
        self._started = False
        servers = self._servers.copy()
        reports, errors = _stop_all(list(servers.values()), limit)
        for error in errors:
            trim(error)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup(f"{len(errors)} servers had errors to report", errors)
        return dict(zip(servers, reports, strict=True))

    def _leave(self) -> None:
        __tracebackhide__ = True
        leave_all(self.stop, list(self._servers.values()))

    def _break_off(self) -> None:
        settle_all(list(self._servers.values()))
        self.stop()

    def _stop_quietly(self) -> None:
        self._started = False
        _stop_all(list(self._servers.values()), STOP_SECONDS)


def _undo(begun: Iterable[Server[Any]], error: BaseException) -> None:
    """After a failed start: stop the servers, and add their errors to ``error`` as notes."""
    servers = list(begun)
    for server in servers:
        server.cancel_start()
    for failure in _stop_all(servers, STOP_SECONDS)[1]:
        attach(error, failure)


def _stop_all(
    servers: list[Server[Any]], limit: float
) -> tuple[list[StopReport], list[BaseException]]:
    """Ask all servers to stop, then finish each stop; returns their reports and errors."""
    errors: list[BaseException] = []
    deadline = Deadline(limit)
    halves: list[Callable[[], object]] = []
    for server in servers:
        try:
            begun = server.begin_stop(deadline.left())
        except BaseException as error:  # noqa: BLE001 - raised once all have stopped
            errors.append(error)
            begun = False
        # Another thread may be stopping it: then wait for that.
        wait = functools.partial(server._not_stopped_here, deadline)
        halves.append(server.finish_stop if begun else wait)
    for server, finish in zip(servers, halves, strict=True):
        for step in (finish, server.raise_errors):
            try:
                step()
            except BaseException as error:  # noqa: BLE001 - raised once all have stopped
                errors.append(error)
    return [server._last_report() for server in servers], errors
