"""The pytest plugin: fixtures, the cause in failure reports, and a child booted early.

``http_server``, ``smtp_server``, ``tcp_server`` and ``udp_server`` are started servers, a new one
for each test; set ``.handler`` in the test. ``serve``, ``serve_module`` and ``serve_session`` start
as many as a test likes. ``server_manager`` lasts for the whole session.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import pytest
from _pytest._code.code import (  # these have no public name
    ReprEntryNative,
    ReprExceptionInfo,
    ReprFileLocation,
    ReprTraceback,
)

import sidestage

from .errors import StartError, UnmetExpectation, shown
from .journal import causes, owners
from .journal.causes import Cause, Test
from .journal.failures import attach, combined
from .journal.frames import FULL_TRACE, Place
from .journal.headline import blocks, opening
from .pristine.waits import Clock
from .process.pool import pool

if TYPE_CHECKING:
    from . import Serve, Server, ServerManager
    from .journal.failures import Failure

    Unmet = dict[str, list[Failure]]  # by the server as messages name it
    Verify = Callable[[], Unmet]

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
_REST = "sidestage"  # the id of the report of what belongs to no one test
_STOPS_EARLY = "    the run stops here: what lasts longer than a test may have been met later"
_HIDDEN = "All traceback entries are hidden"  # so pytest says, where it shows none
_LINES = {"short": 30, "full": None}  # of a server, in a failure report

_servers = pytest.StashKey[list["Server[Any]"]]()
_reporting = pytest.StashKey[bool]()  # what belongs to no one test, just now
_warmed = pytest.StashKey[bool]()
_test = pytest.StashKey[Test]()  # as it is known beside pytest
_told = pytest.StashKey[list[Cause]]()  # what this phase has raised, or noted on its error


def _server_fixture(name: str, kind: str) -> object:
    def serving(request: pytest.FixtureRequest) -> Iterator[Server[Any]]:
        __tracebackhide__ = True
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
        __tracebackhide__ = True
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
    _check_marks(item)
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


# Handler errors fail the test during which their requests came ------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Drop the references to the servers after the test: pytest keeps its items to the end."""
    try:
        return (yield)
    finally:
        item.stash[_servers] = []
        if (test := item.stash.get(_test, None)) is not None:
            causes.end(test)
            test.causes.clear()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any],
) -> Generator[None, object, object]:
    """What a fixture declares is verified with the test, or with the server if it lasts longer."""
    # pytest makes fixtures of setUpClass, setup_module and their like.
    found = re.fullmatch(r"_(?:unittest|xunit)_(\w+?)_fixture_.*", fixturedef.argname)
    name = f"fixture {fixturedef.argname}" if found is None else found[1]
    with owners.setting_up(name, fixturedef.scope):
        return (yield)


def pytest_keyboard_interrupt() -> None:
    """Nothing is verified any more, also after ``pytest.exit``."""
    owners.interrupt()


