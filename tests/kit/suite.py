"""A user's test suite, written into the working directory and run by its own pytest.

The name of each test ends with its expected outcome, in any order and under any runner: ``passes``,
``fails``, ``errs`` (in its teardown), ``skips``, ``xfails``, ``crashes`` (with its process) or
``hangs`` (until a timeout). Deliberate failures say "on purpose", so that no other failure is
mistaken for them.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from kit.servers import ServerUnderTest, Sidestage

# The ending of a name -> the outcome, and a pattern that its report matches.
_ENDINGS = {
    "passes": ("passed", ""),
    "fails": ("failed", "on purpose"),
    "errs": ("error", "on purpose"),
    "skips": ("skipped", "on purpose"),
    "xfails": ("xfailed", "on purpose"),
    "crashes": ("error", "crashed|CRASHED|EXITED"),
    "hangs": ("failed", "Timeout"),
}
PYTEST = ("-m", "pytest")
LIMIT = 120.0  # seconds for a row with several runs of pytest, each of which takes up to three
# Without it, pytest-asyncio warns that a default will change.
ASYNCIO_SCOPE = ("-o", "asyncio_default_fixture_loop_scope=function")

_STAY = frozenset({"sidestage", "xdist", "xdist.looponfail"})
_INI = """
[pytest]
addopts = -p no:cacheprovider --tb=short -ra
"""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one test, and the text of its report."""

    word: str
    text: str


class SuiteResult:
    """The outcome of a finished run of pytest."""

    def __init__(self, status: int, output: str, report: Path) -> None:
        self.status = status
        self.output = output
        self.outcomes: dict[str, Outcome] = {}
        if report.exists():
            for case in ET.parse(report).iter("testcase"):
                if case.get("name"):  # the test that an interrupt ended has none
                    name = f"{case.get('classname')}.{case.get('name')}"
                    self._note(name, _outcome(case))

    def _note(self, name: str, outcome: Outcome) -> None:
        known = self.outcomes.get(name)
        # A test that failed and then had an error is listed twice, and so is one that was rerun.
        if known is not None and known.word != "passed":
            outcome = Outcome(f"{known.word} and {outcome.word}", known.text + outcome.text)
        self.outcomes[name] = outcome

    def count(self, word: str) -> int:
        """How many tests had this outcome."""
        return sum(outcome.word == word for outcome in self.outcomes.values())

    def assert_as_named(self, tests: int) -> None:
        """Assert that this many tests ran, each with the outcome that its name says."""
        assert len(self.outcomes) == tests, self.message(
            f"{len(self.outcomes)} of {tests} tests ran"
        )
        self.assert_ran_as_named()

    def assert_ran_as_named(self) -> None:
        """Assert that each test that ran had the outcome that its name says."""
        wrong = [
            f"{name.rpartition('.')[2]} {outcome.word}"
            for name, outcome in sorted(self.outcomes.items())
            if not _as_named(name, outcome)
        ]
        tests = len(self.outcomes)
        assert not wrong, self.message(f"{len(wrong)} of {tests} tests: {wrong[0]}")

    def assert_says(self, *texts: str) -> None:
        """Assert that the output contains all of these texts."""
        for text in texts:
            assert text in self.output, self.message(f"does not say {text!r}")

    def assert_does_not_say(self, text: str) -> None:
        """Assert that the output does not contain this text."""
        assert text not in self.output, self.message(f"says {text!r}")

    def assert_status(self, status: int) -> None:
        """Assert that the run ended with this status."""
        assert self.status == status, self.message(f"the run ends with status {self.status}")

    def message(self, what: str) -> str:
        """``what``, followed by the output."""
        return f"{what}\n{self.output}"


def _outcome(case: ET.Element) -> Outcome:
    for tag, word in (("error", "error"), ("failure", "failed"), ("skipped", "skipped")):
        entry = case.find(tag)
        if entry is not None:
            xfailed = entry.get("type") == "pytest.xfail"
            text = f"{entry.get('message') or ''}\n{entry.text or ''}"
            return Outcome("xfailed" if xfailed else word, text)
    return Outcome("passed", "")


