"""A pid of another PID namespace names another process here: none is taken for one of ours."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from kit.child_coverage import SETTINGS
from kit.fake_children import StartFakeChild, fake_child, kill_and_reap, read_line
from kit.scripts import all_gone, run_python, run_script
from sidestage.pristine import system
from sidestage.pristine.waits import Deadline
from sidestage.process.handle import ServerProcess
from sidestage.process.launch import launch
from sidestage.process.tree import ProcessTree, is_in_proc

__all__ = ["fake_child"]  # the fixture

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a PID namespace")

UNSHARE = """
import ctypes, os, signal, subprocess, sys
from pathlib import Path
from sidestage import HTTPServer, ServerManager, StartError, StateError, TCPServer
from sidestage.process.pool import pool

def unshare():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x20000000):  # CLONE_NEWPID
        raise OSError(ctypes.get_errno(), "unshare")
"""

# A test in a new namespace, whose pid is that of a stranger outside. The stranger has a file open
# under every number that a descriptor of the test may have. /proc stays that of the outside.
WITH_A_NAMESAKE = """
stranger_file = Path(sys.argv[1])
stranger = subprocess.Popen([sys.executable, "-c", '''
import os, sys
for number in range(3, 60):
    os.dup2(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), number)
child = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
print(child, flush=True)
os.waitpid(child, 0)
''', str(stranger_file)], stdout=subprocess.PIPE)
child = int(stranger.stdout.readline())
unshare()
first = os.fork()
if first == 0:  # the first process of the namespace, which it has to outlive
    try:
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(stranger.pid - 1))
    except OSError as error:
        print("no choice of pids:", error)
        os._exit(0)
    test = os.fork()
    if test:
        os.waitpid(test, 0)
        os._exit(0)
    try:
        if os.getpid() != stranger.pid:
            print("another process has taken the pid")
            os._exit(0)
        with ServerManager(a=TCPServer(), b=TCPServer(), c=HTTPServer(handler=print)) as manager:
            forked = len(pool.processes())
            server = manager["a"]
            try:
                server.stats()
            except StateError as error:
                print(error)
            os.kill(server.pid, signal.SIGSTOP)
            report = server.stop(0.3)
            print(forked, report.rung, report.swept)
        pool.close()
    except BaseException as error:
        print("failed", repr(error))
    sys.stdout.flush()
    os._exit(0)
os.waitpid(first, 0)
print(stranger.poll(), stranger_file.read_bytes())
os.kill(child, signal.SIGKILL)
print(stranger.wait())
"""


@as_root
def test_a_namesake_in_the_proc_of_the_outside_is_left_alone(tmp_path: Path) -> None:
    printed = run_python("-W", "ignore", "-c", UNSHARE + WITH_A_NAMESAKE, str(tmp_path / "file"))
    lines = printed.splitlines()
    if len(lines) == 3:
        pytest.skip(lines[0])
    assert "/proc is missing, or is that of another PID namespace" in lines[0]
    assert lines[1:] == ["1 kill ()", "None b''", "0"]


@as_root
def test_a_test_that_has_unshared_its_children() -> None:
    """The first process that it starts is the namespace's, which ends with it."""
    source = """
with TCPServer() as server, TCPServer() as other:
    old = {server.pid, other.pid} | {process.launched.pid for process in pool.processes()}
unshare()
with TCPServer() as server:
    first = server.pid
    with TCPServer() as other:
        second = other.pid
        print(not {first, second} & old, Path(f"/proc/{first}/stat").exists())
    print(other.stop_report.rung)
print(server.stop_report.rung)
for server in HTTPServer(handler=print), TCPServer():  # the first ends with its only process
    try:
        server.start()
    except StartError as error:
        print(error)
pool.close()
print(*old, first, second)
"""
    *lines, pids = run_script(UNSHARE + source, "-W", "ignore").splitlines()
    assert lines[:3] == ["True True", "ask", "ask"]
    assert "could not start a thread" in lines[3]
    assert "has to fork first" in lines[3]
    assert "PID namespace of this process ended together with its first process" in lines[4]
    assert all_gone([int(pid) for pid in pids.split()])


class TestIdentity:
    def test_a_process_is_known_by_its_pidfd(self) -> None:
        process = ServerProcess(launch())
        assert is_in_proc(process.launched.pid, process._pidfd)
        assert not is_in_proc(os.getpid(), process._pidfd)
        kill_and_reap(process)

    def test_without_a_pidfd_proc_has_to_be_that_of_this_process(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert is_in_proc(os.getpid(), None)
        monkeypatch.setattr(system, "readlink", lambda path: "1")
        assert not is_in_proc(os.getpid(), None)

    def test_a_namesake_of_a_server_has_no_descendants_that_are_swept(
        self, fake_child: StartFakeChild
    ) -> None:
        """The descendants of one process, looked up by the pid of it and the pidfd of another."""
        parent = fake_child("""
            pid = os.fork()
            if pid == 0:
                os.setsid()
            report(str(os.getpid()))
            threading.Event().wait()
        """)
        read_line(parent), read_line(parent)
        other = fake_child("wait_for_stop()")
        namesake = ProcessTree(parent.launched.pid, other._pidfd)
        namesake.note(Deadline(30))
        assert namesake.sweep() == []
        parent.snapshot(Deadline(30))
        parent.kill()
        assert len(parent.sweep()) == 1

    def test_a_child_that_others_have_reaped_is_not_killed_by_its_pid(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        launched = launch()
        os.kill(launched.pid, signal.SIGKILL)
        os.waitpid(launched.pid, 0)
        killed: list[int] = []
        monkeypatch.setattr(system, "kill", lambda pid, number: killed.append(pid))
        launched.abandon()
        assert killed == []


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that have another user, root or namespace cannot write what coverage counts."""
    monkeypatch.delenv(SETTINGS, raising=False)