def _verifying() -> Any:
    """The module ``verifying``, once anything was declared."""
    return sys.modules.get("sidestage.server.verifying")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Begin a test, again if plugins repeat it; raise only what came late of those before."""
    __tracebackhide__ = True
    item.stash[_servers], item.stash[_told] = [], []
    if (before := item.stash.get(_test, None)) is not None:
        causes.end(before)
    item.stash[_test] = test = causes.begin(item.nodeid)
    result = yield from _raising(item, lambda failure: test not in failure.cause.tests)
    _check_marks(item)  # not before other plugins have begun the test, too
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Raise handlers' errors in the test itself, so that it fails and not its teardown."""
    __tracebackhide__ = True

    def unmet() -> Unmet:
        verifying = _verifying()
        return {} if verifying is None else verifying.of_test(item.stash[_test])

    return (yield from _raising(item, catch_up=True, verify=unmet))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Raise what came after the test's body, from servers that outlive the test.

    What the test has declared answers its clean-up, and is removed then.
    """
    __tracebackhide__ = True
    if (verifying := _verifying()) is None:
        return (yield from _raising(item))
    verifying.settle(item.stash[_test])
    # A server of a class or a fixture that is only stopped there is verified with its last test.
    unmet = functools.partial(verifying.of_ended, verifying.serving())
    try:
        # Nobody reads what expectations alone answer: it would fail the next test.
        return (yield from _raising(item, catch_up=True, verify=unmet))
    finally:
        verifying.forget_test(item.stash[_test])


def _raising(
    item: pytest.Item,
    wanted: Callable[[Failure], bool] | None = None,
    *,
    catch_up: bool = False,
    verify: Verify | None = None,
) -> Generator[None, object, object]:
    """At the end of a phase, raise what handlers have raised; a note, if it fails already."""
    __tracebackhide__ = True
    try:
        result = yield
    except BaseException as error:
        # Of a skip, a note would be a part of the reason.
        if isinstance(error, (KeyboardInterrupt, pytest.exit.Exception, pytest.skip.Exception)):
            verify = None
        if (raised := _new_error(item, catch_up=catch_up, verify=verify, fails=True)) is not None:
            attach(error, raised)
        raise
    if (failed := _of_test_case(item)) is not None:
        if (raised := _new_error(item, catch_up=catch_up, verify=verify, fails=True)) is not None:
            attach(failed, raised)
        return result
    if (raised := _new_error(item, wanted, catch_up=catch_up, verify=verify)) is not None:
        raise raised
    return result


def _of_test_case(item: pytest.Item) -> BaseException | None:
    """What fails a TestCase, which pytest keeps until the report; notes on it tell the rest."""
    kept: list[Any] = getattr(item, "_excinfo", None) or []
    if not kept or isinstance(kept[0].value, (pytest.skip.Exception, pytest.xfail.Exception)):
        return None
    first: BaseException = kept[0].value
    for other in kept[1:]:  # of its clean-up; pytest would call them errors of the teardown
        if _is_of_servers(other.value):
            attach(first, other.value)
            kept.remove(other)
    return first


def _is_of_servers(error: BaseException) -> bool:
    """Whether it is what a server had to report, or several of these."""
    own = {each for cause in causes.causes_of(error) for each in cause.own}
    errors = error.exceptions if isinstance(error, BaseExceptionGroup) else (error,)
    return all(isinstance(each, UnmetExpectation) or id(each) in own for each in errors)


def _new_error(
    item: pytest.Item,
    wanted: Callable[[Failure], bool] | None = None,
    *,
    catch_up: bool,
    verify: Verify | None = None,
    fails: bool = False,
) -> BaseException | None:
    """What handlers have raised and nobody has seen, if it is charged to this test.

    That is what its own servers have, and of others, what came while no other test ran. The rest
    is told at the end of the run. ``verify`` says what is unmet: that is no cause of a test that
    ``fails`` anyway.
    """
    if "sidestage.server.server" not in sys.modules:
        return None
    from .server import registry

    if catch_up:
        registry.catch_up()
    test, own = item.stash.get(_test, None), [id(one) for one in item.stash.get(_servers, [])]

    def is_charged(server: Server[Any], failure: Failure) -> bool:
        if wanted is not None and not wanted(failure):
            return False
        return id(server) in own or failure.cause.charged_to(test)

    taken = registry.take_errors(is_charged)
    unmet = verify() if verify is not None else None
    if not (taken.failures or taken.more or unmet):  # as after nearly every phase
        return None
    item.stash[_told] += [failure.cause for failure in taken.failures]
    if unmet:
        taken.servers.extend(unmet)
        for failure in (each for of_server in unmet.values() for each in of_server):
            taken.failures.append(failure)
            item.stash[_told] += [] if fails else [failure.cause]
    servers = " and ".join(dict.fromkeys(taken.servers))
    return combined(taken.failures, servers, more=taken.more)


# At the end of the run: what belongs to no one test ---------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """After the tests, report what was charged to none, before the run's result is known."""
    try:
        return (yield)
    except (KeyboardInterrupt, pytest.exit.Exception):
        pytest_keyboard_interrupt()  # which pytest calls only after this
        raise
    finally:
        if not hasattr(session.config, "workeroutput"):
            _report_the_rest(session)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """Report what has come since; a worker of pytest-xdist leaves it all to the controller."""
    try:
        return (yield)
    finally:
        _report_the_rest(session)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Report what a worker of pytest-xdist has left."""
    if (rest := getattr(node, "workeroutput", {}).get(_REST)) is not None:
        _report(node.config, *rest)


def pytest_report_teststatus(
    report: pytest.TestReport, config: pytest.Config
) -> tuple[str, str, str] | None:
    """Count the rest as an error; nothing while it is reported, as tests would be at 150 %."""
    if report.nodeid != _REST:
        return None
    return "error", "", "" if config.stash.get(_reporting, False) else "ERROR"


def _report_the_rest(session: pytest.Session) -> None:
    if "sidestage.server.server" not in sys.modules:
        return
    from .journal import unseen
    from .server import registry

    registry.catch_up()
    rest, more = unseen.take(read=True)
    lines = blocks(rest, more, functools.partial(_shorten, session.config))
    if not lines:
        return
    place = next(((*cause.place[:2],) for cause in rest if cause.place is not None), None)
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output[_REST] = lines, place
        return
    _report(session.config, lines, place)
    if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _report(config: pytest.Config, lines: list[str], place: tuple[str, int] | None) -> None:
    """Report some errors as pytest does those of a test's teardown: so every plugin knows them."""
    text = ReprEntryNative([f"{line}\n" for line in lines])
    crash = ReprFileLocation(*(place or (_REST, 0)), lines[0])
    report = pytest.TestReport(
        nodeid=_REST,
        location=(_REST, None, "the run"),
        keywords={},
        outcome="failed",
        longrepr=ReprExceptionInfo(ReprTraceback([text], None, "native"), crash),
        when="teardown",
    )
    config.stash[_reporting] = True
    config.hook.pytest_runtest_logreport(report=report)
    config.stash[_reporting] = False


