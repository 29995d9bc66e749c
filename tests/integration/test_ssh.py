"""Workers of pytest-xdist on other machines, by ssh: each one's servers are on its own machine.

Two network namespaces are the machines, each with an sshd.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from kit.scripts import environment, eventually

_SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_TOOLS = all(map(shutil.which, ("ip", "ssh", "ssh-keygen"))) and _SSHD is not None
_SECONDS = 60.0  # for all of the run, of which each part takes less than a second

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not _TOOLS, reason="needs root, iproute2, ssh and sshd"
)

TESTS = """
import os, urllib.request
import pytest

def machine(request=None):
    return os.readlink("/proc/self/ns/net")

@pytest.mark.parametrize("number", range(20))
def test_it(http_server, number):
    http_server.handler = machine
    with urllib.request.urlopen(http_server.url, timeout=10) as answer:
        assert answer.read().decode() == machine()
    with open("machines", "a") as file:
        print(machine(), http_server.pid, file=file)
"""


def run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode:
        raise OSError(done.returncode, f"{command}: {done.stderr}")
    return done.stdout


@contextmanager
def machine(number: int, home: Path) -> Iterator[None]:
    """A network namespace with an sshd at 10.213.``number``.2, and its entry in ``ssh_config``."""
    name, host = f"sidestage{os.getpid()}-{number}", f"10.213.{number}"
    ends = f"ss{number}a{os.getpid() % 100000}", f"ss{number}b{os.getpid() % 100000}"
    try:
        run("ip", "netns", "add", name)
    except OSError as error:
        pytest.skip(f"no network namespace can be made here: {error}")
    try:
        run("ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1], "netns", name)
        run("ip", "addr", "add", f"{host}.1/30", "dev", ends[0])
        run("ip", "link", "set", ends[0], "up")
        run("ip", "-n", name, "addr", "add", f"{host}.2/30", "dev", ends[1])
        for device in (ends[1], "lo"):
            run("ip", "-n", name, "link", "set", device, "up")
        with sshd(name, f"{host}.2", home):
            yield
    finally:
        run("ip", "netns", "del", name)
        # The kernel takes the other end with it, a moment later.
        with suppress(OSError):
            run("ip", "link", "del", ends[0])


@contextmanager
def sshd(name: str, address: str, home: Path) -> Iterator[None]:
    config = home / f"sshd-{name}"
    config.write_text(
        f"HostKey {home}/host\nAuthorizedKeysFile {home}/key.pub\nStrictModes no\n"
        f"PidFile none\nUsePAM no\nListenAddress {address}:2222\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # where Debian's sshd confines itself to
    assert _SSHD is not None
    command = ["ip", "netns", "exec", name, _SSHD, "-D", "-e", "-f", str(config)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            assert eventually(lambda: reaches(home, address), 10.0)
            yield
        finally:
            process.terminate()


def reaches(home: Path, address: str) -> bool:
    with suppress(OSError):
        run("ssh", "-F", home / "ssh_config", address, "true")
        return True
    return False


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[str]]:
    """The addresses of two machines, which ``ssh_config`` in ``tmp_path`` says how to reach."""
    for key in ("host", "key"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key)
    (tmp_path / "ssh_config").write_text(
        f"Host *\n  Port 2222\n  User root\n  IdentityFile {tmp_path}/key\n  LogLevel ERROR\n"
        "  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  BatchMode yes\n"
    )
    with machine(71, tmp_path), machine(72, tmp_path):
        yield ["10.213.71.2", "10.213.72.2"]


def test_the_servers_of_a_worker_are_on_its_machine(machines: list[str], tmp_path: Path) -> None:
    here = tmp_path / "tests"
    here.mkdir()
    (here / "test_machines.py").write_text(TESTS)
    hosts = [f"--tx=ssh=-F {tmp_path}/ssh_config {host}//python={sys.executable}//chdir={here}"
             for host in machines]  # fmt: skip
    plugins = ["-p", "no:rerunfailures", "-p", "no:randomly", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-d", *hosts, *plugins],
        cwd=here,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert "20 passed" in done.stdout, done.stdout + done.stderr
    lines = [line.split() for line in (here / "machines").read_text().splitlines()]
    found = {name for name, _ in lines}
    assert len(found) == 2
    assert str(Path("/proc/self/ns/net").readlink()) not in found
    assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for _, pid in lines), 10.0)
