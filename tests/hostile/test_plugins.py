"""Other plugins of pytest, its own options, and other ways to write a test change nothing."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kit.matrix import Rows
from kit.servers import ServerUnderTest, Sidestage
from kit.suite import Suite, SuiteResult

rows = Rows("Beside other plugins", __file__)

PYTEST = ("-m", "pytest")
LIMIT = 120.0  # seconds for several runs of pytest, of which none takes more than three


def run_well(
    suite: Suite,
    tests: int,
    *options: str,
    status: int = 1,
    python: tuple[str, ...] = PYTEST,
    **environment: str,
) -> SuiteResult:
    """Run a suite in which each test has the outcome that its name says."""
    result = suite.run(*options, python=python, **environment)
    result.assert_as_named(tests)
    result.assert_status(status)
    return result


def run_patched(sut: ServerUnderTest, plugin: str, source: str, *options: str) -> None:
    """Run tests that patch the process: with a server that waits in the pool, with none, and where
    all that a server needs is imported only then.
    """
    suite = Suite(sut, plugin)
    tests = suite.add_tests("patched", source)
    run_well(suite, tests, *options, status=0)
    if suite.is_sidestage:
        run_well(suite, tests, *options, status=0, SIDESTAGE_POOL="0")
        bare = Suite(sut, plugin, fixtures=False)
        run_well(bare, bare.add_tests("patched", source), *options, status=0)


# When a test runs, and how often ------------------------------------------------------------------

SEEDED = """
import random

def test_seed_passes(request):
    random.seed(7)
    first = random.random()
    random.seed(7)
    serve = request.getfixturevalue("serve")  # only now: it starts a server
    fetch(serve(lambda path: path))
    assert random.random() == first
"""


@rows.add("pytest-randomly", limit=LIMIT)
def randomly(sut: ServerUnderTest) -> None:
    suite = Suite(sut, "randomly")
    tests = suite.one_of_each() + suite.add_tests("seeded", SEEDED)
    run_well(suite, tests, "--randomly-seed=1", SIDESTAGE_POOL="0").assert_says("--randomly-seed=1")
    run_well(suite, tests, "--randomly-seed=2", "-n2").assert_says("--randomly-seed=2")


RERUN = """
ports = []

def test_second_try_passes(serve):
    ports.append(serve(lambda path: path))
    assert fetch(ports[-1], "/a") == "/a"
    assert len(ports) == 2

def test_each_try_fails(serve):
    assert fetch(serve(lambda path: path)) == "on purpose"
"""

OUR_RERUN = """
from sidestage import HTTPServer

seen = []

def test_handler_passes(http_server, tcp_server, server_manager):
    assert http_server.received == [] and http_server.errors == ()
    assert ("common" in server_manager) == bool(seen)
    if not seen:
        server_manager.add("common", HTTPServer())
    assert server_manager["common"].state.name == "READY"
    seen.append((http_server, tcp_server))
    def handler(request):
        if len(seen) < 3:
            raise ValueError(f"try {len(seen)}")
    http_server.handler = handler
    try:
        fetch(http_server.port)
    except AssertionError:
        assert len(seen) < 3
    else:
        assert len({server for servers in seen for server in servers}) == 6

def test_last_report_fails(udp_server):
    def handler(datagram):
        raise ValueError("on purpose")
    udp_server.handler = handler
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"hello", udp_server.server_address)
        udp_server.wait_for(1)
        udp_server.stop()
"""


@rows.add("pytest-rerunfailures", limit=LIMIT)
def rerunfailures(sut: ServerUnderTest) -> None:
    suite = Suite(sut, "rerunfailures")
    result = run_well(suite, suite.add_tests("rerun", RERUN), "--reruns=2")
    result.assert_says("1 failed, 1 passed, 3 rerun")


@rows.add("pytest-rerunfailures, a handler fails at first", limit=LIMIT, peers=False)
def rerun_handlers(sut: ServerUnderTest) -> None:
    suite = Suite(sut, "rerunfailures")
    result = run_well(suite, suite.add_tests("rerun", OUR_RERUN), "--reruns=2")
    result.assert_says("1 failed, 1 passed, 4 rerun")
    assert result.output.count("sidestage: udp_server") == 1, result.message(
        "tells of earlier tries"
    )


# Time-outs ---------------------------------------------------------------------------------------

HANG = """
def test_before_passes(serve):
    assert fetch(serve(lambda path: path), "/a") == "/a"

