"""Other styles of tests, pytest's own options, and coverage change nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kit.matrix import Rows
from kit.servers import ServerUnderTest
from kit.suite import LIMIT, PYTEST, Suite, SuiteResult

rows = Rows("Beside other plugins", __file__)


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
    suite.run_as_named(tests, "-W", "error")


OUR_SHARED = """
from sidestage import HTTPServer, UDPServer

def handler(request):
    assert request.path == "/expected", "on purpose"

@pytest.fixture(scope="session")
def of_session():
    with HTTPServer(handler=handler) as server:
        yield server

@pytest.fixture(scope="module")
def of_module():
    server = HTTPServer(handler=handler).start()
    yield server
    server.stop()

@pytest.fixture
def of_manager(server_manager):
    if "shared" not in server_manager:
        server_manager.add("shared", HTTPServer(handler=handler))
    return server_manager["shared"]

@pytest.fixture(params=["of_session", "of_module", "of_manager"])
def server(request):
    return request.getfixturevalue(request.param)

def quietly(server, path):
    try:
        fetch(server.port, path)
    except AssertionError:
        pass

def test_before_passes(server):
    quietly(server, "/expected")

def test_guilty_fails(server):
    quietly(server, "/other")

def test_expecting_passes(server):
    with server.expected_errors(AssertionError):
        quietly(server, "/other")

def test_after_passes(server):
    quietly(server, "/expected")
"""


@rows.add("servers that tests share: an error fails the test that asked", limit=LIMIT, peers=False)
def shared(sut: ServerUnderTest) -> None:
    suite = Suite(sut)
    suite.add_tests("shared", OUR_SHARED)
    suite.run_as_named(12, "-W", "error").assert_says("3 failed, 9 passed")


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
    suite.run_as_named(tests, "--doctest-modules", "-W", "error", status=status)


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
    result = suite.run_as_named(tests, *options)
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
        "server_manager [session scope] -- ", "A started manager for the whole session: "
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
    result = suite.run_as_named(suite.add_tests("off", OFF))
    result.assert_says("fixture 'http_server' not found")


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
    suite.run_as_named(tests, *options, status=0, python=run, COVERAGE_CORE=core)
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
