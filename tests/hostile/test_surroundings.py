"""Tests in odd surroundings: environment, directories, descriptors, limits, signals, flags.

Each oddity comes before the first start of the process, and while a server runs. A server goes
from start to stop in it twice: the first starts a process, the second may take over what the first
has left. One that was started before is stuck when it is stopped.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - clients need it, sys.path or not
import faulthandler
import gc
import io
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from kit.matrix import Rows
from kit.servers import Clock, ServerUnderTest, Sidestage, fetch

rows = Rows("Surroundings", __file__)

Change = Callable[[], None]

SRC = Path(__file__).resolve().parent.parent.parent / "src"
ODD = "für «alle» 'Tests': 漢字\tund\\mehr"
UNDECODABLE = f"{ODD} \udcff"  # a byte that is no UTF-8


def use(sut: ServerUnderTest) -> None:
    """Two servers, one after the other."""
    for _ in range(2):
        sut = type(sut)()
        sut.start(lambda path: path)
        ask(sut)
        sut.stop()


def ask(sut: ServerUnderTest) -> None:
    """Send a request. Without ``assert``, which -O removes."""
    answer = fetch(sut.port, "/alive")
    if answer != "/alive":
        raise AssertionError(answer)
    sut.wait_for(1)


def before(change: Change, imported: bool, sut: ServerUnderTest) -> None:
    """The surroundings change before the first start."""
    if imported:
        sut.load()
    change()
    use(sut)


def meanwhile(change: Change, sut: ServerUnderTest) -> None:
    """The surroundings change between start and request, after all imports."""
    sut = type(sut)()
    sut.start(lambda path: path)
    change()
    ask(sut)
    if isinstance(sut, Sidestage):
        sut.stop_hung()
    else:
        sut.stop()
    use(sut)


def throughout(change: Change, sut: ServerUnderTest) -> None:
    """The surroundings are odd from the beginning."""
    before(change, False, sut)
    meanwhile(lambda: None, sut)


def odd(name: str, *, imported: bool = False) -> Callable[[Change], Change]:
    """Two rows for one change; ``imported`` if it leaves nothing to import from."""

    def decorate(change: Change) -> Change:
        rows.add(f"{name}, before the start")(partial(before, change, imported))
        rows.add(f"{name}, while it serves")(partial(meanwhile, change))
        return change

    return decorate


def odd_throughout(name: str) -> Callable[[Change], Change]:
    """One row for one change."""

    def decorate(change: Change) -> Change:
        rows.add(name)(partial(throughout, change))
        return change

    return decorate


# The environment and what is imported ------------------------------------------------------------


@odd("os.environ is empty")
def empty_environment() -> None:
    os.environ.clear()


@odd("os.environ has nonsense in it")
def nonsense_in_the_environment() -> None:
    """Some of these variables would prevent an interpreter from starting."""
    names = "HOME", "HASHSEED", "INTMAXSTRDIGITS", "MALLOC", "PATH", "STARTUP", "UTF8", "WARNINGS"
    os.environ |= {f"PYTHON{name}": "nonsense" for name in names}
    os.environ |= dict.fromkeys(("HOME", "PATH", "TMPDIR", "LD_LIBRARY_PATH"), "/nowhere")
    os.environ |= {"LANG": "nonsense", "LC_ALL": "nonsense", "TZ": ":nonsense", "B\udcff": "\udcff"}
    time.tzset()


@odd("sys.path is empty", imported=True)
def empty_path() -> None:
    sys.path.clear()


@odd("modules in the way of those of the library", imported=True)
def modules_in_the_way() -> None:
    """In the working directory, on sys.path and on PYTHONPATH."""
    shadows = Path("shadows").absolute()
    shadows.mkdir()
    names = "aiosmtpd", "asyncio", "encodings", "httptools", "msgspec", "os", "socket", "sidestage"
    for name in (*names, "sitecustomize", "usercustomize"):
        (shadows / f"{name}.py").write_text("raise SystemExit('in the way')")
    os.chdir(shadows)
    sys.path[:0] = ["", str(shadows)]
    os.environ["PYTHONPATH"] = str(shadows)


@odd("sys.executable is something else", imported=True)
def another_executable() -> None:
    sys.executable = "/nowhere/python"


# Directories -------------------------------------------------------------------------------------


@odd("the working directory is deleted", imported=True)
def deleted_directory() -> None:
    Path("doomed").mkdir()
    os.chdir("doomed")
    Path("../doomed").resolve().rmdir()


@odd("the working directory has an odd name")
def odd_directory() -> None:
    Path(UNDECODABLE).mkdir()
    os.chdir(UNDECODABLE)


@odd_throughout("umask 777")
def closed_umask() -> None:
    os.umask(0o777)


@rows.add("the library is in a directory with an odd name", peers=False)
def odd_home(sut: ServerUnderTest) -> None:
    import shutil

    home = Path(UNDECODABLE).absolute()
    shutil.copytree(SRC, home, ignore=shutil.ignore_patterns("__pycache__"))
    sys.path.insert(0, str(home))
    use(sut)
    assert sys.modules["sidestage"].__file__ == str(home / "sidestage" / "__init__.py")


@rows.add("a Unix socket in a directory with an odd name", peers=False)
def odd_socket(sut: ServerUnderTest) -> None:
    from sidestage import TCPServer

    Path(ODD).mkdir()
    os.chdir(ODD)
    path = Path("Söckel 1").absolute()
    for address in (path, "Söckel 1"):
        with TCPServer(address, handler=lambda connection: b"alive") as server:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                assert client.recv(5) == b"alive"
            assert Path(server.server_address).absolute() == path
        assert not path.exists()


@rows.add("a Unix socket in a directory that is not UTF-8", peers=False)
def undecodable_socket(sut: ServerUnderTest) -> None:
    """The start is refused, with no other effect."""
    from sidestage import TCPServer

    odd_directory()
    for address in (Path("socket").absolute(), "socket"):
        try:
            TCPServer(address).start()
        except ValueError as error:
            said = str(error)
        else:
            said = "it started"
        assert "must be UTF-8" in said
    use(sut)


# Descriptors -------------------------------------------------------------------------------------


@odd("descriptors 0, 1 and 2 are closed")
def closed_standard_streams() -> None:
    for fd in (0, 1, 2):
        os.close(fd)


@odd("sys.stdin, sys.stdout and sys.stderr are None")
def no_streams() -> None:
    sys.stdin = sys.stdout = sys.stderr = None


@odd("sys.stdout and sys.stderr are something else")
def other_streams() -> None:
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()


@odd_throughout("64 descriptors at most")
def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


@rows.add("no descriptor is left")
def no_descriptor(sut: ServerUnderTest) -> None:
    """A start fails and leaves nothing, a stop works, and a later start works."""
    other = type(sut)()
    for server in (sut, other):
        server.start(lambda path: path)
        ask(server)
    few_descriptors()
    taken = take_descriptors()
    failed = type(sut)()
    try:
        failed.start(lambda path: path)
    except OSError:
        pass
    else:
        raise AssertionError("it started")
    sut.stop()
    taken += take_descriptors()
    if isinstance(other, Sidestage):
        other.stop_hung()
    else:
        other.stop()
    for fd in taken:
        os.close(fd)
    use(sut)


def take_descriptors() -> list[int]:
    """Open all descriptors that can be opened."""
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        return taken


# The interpreter ---------------------------------------------------------------------------------


@rows.add("python -W error", "-W", "error")
@rows.add("python -X dev -W error", "-X", "dev", "-W", "error")
@rows.add("python -bb", "-bb")
@rows.add("python -O", "-O")
@rows.add("python -OO", "-OO")
def flags(sut: ServerUnderTest) -> None:
    throughout(lambda: None, sut)


@rows.add("python -I")
def isolated(sut: ServerUnderTest) -> None:
    """The flag is for a new process: this one needs PYTHONPATH to find the tests."""
    in_another_python(sut, "-I")


@rows.add("ASCII is all that the locale knows")
def ascii_only(sut: ServerUnderTest) -> None:
    odd_directory()
    os.environ |= {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    in_another_python(sut)


def in_another_python(sut: ServerUnderTest, *flags: str) -> None:
    source = f"""
