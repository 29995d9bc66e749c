"""Fixtures, coverage.py, tracers and debuggers see handlers as they see the test."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pty
import select
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit.clients import Driver, expect_success, with_each_protocol
from kit.matrix import Rows
from kit.servers import ServerUnderTest, Sidestage

rows = Rows("Handlers", __file__)


# Under pytest ------------------------------------------------------------------------------------

_PYTEST_HEAD = """
import logging, os, sys, threading, warnings
import pytest
from kit.servers import SERVERS, fetch

@pytest.fixture
def start():
    started = []
    def start_serving(answer):
        sut = SERVERS[{name!r}]()
        sut.start(answer)
        started.append(sut)
        return sut.port
    yield start_serving
    for sut in started:
        sut.stop()
"""


def run_pytest(sut: ServerUnderTest, source: str, *options: str) -> list[str]:
    """The command that runs pytest on one module, with no plugin but Sidestage's."""
    head = _PYTEST_HEAD.format(name=sut.name)
    Path("test_it.py").write_text(head + textwrap.dedent(source))
    for name in [name for name in os.environ if name.startswith(("PYTEST_", "COV"))]:
        del os.environ[name]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    options = (*options, "-p", "no:cacheprovider", "-p", "no:faulthandler")
    if isinstance(sut, Sidestage):
        options += ("-p", "sidestage.pytest_plugin")
    return [sys.executable, "-m", "pytest", "-q", "-W", "error", *options, "test_it.py"]


@rows.add("capsys, capfd, caplog, pytest.warns see it", limit=55)
def see_it(sut: ServerUnderTest) -> None:
    command = run_pytest(
        sut,
        """
        def test_capsys(start, capsys):
            fetch(start(lambda path: print(path) or path), "/out")
            assert capsys.readouterr().out == "/out\\n"

        def test_capfd(start, capfd):
            fetch(start(lambda path: str(os.system(f"echo {path}"))), "/out")
            assert capfd.readouterr().out == "/out\\n"

        def test_caplog(start, caplog):
            fetch(start(lambda path: logging.getLogger("mine").warning(path) or path), "/out")
            assert ("mine", logging.WARNING, "/out") in caplog.record_tuples

        def test_warns(start):
            port = start(lambda path: warnings.warn(path) or path)
            with pytest.warns(UserWarning, match="/out"):
                fetch(port, "/out")
        """,
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert "4 passed" in done.stdout, done.stdout + done.stderr


@rows.add("pytest.raises, monkeypatch, fixtures inside of it", limit=55)
def use_pytest_inside(sut: ServerUnderTest) -> None:
    command = run_pytest(
        sut,
        """
        def test_raises(start):
            def answer(path):
                with pytest.raises(ValueError, match="invalid literal"):
                    int(path)
                return path
            assert fetch(start(answer), "/one") == "/one"

        def test_monkeypatch(start, monkeypatch):
            port = start(lambda path: monkeypatch.setenv("MINE", path) or path)
            fetch(port, "/one")
            assert os.environ["MINE"] == "/one"

        def test_undone():
            assert "MINE" not in os.environ

        def test_fixture(start, request):
            port = start(lambda path: str(request.getfixturevalue("tmp_path")))
            assert fetch(port) == str(request.getfixturevalue("tmp_path"))
        """,
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert "4 passed" in done.stdout, done.stdout + done.stderr


# Coverage and debuggers --------------------------------------------------------------------------

_COVERED = """\
import sys
from kit.servers import SERVERS, fetch

def answer(path):
    seen = path.upper()
    return double(seen)

def double(text):
    return text * 2

sut = SERVERS[sys.argv[1]]()
sut.start(answer)
assert fetch(sut.port, "/a") == "/A/A"
sut.stop()
"""


def cover(core: str, sut: ServerUnderTest) -> None:
    """coverage.py reports every line as executed, including the handler's."""
    Path("covered.py").write_text(_COVERED)
    for name in [name for name in os.environ if name.startswith("COV")]:
        del os.environ[name]
    os.environ["COVERAGE_CORE"] = core
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.run([*coverage, "run", "covered.py", sut.name], check=True, timeout=50)
    subprocess.run([*coverage, "json", "-q", "--include=covered.py"], check=True, timeout=50)
    (found,) = json.loads(Path("coverage.json").read_text())["files"].values()
    assert found["missing_lines"] == [], f"not counted: {found['missing_lines']}"


for _core in ("ctrace", "pytrace", *(["sysmon"] if sys.version_info >= (3, 12) else [])):
    rows.add(f"coverage.py counts its lines ({_core})", limit=55)(functools.partial(cover, _core))


def _traced(set_trace: Callable[[Any], None], driver: Driver, *, before: bool) -> None:
    lines: list[str] = []

    def work() -> None:
        """The function whose calls are looked for."""

    def trace(frame: Any, event: str, argument: object) -> Any:
        if frame.f_code is work.__code__:
            lines.append(event)
        return trace

    if before:
        set_trace(trace)
    driver.start(work)
    if not before:
        expect_success(driver)
        set_trace(trace)
    expect_success(driver)
    set_trace(None)
    driver.stop()
    assert "call" in lines, "it was not traced"


@rows.add("threading.settrace, before the start")
@with_each_protocol
def trace_from_the_start(driver: Driver) -> None:
    _traced(threading.settrace, driver, before=True)


@rows.add("threading.settrace, while it serves")
@with_each_protocol
def trace_later(driver: Driver) -> None:
    _traced(threading.settrace, driver, before=False)


@rows.add("threading.setprofile, while it serves")
@with_each_protocol
def profile_later(driver: Driver) -> None:
    _traced(threading.setprofile, driver, before=False)


class Terminal:
    """A process at a terminal, and its user's input."""

    def __init__(self, command: list[str]) -> None:
        self._fd, theirs = pty.openpty()
        self._process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "dumb", "PYTHON_COLORS": "0"},
            start_new_session=True,
        )
        os.close(theirs)
        self._seen = ""

    def expect(self, text: str) -> str:
        """Wait for ``text``; returns what came up to it."""
        while text not in self._seen:
            if not select.select([self._fd], [], [], 30)[0]:
                raise AssertionError(f"no {text!r} came, but {self._seen!r}")
            try:
                self._seen += os.read(self._fd, 4096).decode()
            except OSError:  # the other end is closed
                raise AssertionError(f"no {text!r} came: {self._seen}") from None
        came, _, self._seen = self._seen.partition(text)
        return came

    def type(self, text: str) -> None:
        """Type a line."""
        os.write(self._fd, f"{text}\n".encode())

    def close(self) -> int:
        """Wait for the end; returns the status."""
        with contextlib.suppress(OSError):
            while os.read(self._fd, 4096):
                pass
        os.close(self._fd)
        return self._process.wait(30)