@pytest.mark.timeout(0.5)
def test_handler_hangs(serve):
    fetch(serve(lambda path: threading.Event().wait(60)), timeout=60)

def test_after_passes(serve):
    assert fetch(serve(lambda path: path), "/a") == "/a"
"""

OUR_HANGS = """
from sidestage import HTTPServer

@pytest.mark.timeout(0.5)
def test_wait_for_hangs(http_server):
    http_server.wait_for(1, timeout=60)

@pytest.mark.timeout(0.5)
def test_client_hangs(tcp_server):
    tcp_server.handler = lambda connection: connection.recv(1)
    tcp_server.stop_timeout = 0.5
    with socket.create_connection(tcp_server.server_address) as client:
        client.recv(1)

stopped = []

@pytest.mark.timeout(1.5)  # enough to get as far as the stop
def test_stop_hangs():
    called = threading.Event()
    def handler(request):
        called.set()
        threading.Event().wait(60)
    server = HTTPServer(handler=handler).start()
    stopped.extend([server, server.pid])
    with socket.create_connection(server.server_address) as client:
        client.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        assert called.wait(10)
        server.stop(60)

def test_stopped_passes():
    server, pid = stopped
    assert server.state.name == "STOPPED"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    server.stop()
"""


METHOD = ("-o", "timeout_func_only=true", "--timeout-method")


@rows.add("pytest-timeout, by signal", limit=LIMIT)
def timeout_by_signal(sut: ServerUnderTest) -> None:
    suite = Suite(sut, "timeout")
    tests = suite.add_tests("hang", HANG)
    if suite.is_sidestage:
        tests += suite.add_tests("hangs", OUR_HANGS) + suite.one_of_each("those_after")
    result = suite.run(*METHOD, "signal", seconds=40)
    result.assert_as_named(tests)
    result.assert_status(1)


@rows.add("pytest-timeout, by thread", limit=LIMIT)
def timeout_by_thread(sut: ServerUnderTest) -> None:
    suite = Suite(sut, "timeout")
    suite.add_tests("hang", HANG)
    cases = ["test_handler_hangs"]
    if suite.is_sidestage:
        suite.add_tests("hangs", OUR_HANGS)
        cases += ["test_wait_for_hangs", "test_stop_hangs"]
    for case in cases:
        result = suite.run(*METHOD, "thread", "-k", case, seconds=40)
        result.assert_says("+ Timeout +", f"in {case}")
        result.assert_status(1)


# What pytest-timeout does by signal, at every moment of a server's life.
ANY_MOMENT = """
import signal
from sidestage import HTTPServer

fired = []

def too_late(number, frame):
    fired.append(number)
    pytest.fail("Timeout")

@pytest.fixture(autouse=True)
def alarm(monkeypatch):
    # What is raised in a weak reference's callback, only Python can lose.
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: fired.clear())
    before = signal.signal(signal.SIGALRM, too_late)
    yield
    signal.signal(signal.SIGALRM, before)
    fired.clear()

@pytest.mark.parametrize("number", range(60))
def test_moment_passes(number):
    server = HTTPServer(handler=lambda request: request.path, stop_timeout=2)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0001 * (number + 1))
            with server:
                assert fetch(server.port, "/a") == "/a"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except pytest.fail.Exception:
        pass
    else:
        assert not fired, "nobody heard of it"
    server.stop()
    assert server.state.name in ("NEW", "STOPPED", "FAILED")
    with HTTPServer(handler=lambda request: request.path) as other:
        assert fetch(other.port, "/b") == "/b"