# A failure's report ------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Open the report of a failure with its cause, and add the state of the test's servers."""
    report = yield
    if not report.failed:
        return report
    _open(report, item, call)
    wanted = str(item.config.getoption("sidestage_report"))
    if wanted != "none":
        lines = _LINES[wanted]
        for server in _servers_of(item):
            title = f"sidestage: {server.name or server.describe()}"
            report.sections.append((title, _explained(server, lines)))
    return report


def _explained(server: Server[Any], lines: int | None) -> str:
    try:
        return server.explain(lines)
    except Exception as error:  # noqa: BLE001 - as the test may have patched what it needs
        return f"no report can be made: {shown(error)}"


def _open(report: pytest.TestReport, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Put what handlers have raised before all else, and in the line of the summary."""
    with contextlib.suppress(Exception):  # pytest would not survive one here
        _new_error(item, catch_up=True)  # the phase of a subtest has not ended
    told, item.stash[_told] = item.stash.get(_told, []), []
    test = item.stash.get(_test, None)
    error = None if call.excinfo is None else call.excinfo.value
    others: list[Any] = getattr(item, "_excinfo", None) or []  # of a TestCase, from its clean-up
    seen = causes.causes_of(error, *(other.value for other in others))
    known = dict.fromkeys([*told, *seen])
    of_all = sorted([*known, *_unmet(error, known)], key=lambda cause: cause.came)
    if lines := opening(of_all, error, test, functools.partial(_shorten, item.config)):
        if call.when == "teardown" and _stops_early(item.session):
            lines.append(_STOPS_EARLY)
        place = next((cause.place for cause in of_all if cause.place is not None), None)
        _prepend(report, lines, place)
        own = {each for cause in of_all for each in cause.own}
        others[:] = [other for other in others if id(other.value) not in own]  # told here


def _stops_early(session: pytest.Session) -> bool:
    """Whether the run ends before its other tests: with ``-x``, say."""
    return bool(session.shouldfail or session.shouldstop)


def _unmet(error: BaseException | None, known: Iterable[Cause]) -> list[Cause]:
    """The unmet expectations that a test has raised itself: at the end of a ``with``, say."""
    own = {each for cause in known for each in cause.own}
    errors = error.exceptions if isinstance(error, BaseExceptionGroup) else (error,)
    unmet = [each for each in errors if isinstance(each, UnmetExpectation) and id(each) not in own]
    return [Cause(each, "", Clock.monotonic()) for each in unmet]


def _prepend(report: pytest.TestReport, lines: list[str], place: Place | None) -> None:
    """Open the report with ``lines``, the first of which is the message of the summary, too.

    ``place`` is what a failure without any line of the test is said to be at.
    """
    text = "\n".join(lines) + "\n"
    shown: Any = report.longrepr
    if isinstance(shown, str):
        report.longrepr = text + shown
    elif not hasattr(shown, "reprtraceback"):  # of doctest, say
        report.sections.insert(0, ("sidestage", text))
    else:
        _name_in_summary(shown, lines[0], place)
        traces = [each[0] for each in getattr(shown, "chain", ())] or [shown.reprtraceback]
        first = traces[0]
        first.reprentries = [ReprEntryNative([text]), *first.reprentries]
        for trace in traces:
            if (trace.extraline or "").startswith(_HIDDEN):  # ours: the opening says more
                trace.extraline = None


def _name_in_summary(shown: Any, message: str, place: Place | None) -> None:
    if shown.reprcrash is not None:
        shown.reprcrash.message = message
    elif place is not None:  # only frames that are hidden: then there is no summary at all
        shown.reprcrash = ReprFileLocation(place.file, place.line, message)
        if chain := getattr(shown, "chain", None):  # what pytest-xdist makes it of again
            trace, _, description = chain[-1]
            shown.chain = [*chain[:-1], (trace, shown.reprcrash, description)]


def _shorten(config: pytest.Config, file: str) -> str:
    """``file`` relative to where pytest was started, or to its root, if it is below them."""
    for directory in (config.invocation_params.dir, config.rootpath):
        if file.startswith(f"{directory}{os.sep}"):
            return file.removeprefix(f"{directory}{os.sep}")
    return file


def _servers_of(item: pytest.Item) -> list[Server[Any]]:
    """The servers of the test, and those of its module and its session that it has used.

    If it has none, and has used none, all: then it may be told that nothing came.
    """
    own = item.stash.get(_servers, [])
    wider = [each for node in item.listchain()[:-1] for each in node.stash.get(_servers, [])]
    began = item.stash[_test].began
    return [*own, *(each for each in wider if _is_used(each, began))] or wider


def _is_used(server: Server[Any], began: float) -> bool:
    from .server.explaining import is_used

    try:
        return is_used(server, began)
    except Exception:  # noqa: BLE001 - as the test may have patched what it needs
        return True


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
    config.add_cleanup(causes.forget_tests)
    config.add_cleanup(owners.forget)
    if config.getoption("fulltrace", default=False) and FULL_TRACE not in os.environ:
        os.environ[FULL_TRACE] = "1"
        config.add_cleanup(lambda: os.environ.__delitem__(FULL_TRACE))


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
