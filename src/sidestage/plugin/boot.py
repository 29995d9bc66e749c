"""A process early in the run, so that it has booted by the first test."""

from __future__ import annotations

import contextlib
import os
import sys

import pytest

from ..errors import StartError
from ..process.pool import pool
from .table import FIXTURES

_warmed = pytest.StashKey[bool]()


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Launch a child early: it boots while pytest configures itself and collects."""
    options = early_config.known_args_namespace
    if not options.collectonly and not _only_distributes(early_config):
        with contextlib.suppress(StartError):  # a test that starts a server will fail
            pool.boot()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Import what a start needs, once there is a test that may start a server."""
    config = item.config
    if config.stash.get(_warmed, False) or config.option.collectonly:
        return
    if "sidestage.server.server" in sys.modules or FIXTURES.intersection(
        getattr(item, "fixturenames", ())
    ):
        config.stash[_warmed] = True
        from ..backends.hosted import prepare

        with contextlib.suppress(StartError):
            prepare()


def pytest_collection_finish(session: pytest.Session) -> None:
    """End the child if no test can use it."""
    if not session.config.stash.get(_warmed, False):
        pool.close()


def _only_distributes(config: pytest.Config) -> bool:
    """Whether this is the controller of pytest-xdist, which runs no tests itself."""
    return (
        getattr(config.known_args_namespace, "numprocesses", None) is not None
        and "PYTEST_XDIST_WORKER" not in os.environ
    )