"""
MOMENTS = 60


@rows.add("a time-out at any moment", limit=LIMIT, peers=False)
def timeout_at_any_moment(sut: ServerUnderTest) -> None:
    suite = Suite(sut)
    suite.add_tests("moments", ANY_MOMENT)
    run_well(suite, MOMENTS, status=0)


# Coroutines --------------------------------------------------------------------------------------

COROUTINES = """
import asyncio

<mark>
async def test_with_threads_passes(serve):
    port = serve(lambda path: path)
    assert await asyncio.to_thread(fetch, port, "/a") == "/a"

<mark>
async def test_with_streams_passes(serve):
    port = serve(lambda path: path)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /a HTTP/1.0\\r\\n\\r\\n")
    assert (await reader.read()).endswith(b"/a")
    writer.close()
    await writer.wait_closed()

def test_without_coroutines_passes(serve):
    assert fetch(serve(lambda path: path), "/a") == "/a"
"""

OUR_COROUTINES = """
import asyncio
from sidestage import HTTPServer, ServerManager, TCPServer

async def get(server, path="/"):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {path} HTTP/1.0\\r\\n\\r\\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode().partition("\\r\\n\\r\\n")[2]

<mark>
async def test_handler_on_the_loop_of_the_test_passes():
    loops = []
    async def handler(request):
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        return request.path
    async with HTTPServer(handler=handler) as server:
        assert await get(server, "/a") == "/a"
    assert loops == [asyncio.get_running_loop()]

<mark>
async def test_fixture_passes(http_server):
    async def handler(request):
        await asyncio.sleep(0)
        return request.path
    http_server.handler = handler
    assert await get(http_server, "/a") == "/a"
    assert [request.path for request in http_server.received] == ["/a"]

<mark>
async def test_manager_passes():
    async def handler(connection):
        return b"hello"
    async with ServerManager(web=HTTPServer(), raw=TCPServer(handler=handler)) as manager:
        assert await get(manager["web"]) == ""
        reader, writer = await asyncio.open_connection("127.0.0.1", manager["raw"].port)
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()

<mark>
async def test_coroutine_handler_fails():
    async def handler(request):
        await asyncio.sleep(0)
        raise ValueError("on purpose")
    async with HTTPServer(handler=handler) as server:
        await get(server)

<mark>
async def test_plain_handler_fails(http_server):
    def handler(request):
        raise ValueError("on purpose")
    http_server.handler = handler
    await get(http_server)

<mark>
async def test_body_fails():
    async with HTTPServer() as server:
        await get(server)
        assert False, "on purpose"
"""

OUR_ASYNC_FIXTURES = """
import asyncio
import pytest_asyncio
from sidestage import HTTPServer
from test_ours import get

async def handler(request):
    assert asyncio.get_running_loop() is await_on[0]
    return request.path

await_on = []

@pytest_asyncio.fixture(scope="<scope>", loop_scope="<scope>")
async def server():
    await_on[:] = [asyncio.get_running_loop()]
    async with HTTPServer(handler=handler) as server:
        yield server

@pytest.mark.asyncio(loop_scope="<scope>")
@pytest.mark.parametrize("number", range(3))
async def test_loop_passes(server, number):
    assert await get(server, f"/{number}") == f"/{number}"

@pytest_asyncio.fixture(loop_scope="<scope>")
async def failing(server):
    def fail(request):
        raise ValueError("on purpose")
    async with HTTPServer(handler=fail) as failing:
        yield failing

@pytest.mark.asyncio(loop_scope="<scope>")
async def test_fixture_errs(failing):
    await get(failing)
