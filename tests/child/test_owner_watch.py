"""A process whose owner is gone ends, whatever it is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kit.scripts import all_gone, background, environment

# A child with the watch, whose main thread is stuck for good.
WATCHED = """
import os, select, sys, threading
if {without_pidfd}:
    del os.pidfd_open
from sidestage.child.owner_watch import OwnerWatch
watch = OwnerWatch(int(sys.argv[1]))
watch.interval = 0.02
print("watched", os.getpid(), flush=True)
threading.Event().wait()
"""

OWNER = """
import os, subprocess, sys, threading
subprocess.Popen([sys.executable, "-c", {watched!r}, str(os.getpid())])
{afterwards}
threading.Event().wait()
"""


def owner_of(watched: str, afterwards: str = "") -> str:
    return OWNER.format(watched=watched, afterwards=afterwards)


def word_and_pid(process: subprocess.Popen[str]) -> tuple[str, int]:
    assert process.stdout is not None
    word, pid = process.stdout.readline().split()
    return word, int(pid)


@pytest.mark.parametrize("without_pidfd", [False, True])
def test_the_owner_is_killed(without_pidfd: bool) -> None:
    with background(owner_of(WATCHED.format(without_pidfd=without_pidfd))) as owner:
        _, pid = word_and_pid(owner)
        assert not all_gone([pid], 0.1)
        owner.kill()
        assert all_gone([pid], 5.0)


@pytest.mark.parametrize("without_pidfd", [False, True])
def test_what_the_owner_leaves_is_removed_by_a_child_that_is_stuck(
    without_pidfd: bool, tmp_path: Path
) -> None:
    left = tmp_path / "sidestage-tls-1-0"
    left.mkdir()
    watched = WATCHED.format(without_pidfd=without_pidfd).replace(
        "print(", f"watch.inherit({str(left)!r})\nprint("
    )
    with background(owner_of(watched)) as owner:
        _, pid = word_and_pid(owner)
        assert left.exists()
        owner.kill()
        assert all_gone([pid], 5.0)
    assert not left.exists()


def test_a_forked_copy_of_the_owner_lives_on() -> None:
    fork = "copy = os.fork()\nif copy: print('copy', copy, flush=True)"
    with background(owner_of(WATCHED.format(without_pidfd=False), fork)) as owner:
        pids = dict(word_and_pid(owner) for _ in range(2))
        owner.kill()
        try:
            assert all_gone([pids["watched"]], 5.0)
        finally:
            os.kill(pids["copy"], signal.SIGKILL)
    assert all_gone([pids["copy"]], 5.0)


def test_the_owner_was_gone_before_it_could_look() -> None:
    """Its parent is not the owner that it was given."""
    watched = WATCHED.format(without_pidfd=False)
    done = subprocess.run(
        [sys.executable, "-c", watched, "1"],
        env=environment(),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


def test_the_thread_that_started_it_may_end() -> None:
    watched = WATCHED.format(without_pidfd=False)
    start = f"""
def start():
    subprocess.Popen([sys.executable, "-c", {watched!r}, str(os.getpid())])
thread = threading.Thread(target=start); thread.start(); thread.join()
"""
    source = "import os, subprocess, sys, threading\n" + start + "threading.Event().wait()\n"
    with background(source) as owner:
        _, pid = word_and_pid(owner)
        assert not all_gone([pid], 0.2)
        owner.kill()
        assert all_gone([pid], 5.0)


def test_the_owner_lives_and_may_only_close_the_pipe() -> None:
    """As a test whose user is another by now; the main thread is stuck, so only the watch sees."""
    watched = WATCHED.format(without_pidfd=False).replace(
        "OwnerWatch(int(sys.argv[1]))",
        "OwnerWatch(int(sys.argv[1]), pipe=int(sys.argv[2])); owner_watch._PIPE_GRACE = 0.1",
    )
    watched = watched.replace(
        "from sidestage", "from sidestage.child import owner_watch\nfrom sidestage", 1
    )
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", watched, str(os.getpid()), str(reader)],
        env=environment(),
        pass_fds=[reader],
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(reader)
    _, pid = word_and_pid(process)
    assert not all_gone([pid], 0.3)
    os.close(writer)
    assert process.wait(10) == 0
    assert process.stdout is not None
    process.stdout.close()
