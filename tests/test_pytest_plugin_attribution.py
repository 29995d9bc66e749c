"""An error of a handler fails the test during which its request came, whosever server it is."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from kit.pytest_runs import HEAD, Run, runner
from kit.scripts import environment

SERVERS = """
from sidestage import HTTPServer, UDPServer

def handler(request):
    assert request.path != "/wrong", "not that"  # here

def ask(server, path):
    try:
        fetch(server.url + path)
    except urllib.error.HTTPError:
        pass
"""

# However a server that tests share was made, and what stops it.
SHARED = {
    "a fixture of the session": """
@pytest.fixture(scope="session")
def server():
    with HTTPServer(handler=handler) as server:
        yield server
""",
    "a fixture of the module": """
@pytest.fixture(scope="module")
def server():
    server = HTTPServer(handler=handler).start()
    yield server
    server.stop()
""",
    "the manager": """
@pytest.fixture
def server(server_manager):
    if "shared" not in server_manager:
        server_manager.add("shared", HTTPServer(handler=handler))
    return server_manager["shared"]
""",
    "a global": """
import atexit
SERVER = HTTPServer(handler=handler).start()
atexit.register(SERVER.stop)

@pytest.fixture
def server():
    return SERVER
""",
    "a hook": """
@pytest.fixture(scope="session", autouse=True)
def made(request):
    request.config.made = HTTPServer(handler=handler).start()
    yield
    request.config.made.stop()

@pytest.fixture
def server(request):
    return request.config.made
""",
}
THREE = """
def test_before(server):
    ask(server, "/right")

def test_guilty(server):
    ask(server, "/wrong")

def test_after(server):
    ask(server, "/right")

def test_expects(server):
    with server.expected_errors(AssertionError) as errors:
        ask(server, "/wrong")
    assert len(errors) == 1
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs pytest on one module, in a new process."""
    return runner(pytester, monkeypatch, HEAD + SERVERS)


def failed(result: pytest.RunResult) -> list[str]:
    """The lines of the short summary, without the place in the file."""
    lines = re.findall(r"^((?:FAILED|ERROR) .*)$", result.stdout.str(), re.MULTILINE)
    return [re.sub(r"\S*\.py::|\S*\.py:\d+", "", line).partition(" - ")[0] for line in lines]


@pytest.mark.parametrize("made", SHARED.values(), ids=SHARED.keys())
def test_of_a_shared_server_the_guilty_one_fails(made: str, run: Run) -> None:
    result = run(made + THREE)
    result.assert_outcomes(passed=3, failed=1)
    assert failed(result) == ["FAILED test_guilty"]


WAYS = {
    "workers": ("-n", "2"),
    "repeated": ("-p", "rerunfailures", "--reruns", "1"),
    "random order": ("-p", "randomly"),
}


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS.keys())
def test_whatever_runs_the_tests(options: tuple[str, ...], run: Run) -> None:
    result = run(SHARED["a fixture of the session"] + THREE, *options)
    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes["failed"]) == (3, 1)
    assert failed(result) == ["FAILED test_guilty"]
    assert outcomes.get("rerun", 0) == ("--reruns" in options)


def test_a_repeated_test_may_pass(run: Run) -> None:
    result = run(
        SHARED["a fixture of the session"]
        + """
paths = ["/right", "/wrong"]

def test_flaky(server):
    ask(server, paths.pop())
""",
        *WAYS["repeated"],
    )
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1}


LATE = """
import threading
go_on, failed = threading.Event(), threading.Event()

def late(datagram):
    go_on.wait(10)
    try:
        raise ValueError(datagram.packet)
    finally:
        failed.set()

@pytest.fixture(scope="session")
def server():
    with UDPServer(handler=late) as server:
        yield server

def test_guilty(server):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"late", server.server_address)
    server.wait_for(1)

def come(server):
    go_on.set()
    assert failed.wait(10)
    while not server.errors:
        pass
"""


@pytest.mark.parametrize(
    "phase, source",
    [
        ("FAILED", "def test_next(server):\n    come(server)"),
        (
            "ERROR",
            """
@pytest.fixture
def coming(server):
    come(server)

def test_next(coming):
    raise AssertionError("not reached")
""",
        ),
        (
            "ERROR",
            """
@pytest.fixture
def coming(server):
    yield
    come(server)

def test_next(coming):
    pass
""",
        ),
    ],
    ids=["call", "setup", "teardown"],
)
def test_one_that_comes_late_fails_the_next_phase_and_names_the_test(
    phase: str, source: str, run: Run
) -> None:
    result = run(LATE + source, "--tb=short")
    assert failed(result) == [f"{phase} test_next"]
    name = "test_one_that_comes_late_fails_the_next_phase_and_names_the_test.py"
    result.stdout.re_match_lines(
        [
            rf"ValueError: b'late' in handler, {name}:\d+, for a request during .*::test_guilty",
            rf"E   the request came during {name}::test_guilty",
        ]
    )


def test_one_that_nobody_has_seen_when_its_server_stops_names_the_test(run: Run) -> None:
    result = run(
        LATE.replace("        yield server\n", "        yield server\n        go_on.set()\n")
    )
    assert failed(result) == ["ERROR test_guilty"]  # the last one
    result.stdout.fnmatch_lines(["ValueError: b'late' in handler, *"])


def test_a_connection_may_be_older_than_the_test_that_uses_it(run: Run) -> None:
    result = run("""