"""


# Else pytest-asyncio warns of what will change.
SCOPE = ("-o", "asyncio_default_fixture_loop_scope=function")


def _coroutines(suite: Suite, mark: str, *options: str, **environment: str) -> None:
    tests = suite.add_tests("coroutines", COROUTINES.replace("<mark>", mark))
    status = 0
    if suite.is_sidestage:
        tests += suite.add_tests("ours", OUR_COROUTINES.replace("<mark>", mark))
        status = 1
    run_well(suite, tests, "-W", "error", *options, status=status, **environment)


@rows.add("pytest-asyncio, auto mode", limit=LIMIT)
def asyncio_auto(sut: ServerUnderTest) -> None:
    _coroutines(Suite(sut, "asyncio"), "", "--asyncio-mode=auto", *SCOPE)


@rows.add("pytest-asyncio, strict mode", limit=LIMIT)
def asyncio_strict(sut: ServerUnderTest) -> None:
    mark = "@pytest.mark.asyncio"
    _coroutines(Suite(sut, "asyncio"), mark, "--asyncio-mode=strict", *SCOPE)


@rows.add("pytest-asyncio, servers in fixtures of each loop's scope", limit=LIMIT, peers=False)
def asyncio_scopes(sut: ServerUnderTest) -> None:
    suite = Suite(sut, "asyncio")
    suite.add_tests("ours", OUR_COROUTINES.replace("<mark>", ""))
    for scope in ("function", "session"):
        suite.add_tests(scope, OUR_ASYNC_FIXTURES.replace("<scope>", scope))
    run_well(suite, 8, "test_function.py", "test_session.py", "-W", "error", *SCOPE)


@rows.add("anyio on asyncio", limit=LIMIT)
def anyio_on_asyncio(sut: ServerUnderTest) -> None:
    suite = Suite(sut, "anyio")
    suite.extend_conftest("anyio_backend = pytest.fixture(lambda: 'asyncio')")
    _coroutines(suite, "@pytest.mark.anyio")


TRIO = """
import anyio, trio

@pytest.mark.anyio
async def test_plainly_passes(serve):
    port = serve(lambda path: path)
    assert await anyio.to_thread.run_sync(fetch, port, "/a") == "/a"
    assert trio.lowlevel.in_trio_run()
"""

OUR_TRIO = """
import anyio, trio
from sidestage import HTTPServer

async def get(port):
    async with await anyio.connect_tcp("127.0.0.1", port) as client:
        await client.send(b"GET /a HTTP/1.0\\r\\n\\r\\n")
        answer = b""
        with pytest.raises(anyio.EndOfStream):
            while True:
                answer += await client.receive()
        return answer

@pytest.mark.anyio
async def test_handlers_pass_and_so_passes():
    async def handler(request):
        return request.path
    with HTTPServer(handler=handler) as server:
        assert (await get(server.port)).endswith(b"/a")

@pytest.mark.anyio
async def test_handler_fails():
    def handler(request):
        raise ValueError("on purpose")
    with HTTPServer(handler=handler) as server:
        await get(server.port)

@pytest.mark.anyio
async def test_async_with_says_why_not_and_passes():
    with pytest.raises(Exception, match="asyncio"):
        async with HTTPServer():
            pass
"""

if importlib.util.find_spec("trio"):

    @rows.add("anyio on trio", limit=LIMIT)
    def anyio_on_trio(sut: ServerUnderTest) -> None:
        suite = Suite(sut, "anyio")
        suite.extend_conftest("anyio_backend = pytest.fixture(lambda: 'trio')")
        tests = suite.add_tests("trio", TRIO)
        if suite.is_sidestage:
            tests += suite.add_tests("ours", OUR_TRIO)
        run_well(suite, tests, "-W", "error", status=1 if suite.is_sidestage else 0)


# What patches the process ------------------------------------------------------------------------

NO_SOCKETS = """
from pytest_socket import SocketBlockedError
from kit.servers import OutsideClient

def test_outside_client_passes(serve):
    with pytest.raises(SocketBlockedError):
        socket.socket()
    client = OutsideClient()
    try:
        assert client.fetch(serve(lambda path: path), "/a") == "/a"
    finally:
        client.close()
"""

LOOPBACK = """
from pytest_socket import SocketConnectBlockedError

