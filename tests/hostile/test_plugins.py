"""Plugins that reorder, repeat or time out tests, or serve HTTP, change nothing."""

from __future__ import annotations

import pytest

from kit.matrix import Rows
from kit.servers import ServerUnderTest
from kit.suite import LIMIT, Suite

rows = Rows("Beside other plugins", __file__)


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
    suite.run_as_named(tests, "--randomly-seed=1", SIDESTAGE_POOL="0").assert_says(
        "--randomly-seed=1"
    )
    suite.run_as_named(tests, "--randomly-seed=2", "-n2").assert_says("--randomly-seed=2")


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
    result = suite.run_as_named(suite.add_tests("rerun", RERUN), "--reruns=2")
    result.assert_says("1 failed, 1 passed, 3 rerun")


@rows.add("pytest-rerunfailures, a handler fails at first", limit=LIMIT, peers=False)
def rerun_handlers(sut: ServerUnderTest) -> None:
    suite = Suite(sut, "rerunfailures")
    result = suite.run_as_named(suite.add_tests("rerun", OUR_RERUN), "--reruns=2")
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
    suite.run_as_named(MOMENTS, status=0)


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
    suite.run_as_named(tests, "-W", "error")


@rows.add("all that are installed, -n 2", limit=LIMIT)
def every(sut: ServerUnderTest) -> None:
    suite = Suite(sut, all_plugins=True)
    tests = suite.one_of_each() + suite.one_of_each("more")
    if suite.is_sidestage:
        tests += suite.add_tests("both", BOTH)
    suite.run_as_named(tests, "-n2")


test_row = pytest.mark.timeout(150)(rows.test())

if __name__ == "__main__":
    rows.main()
