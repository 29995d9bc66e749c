"""What tests of the inside look at: the run behind a server."""

from __future__ import annotations

from typing import Any

from sidestage import Server
from sidestage.backends.hosted import HostedBackend
from sidestage.dispatch.run import Run


def run_of(server: Server[Any]) -> Run:
    """The run of a server that serves at present."""
    backend = server._lifecycle.backend
    assert isinstance(backend, HostedBackend)
    assert backend.run is not None
    return backend.run