def test_loopback_passes(serve):
    assert fetch(serve(lambda path: path), "/a") == "/a"
    with pytest.raises(SocketConnectBlockedError):
        socket.create_connection(("192.0.2.1", 80))
"""

UNIX_SOCKETS = """
from pytest_socket import SocketBlockedError
from sidestage import HTTPServer

def test_unix_socket_passes(tmp_path):
    path = str(tmp_path / "socket")
    with HTTPServer(path, lambda request: request.path):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(b"GET /a HTTP/1.0\\r\\n\\r\\n")
            assert client.makefile().read().endswith("/a")
    with pytest.raises(SocketBlockedError):
        socket.socket()
"""


@rows.add("pytest-socket, --disable-socket", limit=LIMIT)
def no_sockets(sut: ServerUnderTest) -> None:
    run_patched(sut, "socket", NO_SOCKETS, "--disable-socket")


@rows.add("pytest-socket, --allow-hosts=127.0.0.1", limit=LIMIT)
def only_loopback(sut: ServerUnderTest) -> None:
    run_patched(sut, "socket", LOOPBACK, "--allow-hosts=127.0.0.1")


@rows.add("pytest-socket, --allow-unix-socket", limit=LIMIT, peers=False)
def only_unix_sockets(sut: ServerUnderTest) -> None:
    run_patched(sut, "socket", UNIX_SOCKETS, "--disable-socket", "--allow-unix-socket")
    suite = Suite(sut, "socket", "asyncio")
    tests = suite.add_tests("ours", UNIX_COROUTINES)
    run_well(suite, tests, "--disable-socket", "--allow-unix-socket", *SCOPE, status=0)


UNIX_COROUTINES = """
import asyncio
from sidestage import HTTPServer

@pytest.mark.asyncio
async def test_unix_socket_passes(tmp_path):
    path = str(tmp_path / "socket")
    async def handler(request):
        return request.path
    async with HTTPServer(path, handler):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /a HTTP/1.0\\r\\n\\r\\n")
        assert (await reader.read()).endswith(b"/a")
        writer.close()
        await writer.wait_closed()
"""

FAKE_PROCESSES = """
import subprocess

def check(fp, port):
    fp.register(["git", "status"], stdout="fake")
    assert fetch(port, "/a") == "/a"
    assert subprocess.run(["git", "status"], capture_output=True).stdout.strip() == b"fake"
    assert fetch(port, "/b") == "/b"

@pytest.fixture
def port(serve):
    return serve(lambda path: path)

def test_start_inside_passes(fp, port):
    check(fp, port)

def test_start_outside_passes(port, fp):
    check(fp, port)
"""


@rows.add("pytest-subprocess", limit=LIMIT)
def fake_processes(sut: ServerUnderTest) -> None:
    run_patched(sut, "pytest-subprocess", FAKE_PROCESSES)


FAKE_FILES = """
def check(fs, port):
    fs.create_file("/data/file", contents="fake")
    assert os.listdir("/data") == ["file"]
    assert fetch(port) == "fake"

@pytest.fixture
def port(serve):
    return serve(lambda path: pathlib.Path("/data/file").read_text())

def test_start_inside_passes(fs, port):
    check(fs, port)

def test_start_outside_passes(port, fs):
    check(fs, port)

def test_after_passes(serve):
    assert not os.path.exists("/data/file")
    assert fetch(serve(lambda path: path), "/a") == "/a"
"""


@rows.add("pyfakefs", limit=LIMIT)
def fake_files(sut: ServerUnderTest) -> None:
    run_patched(sut, "fakefs", FAKE_FILES)


FROZEN = """
import datetime
from freezegun import freeze_time

@freeze_time("2012-01-14")
def test_decorated_passes(serve):
    assert fetch(serve(lambda path: str(datetime.date.today()))) == "2012-01-14"

@freeze_time("2012-01-14")
class TestFrozen:
    def test_in_a_class_passes(self, serve):
        assert fetch(serve(lambda path: time.strftime("%Y"))) == "2012"