import sys
sys.path[:0] = {[*sys.path, str(Path(__file__).parent)]!r}
from kit.servers import SERVERS
from test_surroundings import flags
flags(SERVERS[{sut.name!r}]())
"""
    subprocess.run([sys.executable, *flags, "-c", source], check=True)


@rows.add("sys.settrace and sys.setprofile")
def observed(sut: ServerUnderTest) -> None:
    """Set trace functions as coverage and debuggers do; they must see the handlers, too."""
    traced, profiled = set(), set()

    def tracer(frame: FrameType, event: str, argument: Any) -> Any:
        traced.add(frame.f_code.co_name)
        return tracer

    def profiler(frame: FrameType, event: str, argument: Any) -> None:
        profiled.add(frame.f_code.co_name)

    def observe() -> None:
        for module in (threading, sys):
            module.settrace(tracer)
            module.setprofile(profiler)

    def handler(path: str) -> str:
        return path

    throughout(observe, sut)
    sut.start(handler)
    ask(sut)
    sut.stop()
    assert "handler" in traced & profiled


@odd_throughout("sys.setswitchinterval(1)")
def long_turns() -> None:
    sys.setswitchinterval(1)


@odd_throughout("sys.setswitchinterval(1e-6)")
def short_turns() -> None:
    sys.setswitchinterval(1e-6)


@odd_throughout("faulthandler is disabled")
def no_faulthandler() -> None:
    faulthandler.disable()


@rows.add("gc.disable()")
def no_collector_needed(sut: ServerUnderTest) -> None:
    """Nothing is left that only the garbage collector would close."""
    gc.disable()
    use(sut)
    before = descriptors()
    for _ in range(5):
        use(sut)
    assert descriptors() <= before


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# Signals -----------------------------------------------------------------------------------------


@rows.add("SIGALRM every 5 ms")
def interrupted(sut: ServerUnderTest) -> None:
    """Signals interrupt the main thread's waits, and time-outs still end in time."""
    alarms = 0

    def count(number: int, frame: FrameType | None) -> None:
        nonlocal alarms
        alarms += 1

    def storm() -> None:
        signal.signal(signal.SIGALRM, count)
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)

    throughout(storm, sut)
    if isinstance(sut, Sidestage):
        time_out()
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert alarms > 10


