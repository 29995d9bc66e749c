"""A server's process has what a process started now would have: user, limits, namespaces."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kit.child_coverage import SETTINGS
from kit.scripts import all_gone, run_script
from sidestage.pristine import system
from sidestage.process import surroundings as surroundings_module
from sidestage.process.surroundings import surroundings

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do that to itself")

# Several processes of each kind, interpreters and forked ones, before a change and after it.
LIVES = """
import ctypes, os, resource, signal, sys
from pathlib import Path
from sidestage import HTTPServer, ServerManager, StartError, TCPServer
from sidestage.process.pool import pool

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)

def unshare(flags):
    while len(os.listdir("/proc/self/task")) > 1:  # a handler's thread may be about to end
        os.sched_yield()
    if libc.unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare")

def status(pid, name):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith(name + ":"))

def three(look=lambda pid: pid):
    with ServerManager(a=TCPServer(), b=TCPServer(), c=HTTPServer(handler=print)) as manager:
        return [look(server.pid) for server in manager.values()]

def three_with_files(look=lambda pid: pid):
    paths = [f"socket{number}" for number in range(3)]
    with ServerManager({path: TCPServer(path) for path in paths}) as manager:
        return [look(server.pid) for server in manager.values()]
"""

CHANGES = {
    "umask": ("os.umask(0o27)", "status(pid, 'Umask')"),
    "descriptors": (
        "resource.setrlimit(resource.RLIMIT_NOFILE, (500, 600))",
        "resource.prlimit(pid, resource.RLIMIT_NOFILE)",
    ),
    "file size": (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))",
        "resource.prlimit(pid, resource.RLIMIT_FSIZE)",
    ),
    "niceness": ("os.nice(3)", "os.getpriority(os.PRIO_PROCESS, pid)"),
    "processors": (
        "os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})",
        "os.sched_getaffinity(pid)",
    ),
    "session": ("os.setsid()", "os.getsid(pid)"),
}
CHANGES_OF_ROOT = {
    "groups": ("os.setgroups([12, 13])", "status(pid, 'Groups')"),
    "group": ("os.setgid(12)", "status(pid, 'Gid')"),
    "user": ("os.setresuid(65534, 0, 0)", "status(pid, 'Uid')"),
    "network": ("unshare(CLONE_NEWNET)", "os.readlink(f'/proc/{pid}/ns/net')"),
}
# What only a server with a file would notice, or one at a privileged port.
CHANGES_FOR_FILES = {
    "no new privileges": ("libc.prctl(38, 1, 0, 0, 0)", "status(pid, 'NoNewPrivs')"),
    "capabilities": ("libc.prctl(24, 10, 0, 0, 0)", "status(pid, 'CapBnd')"),
    "mounts": ("unshare(CLONE_NEWNS)", "os.readlink(f'/proc/{pid}/ns/mnt')"),
    "users": ("unshare(CLONE_NEWUSER)", "os.readlink(f'/proc/{pid}/ns/user')"),
}


def check(change: str, look: str, three: str = "three") -> None:
    """After ``change``, servers have what the test has, as ``look`` sees it; the old ones end."""
    source = f"""
three = {three}
old = three()
{change}
look = lambda pid: {look}
mine, first, second = look(os.getpid()), three(look), three(look)
print(*{{mine == one for one in first + second}}, not set(old) & set(three()), flush=True)
"""
    assert run_script(LIVES + source) == "True True\n"


@pytest.mark.parametrize("what", CHANGES)
def test_it_has_what_the_test_has(what: str) -> None:
    check(*CHANGES[what])


@as_root
@pytest.mark.parametrize("what", CHANGES_OF_ROOT)
def test_it_has_what_a_test_of_root_has(what: str) -> None:
    check(*CHANGES_OF_ROOT[what])


@as_root
@pytest.mark.parametrize("what", CHANGES_FOR_FILES)
def test_a_server_with_a_file_has_what_the_test_has(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "users" and not may_have_new_users():
        pytest.skip("the kernel allows no new user namespace here, as in a chroot")
    monkeypatch.chdir(tmp_path)
    check(*CHANGES_FOR_FILES[what], "three_with_files")


def may_have_new_users() -> bool:
    source = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x10000000) != 0)"
    return subprocess.run([sys.executable, "-c", source], check=False).returncode == 0


def test_a_child_waits_for_its_surroundings_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = """
with TCPServer("s") as server: first = server.pid
os.umask(0o27)
with TCPServer("s") as server: second = server.pid
os.umask(0o22)
with TCPServer("s") as server: third = server.pid
os.umask(0o27)
with TCPServer("s") as server:
    print(second not in (first, third), third == first, server.pid == second)
