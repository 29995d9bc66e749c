"""CPython's own server-based logging tests, bodies untouched, on servers in child processes.

The proposal's classes live on in ``test.test_logging``. Here its module globals and the
``server_class`` of its test cases are ours, and its tests must pass.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import unittest
from collections.abc import Iterator
from typing import Any

import pytest

from sidestage import classic

CASES = {
    "SMTPHandlerTest": None,
    "SocketHandlerTest": classic.TestTCPServer,
    "UnixSocketHandlerTest": classic.TestUnixStreamServer,
    "DatagramHandlerTest": classic.TestUDPServer,
    "UnixDatagramHandlerTest": classic.TestUnixDatagramServer,
    "SysLogHandlerTest": classic.TestUDPServer,
    "UnixSysLogHandlerTest": classic.TestUnixDatagramServer,
    "IPv6SysLogHandlerTest": classic.TestUDPServer,
    "HTTPHandlerTest": None,
}


@pytest.fixture(scope="module")
def test_logging() -> Any:
    """CPython's module, which some distributions remove."""
    return pytest.importorskip("test.test_logging")


@pytest.fixture
def pids(test_logging: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Use Sidestage's classes there; yields the pids of the servers that were started."""
    started: list[int] = []

    def counted(server_class: Any) -> Any:
        def start(self: Any) -> Any:
            server_class.start(self)
            started.append(self.pid)
            return self

        return type(server_class.__name__, (server_class,), {"start": start})

    for name in classic.__all__:
        monkeypatch.setattr(test_logging, name, counted(getattr(classic, name)))
    for case, server_class in CASES.items():
        if server_class is not None:
            ours = getattr(test_logging, server_class.__name__)
            monkeypatch.setattr(getattr(test_logging, case), "server_class", ours)
    return started


@contextlib.contextmanager
def no_root_handlers() -> Iterator[None]:
    """The tests want a root logger without handlers, and close what they find there: pytest's."""
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        yield
    finally:
        root.handlers = handlers


@pytest.mark.parametrize("case", CASES)
def test_case_passes(test_logging: Any, pids: list[int], case: str) -> None:
    support = importlib.import_module("test.support")
    support.environment_altered = False
    result = unittest.TestResult()
    with no_root_handlers():
        unittest.defaultTestLoader.loadTestsFromTestCase(getattr(test_logging, case)).run(result)
    problems = result.errors + result.failures + result.skipped
    assert not problems, "\n".join(str(text) for _, text in problems)
    assert result.testsRun > 0
    assert pids
    assert os.getpid() not in pids
    assert not support.environment_altered  # no thread was left, as its own check sees it