def _as_named(name: str, outcome: Outcome) -> bool:
    word, text = _ENDINGS[name.partition("[")[0].rpartition("_")[2]]
    return outcome.word == word and re.search(text, outcome.text) is not None


class Suite:
    """Test files in the working directory, run by pytest.

    Beside Sidestage and xdist, only ``plugins`` are loaded, by their entry points as in any run, or
    with ``all_plugins`` every installed one. ``fixtures=False`` turns Sidestage's plugin off.
    """

    def __init__(
        self, sut: ServerUnderTest, *plugins: str, all_plugins: bool = False, fixtures: bool = True
    ) -> None:
        self.sut = sut
        self.is_sidestage = sut.name == Sidestage.name
        for earlier in Path().glob("test_*.py"):
            earlier.unlink()
        self.write("pytest.ini", _INI)
        fixture = _SIDESTAGE_FIXTURE if self.is_sidestage and fixtures else _PEER_FIXTURE
        self.write("conftest.py", _HEAD + fixture)
        self._off = [] if all_plugins else plugins_off(*plugins)
        if not fixtures:
            self._off += ["-p", "no:sidestage"]

    def write(self, name: str, source: str) -> None:
        """Write a file."""
        Path(name).write_text(source)

    def add_tests(self, name: str, source: str) -> int:
        """Write a test module, with common imports on top; returns its number of tests."""
        self.write(f"test_{name}.py", _HEAD + textwrap.dedent(source))
        return source.count("def test_")

    def extend_conftest(self, source: str) -> None:
        """Append to the conftest."""
        with Path("conftest.py").open("a") as file:
            file.write(textwrap.dedent(source))

    def one_of_each(self, name: str = "each") -> int:
        """Write a module with one test of each kind; returns their number."""
        source = SIDESTAGE_TESTS if self.is_sidestage else PEER_TESTS
        return self.add_tests(name, re.sub(r"range\(\d+\)", "range(1)", source))

    def command(self, *options: str, python: tuple[str, ...] = PYTEST) -> list[str]:
        """The command that runs the suite."""
        own = ["-c", "pytest.ini", "--rootdir=.", "--basetemp=temp", "--junitxml=report.xml"]
        return [sys.executable, *python, *own, *self._off, *options]

    def start(self, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        """Start the run in the background; its output goes to the file ``output``."""
        kept = {key: value for key, value in os.environ.items() if not _of_a_run(key)}
        kept["SUITE_SERVER"] = self.sut.name
        Path("report.xml").unlink(missing_ok=True)
        with Path("output").open("wb") as output:
            return subprocess.Popen(
                command, env={**kept, **environment}, stdout=output, stderr=subprocess.STDOUT
            )

    def finish(self, process: subprocess.Popen[bytes], seconds: float) -> SuiteResult:
        """Wait for the end of the run; abort it, and fail, after ``seconds``."""
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # faulthandler says where it hangs
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            output = Path("output").read_text(errors="replace")
            raise AssertionError(f"the run does not end\n{output}") from None
        return SuiteResult(status, Path("output").read_text(errors="replace"), Path("report.xml"))

    def run(
        self,
        *options: str,
        python: tuple[str, ...] = PYTEST,
        seconds: float = 60.0,
        **environment: str,
    ) -> SuiteResult:
        """Run the suite to its end."""
        return self.finish(
            self.start(self.command(*options, python=python), **environment), seconds
        )

    def run_as_named(
        self,
        tests: int,
        *options: str,
        status: int = 1,
        python: tuple[str, ...] = PYTEST,
        seconds: float = 60.0,
        **environment: str,
    ) -> SuiteResult:
        """Run the suite, and assert that each test has the outcome that its name says."""
        result = self.run(*options, python=python, seconds=seconds, **environment)
        result.assert_as_named(tests)
        result.assert_status(status)
        return result


def plugins_off(*plugins: str) -> list[str]:
    """The options that turn off what is installed, but Sidestage, xdist and ``plugins``.

    To import all of them takes a run of pytest longer than everything else.
    """
    off: list[str] = []
    for entry in importlib.metadata.entry_points(group="pytest11"):
        if entry.name not in _STAY.union(plugins):
            off += ["-p", f"no:{entry.name}"]
    return off


def _of_a_run(variable: str) -> bool:
    """Whether this variable is for the run of pytest that this is part of."""
    return variable.startswith(("PYTEST_", "COV_", "COVERAGE_")) or variable == "PYTHONWARNINGS"


_HEAD = """
import os, pathlib, smtplib, socket, sys, threading, time, urllib.error, urllib.request
import pytest
from kit.servers import SERVERS, fetch
"""

# The same test has to run with every server: it asks for ``serve``, and gets the port.
_SIDESTAGE_FIXTURE = """
@pytest.fixture
def serve(http_server):
    http_server.stop_timeout = 0.5  # where a handler hangs
    def serve(answer):
        http_server.handler = lambda request: answer(request.path)
        return http_server.port
    return serve
"""

_PEER_FIXTURE = """
@pytest.fixture
def serve():
    started = []
    def serve(answer):
        sut = SERVERS[os.environ["SUITE_SERVER"]]()
        sut.start(answer)
        started.append(sut)
        return sut.port
    yield serve
    for sut in started:
        sut.stop()
"""

# 50 tests. Each sends its own name, and checks that its servers got nothing else.
SIDESTAGE_TESTS = """
from sidestage import HTTPServer, HTTPResponse

@pytest.fixture
def me(request):
    return request.node.nodeid.replace("::", "/").replace("[", "/").replace("]", "")

def send(server, body):
    with smtplib.SMTP(server.host, server.port, timeout=10) as client:
        client.sendmail("me@example.org", ["you@example.org"], f"Subject: {body}\\r\\n\\r\\nHi")

def talk(server, text):
    with socket.create_connection(server.server_address, timeout=10) as client:
        client.sendall(text.encode())
        client.shutdown(socket.SHUT_WR)
        return client.makefile().read()

def ask(server, text):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.sendto(text.encode(), server.server_address)
        return client.recv(1000).decode()

def paths(server):
    return [request.path for request in server.received]

@pytest.mark.parametrize("number", range(10))
def test_http_passes(http_server, me, number):
    http_server.handler = lambda request: f"{os.getpid()} {request.path}"
    assert fetch(http_server.port, f"/{me}") == f"{os.getpid()} /{me}"
    assert fetch(http_server.port, f"/{me}/2") == f"{os.getpid()} /{me}/2"
    assert paths(http_server) == [f"/{me}", f"/{me}/2"]

@pytest.mark.parametrize("number", range(5))
def test_recording_passes(http_server, me, number):
    fetch(http_server.port, f"/{me}")
    assert http_server.wait_for(1)[0].path == f"/{me}"
    assert len(http_server.received) == 1

@pytest.mark.parametrize("number", range(3))
def test_coroutine_passes(http_server, me, number):
    async def handler(request):
        return request.path
    http_server.handler = handler
    assert fetch(http_server.port, f"/{me}") == f"/{me}"

class TestOthers:
    @pytest.mark.parametrize("number", range(5))
    def test_smtp_passes(self, smtp_server, me, number):
        seen = []
        smtp_server.handler = lambda mail: seen.append(mail.message["Subject"])
        send(smtp_server, me)
        assert seen == [me]
        assert len(smtp_server.received) == 1

    @pytest.mark.parametrize("number", range(5))
    def test_tcp_passes(self, tcp_server, me, number):
        tcp_server.handler = lambda connection: connection.rfile.read().upper()
        assert talk(tcp_server, me) == me.upper()
        assert [t.data for t in tcp_server.received] == [me.encode()]

    @pytest.mark.parametrize("number", range(5))
    def test_udp_passes(self, udp_server, me, number):
        udp_server.handler = lambda datagram: datagram.packet.upper()
        assert ask(udp_server, me) == me.upper()
        assert [d.packet for d in udp_server.received] == [me.encode()]

@pytest.mark.parametrize("number", range(3))
def test_unix_socket_passes(me, number, tmp_path):
    path = str(tmp_path / "socket")
    with HTTPServer(path, lambda request: request.path) as server:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(path)
            client.sendall(f"GET /{me} HTTP/1.0\\r\\n\\r\\n".encode())
            assert client.makefile().read().endswith(f"/{me}")
    assert not os.path.exists(path)
    assert paths(server) == [f"/{me}"]

@pytest.mark.parametrize("number", range(4))
def test_manager_passes(server_manager, me, number):
    if "api" not in server_manager:
        server_manager.add("api", HTTPServer(handler=lambda request: request.path))
    server = server_manager["api"]
    assert fetch(server.port, f"/{me}") == f"/{me}"
    assert paths(server).count(f"/{me}") == 1

@pytest.mark.parametrize("number", range(2))
def test_together_passes(http_server, smtp_server, tcp_server, udp_server, server_manager, number):
    tcp_server.handler = lambda connection: connection.recv(2) and fetch(http_server.port).encode()
    udp_server.handler = lambda datagram: talk(tcp_server, "go").encode()
    http_server.handler = lambda request: f"{os.getpid()}"
    assert ask(udp_server, "go") == f"{os.getpid()}"
    send(smtp_server, "go")
    assert len(smtp_server.received) == len(http_server.received) == 1

def test_handler_fails(http_server, me):
    def handler(request):
        assert request.path == "/expected", "on purpose"
    http_server.handler = handler
    with pytest.raises(AssertionError, match="500"):
        fetch(http_server.port, f"/{me}")

def test_tcp_handler_fails(tcp_server):
    async def handler(connection):
        raise ValueError("on purpose")
    tcp_server.handler = handler
    with socket.create_connection(tcp_server.server_address, timeout=10) as client:
        with pytest.raises(ConnectionResetError):
            client.recv(1)

def test_body_fails(http_server, udp_server):
    fetch(http_server.port)
    assert False, "on purpose"

@pytest.fixture
def late(http_server):
    yield
    def handler(request):
        raise ValueError("on purpose")
    http_server.handler = handler
    with pytest.raises(AssertionError, match="500"):
        fetch(http_server.port)

def test_late_handler_errs(late, smtp_server):
    send(smtp_server, "in time")

@pytest.fixture
def broken(http_server):
    yield
    raise ValueError("on purpose")

def test_teardown_errs(broken, http_server):
    fetch(http_server.port)

def test_in_the_middle_skips(http_server, tcp_server):
    fetch(http_server.port)
    pytest.skip("on purpose")

@pytest.mark.xfail(reason="on purpose")
def test_handler_xfails(http_server):
    http_server.handler = lambda request: 1 / 0
    with pytest.raises(AssertionError, match="500"):
        fetch(http_server.port)

@pytest.mark.xfail(reason="on purpose", strict=True)
def test_body_xfails(http_server):
    assert fetch(http_server.port) == "something else"
"""

PEER_TESTS = """
@pytest.mark.parametrize("number", range(6))
def test_http_passes(serve, number):
    port = serve(lambda path: f"{os.getpid()} {path}")
    assert fetch(port, f"/{number}") == f"{os.getpid()} /{number}"

def test_body_fails(serve):
    fetch(serve(lambda path: path))
    assert False, "on purpose"

@pytest.fixture
def broken(serve):
    yield
    raise ValueError("on purpose")

def test_teardown_errs(broken, serve):
    fetch(serve(lambda path: path))

def test_in_the_middle_skips(serve):
    fetch(serve(lambda path: path))
    pytest.skip("on purpose")

@pytest.mark.xfail(reason="on purpose", strict=True)
def test_body_xfails(serve):
    assert fetch(serve(lambda path: path)) == "something else"
"""
