"""The fixtures: a started server for each test, and servers started on demand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import pytest

import sidestage

from . import items
from .marks import marked_options
from .table import FACTORIES, MANAGER, SERVERS

if TYPE_CHECKING:
    from .. import Serve, Server, ServerManager


def _server_fixture(name: str, kind: str) -> object:
    def serving(request: pytest.FixtureRequest) -> Iterator[Server[Any]]:
        __tracebackhide__ = True
        options = {"name": name, **marked_options(request.node, name)}
        server: Server[Any] = getattr(sidestage, kind)(**options)
        items.note(request.node, server)
        with server:
            yield server

    protocol = kind.removesuffix("Server")
    serving.__doc__ = f"A started {protocol} server of this test; set ``{name}.handler``."
    return pytest.fixture(name=name)(serving)


def _factory_fixture(name: str, scope: Literal["function", "module", "session"]) -> object:
    def serving(request: pytest.FixtureRequest) -> Iterator[Serve]:
        __tracebackhide__ = True
        from .. import Serve

        node = request.node
        serve = Serve(lambda server: items.note(node, server))
        yield serve
        try:
            serve.stop()
        finally:
            if scope != "function":  # else the report of a teardown shows them
                node.stash[items.SERVERS] = []

    until = "test" if scope == "function" else scope
    serving.__doc__ = (
        f"Starts servers: ``{name}(HTTPServer, handler=...)``; they stop with the {until}."
    )
    return pytest.fixture(name=name, scope=scope)(serving)


def _manager() -> Iterator[ServerManager]:
    """A started manager for the whole session: ``server_manager.add("api", HTTPServer())``."""
    from .. import ServerManager

    with ServerManager() as manager:
        yield manager


MADE = {
    **{name: _server_fixture(name, kind) for name, kind in SERVERS.items()},
    **{name: _factory_fixture(name, scope) for name, scope in FACTORIES.items()},
    MANAGER: pytest.fixture(scope="session", name=MANAGER)(_manager),
}
