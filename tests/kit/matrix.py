"""Rows of the compatibility matrix: each is a function, run in its own process for each server.

A test module makes its rows, asks for the test, and is itself the script that runs one:

    rows = Rows("Forks", __file__)

    @rows.add("the copy calls sys.exit")
    def _(sut: ServerUnderTest) -> None: ...

    test_row = rows.test()

    if __name__ == "__main__":
        rows.main()

The test asserts that the row works with Sidestage. With ``--peers`` it also runs with the others,
asserts nothing about them, and records the outcome.
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

from kit.servers import SERVERS, Clock, ServerUnderTest, Sidestage

if TYPE_CHECKING:
    import psutil

WORKS = "works"
_MARK = "SIDESTAGE_TEST_ROW"
_ROOT = Path(__file__).resolve().parent.parent.parent
_GONE_SECONDS = 1.0  # the limit for all processes of a row to be gone


@dataclass(frozen=True)
class Row:
    """A function, the interpreter's flags to run it under, and its limit in seconds."""

    name: str
    work: Callable[[ServerUnderTest], None]
    flags: tuple[str, ...]
    limit: float
    peers: bool


class Rows:
    """The rows of one module; the theme names their table in docs/compatibility.md."""

    def __init__(self, theme: str, file: str) -> None:
        self.theme = theme
        self._file = file
        self._rows: dict[str, Row] = {}

    def add(
        self, name: str, *flags: str, limit: float = 20.0, peers: bool = True
    ) -> Callable[[Callable[[ServerUnderTest], None]], Callable[[ServerUnderTest], None]]:
        """Add a row: it works if the function returns and its process exits with 0 and no output.

        ``peers=False`` is for features that only Sidestage has.
        """

        def decorate(work: Callable[[ServerUnderTest], None]) -> Callable[[ServerUnderTest], None]:
            assert name not in self._rows, name
            self._rows[name] = Row(name, work, flags, limit, peers)
            return work

        return decorate

    def test(self) -> Callable[..., None]:
        """The test function of the module."""

        def test_row(row: Row, server: str, record_property: Any) -> None:
            verdict = self.run(row, server)
            record_property("row", [self.theme, row.name, server, verdict.splitlines()[0]])
            if server == Sidestage.name:
                assert verdict == WORKS, verdict

        test_row.rows = self  # type: ignore[attr-defined]  # for the parametrization
        return test_row

    def cases(self, *, peers: bool) -> list[tuple[str, Row, str]]:
        """The cases of the test: name, row and server."""
        return [
            (f"{row.name}-{server}", row, server)
            for row in self._rows.values()
            for server in SERVERS
            if server == Sidestage.name or (peers and row.peers)
        ]

    def run(self, row: Row, server: str) -> str:
        """Run a row with one server; returns ``works``, or what went wrong and the output."""
        mark = uuid.uuid4().hex
        with tempfile.TemporaryDirectory(prefix="row-") as directory:
            verdict_file = Path(directory) / "verdict"
            process = subprocess.Popen(
                [sys.executable, *row.flags, self._file, row.name, server, str(verdict_file)],
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
        if verdict == WORKS and output and server == Sidestage.name:
            verdict = "says something"
        return verdict if verdict == WORKS else f"{verdict}\n{output.decode()}"

    def main(self) -> None:
        """Run the row, with the server, that the arguments name; writes the verdict to a file."""
        import faulthandler

        name, server, path = sys.argv[1:]
        row = self._rows[name]
        faulthandler.enable()
        # A shell's background jobs ignore SIGINT, and their descendants inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        write, fd = posix.write, posix.open(path, posix.O_WRONLY | posix.O_CREAT, 0o600)
        dumps, owner, getpid = json.dumps, posix.getpid(), posix.getpid
        verdict = WORKS
        try:
            row.work(SERVERS[server]())
        except BaseException as error:
            if getpid() != owner:  # a forked copy may leave in any way
                raise
            traceback.print_exc()
            said = str(error).strip().splitlines() or [""]
            verdict = f"{type(error).__name__}: {said[0]}"
        if getpid() == owner:
            write(fd, dumps(verdict).encode())


def _path() -> str:
    return os.pathsep.join([str(_ROOT / "src"), str(_ROOT / "tests")])


def _end_all(mark: str) -> list[int]:
    """Kill the processes marked with ``mark`` that outlive the limit; returns their pids."""
    import psutil  # late: rows start without it imported

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