def test_in_the_middle_passes(serve):
    port = serve(lambda path: str(datetime.date.today()))
    with freeze_time("2012-01-14") as frozen:
        assert fetch(port) == "2012-01-14"
        frozen.tick(datetime.timedelta(days=2))
        assert fetch(port) == "2012-01-16"
    assert fetch(port) > "2020"
"""


OUR_FROZEN = """
from sidestage import HTTPServer, WaitTimeout

@freeze_time("2012-01-14")
def test_time_outs_passes():
    with HTTPServer() as server:
        with pytest.raises(WaitTimeout):
            server.wait_for(1, timeout=0.1)
"""


@rows.add("freezegun's decorator", limit=LIMIT)
def frozen(sut: ServerUnderTest) -> None:
    run_patched(sut, "", FROZEN + (OUR_FROZEN if sut.name == Sidestage.name else ""))


MOVED = """
import datetime

def test_moved_inside_passes(time_machine, serve):
    time_machine.move_to(datetime.datetime(2012, 1, 14), tick=False)
    assert fetch(serve(lambda path: str(datetime.date.today()))) == "2012-01-14"

def test_moved_passes(serve, time_machine):
    port = serve(lambda path: str(datetime.date.today()))
    time_machine.move_to("2012-01-14")
    assert fetch(port) == "2012-01-14"
    time_machine.move_to("2031-01-14")
    assert fetch(port) == "2031-01-14"

@pytest.mark.time_machine("2012-01-14")
def test_marked_passes(serve):
    assert fetch(serve(lambda path: str(datetime.date.today()))) == "2012-01-14"
"""


@rows.add("time-machine's fixture", limit=LIMIT)
def moved(sut: ServerUnderTest) -> None:
    run_patched(sut, "time_machine", MOVED)


# Other ways to write tests -----------------------------------------------------------------------

TEST_CASES = """
import unittest

class Test(unittest.TestCase):
    def setUp(self):
        self.sut = SERVERS[os.environ["SUITE_SERVER"]]()
        self.sut.start(lambda path: self.id().rpartition(".")[2])

    def tearDown(self):
        self.sut.stop()

    def test_one_passes(self):
        self.assertEqual(fetch(self.sut.port), "test_one_passes")

    def test_other_fails(self):
        self.assertEqual(fetch(self.sut.port), "on purpose")
"""

OUR_TEST_CASES = """
import asyncio, unittest
from sidestage import HTTPServer

class TestErrors(unittest.TestCase):
    def setUp(self):
        self.server = HTTPServer(handler=self.handler).start()

    def tearDown(self):
        self.server.stop()

    def handler(self, request):
        self.assertEqual(request.path, "/expected", "on purpose")

    def test_expected_passes(self):
        fetch(self.server.port, "/expected")

    def test_unexpected_fails(self):
        with self.assertRaisesRegex(AssertionError, "500"):
            fetch(self.server.port)

async def get(server):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /a HTTP/1.0\\r\\n\\r\\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer

