"""All servers of this process that somebody holds, whichever way they were made."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ..journal.failures import Failure
    from .server import Server

# By their id: a user's class may have an ``__eq__`` and no hash. A WeakValueDictionary would take
# five calls for each server, and this takes one.
_servers: dict[int, weakref.ref[Server[Any]]] = {}


class Taken(NamedTuple):
    """Errors that nobody has raised yet."""

    failures: list[Failure]
    more: int  # that were not kept
    servers: list[str]  # whose they are


def add(server: Server[Any]) -> None:
    """Remember a server as long as somebody holds it."""
    key, servers = id(server), _servers
    servers[key] = weakref.ref(server, lambda _: servers.pop(key, None))


def live() -> list[Server[Any]]:
    """The servers that somebody holds."""
    refs = list(_servers.values())  # a list: other threads may add to it
    return [server for ref in refs if (server := ref()) is not None]


def started() -> list[Server[Any]]:
    """Those of these that serve, or have served."""
    return [server for server in live() if server._bound]


def catch_up() -> None:
    """Make known what clients have sent to servers that have a handler, or expectations."""
    for server in live():
        slot = server._slot
        answers = slot.handler is not None or slot.declared is not None
        if answers and server.ready.is_set():
            server._catch_up()


def take_errors(wanted: Callable[[Server[Any], Failure], bool]) -> Taken:
    """Take the errors of all servers that nobody has raised yet, in the order of their requests."""
    taken = Taken([], 0, [])
    for server in live():
        failures = server._journal.failures
        if not failures.any_new or server._lifecycle.forked_copy:  # the original tells them
            continue
        new, more = failures.take(functools.partial(wanted, server))
        if new or more:
            taken.failures.extend(new)
            taken.servers.append(server.describe())
            taken = taken._replace(more=taken.more + more)
    taken.failures.sort(key=lambda failure: failure.cause.came)
    return taken
