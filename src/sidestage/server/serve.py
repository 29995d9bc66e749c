"""As many servers as a test likes, which stop together: what the ``serve`` fixtures give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from ..errors import shown
from ..journal.frames import trimmed
from .context import leave_all
from .manager import _stop_all
from .server import Server

P = ParamSpec("P")
S = TypeVar("S", bound=Server[Any])


class Serve:
    """``serve(HTTPServer, handler=...)`` makes a server, starts it and returns it.

    It takes a class of servers, and what that takes. All stop together at the end of the fixture's
    scope.
    """

    __test__ = False

    def __init__(self, note: Callable[[Server[Any]], object]) -> None:
        self._note = note  # is told of each server before that starts
        self._servers: list[Server[Any]] = []

    @trimmed
    def __call__(self, kind: Callable[P, S], /, *args: P.args, **options: P.kwargs) -> S:
        """Start a server of ``kind``; ``name=...`` is what messages and reports call it.

        Raises TypeError for anything but a class of servers, and what the class and ``start``
        raise.
        """
        __tracebackhide__ = True
        server: S = _made(kind, *args, **options)
        self._servers.append(server)
        self._note(server)
        return server.start()

    @trimmed
    def stop(self) -> None:
        """Stop all, in parallel; raises the errors that nobody has seen once all have stopped.

        And what is unmet or was unexpected, as at the end of a ``with``.
        """
        __tracebackhide__ = True
        servers, self._servers = self._servers, []
        leave_all(lambda: _stop(servers), servers)


def _stop(servers: list[Server[Any]]) -> None:
    __tracebackhide__ = True
    limit = max((server.stop_timeout for server in servers), default=0.0)
    _, errors = _stop_all(servers, limit)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise BaseExceptionGroup(f"{len(errors)} servers had errors to report", errors)


def _made(kind: Any, *args: Any, **options: Any) -> Any:
    """The server; raises TypeError, which says what to write, if there is none."""
    if callable(kind):
        made = kind(*args, **options)
        if isinstance(made, Server):
            return made
        wrong = f"{shown(kind)}, which gives {shown(made)}"
    else:
        wrong = shown(kind)
    raise TypeError(
        f"pass a class of servers and its arguments, serve(HTTPServer, handler=...), not {wrong}"
    )