from sidestage import TCPServer

def echo(connection):
    while data := connection.recv(10):
        assert data != b"wrong"
        connection.sendall(data)

@pytest.fixture(scope="module")
def client():
    with TCPServer(handler=echo) as server:
        with socket.create_connection(server.server_address) as client:
            yield client

def ask(client, data):
    client.sendall(data)
    try:
        return client.recv(10)
    except ConnectionResetError:
        pass

def test_before(client):
    assert ask(client, b"right") == b"right"

def test_guilty(client):
    ask(client, b"wrong")

def test_after(client):
    pass
""")
    assert failed(result) == ["FAILED test_guilty"]
    result.stdout.no_fnmatch_line("*for a request during*")


def test_what_came_during_a_setup_fails_the_call(run: Run) -> None:
    result = run(
        SHARED["a fixture of the session"]
        + """
@pytest.fixture
def asked(server):
    ask(server, "/wrong")

def test_guilty(asked):
    pass
"""
    )
    assert failed(result) == ["FAILED test_guilty"]
    result.assert_outcomes(failed=1)


CASES = """
class Test(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(HTTPServer(handler=handler))

    def test_a_before(self):
        ask(self.server, "/right")

    def test_b_guilty(self):
        ask(self.server, "/wrong")

    def test_c_guilty_and_failing(self):
        ask(self.server, "/wrong")
        self.fail("no report")

    def test_d_after(self):
        ask(self.server, "/right")

    def test_e_skips(self):
        ask(self.server, "/wrong")
        self.skipTest("not today")
"""


def test_of_a_server_of_a_test_case(run: Run) -> None:
    result = run(CASES)
    result.assert_outcomes(passed=2, failed=2, skipped=1)
    assert failed(result) == [
        "FAILED Test::test_b_guilty",
        "FAILED Test::test_c_guilty_and_failing",
    ]
    result.stdout.fnmatch_lines(
        ["AssertionError: not that in handler, *.py:* → test: AssertionError: no report"]
    )


# As pytest-forked does it, whose releases do not work with every pytest.
FORKING = """
import json, os
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item):
    hook = item.config.hook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reading, writing = os.pipe()
    if not os.fork():
        reports = runtestprotocol(item, log=False)
        each = [hook.pytest_report_to_serializable(config=item.config, report=r) for r in reports]
        os.write(writing, json.dumps(each).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as file:
        for data in json.load(file):
            report = hook.pytest_report_from_serializable(config=item.config, data=data)
            hook.pytest_runtest_logreport(report=report)
    os.wait()
    return True
"""
FORKED = """
def test_guilty():
    with HTTPServer(handler=handler) as server:
        ask(server, "/wrong")

def test_fixture(http_server):
    http_server.handler = handler
    fetch(http_server.url + "/wrong")

def test_innocent(http_server):
    ask(http_server, "/right")
"""


def test_in_a_forked_process(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(FORKING)
    result = run(FORKED, warnings=())
    assert failed(result) == ["FAILED test_guilty", "FAILED test_fixture"]
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["AssertionError: not that in handler, *→ client: HTTPError 500"])


COROUTINES = """
import asyncio

@pytest.fixture
def server():
    with HTTPServer(handler=handler) as server:
        yield server

@MARK
async def test_before(server):
    await asyncio.to_thread(ask, server, "/right")

@MARK
async def test_guilty(server):
    await asyncio.to_thread(ask, server, "/wrong")

@MARK
async def test_fails():
    async with HTTPServer(handler=handler) as server:
        await asyncio.to_thread(fetch, server.url + "/wrong")
"""


@pytest.mark.parametrize("plugin", ["asyncio", "anyio"])
def test_of_coroutines(plugin: str, run: Run) -> None:
    mark = f"pytest.mark.{plugin}"
    backend = '\n@pytest.fixture\ndef anyio_backend():\n    return "asyncio"\n'
    result = run(
        COROUTINES.replace("MARK", mark) + backend,
        others=("-p", "no:cacheprovider", "-p", "no:randomly"),
        warnings=(),
    )
    assert failed(result) == ["FAILED test_guilty", "FAILED test_fails"]
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["AssertionError: not that in handler, *→ client: HTTPError 500"])


SUBTESTS = """
def test_parts(subtests, http_server):
    http_server.handler = handler
    for path in ("/right", "/wrong"):
        with subtests.test(path=path):
            fetch(http_server.url + path)
"""


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="pytest has subtests from 9 on")
def test_of_subtests(run: Run) -> None:
    result = run(SUBTESTS)
    result.stdout.fnmatch_lines(
        [
            "_* test_parts (path='/wrong') _*",
            "AssertionError: not that in handler, test_of_subtests.py:* → client: HTTPError 500",
            "FAILED*test_parts - contains 1 failed subtest",
        ]
    )


def test_under_the_runner_of_unittest(tmp_path: object) -> None:
    source = HEAD.replace("import pytest\n", "") + SERVERS + CASES.partition("    def test_c")[0]
    done = subprocess.run(
        [sys.executable, "-c", source + "\nunittest.main()"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert "AssertionError: not that" in done.stderr
    assert done.stderr.count("sidestage/") <= 1