class TestCoroutines(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.server = await self.enterAsyncContext(HTTPServer(handler=self.handler))

    async def handler(self, request):
        self.assertIs(asyncio.get_running_loop(), self.loop)
        return request.path

    async def test_one_passes(self):
        self.loop = asyncio.get_running_loop()
        self.assertTrue((await get(self.server)).endswith(b"/a"))

    async def test_handler_fails(self):
        self.loop = "on purpose"
        await get(self.server)
"""


@rows.add("unittest.TestCase", limit=LIMIT)
def cases(sut: ServerUnderTest) -> None:
    suite = Suite(sut)
    tests = suite.add_tests("cases", TEST_CASES)
    if suite.is_sidestage:
        tests += suite.add_tests("ours", OUR_TEST_CASES)
    run_well(suite, tests, "-W", "error")


DOCTESTS = '''
def one_passes():
    """
    >>> import os
    >>> from kit.servers import SERVERS, fetch
    >>> sut = SERVERS[os.environ["SUITE_SERVER"]]()
    >>> sut.start(lambda path: path)
    >>> fetch(sut.port, "/a")
    '/a'
    >>> sut.stop()
    """
'''

OUR_DOCTESTS = '''
def handler_fails():
    """
    >>> from sidestage import HTTPServer
    >>> from kit.servers import fetch
    >>> def handler(request):
    ...     raise ValueError("on purpose")
    >>> with HTTPServer(handler=handler) as server:
    ...     try:
    ...         fetch(server.port)
    ...     except AssertionError:
    ...         pass
    """

def fixture_passes():
    """
    >>> from kit.servers import fetch
    >>> server = getfixture("http_server")
    >>> server.handler = lambda request: request.path
    >>> fetch(server.port, "/a")
    '/a'
    """
'''


@rows.add("--doctest-modules", limit=LIMIT)
def doctests(sut: ServerUnderTest) -> None:
    suite = Suite(sut)
    suite.write("greeter.py", DOCTESTS + (OUR_DOCTESTS if suite.is_sidestage else ""))
    tests, status = (3, 1) if suite.is_sidestage else (1, 0)
    run_well(suite, tests, "--doctest-modules", "-W", "error", status=status)


# pytest's own options ----------------------------------------------------------------------------

PRINTS = """
def test_print_fails(serve):
    def answer(path):
        print("said by the handler")
        return "something else"
    assert fetch(serve(answer)) == "on purpose"
"""


def _with(sut: ServerUnderTest, *options: str, plugins: tuple[str, ...] = ()) -> SuiteResult:
    suite = Suite(sut, *plugins)
    tests = suite.one_of_each() + suite.add_tests("prints", PRINTS)
    result = run_well(suite, tests, *options)
    result.assert_says("said by the handler")
    return result


@rows.add("-W error", limit=LIMIT)
def warnings_as_errors(sut: ServerUnderTest) -> None:
    _with(sut, "-W", "error")


@rows.add("--capture=fd, sys and no", limit=LIMIT)
def capture(sut: ServerUnderTest) -> None:
    for how in ("fd", "sys"):
        captured = _with(sut, f"--capture={how}").output
        assert "Captured stdout call -" in captured.partition("said by the handler")[0]
    assert "Captured stdout call -" not in _with(sut, "--capture=no").output


@rows.add("--import-mode=importlib", limit=LIMIT)
def import_mode(sut: ServerUnderTest) -> None:
    _with(sut, "--import-mode=importlib")


@rows.add("-p no:threadexception", limit=LIMIT)
def no_thread_exceptions(sut: ServerUnderTest) -> None:
    _with(sut, "-p", "no:threadexception", "-p", "no:unraisableexception")


@rows.add("--setup-show", limit=LIMIT)
def setup_show(sut: ServerUnderTest) -> None:
    _with(sut, "--setup-show").assert_says("SETUP    F serve", "TEARDOWN F serve")


@rows.add("--fixtures", limit=LIMIT, peers=False)
def fixtures(sut: ServerUnderTest) -> None:
    result = Suite(sut).run("--fixtures")
    for name in ("http", "smtp", "tcp", "udp"):
        result.assert_says(
            f"{name}_server -- ", f"A started {name.upper()} server of this test; set"
        )
    result.assert_says(
        "server_manager [session scope] -- ", "A started manager for the whole run: "
    )
    result.assert_status(0)


OFF = """
import psutil

def test_fixture_errs(http_server):  # on purpose, there is no such fixture
    pass

def test_class_passes():
    assert psutil.Process().children() == []
    from sidestage import HTTPServer
    with HTTPServer() as server:
        assert fetch(server.port) == ""
"""


@rows.add("-p no:sidestage", limit=LIMIT, peers=False)
def off(sut: ServerUnderTest) -> None:
    suite = Suite(sut, fixtures=False)
    result = run_well(suite, suite.add_tests("off", OFF))
    result.assert_says("fixture 'http_server' not found")


# Beside each other -------------------------------------------------------------------------------

BOTH = """
def test_both_passes(httpserver, http_server):
    httpserver.expect_request("/a").respond_with_data("theirs")
    http_server.handler = lambda request: fetch(httpserver.port, request.path)
    assert fetch(http_server.port, "/a") == "theirs"
    httpserver.check()

def test_handler_fails(http_server, httpserver):
    httpserver.expect_request("/a").respond_with_data("theirs")
    def handler(request):
        raise ValueError("on purpose")
    http_server.handler = handler
    assert fetch(httpserver.port, "/a") == "theirs"
    with pytest.raises(AssertionError, match="500"):
        fetch(http_server.port)
"""


@rows.add("pytest-httpserver", limit=LIMIT, peers=False)
def both(sut: ServerUnderTest) -> None:
    suite = Suite(sut, "pytest_httpserver")
    tests = suite.add_tests("both", BOTH) + suite.one_of_each()
    run_well(suite, tests, "-W", "error")


@rows.add("all that are installed, -n 2", limit=LIMIT)
def every(sut: ServerUnderTest) -> None:
    suite = Suite(sut, all_plugins=True)
    tests = suite.one_of_each() + suite.one_of_each("more")
    if suite.is_sidestage:
        tests += suite.add_tests("both", BOTH)
    run_well(suite, tests, "-n2")


# Coverage ----------------------------------------------------------------------------------------

COVERED = """
def test_plain_passes(serve):
    def answer(path):
        first = path
        return first
    assert fetch(serve(answer), "/a") == "/a"

def test_again_passes(serve):
    def answer(path):
        again = path
        return again
    port = serve(answer)
    assert fetch(port, "/a") == fetch(port, "/a") == "/a"
"""

OUR_COVERED = """
import asyncio
from sidestage import TCPServer

def test_coroutine_passes(http_server):
    async def handler(request):
        await asyncio.sleep(0)
        return request.path
    http_server.handler = handler
    assert fetch(http_server.port, "/a") == "/a"

def test_from_the_start_passes():
    def handler(connection):
        first = connection.recv(1)
        return first
    with TCPServer(handler=handler) as server:
        with socket.create_connection(server.server_address) as client:
            client.sendall(b"a")
            assert client.recv(1) == b"a"
"""

COVERAGE_CONFIG = """
[run]
include = test_*.py
parallel = true
patch = subprocess
"""


def _covered(sut: ServerUnderTest, *options: str, core: str) -> None:
    suite = Suite(sut)
    suite.write(".coveragerc", COVERAGE_CONFIG)
    tests = suite.add_tests("covered", COVERED)
    if suite.is_sidestage:
        tests += suite.add_tests("ours", OUR_COVERED)
    run = ("-m", "coverage", "run", *PYTEST)
    run_well(suite, tests, *options, status=0, python=run, COVERAGE_CORE=core)
    for command in ("combine", "json"):
        subprocess.run([sys.executable, "-m", "coverage", command, "-q"], check=True)
    report: dict[str, Any] = json.loads(Path("coverage.json").read_text())
    missed = {name: file["missing_lines"] for name, file in report["files"].items()}
    assert not any(missed.values()), f"lines not counted: {missed}"
    assert len(missed) == 1 + suite.is_sidestage, missed


@rows.add("coverage, C tracer", limit=LIMIT)
def coverage_by_ctrace(sut: ServerUnderTest) -> None:
    _covered(sut, core="ctrace")


@rows.add("coverage, C tracer, -n 2", limit=LIMIT)
def coverage_in_workers(sut: ServerUnderTest) -> None:
    _covered(sut, "-n2", core="ctrace")


if sys.version_info >= (3, 12):

    @rows.add("coverage, sys.monitoring", limit=LIMIT)
    def coverage_by_sysmon(sut: ServerUnderTest) -> None:
        _covered(sut, core="sysmon")


test_row = pytest.mark.timeout(150)(rows.test())

if __name__ == "__main__":
    rows.main()
