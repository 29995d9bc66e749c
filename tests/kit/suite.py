"""A suite as a user has it, written into the working directory and run by a pytest of its own.

The name of each of its tests ends with what is to become of it, whoever runs it and in whatever
order: ``passes``, ``fails``, ``errs`` (in its teardown), ``skips``, ``xfails``, ``crashes`` (takes
its process with it) or ``hangs`` (until a time-out ends it). What goes wrong on purpose says so,
so that a failure for another reason is not taken for the right one.
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

from kit.servers import Sidestage, Subject

# The outcome that an ending stands for, and what the report then says.
_ENDINGS = {
    "passes": ("passed", ""),
    "fails": ("failed", "on purpose"),
    "errs": ("error", "on purpose"),
    "skips": ("skipped", "on purpose"),
    "xfails": ("xfailed", "on purpose"),
    "crashes": ("error", "crashed|CRASHED|EXITED"),
    "hangs": ("failed", "Timeout"),
}
_STAY = frozenset({"sidestage", "xdist", "xdist.looponfail"})
_INI = """
[pytest]
addopts = -p no:cacheprovider --tb=short -ra
"""


@dataclass(frozen=True)
class Outcome:
    """What became of one test, and what its report says."""

    word: str
    text: str


class Done:
    """A run of pytest that has ended."""

    def __init__(self, status: int, output: str, report: Path) -> None:
        self.status = status
        self.output = output
        self.outcomes: dict[str, Outcome] = {}
        if report.exists():
            for case in ET.parse(report).iter("testcase"):
                if case.get("name"):  # else it is the one in which the run was interrupted
                    name = f"{case.get('classname')}.{case.get('name')}"
                    self._note(name, _outcome(case))

    def _note(self, name: str, outcome: Outcome) -> None:
        known = self.outcomes.get(name)
        # One that failed and had an error besides comes twice, as do tries that were repeated.
        if known is not None and known.word != "passed":
            outcome = Outcome(f"{known.word} and {outcome.word}", known.text + outcome.text)
        self.outcomes[name] = outcome

    def count(self, word: str) -> int:
        """How many tests this became of."""
        return sum(outcome.word == word for outcome in self.outcomes.values())

    def as_named(self, tests: int) -> None:
        """Each of so many tests had the outcome that its name says."""
        assert len(self.outcomes) == tests, self.told(f"{len(self.outcomes)} of {tests} tests ran")
        self.as_far_as_named()

    def as_far_as_named(self) -> None:
        """Each test that ran had the outcome that its name says."""
        wrong = [
            f"{name.rpartition('.')[2]} {outcome.word}"
            for name, outcome in sorted(self.outcomes.items())
            if not _as_named(name, outcome)
        ]
        tests = len(self.outcomes)
        assert not wrong, self.told(f"{len(wrong)} of {tests} tests: {wrong[0]}")

    def says(self, *texts: str) -> None:
        """All of this is in the output."""
        for text in texts:
            assert text in self.output, self.told(f"does not say {text!r}")

    def does_not_say(self, text: str) -> None:
        """This is not in the output."""
        assert text not in self.output, self.told(f"says {text!r}")

    def ended(self, status: int) -> None:
        """It ended with this status."""
        assert self.status == status, self.told(f"the run ends with status {self.status}")

    def told(self, what: str) -> str:
        """A message with the output below its first line."""
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
    """Files in the working directory, and pytest over them.

    Only ``plugins`` are loaded beside Sidestage and xdist, by their entry points as in any run, or
    every one that is installed. With ``fixtures=False`` its tests do without those of Sidestage.
    """

    def __init__(
        self, subject: Subject, *plugins: str, every: bool = False, fixtures: bool = True
    ) -> None:
        self.subject = subject
        self.ours = subject.name == Sidestage.name
        for earlier in Path().glob("test_*.py"):
            earlier.unlink()
        self.write("pytest.ini", _INI)
        self.write("conftest.py", _HEAD + (_OURS if self.ours and fixtures else _PEER))
        self._off: list[str] = []
        if not every:
            for entry in importlib.metadata.entry_points(group="pytest11"):
                if entry.name not in _STAY.union(plugins):
                    self._off += ["-p", f"no:{entry.name}"]
        if not fixtures:
            self._off += ["-p", "no:sidestage"]

    def write(self, name: str, source: str) -> None:
        """A file."""
        Path(name).write_text(source)

    def tests(self, name: str, source: str) -> int:
        """A module of tests, which finds imported what they usually need; returns their number."""
        self.write(f"test_{name}.py", _HEAD + textwrap.dedent(source))
        return source.count("def test_")

    def conftest(self, source: str) -> None:
        """More for the conftest."""
        with Path("conftest.py").open("a") as file:
            file.write(textwrap.dedent(source))

    def one_of_each(self, name: str = "each") -> int:
        """A module with one test of each kind; returns how many that are."""
        return self.tests(name, re.sub(r"range\(\d+\)", "range(1)", OURS if self.ours else PEERS))

    def command(self, *options: str, python: tuple[str, ...] = ("-m", "pytest")) -> list[str]:
        """What runs it."""
        own = ["-c", "pytest.ini", "--rootdir=.", "--basetemp=temp", "--junitxml=report.xml"]
        return [sys.executable, *python, *own, *self._off, *options]

    def start(self, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        """Run it in the background; its output goes to the file ``output``."""
        kept = {key: value for key, value in os.environ.items() if not _of_a_run(key)}
        kept["SUITE_SUBJECT"] = self.subject.name
        Path("report.xml").unlink(missing_ok=True)
        with Path("output").open("wb") as output:
            return subprocess.Popen(
                command, env={**kept, **environment}, stdout=output, stderr=subprocess.STDOUT
            )

    def finish(self, process: subprocess.Popen[bytes], seconds: float) -> Done:
        """Wait until the run has ended; one that does not is aborted, and that is an error."""
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
        return Done(status, Path("output").read_text(errors="replace"), Path("report.xml"))

    def run(
        self,
        *options: str,
        python: tuple[str, ...] = ("-m", "pytest"),
        seconds: float = 60.0,
        **environment: str,
    ) -> Done:
        """Run it to its end."""
        return self.finish(
            self.start(self.command(*options, python=python), **environment), seconds
        )


def _of_a_run(variable: str) -> bool:
    """Whether it tells of the run that this is part of."""
    return variable.startswith(("PYTEST_", "COV_", "COVERAGE_")) or variable == "PYTHONWARNINGS"


_HEAD = """
import os, pathlib, smtplib, socket, sys, threading, time, urllib.error, urllib.request
import pytest
from kit.servers import SUBJECTS, fetch
"""

# The same test has to run with every server: it asks for ``serve``, and gets the port.
_OURS = """
@pytest.fixture
def serve(http_server):
    http_server.stop_timeout = 0.5  # where a handler hangs
    def serve(answer):
        http_server.handler = lambda request: answer(request.path)
        return http_server.port
    return serve
"""

_PEER = """
@pytest.fixture
def serve():
    started = []
    def serve(answer):
        subject = SUBJECTS[os.environ["SUITE_SUBJECT"]]()
        subject.start(answer)
        started.append(subject)
        return subject.port
    yield serve
    for subject in started:
        subject.stop()
"""

# 50 tests. Each says who it is in what it sends, and looks that its servers got that only.
OURS = """
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

PEERS = """
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