def _debug(command: list[str], times: int = 1, seconds: float = 0.0) -> None:
    """Print ``path`` at each prompt after a pause, and continue."""
    terminal = Terminal(command)
    for _ in range(times):
        terminal.expect("(Pdb) ")
        time.sleep(seconds)
        terminal.type("p 'at ' + path")
        terminal.expect("'at /one'")
        terminal.expect("(Pdb) ")
        terminal.type("c")
    assert terminal.close() == 0


@rows.add("breakpoint() under pytest -s", limit=55)
def break_under_pytest(sut: ServerUnderTest) -> None:
    source = """
    def test_it(start):
        def answer(path):
            breakpoint()
            return path
        assert fetch(start(answer), "/one", timeout=60) == "/one"
    """
    _debug(run_pytest(sut, source, "-s"))


@rows.add("breakpoint() under pytest, with its capture", limit=55)
def break_under_pytest_with_capture(sut: ServerUnderTest) -> None:
    source = """
    def test_it(start):
        def answer(path):
            breakpoint()
            return path
        assert fetch(start(answer), "/one", timeout=60) == "/one"
    """
    _debug(run_pytest(sut, source))


@rows.add("pdb.set_trace() in a script", limit=55)
def break_in_a_script(sut: ServerUnderTest) -> None:
    source = """
    import pdb, sys
    from kit.servers import SERVERS, fetch

    def answer(path):
        pdb.set_trace()
        return path

    sut = SERVERS[sys.argv[1]]()
    sut.start(answer)
    assert fetch(sut.port, "/one", timeout=60) == "/one"
    assert fetch(sut.port, "/one", timeout=60) == "/one"
    sut.stop()
    """
    _debug([sys.executable, "-c", textwrap.dedent(source), sut.name], times=2)


_AT_THE_PROMPT = """
    import smtplib, sys, threading
    from kit.servers import fetch
    from sidestage import HTTPServer, SMTPServer

    at_the_prompt = threading.Event()

    def handler(request):
        path = getattr(request, "path", "/one")
        if path == "/one":
            at_the_prompt.set()
            breakpoint()
        return None

    def in_thread(*works):
        results = []
        thread = threading.Thread(target=lambda: results.extend(work() for work in works))
        thread.start()
        assert at_the_prompt.wait(60)
        at_the_prompt.clear()
        return thread, results

    def send_mail():
        with smtplib.SMTP("127.0.0.1", smtp.port, "x", timeout=60) as client:
            return client.sendmail("me@x", ["you@x"], "hello")

    def test_handler_timeout_and_wait_for():
        global smtp
        with HTTPServer(handler=handler, handler_timeout=0.5) as server:
            works = [lambda path=path: fetch(server.port, path, 60) for path in ("/one", "/two")]
            thread, results = in_thread(*works)
            server.wait_for(2, timeout=0.5)
            thread.join()
            assert results == ["", ""]
        with SMTPServer(handler=handler, handler_timeout=0.5) as smtp:
            thread, results = in_thread(send_mail)
            thread.join()
            assert results == [{}]

    def test_stop():
        server = HTTPServer(handler=handler).start()
        thread, results = in_thread(lambda: fetch(server.port, "/one", 60))
        report = server.stop(0.5)
        thread.join()
        assert results == [""]
        assert report.clean
"""


@rows.add("time-outs wait at the prompt, under pytest -s", limit=55, peers=False)
def wait_at_the_prompt(sut: ServerUnderTest) -> None:
    _debug(run_pytest(sut, _AT_THE_PROMPT, "-s"), times=3, seconds=1.5)


@rows.add("time-outs wait at the prompt, in a script", limit=55, peers=False)
def wait_at_the_prompt_in_a_script(sut: ServerUnderTest) -> None:
    source = textwrap.dedent(_AT_THE_PROMPT) + "test_handler_timeout_and_wait_for()\ntest_stop()\n"
    _debug([sys.executable, "-c", source], times=3, seconds=1.5)


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
