"""Rows of the compatibility matrix: a piece of code, run in a process of its own for each server.

A test module makes its rows, asks for the test, and is itself the script that runs one:

    rows = Rows("Forks", __file__)

    @rows.add("the copy calls sys.exit")
    def _(subject: Subject) -> None: ...

    test_row = rows.test()

    if __name__ == "__main__":
        rows.main()

The test asserts that the row works with Sidestage. With ``--peers`` it also runs with the others,
asserts nothing of them, and notes what they did.
"""

from __future__ import annotations

import json
import os
import posix
import signal
import subprocess
import sys
import tempfile
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.servers import SUBJECTS, Clock, Sidestage, Subject

if TYPE_CHECKING:
    import psutil

WORKS = "works"
_MARK = "SIDESTAGE_TEST_ROW"
_ROOT = Path(__file__).resolve().parent.parent.parent
_GONE_SECONDS = 1.0  # in which nothing of a row's process may be left


@dataclass(frozen=True)
class Row:
    """What is done, under which flags of the interpreter, and within how many seconds."""

    name: str
    work: Callable[[Subject], None]
    flags: tuple[str, ...]
    limit: float
    peers: bool


class Rows:
    """The rows of one theme, which are those of one module."""

    def __init__(self, theme: str, file: str) -> None:
        self.theme = theme
        self._file = file
        self._rows: dict[str, Row] = {}

    def add(
        self, name: str, *flags: str, limit: float = 20.0, peers: bool = True
    ) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
        """A row that works if the decorated function returns, its process ends well, silently.

        ``peers=False`` is for what only Sidestage has.
        """

        def decorate(work: Callable[[Subject], None]) -> Callable[[Subject], None]:
            assert name not in self._rows, name
            self._rows[name] = Row(name, work, flags, limit, peers)
            return work

        return decorate

    def test(self) -> Callable[..., None]:
        """The test function of the module."""

        def test_row(row: Row, subject: str, record_property: Any) -> None:
            verdict = self.run(row, subject)
            record_property("row", [self.theme, row.name, subject, verdict.splitlines()[0]])
            if subject == Sidestage.name:
                assert verdict == WORKS, verdict

        test_row.rows = self  # type: ignore[attr-defined]  # for the parametrization
        return test_row

    def cases(self, *, peers: bool) -> list[tuple[str, Row, str]]:
        """The test's cases: name, row and server."""
        return [
            (f"{row.name}-{subject}", row, subject)
            for row in self._rows.values()
            for subject in SUBJECTS
            if subject == Sidestage.name or (peers and row.peers)
        ]

    def run(self, row: Row, subject: str) -> str:
        """What became of a row with one server: ``works``, or a line that says what did not."""
        mark = uuid.uuid4().hex
        with tempfile.TemporaryDirectory(prefix="row-") as directory:
            verdict_file = Path(directory) / "verdict"
            process = subprocess.Popen(
                [sys.executable, *row.flags, self._file, row.name, subject, str(verdict_file)],
                env={**os.environ, "PYTHONPATH": _path(), _MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=directory,
                start_new_session=True,
            )
            try:
                output, _ = process.communicate(timeout=row.limit)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)  # faulthandler says where it hangs
                try:
                    output, _ = process.communicate(timeout=2)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    output, _ = process.communicate()
                _end_all(mark)
                return f"hangs\n{output.decode()}"
            left = _end_all(mark)
            try:
                verdict = str(json.loads(verdict_file.read_text()))
            except (FileNotFoundError, ValueError):
                verdict = "dies"
        if verdict == WORKS and left:
            verdict = "leaves a process behind"
        if verdict == WORKS and process.returncode:
            verdict = f"ends with status {process.returncode}"
        if verdict == WORKS and b"Warning" in output:
            verdict = "warns"
        if verdict == WORKS and output and subject == Sidestage.name:
            verdict = "says something"
        return verdict if verdict == WORKS else f"{verdict}\n{output.decode()}"

    def main(self) -> None:
        """Run one row: the script's arguments are its name, the server, and the verdict's file."""
        import faulthandler

        name, subject, path = sys.argv[1:]
        row = self._rows[name]
        faulthandler.enable()
        # What a shell has started in the background ignores Ctrl-C, and so would all from here on.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        write, fd = posix.write, posix.open(path, posix.O_WRONLY | posix.O_CREAT, 0o600)
        dumps, owner, getpid = json.dumps, posix.getpid(), posix.getpid
        verdict = WORKS
        try:
            row.work(SUBJECTS[subject]())
        except BaseException as error:
            if getpid() != owner:  # a forked copy: how it leaves is its own affair
                raise
            traceback.print_exc()
            said = str(error).strip().splitlines() or [""]
            verdict = f"{type(error).__name__}: {said[0]}"
        if getpid() == owner:
            write(fd, dumps(verdict).encode())


def _path() -> str:
    return os.pathsep.join([str(_ROOT / "src"), str(_ROOT / "tests")])


def _end_all(mark: str) -> list[int]:
    """End what still has ``mark`` in its environment after a second; returns the pids."""
    import psutil  # not above: a row is to find it not imported yet

    deadline = Clock.monotonic() + _GONE_SECONDS
    while (left := _marked(mark)) and Clock.monotonic() < deadline:
        psutil.wait_procs(left, timeout=0.05)
    for process in left:
        process.kill()
    return [process.pid for process in left]


def _marked(mark: str) -> list[psutil.Process]:
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found
