"""Scripts in processes of their own, and waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

SETTLE = 5.0  # seconds within which a condition must come true
SRC = str(Path(__file__).resolve().parent.parent.parent / "src")


def environment() -> dict[str, str]:
    """The environment of this process, with the Sidestage that the tests import."""
    return {**os.environ, "PYTHONPATH": SRC}


def run_python(*arguments: str, stdin: str = "", timeout: float = 30.0) -> str:
    """The output of a Python process; it must exit with 0 and leave stderr empty."""
    done = subprocess.run(
        [sys.executable, *arguments],
        input=stdin,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def run_script(source: str, *flags: str) -> str:
    """The output of ``source``, run as a script."""
    return run_python(*flags, "-c", textwrap.dedent(source))


def last_line(text: str) -> str:
    """The last line with text on it, to quote in a message."""
    return ([line for line in text.splitlines() if line.strip(" -")] or ["nothing"])[-1]


@contextmanager
def background(source: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs ``source``, killed at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def eventually(condition: Callable[[], bool], seconds: float = SETTLE) -> bool:
    """Whether ``condition`` comes true in time; for conditions without an event to wait for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.005)
    return True


def gone(pid: int) -> bool:
    """Whether no process with this pid runs; a zombie counts as gone."""
    try:
        process = psutil.Process(pid)
        # A process shows as a zombie when its first thread has ended, maybe before the others.
        return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
    except psutil.NoSuchProcess:
        return True


def all_gone(pids: list[int], seconds: float = 1.0) -> bool:
    """Whether all of them are gone within ``seconds``."""
    return eventually(lambda: all(gone(pid) for pid in pids), seconds)
