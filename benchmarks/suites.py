"""How long a suite of small tests takes under pytest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple


class Suite(NamedTuple):
    """A file of tests and the only plugin that it is run with."""

    plugin: str
    source: str


_OURS = """
import http.client, pytest

@pytest.mark.parametrize("number", range({tests}))
def test_greets(number, http_server):
    http_server.handler = lambda request: "hello"
    connection = http.client.HTTPConnection("127.0.0.1", http_server.port, timeout=10)
    connection.request("GET", "/greet")
    assert connection.getresponse().read() == b"hello"
    connection.close()
"""

_EXPECTING = """
import http.client, pytest

@pytest.mark.parametrize("number", range({tests}))
def test_greets(number, http_server):
    http_server.expect("GET", "/greet").reply("hello")
    connection = http.client.HTTPConnection("127.0.0.1", http_server.port, timeout=10)
    connection.request("GET", "/greet")
    assert connection.getresponse().read() == b"hello"
    connection.close()
"""

_EXPECTING_SHARED = """
from sidestage import HTTPServer
import pytest

@pytest.fixture(scope="session")
def shared(serve_session):
    return serve_session(HTTPServer)
""" + _EXPECTING.replace("http_server", "shared")

_SHARED = """
import http.client, pytest

@pytest.mark.parametrize("number", range({tests}))
def test_greets(number, httpserver):
    httpserver.expect_request("/greet").respond_with_data("hello")
    connection = http.client.HTTPConnection("127.0.0.1", httpserver.port, timeout=10)
    connection.request("GET", "/greet")
    assert connection.getresponse().read() == b"hello"
    connection.close()
"""

_OWN = (
    """
from pytest_httpserver import HTTPServer
import pytest

@pytest.fixture
def httpserver():
    with HTTPServer(port=0) as server:
        yield server
"""
    + _SHARED
)


OURS = Suite("sidestage.pytest_plugin", _OURS)
EXPECTING = Suite("sidestage.pytest_plugin", _EXPECTING)
EXPECTING_SHARED = Suite("sidestage.pytest_plugin", _EXPECTING_SHARED)
SHARED = Suite("pytest_httpserver.pytest_plugin", _SHARED)
OWN = Suite("pytest_httpserver.pytest_plugin", _OWN)


NEWCOMER = Path(__file__).parent / "newcomer"
TESTS_OF_NEWCOMER = 25


def run_newcomer(plugin: str, module: str) -> float:
    """Milliseconds per test of a module in ``newcomer``, including the start of pytest."""
    with tempfile.TemporaryDirectory() as directory:  # where no configuration of ours counts
        shutil.copytree(NEWCOMER, directory, dirs_exist_ok=True)
        return _run(plugin, Path(directory, module), TESTS_OF_NEWCOMER, [])


def run(suite: Suite, tests: int = 300, workers: int = 0) -> float:
    """Milliseconds per test of a suite of ``tests`` tests, including the start of pytest."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "test_suite.py")
        path.write_text(suite.source.format(tests=tests))
        return _run(suite.plugin, path, tests, _spread(workers))


def _run(plugin: str, path: Path, tests: int, options: list[str]) -> float:
    options = ["-q", "-p", "no:cacheprovider", "-p", plugin, *options]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", *options, str(path)]
    began = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=path.parent, env=environment
    )
    seconds = time.perf_counter() - began
    if f"{tests} passed" not in done.stdout:
        raise AssertionError(done.stdout + done.stderr)
    return seconds / tests * 1000


def _spread(workers: int) -> list[str]:
    return ["-p", "xdist", "-n", str(workers)] if workers else []
