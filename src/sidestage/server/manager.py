"""Many servers, one owner: started together, stopped in parallel under one deadline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..dispatch.coroutines import running_loop
from ..errors import StateError
from ..journal.failures import attach
from ..pristine.waits import Deadline
from .checks import seconds
from .context import StartedInContext
from .server import Server

if TYPE_CHECKING:
    import asyncio

    from ..journal.facts import StopReport

S = TypeVar("S", bound=Server[Any])

STOP_SECONDS = 5.0


class ServerManager(StartedInContext, Mapping[str, Server[Any]]):
    """Servers by name, which start and stop as one.

    ``ServerManager(api=HTTPServer(), mail=SMTPServer())``, or with a mapping where a name is no
    identifier. ``manager["api"]`` is the server.
    """

    __test__ = False

    def __init__(self, servers: Mapping[str, Server[Any]] | None = None, /, **named: Any) -> None:
        self._servers: dict[str, Server[Any]] = {}
        self._started = False
        for name, server in {**(servers or {}), **named}.items():
            self.add(name, server)

    def add(self, name: str, server: S) -> S:
        """Take ``server`` under ``name``, and start it if the others run; returns it.

        Raises ValueError if the name is taken, TypeError for what is no server.
        """
        if not isinstance(server, Server):  # pyright: ignore[reportUnnecessaryIsInstance] - users
            raise TypeError(f"{name!r} must be a server, not {server!r}")
        if name in self._servers:
            raise ValueError(f"there is a server named {name!r} already: {self._servers[name]!r}")
        if server.name is None:
            server.name = name
        if self._started:
            server.start()
        self._servers[name] = server
        return server

    # Lookup ------------------------------------------------------------------------------------

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

    def __repr__(self) -> str:
        return f"<ServerManager {list(self._servers.values())!r}>"

    def __hash__(self) -> int:
        return id(self)

    # Start and stop ----------------------------------------------------------------------------

    def start(self) -> Self:
        """Start all at once and wait until all are ready; returns the manager.

        If one fails, those that had started are stopped, and its StartError is raised.
        """
        return self._start_on(running_loop())

    def _start_on(self, loop: asyncio.AbstractEventLoop | None) -> Self:
        """Start all; coroutine handlers are to run on ``loop``."""
        if self._started:
            raise StateError(f"{self!r} runs already; stop it first")
        begun: list[Server[Any]] = []
        try:
            for server in self._servers.values():
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
        """Stop all in parallel, within ``timeout`` seconds; returns each one's report by name.

        Then raises what their handlers have raised, like ``Server.stop``.
        """
        __tracebackhide__ = True
        limit = seconds("timeout", timeout)
        self._started = False
        reports, errors = _stop_all(list(self._servers.values()), limit)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup(f"{len(errors)} servers had errors to report", errors)
        return dict(zip(self._servers, reports, strict=True))

    def _stop_quietly(self) -> None:
        self._started = False
        _stop_all(list(self._servers.values()), STOP_SECONDS)


def _undo(begun: Iterable[Server[Any]], error: BaseException) -> None:
    """Stop those of a start that failed, and tell what they have to report in a note."""
    servers = list(begun)
    for server in servers:
        server.cancel_start()
    for failure in _stop_all(servers, STOP_SECONDS)[1]:
        attach(error, failure)


def _stop_all(
    servers: list[Server[Any]], limit: float
) -> tuple[list[StopReport], list[BaseException]]:
    """Ask all, then climb each ladder; all of them were given the same time."""
    errors: list[BaseException] = []
    deadline = Deadline(limit)
    halves = [server.begin_stop(deadline.left()) for server in servers]
    for server, begun in zip(servers, halves, strict=True):
        for step in (server.finish_stop, server.raise_errors) if begun else (server.raise_errors,):
            try:
                step()
            except BaseException as error:  # noqa: BLE001 - raised once all have stopped
                errors.append(error)
    return [server._last_report() for server in servers], errors
