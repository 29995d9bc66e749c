"""Kills workers of pytest-xdist in the middle of a run."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from importlib.util import find_spec
from pathlib import Path

import left
import psutil
from outcome import Outcome, progress

WORKERS, TESTS = 4, 60
OPTIONS = ("-p", "xdist", "-p", "sidestage.pytest_plugin", "-p", "no:cacheprovider")
UP = 60.0  # seconds for all workers to run tests
END = 120.0  # seconds for a run to end
SUITE = """
    import os, time, urllib.request
    from pathlib import Path
    import pytest

    @pytest.mark.parametrize("number", range({tests}))
    def test_served(http_server, tcp_server, number):
        http_server.handler = lambda request: str(number)
        with open(f"worker-{{os.getpid()}}", "a") as notes:
            print(http_server.port, tcp_server.port, file=notes)
        for _ in range(5):
            with urllib.request.urlopen(http_server.url, timeout=10) as answer:
                assert answer.read() == str(number).encode()
            time.sleep(0.01)
"""


def kill_workers(number: int, seed: int) -> Outcome:
    """Run ``number`` times, and kill one worker at a random moment in each run."""
    what = f"SIGKILL of a pytest-xdist worker (`-n {WORKERS}`) at a random moment of a run"
    if find_spec("xdist") is None:
        return Outcome(what, "0", "pytest-xdist is not installed", ["nothing was done"])
    dice = random.Random(seed)
    worst, violations = 0.0, []
    for count in range(number):
        seconds, wrong = _kill_one(dice)
        worst = max(worst, seconds)
        violations += [f"run {count} of pytest: {line}" for line in wrong]
        progress("workers killed", count + 1, number)
    measured = (
        f"its servers were gone after {worst * 1000:.0f} ms at most; each run went on with a new "
        "worker and one failure, and left nothing"
    )
    return Outcome(what, f"{number:,}", measured, violations)


def _kill_one(dice: random.Random) -> tuple[float, list[str]]:
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "test_suite.py").write_text(textwrap.dedent(SUITE).format(tests=TESTS))
        output = directory / "output"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-n", str(WORKERS), *OPTIONS],
                env=left.environment(mark) | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
                cwd=directory,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            try:
                _wait_for_workers(directory)
                time.sleep(dice.uniform(0, 0.5))
                seconds, late = _kill(dice.choice(_workers(directory)))
                process.wait(END)
            except (TimeoutError, subprocess.TimeoutExpired, psutil.Error) as error:
                process.kill()
                process.wait()
                left.end(left.marked(mark))
                return 0.0, [f"{error!r}\n{output.read_text()}"]
        late += _judge(output.read_text())
        ports = {int(port) for notes in _notes(directory) for port in notes.read_text().split()}
        late += left.until_gone(mark, ports, set())[1]
    return seconds, late


def _kill(pid: int) -> tuple[float, list[str]]:
    """Kill a worker; returns the seconds until its children were gone, and those left."""
    worker = psutil.Process(pid)
    children = worker.children(recursive=True)
    worker.kill()
    began = time.monotonic()
    while (seconds := time.monotonic() - began) < left.SECOND and any(map(_lives, children)):
        time.sleep(0.002)
    return seconds, [f"left by a worker: {child}" for child in children if _lives(child)]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _judge(output: str) -> list[str]:
    expected = (
        # A worker that is killed once it has told that a test passed: xdist counts that twice.
        rf"1 failed, ({TESTS - 1}|{TESTS}) passed",
        r"worker 'gw\d+' crashed while running",
        r"replacing crashed worker",
    )
    return [f"no {text!r} in\n{output}" for text in expected if not re.search(text, output)]


def _notes(directory: Path) -> list[Path]:
    return sorted(directory.glob("worker-*"))


def _workers(directory: Path) -> list[int]:
    return [int(notes.name.split("-")[1]) for notes in _notes(directory)]


def _wait_for_workers(directory: Path) -> None:
    deadline = time.monotonic() + UP
    while len(_workers(directory)) < WORKERS:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(_workers(directory))} of {WORKERS} workers have come so far")
        time.sleep(0.01)
