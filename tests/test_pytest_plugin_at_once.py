"""What belongs to no one test is told once, at the end of the run, which fails."""

from __future__ import annotations

import re

import pytest

from kit.pytest_runs import HEAD, Run, runner

# Runs tests in a thread each, all at once: those called "late" once another has asked, and those
# called "alone" afterwards, one by one.
AT_ONCE = """
import threading
import _pytest.runner
from _pytest.runner import SetupState

class Each(threading.local):
    def __init__(self):
        self.state = SetupState()

    def __getattr__(self, name):
        return getattr(self.state, name)

def pytest_runtestloop(session):
    _pytest.runner._update_current_test_var = lambda item, when: None  # one for all threads
    session._setupstate = Each()
    protocol = session.config.hook.pytest_runtest_protocol

    def run(item):
        if "late" in item.name:
            item.module.asked.wait(30)
        protocol(item=item, nextitem=None)

    threads = [
        threading.Thread(target=run, args=(item,))
        for item in session.items if "alone" not in item.name
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for item in session.items:
        if "alone" in item.name:
            run(item)
    return True
"""
SERVERS = """
import atexit, gc, threading
from sidestage import HTTPServer

def handler(request):
    if request.path == "/wrong":
        raise AssertionError("not that")  # here

def ask(server, path):
    try:
        fetch(server.url + path)
    except urllib.error.HTTPError:
        pass

both = threading.Barrier(2, timeout=30)
"""
SHARED = """
SERVER = HTTPServer(handler=handler).start()
"""
TWO = """
def test_one():
    both.wait()
    ask(SERVER, "/wrong")
    both.wait()

def test_two():
    both.wait()
    ask(SERVER, "/wrong")
    both.wait()
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs pytest on one module, in a new process, with room for whole lines."""
    monkeypatch.setenv("COLUMNS", "500")
    return runner(pytester, monkeypatch, HEAD + SERVERS)


@pytest.fixture
def at_once(run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The same, in threads; without plugins that could not be used in several."""
    pytester.makeconftest(AT_ONCE)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    plugins = ("-p", "sidestage.pytest_plugin", "-p", "no:logging", "-p", "no:cacheprovider")

    def run_at_once(source: str) -> pytest.RunResult:
        return run(source, "-s", *plugins, others=())

    return run_at_once


def summary(result: pytest.RunResult) -> list[str]:
    """The lines of the short summary, without the place in the file."""
    lines = re.findall(r"^((?:FAILED|ERROR) .*)$", result.stdout.str(), re.MULTILINE)
    return [re.sub(r"\S*\.py(::|:\d+)", "", line) for line in lines]


class TestSeveralTestsAtOnce:
    def test_of_a_shared_server_is_told_at_the_end(self, at_once: Run) -> None:
        result = at_once(SHARED + TWO)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.assert_outcomes(passed=2, errors=1)
        (line,) = summary(result)
        assert line.startswith("ERROR sidestage - AssertionError: not that in handler, , 2 times")
        assert re.search("during (test_one or .*test_two|test_two or .*test_one)", line)
        report = result.stdout.str()
        assert report.count('> raise AssertionError("not that")  # here') == 1
        assert "client told: 500" in report
        assert "sidestage" not in result.stderr.str()

    def test_of_a_server_of_a_test_it_fails_that_test(self, at_once: Run) -> None:
        result = at_once(
            """
def test_guilty(http_server):
    http_server.handler = handler
    both.wait()
    ask(http_server, "/wrong")
    both.wait()

def test_innocent():
    both.wait()
    both.wait()
    with HTTPServer(handler=handler) as server:
        ask(server, "/right")
"""
        )
        result.assert_outcomes(passed=1, failed=1)
        assert summary(result) == ["FAILED test_guilty - AssertionError: not that in handler, "]

    def test_of_a_test_that_runs_alone_it_fails_that_test(self, at_once: Run) -> None:
        result = at_once(
            SHARED
            + TWO.replace("wrong", "right")
            + """
def test_alone():
    ask(SERVER, "/wrong")

def test_alone_after():
    ask(SERVER, "/right")
"""
        )
        result.assert_outcomes(passed=3, failed=1)
        assert summary(result) == ["FAILED test_alone - AssertionError: not that in handler, "]

    def test_that_came_before_the_other_began_it_fails_that_test(self, at_once: Run) -> None:
        result = at_once(
            SHARED
            + """
asked = threading.Event()

def test_early():
    ask(SERVER, "/wrong")
    asked.set()
    both.wait()

def test_late():
    both.wait()
    ask(SERVER, "/right")
"""
        )
        result.assert_outcomes(passed=1, failed=1)
        assert summary(result) == ["FAILED test_early - AssertionError: not that in handler, "]

    def test_that_a_test_expects_it_fails_nothing(self, at_once: Run) -> None:
        result = at_once(
            SHARED
            + """
def test_one():
    both.wait()
    with SERVER.expected_errors(AssertionError):
        ask(SERVER, "/wrong")
    both.wait()

def test_two():
    both.wait()
    both.wait()
"""
        )
        assert result.ret == 0
        result.assert_outcomes(passed=2)


class TestWhatComesAfterAllTests:
    def test_of_a_server_that_is_used_at_the_end(self, run: Run, pytester: pytest.Pytester) -> None:
        pytester.makeconftest("""
def pytest_sessionfinish(session):
    module = session.items[0].module
    module.ask(module.SERVER, "/wrong")
""")
        result = run(SHARED + "def test_all(): pass")
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.assert_outcomes(passed=1, errors=1)
        (line,) = summary(result)
        assert line.startswith("ERROR sidestage - AssertionError: not that in handler, ")

    def test_of_a_server_that_is_gone(self, run: Run) -> None:
        result = run("""
def use():
    server = HTTPServer(handler=handler).start()
    ask(server, "/wrong")
    assert server.begin_stop(5)
    server.finish_stop()

def test_guilty():
    use()
    gc.collect()

def test_next():
    pass
""")
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.assert_outcomes(passed=2, errors=1)
        (line,) = summary(result)
        assert line.endswith(", for a request during test_guilty → client told: 500")
        assert "[100%]" in result.stdout.str()
        assert "[150%]" not in result.stdout.str()

    def test_nothing_is_told_of_a_run_without_errors(self, run: Run) -> None:
        result = run(SHARED + "def test_one():\n    ask(SERVER, '/right')")
        assert result.ret == 0
        result.assert_outcomes(passed=1)

    @pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["here", "in a worker"])
    def test_other_reports_have_it(
        self, options: tuple[str, ...], run: Run, pytester: pytest.Pytester
    ) -> None:
        pytester.makeconftest("""
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session):
    yield
    for item in getattr(session, "items", ()):
        item.module.ask(item.module.SERVER, "/wrong")
    return True
""")
        result = run(SHARED + "def test_all(): pass", "--junitxml=out.xml", *options)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        text = (pytester.path / "out.xml").read_text()
        assert 'errors="1"' in text
        assert "AssertionError: not that in handler" in text
