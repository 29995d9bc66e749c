"""The pytest plugin: fixtures, server details in failure reports, and a child booted early.

``http_server``, ``smtp_server``, ``tcp_server`` and ``udp_server`` are started servers, a new one
for each test; set ``.handler`` in the test. ``server_manager`` lasts for the whole session.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from .errors import StartError
from .process.pool import pool

if TYPE_CHECKING:
    from . import HTTPServer, Server, ServerManager, SMTPServer, TCPServer, UDPServer

S = TypeVar("S", bound="Server[Any]")

_FIXTURES = frozenset({"http_server", "smtp_server", "tcp_server", "udp_server", "server_manager"})
_SHOWN = 20  # records in a failure report

_servers = pytest.StashKey[list["Server[Any]"]]()
_warmed = pytest.StashKey[bool]()


@pytest.fixture
def http_server(request: pytest.FixtureRequest) -> Iterator[HTTPServer]:
    """A started HTTP server of this test; set ``http_server.handler``."""
    from . import HTTPServer

    yield from _serving(request, HTTPServer(name="http_server"))


@pytest.fixture
def smtp_server(request: pytest.FixtureRequest) -> Iterator[SMTPServer]:
    """A started SMTP server of this test; set ``smtp_server.handler``."""
    from . import SMTPServer

    yield from _serving(request, SMTPServer(name="smtp_server"))


@pytest.fixture
def tcp_server(request: pytest.FixtureRequest) -> Iterator[TCPServer]:
    """A started TCP server of this test; set ``tcp_server.handler``."""
    from . import TCPServer

    yield from _serving(request, TCPServer(name="tcp_server"))


@pytest.fixture
def udp_server(request: pytest.FixtureRequest) -> Iterator[UDPServer]:
    """A started UDP server of this test; set ``udp_server.handler``."""
    from . import UDPServer

    yield from _serving(request, UDPServer(name="udp_server"))


@pytest.fixture(scope="session")
def server_manager() -> Iterator[ServerManager]:
    """A started manager for the whole session: ``server_manager.add("api", HTTPServer())``."""
    from . import ServerManager

    with ServerManager() as manager:
        yield manager


def _serving(request: pytest.FixtureRequest, server: S) -> Iterator[S]:
    request.node.stash.setdefault(_servers, []).append(server)
    with server:
        yield server


# Handler errors fail the test itself, not its teardown ------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Drop the references to the servers after the test: pytest keeps its items to the end."""
    try:
        return (yield)
    finally:
        item.stash[_servers] = []


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Forget the servers of an earlier run: plugins may repeat a test."""
    item.stash[_servers] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Raise handlers' errors in the test itself, so that it fails and not its teardown."""
    from .journal.failures import attach

    __tracebackhide__ = True
    try:
        result = yield
    except BaseException as error:
        for server in _servers_of(item):
            try:
                server.raise_errors()
            except BaseException as raised:  # noqa: BLE001 - reported in a note
                attach(error, raised)
        raise
    for server in _servers_of(item):
        server.raise_errors()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the state of the test's servers to the report of its failure."""
    report = yield
    if report.failed:
        for server in _servers_of(item):
            report.sections.append((f"sidestage: {server.name}", _account(server)))
    return report


def _servers_of(item: pytest.Item) -> list[Server[Any]]:
    return item.stash.get(_servers, [])


def _account(server: Server[Any]) -> str:
    received = server.received
    lines = [repr(server), f"received: {len(received)}"]
    lines += [f"  {record!r}" for record in received[-_SHOWN:]]
    lines += [f"diagnostic: {diagnostic}" for diagnostic in server.diagnostics]
    lines += [f"handler error: {error!r}" for error in server.errors]
    if stderr := server.stderr_tail():
        lines += ["stderr of the server's process:", stderr]
    return "\n".join(lines)


def pytest_configure(config: pytest.Config) -> None:
    """Show the ResourceWarning for a server that was never stopped, which Python hides.

    The filter goes first in the list, so that any other filter takes precedence.
    """
    config.getini("filterwarnings").insert(0, "always:.* was never stopped:ResourceWarning")


# A warm child before the first test --------------------------------------------------------------


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
    if "sidestage.server.server" in sys.modules or _FIXTURES.intersection(
        getattr(item, "fixturenames", ())
    ):
        config.stash[_warmed] = True
        from .backends.hosted import prepare

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