def time_out() -> None:
    from sidestage import HTTPServer, WaitTimeout

    with HTTPServer() as server:
        began = Clock.monotonic()
        try:
            server.wait_for(1, 0.2)
        except WaitTimeout:
            assert 0.2 <= Clock.monotonic() - began < 5
        else:
            raise AssertionError("nothing has come")


@rows.add("SIGPIPE ends the process")
def deadly_pipes(sut: ServerUnderTest) -> None:
    """A client leaves before the answer, and the server's process dies."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    left = threading.Event()
    sut.start(lambda path: "x" * 1_000_000 if left.wait(10) and path == "/leave" else path)
    with socket.create_connection(("127.0.0.1", sut.port)) as client:
        client.sendall(b"GET /leave HTTP/1.1\r\nHost: x\r\n\r\n")
        sut.wait_for(1)
    left.set()
    ask(sut)
    sut.stop()
    if isinstance(sut, Sidestage):
        kill_and_look(signal.SIGKILL)


def kill_and_look(number: signal.Signals) -> None:
    from sidestage import HTTPServer, ServerDied

    server = HTTPServer().start()
    assert server.pid is not None
    os.kill(server.pid, number)
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    assert server.received == []
    try:
        server.stop()
    except ServerDied as death:
        killer = death.signal
    else:
        killer = None
    assert killer == number.name


@rows.add("all signals are blocked or ignored")
def no_signals(sut: ServerUnderTest) -> None:
    """The server's process does not inherit ignored and blocked signals."""

    def close_the_ears() -> None:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    throughout(close_the_ears, sut)
    if isinstance(sut, Sidestage):
        kill_and_look(signal.SIGTERM)


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