"""
    assert run_script("import os\nos.umask(0o22)" + LIVES + source) == "True True True\n"


def test_the_socket_of_a_path_has_the_mode_that_the_umask_gives() -> None:
    source = """
import tempfile
modes = []
with tempfile.TemporaryDirectory() as home:
    for umask in 0o22, 0o77, 0o22, 0o07:
        os.umask(umask)
        with TCPServer(f"{home}/s"):
            modes.append(oct(os.stat(f"{home}/s").st_mode & 0o777))
print(*modes)
"""
    assert run_script(LIVES + source) == "0o755 0o700 0o755 0o770\n"


@as_root
class TestWhereItCannot:
    def test_the_user_may_not_run_the_interpreter(self, tmp_path: Path) -> None:
        """``start`` names it; the server that runs is stopped, although it may not be signalled."""
        source = """
from sidestage.process import launch
server, hung, idle = TCPServer().start(), TCPServer().start(), TCPServer().start()
idle.stop()
pids = [one.pid for one in (server, hung)] + [one.launched.pid for one in pool.processes()]
os.kill(hung.pid, signal.SIGSTOP)
os.setuid(65534)
try:
    with TCPServer() as other:
        print(status(other.pid, "Uid").split()[1], launch._executable)
except StartError as error:
    print(65534, error)
print(server.stop().rung, hung.stop(0.5).rung)
pool.close()
print(*pids)
"""
        said, rungs, pids = run_script(LIVES + source, "-W", "ignore").splitlines()
        assert said.startswith("65534 ")
        assert sys.executable in said
        assert rungs == "ask close"
        assert all_gone(list(map(int, pids.split())))

    def test_another_root_directory(self, tmp_path: Path) -> None:
        source = f"""
with TCPServer() as server:
    first = server.pid
    os.chroot({str(tmp_path)!r})
try:
    TCPServer().start()
except StartError as error:
    print(error)
pool.close()
"""
        assert f"root directory, this process has to be able to run {sys.executable}" in run_script(
            LIVES + source
        )


def test_the_umask_is_set_only_to_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a thread that creates a file meanwhile notices nothing, unless it has just changed."""
    umask, seen = system.umask, []

    def noted(value: int) -> int:
        seen.append(value)
        return umask(value)

    surroundings()
    monkeypatch.setattr(system, "umask", noted)
    own = os.umask(0o31)
    try:
        assert surroundings() == surroundings()
        assert os.umask(0o31) == 0o31
    finally:
        os.umask(own)
    assert seen == [own, 0o31, 0o31]


def test_without_proc_all_but_the_namespaces_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings_module, "_NAMESPACES", "/nowhere")
    surroundings_module._calls.cache_clear()
    try:
        (first, *_), second = surroundings_module.at_a_glance(), surroundings_module.at_a_glance()
    finally:
        surroundings_module._calls.cache_clear()
    assert first == second[0]
    assert first[-2:] == (None, None)
    assert None not in first[:-2]
    assert first[:-2] == surroundings_module.at_a_glance()[0][:-2]


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that have another user, root or namespace cannot write what coverage counts."""
    monkeypatch.delenv(SETTINGS, raising=False)
