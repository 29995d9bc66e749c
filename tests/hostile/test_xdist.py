"""A suite has the same outcomes in one process, in many, and in one that forks for each test.

Its workers never share a port, none gets a request for another's server, and whatever happens to a
worker, nothing is left.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from kit.matrix import Rows
from kit.scripts import all_gone, eventually
from kit.servers import ServerUnderTest
from kit.suite import PEER_TESTS, SIDESTAGE_TESTS, Suite

rows = Rows("xdist", __file__)

LIMIT = 120.0  # seconds on a machine that has much else to do

# Notes which test ran where, and which port was whose, from when to when (less than it really was).
NOTES = """
@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    began = time.monotonic()
    with open(f"ran-{os.getpid()}", "a") as file:
        print(item.nodeid, file=file)
    try:
        return (yield)
    finally:
        with open(f"ports-{os.getpid()}", "a") as file:
            for name, server in item.funcargs.items():
                if name in ("http_server", "smtp_server", "tcp_server", "udp_server"):
                    kind = "udp" if name.startswith("udp") else "tcp"
                    print(kind, server.port, began, time.monotonic(), file=file)
"""


# What a failing test costs most time with, here where 50 fail.
QUICK = ("--assert=plain", "--tb=native")


class Large:
    """A suite of 500 tests that use everything; 60 for servers that stop slowly."""

    def __init__(self, sut: ServerUnderTest) -> None:
        self.suite = Suite(sut)
        self.suite.extend_conftest(NOTES)
        source, modules = (SIDESTAGE_TESTS, 10) if self.suite.is_sidestage else (PEER_TESTS, 6)
        for number in range(modules):
            self.suite.add_tests(f"part{number}", source)
        self.tests = 500 if self.suite.is_sidestage else 60

    def run_wholly(self, *options: str) -> None:
        """Run it; the outcomes are as named, and no two servers had the same port."""
        result = self.suite.run(*QUICK, *options, seconds=100)
        result.assert_as_named(self.tests)
        result.assert_status(1)
        used = sorted(uses())
        assert len(used) > 400 or not self.suite.is_sidestage
        clashes = [(a, b) for a, b in pairwise(used) if a[:2] == b[:2] and b[2] < a[3]]
        assert not clashes, clashes


def uses() -> Iterator[tuple[str, int, float, float]]:
    """The servers of all tests so far: protocol, port, from when, until when."""
    for file in Path().glob("ports-*"):
        for line in file.read_text().splitlines():
            kind, port, since, until = line.split()
            yield kind, int(port), float(since), float(until)


def running(count: int) -> dict[int, int]:
    """Wait until ``count`` processes have begun tests; returns how many each has begun."""

    def begun() -> dict[int, int]:
        files = Path().glob("ran-*")
        return {int(file.name[4:]): len(file.read_text().splitlines()) for file in files}

    assert eventually(lambda: len(begun()) == count and min(begun().values()) > 1, 60), begun()
    return begun()


@rows.add("a large suite in one process", limit=LIMIT)
def in_one_process(sut: ServerUnderTest) -> None:
    Large(sut).run_wholly()


@rows.add("a large suite, -n 4 --dist load", limit=LIMIT)
def load(sut: ServerUnderTest) -> None:
    Large(sut).run_wholly("-n4", "--dist=load")


@rows.add("a large suite, -n 4 --dist loadscope", limit=LIMIT)
def loadscope(sut: ServerUnderTest) -> None:
    Large(sut).run_wholly("-n4", "--dist=loadscope")


@rows.add("a large suite, -n 4 --dist worksteal", limit=LIMIT)
def worksteal(sut: ServerUnderTest) -> None:
    Large(sut).run_wholly("-n4", "--dist=worksteal")


# Forks ------------------------------------------------------------------------------------------

# What pytest-forked does, without it: each test in a fork of its own, which leaves by os._exit.
FORK = """
import pickle, traceback
from _pytest.runner import runtestprotocol

def run_in_a_fork(item):
    hook = item.config.hook
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            reports = runtestprotocol(item, log=False)
            data = [hook.pytest_report_to_serializable(config=item.config, report=report)
                    for report in reports]
            with open(writer, "wb") as file:
                pickle.dump(data, file)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as file:
        data = pickle.load(file)
    assert os.waitpid(pid, 0)[1] == 0
    return [hook.pytest_report_from_serializable(config=item.config, data=one) for one in data]

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in run_in_a_fork(item):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
"""

# A server of the process that all tests are forked from; it is the same to all of them.
COMMON = """
@pytest.hookimpl
def pytest_sessionstart(session):
    session.common = SERVERS[os.environ["SUITE_SERVER"]]()
    session.common.start(lambda path: f"{os.getpid()} {path}")

@pytest.hookimpl
def pytest_runtest_setup(item):
    common = item.session.common
    assert fetch(common.port, "/common") == f"{os.getppid()} /common"

@pytest.hookimpl
def pytest_runtest_teardown(item):
    item.session.common.stop()  # in the copy, as fixtures of the whole run are torn down there

