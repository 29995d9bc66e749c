"""The test forks, and the copy does what copies do."""

from __future__ import annotations

import os
import sys

from rows import Rows
from subjects import Subject, fetch

rows = Rows("Forking", __file__)


def _wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@rows.add("a copy leaves by os._exit", "-W", "error")
def leave_at_once(subject: Subject) -> None:
    subject.start(lambda path: path)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert _wait(pid) == 0
    assert fetch(subject.port, "/alive") == "/alive"
    subject.stop()


@rows.add("a copy leaves by sys.exit", "-W", "error")
def leave_by_sys_exit(subject: Subject) -> None:
    subject.start(lambda path: path)
    pid = os.fork()
    if pid == 0:
        sys.exit(0)
    assert _wait(pid) == 0
    assert fetch(subject.port, "/alive") == "/alive"
    subject.stop()


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
