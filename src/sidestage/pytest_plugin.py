"""The pytest plugin: fixtures, server details in failure reports, and a child booted early.

``http_server``, ``smtp_server``, ``tcp_server`` and ``udp_server`` are started servers, a new one
for each test; set ``.handler`` in the test. ``serve``, ``serve_module`` and ``serve_session`` start
as many as a test likes. ``server_manager`` lasts for the whole session.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import pytest

import sidestage

from .errors import StartError, shown
from .process.pool import pool

if TYPE_CHECKING:
    from . import Serve, Server, ServerManager

# The fixtures that are a server of one test, with the name of the class.
_SERVERS = {
    "http_server": "HTTPServer",
    "smtp_server": "SMTPServer",
    "tcp_server": "TCPServer",
    "udp_server": "UDPServer",
}
# The fixtures that start servers on demand, with their scopes.
_FACTORIES: dict[str, Literal["function", "module", "session"]] = {
    "serve": "function",
    "serve_module": "module",
    "serve_session": "session",
}
_MARK = "sidestage"
_FIXTURES = frozenset({*_SERVERS, *_FACTORIES, "server_manager"})
_LINES = {"short": 30, "full": None}  # of a server, in a failure report

_servers = pytest.StashKey[list["Server[Any]"]]()
_warmed = pytest.StashKey[bool]()


def _server_fixture(name: str, kind: str) -> object:
    def serving(request: pytest.FixtureRequest) -> Iterator[Server[Any]]:
        options = {"name": name, **_marked_options(request.node, name)}
        server: Server[Any] = getattr(sidestage, kind)(**options)
        _note(request.node, server)
        with server:
            yield server

    protocol = kind.removesuffix("Server")
    serving.__doc__ = f"A started {protocol} server of this test; set ``{name}.handler``."
    return pytest.fixture(name=name)(serving)


def _factory_fixture(name: str, scope: Literal["function", "module", "session"]) -> object:
    def serving(request: pytest.FixtureRequest) -> Iterator[Serve]:
        from . import Serve

        node = request.node
        serve = Serve(lambda server: _note(node, server))
        yield serve
        try:
            serve.stop()
        finally:
            if scope != "function":  # else the report of a teardown shows them
                node.stash[_servers] = []

    until = "test" if scope == "function" else scope
    serving.__doc__ = (
        f"Starts servers: ``{name}(HTTPServer, handler=...)``; they stop with the {until}."
    )
    return pytest.fixture(name=name, scope=scope)(serving)


def _note(node: pytest.Item, server: Server[Any]) -> None:
    """From now on, what the server's handlers raise fails the tests of ``node``."""
    server._errors_told = True
    node.stash.setdefault(_servers, []).append(server)


globals().update({name: _server_fixture(name, kind) for name, kind in _SERVERS.items()})
globals().update({name: _factory_fixture(name, scope) for name, scope in _FACTORIES.items()})


@pytest.fixture(scope="session")
def server_manager() -> Iterator[ServerManager]:
    """A started manager for the whole session: ``server_manager.add("api", HTTPServer())``."""
    from . import ServerManager

    with ServerManager() as manager:
        yield manager


# The mark: options of the four servers -----------------------------------------------------------


def _marked_options(item: pytest.Item, name: str) -> dict[str, Any]:
    """What marks say of a fixture; of two that say different things, the closer one counts."""
    options: dict[str, Any] = {}
    for mark in reversed(list(item.iter_markers(_MARK))):
        options.update(mark.kwargs.get(name, {}))
    return options


def _check_marks(item: pytest.Item) -> None:
    """Fail the setup for a mark that says what no server takes."""
    for mark in item.iter_markers(_MARK):
        if wrong := _what_is_wrong(mark):
            pytest.fail(f"@pytest.mark.{_MARK}: {wrong}", pytrace=False)


def _what_is_wrong(mark: pytest.Mark) -> str | None:
    """What a mark says that no server takes, and what to write; ``None`` if nothing."""
    if mark.args:
        return f'write http_server={{"head_limit": 100}}, say, in place of {shown(mark.args[0])}'
    for name, options in mark.kwargs.items():
        if name not in _SERVERS:
            return f"{name!r} is none of its fixtures{_nearest(name, _SERVERS)}"
        if not isinstance(options, Mapping):
            return f"{name} must be a dict of options, not {shown(options)}"
        import inspect

        taken = inspect.signature(getattr(sidestage, _SERVERS[name])).parameters
        for option in options:
            if option not in taken:
                return f"{name} takes no option {option!r}{_nearest(option, taken)}"
    return None


def _nearest(name: object, known: Mapping[str, object]) -> str:
    import difflib

    near = difflib.get_close_matches(str(name), known, 1)
    return f": is it {near[0]!r}?" if near else f"; there are: {', '.join(known)}"


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
    _check_marks(item)


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
    wanted = str(item.config.getoption("sidestage_report"))
    if report.failed and wanted != "none":
        lines = _LINES[wanted]
        for server in _servers_of(item):
            title = f"sidestage: {server.name or server.describe()}"
            report.sections.append((title, server.explain(lines)))
    return report


def _servers_of(item: pytest.Item) -> list[Server[Any]]:
    """The servers of the test, its module and its session."""
    return [server for node in item.listchain() for server in node.stash.get(_servers, [])]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the sections of failure reports."""
    parser.getgroup("sidestage").addoption(
        "--sidestage-report",
        choices=(*_LINES, "none"),
        default="short",
        help="what the report of a failure tells of its servers: the last thirty lines (short), "
        "everything (full), or nothing (none)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Show the ResourceWarning for a server that was never stopped, which Python hides.

    The filter goes first in the list, so that any other filter takes precedence.
    """
    config.addinivalue_line(
        "markers",
        f'{_MARK}(http_server={{"head_limit": 100}}): options of the servers of its fixtures',
    )
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