@pytest.hookimpl
def pytest_sessionfinish(session):
    session.common.wait_for(session.testscollected)
    assert fetch(session.common.port, "/last") == f"{os.getpid()} /last"
    session.common.stop()
"""


# What newer pytests have as the id of a report, pytest-forked cannot send from its fork.
PLAIN_IDS = """
import pytest_forked
serialize = pytest_forked.serialize_report

def with_a_plain_id(report):
    data = serialize(report)
    data.pop("_id", None)
    return {**data, "nodeid": report.nodeid}

pytest_forked.serialize_report = with_a_plain_id
"""


@rows.add("--forked", limit=LIMIT)
def forked(sut: ServerUnderTest) -> None:
    suite = Suite(sut, "pytest_forked")
    tests = suite.one_of_each()
    suite.extend_conftest(PLAIN_IDS)
    suite.add_tests("crash", CRASH)
    result = suite.run("--forked", seconds=100)
    result.assert_as_named(tests + CRASHES)
    result.assert_status(1)


@rows.add("a fork for each test", limit=LIMIT)
def fork_for_each_test(sut: ServerUnderTest) -> None:
    suite = Suite(sut)
    tests = suite.one_of_each()
    suite.extend_conftest(FORK)
    result = suite.run(seconds=100)
    result.assert_as_named(tests)
    result.assert_status(1)
    result.assert_does_not_say("multi-threaded")


@rows.add("a fork for each test, and a server that all of them use", limit=LIMIT)
def fork_beside_a_server(sut: ServerUnderTest) -> None:
    suite = Suite(sut)
    tests = suite.one_of_each()
    suite.extend_conftest(FORK + COMMON)
    result = suite.run(seconds=40)
    result.assert_as_named(tests)
    result.assert_status(1)
    result.assert_does_not_say("multi-threaded")  # as CPython 3.12 warns


# Runs that end early ----------------------------------------------------------------------------

CRASH = """
import signal

@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_signal_crashes(serve, number):
    port = serve(lambda path: os.kill(os.getpid(), number))
    fetch(port)

def test_exit_crashes(serve):
    port = serve(lambda path: os._exit(1))
    fetch(port)

def test_own_exit_crashes(serve):
    fetch(serve(lambda path: path))
    os._exit(3)
"""
CRASHES = 5


@rows.add("workers crash in a test, -n 4", limit=LIMIT)
def workers_crash(sut: ServerUnderTest) -> None:
    suite = Suite(sut)
    tests = sum(suite.one_of_each(f"part{number}") for number in range(6))
    suite.add_tests("crash", CRASH)
    result = suite.run("-n4", seconds=100)
    result.assert_as_named(tests + CRASHES)
    result.assert_status(1)


@rows.add("-x, -n 4", limit=LIMIT)
def stop_at_the_first_failure(sut: ServerUnderTest) -> None:
    large = Large(sut)
    result = large.suite.run(*QUICK, "-n4", "-x", seconds=100)
    result.assert_ran_as_named()
    assert 0 < len(result.outcomes) < large.tests
    assert result.count("failed") + result.count("error") > 0
    result.assert_status(2)


@rows.add("--maxfail=3, -n 4", limit=LIMIT)
def stop_at_the_third_failure(sut: ServerUnderTest) -> None:
    large = Large(sut)
    result = large.suite.run(*QUICK, "-n4", "--maxfail=3", seconds=100)
    result.assert_ran_as_named()
    assert 0 < len(result.outcomes) < large.tests
    assert result.count("failed") + result.count("error") > 2
    result.assert_status(2)


@rows.add("Ctrl-C in the middle, -n 4", limit=LIMIT)
def interrupted(sut: ServerUnderTest) -> None:
    large = Large(sut)
    process = large.suite.start(large.suite.command(*QUICK, "-n4"))
    running(4)
    process.send_signal(signal.SIGINT)
    result = large.suite.finish(process, 100)
    result.assert_ran_as_named()
    assert len(result.outcomes) < large.tests
    result.assert_status(2)


@rows.add("the controller is killed, -n 4", limit=LIMIT)
def controller_killed(sut: ServerUnderTest) -> None:
    large = Large(sut)
    process = large.suite.start(large.suite.command(*QUICK, "-n4"))
    workers = running(4)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert all_gone(list(workers), 40)  # the servers must be gone a second later


HANG = """
def test_handler_hangs(serve):
    def answer(path):
        pathlib.Path("hanging").touch()
        threading.Event().wait(100)
    fetch(serve(answer), timeout=100)
"""


@rows.add("Ctrl-C while a handler hangs", limit=LIMIT)
def interrupted_in_a_handler(sut: ServerUnderTest) -> None:
    suite = Suite(sut)
    suite.add_tests("hang", HANG)
    process = suite.start(suite.command())
    assert eventually(Path("hanging").exists, 30)
    process.send_signal(signal.SIGINT)
    result = suite.finish(process, 40)
    result.assert_says("KeyboardInterrupt")
    result.assert_status(2)


test_row = pytest.mark.timeout(150)(rows.test())

if __name__ == "__main__":
    rows.main()
