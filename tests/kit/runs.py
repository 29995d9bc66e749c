"""Access to internals for tests: the run behind a server."""

from __future__ import annotations

from typing import Any

from sidestage import Server
from sidestage.backends.hosted import HostedBackend
from sidestage.dispatch.run import Run


def run_of(server: Server[Any]) -> Run:
    """The current run of a server."""
    backend = server._lifecycle.backend
    assert isinstance(backend, HostedBackend)
    assert backend.run is not None
    return backend.run
