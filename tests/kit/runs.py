"""Access to internals for tests: the run behind a server, and the processes."""

from __future__ import annotations

from typing import Any

from sidestage import Server
from sidestage.backends.hosted import HostedBackend
from sidestage.dispatch.run import Run
from sidestage.process.pool import pool


def run_of(server: Server[Any]) -> Run:
    """The current run of a server."""
    backend = server._lifecycle.backend
    assert isinstance(backend, HostedBackend)
    assert backend.run is not None
    return backend.run


def pid_of(server: Server[Any]) -> int:
    """The process of a running server."""
    assert server.pid is not None
    return server.pid


def pooled() -> set[int]:
    """The processes that wait in the pool."""
    return {child.process.launched.pid for child in pool}
