"""The test's process is killed or ends without a stop, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from functools import partial
from pathlib import Path

import psutil

from kit.matrix import Rows
from kit.processes import (
    FORKS,
    Body,
    TestProcess,
    is_free,
    main,
    patch_host,
    report,
    serve,
    serve_until_killed,
    wait_forever,
)
from kit.scripts import eventually
from kit.servers import ServerUnderTest, fetch

rows = Rows("Dying", __file__)


# Killed ------------------------------------------------------------------------------------------


@rows.add("the test is killed, idle")
def killed_idle(sut: ServerUnderTest) -> None:
    process = TestProcess(sut, serve_until_killed)
    port = process.read_port()
    assert fetch(port, "/served") == "/served"
    process.kill()
    process.assert_gone(port)


def die_in_a_handler(sut: ServerUnderTest) -> None:
    def die(path: str) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return path

    sut.start(die)
    report(sut.port)
    fetch(sut.port)


@rows.add("the test is killed in a handler")
def killed_in_a_handler(sut: ServerUnderTest) -> None:
    process = TestProcess(sut, die_in_a_handler)
    port = process.read_port()
    assert process.wait() == -signal.SIGKILL
    process.assert_gone(port)


def leave_a_copy(sut: ServerUnderTest) -> None:
    sut.start(str)
    report(sut.port)
    copy = os.fork()
    if copy == 0:
        wait_forever()
    report(copy)
    wait_forever()


@rows.add("the test is killed, a forked copy lives on", *FORKS)
def killed_beside_a_copy(sut: ServerUnderTest) -> None:
    process = TestProcess(sut, leave_a_copy)
    port, copy = process.read_port(), int(process.read_line())
    process.kill()
    try:
        process.assert_gone(port, beside=[copy])
    finally:
        os.kill(copy, signal.SIGKILL)


def hang(sut: ServerUnderTest) -> None:
    sut.start(str)
    sut.hang()
    for child in psutil.Process().children():  # no signal stops a process at once
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    report(sut.port)
    wait_forever()


@rows.add("the test is killed, its server is stuck")
def killed_with_a_stuck_server(sut: ServerUnderTest) -> None:
    process = TestProcess(sut, hang)
    port = process.read_port()
    process.kill()
    process.assert_gone(port)


SPINNING = """
configure = Host._configure
def spin():
    while True:
        pass
def configure_and_spin(self, message):
    configure(self, message)
    self.loop.call_soon(spin)
Host._configure = configure_and_spin
"""


def have_it_spin(sut: ServerUnderTest) -> None:
    patch_host(SPINNING)
    sut.start(str)
    report(sut.port)
    wait_forever()


@rows.add("the test is killed, its server is in an endless loop", peers=False)
def killed_with_a_spinning_server(sut: ServerUnderTest) -> None:
    process = TestProcess(sut, have_it_spin)
    port = process.read_port()
    process.kill()
    process.assert_gone(port)


# Test processes that end by themselves -----------------------------------------------------------


def end_by_an_exception(sut: ServerUnderTest) -> None:
    serve(sut)
    report(sut.port)
    raise RuntimeError("the test has failed")


def end_by_sys_exit(sut: ServerUnderTest) -> None:
    serve(sut)
    report(sut.port)
    sys.exit(3)


def end_at_once(sut: ServerUnderTest) -> None:
    serve(sut)
    report(sut.port)
    os._exit(4)


def end_by_abort(sut: ServerUnderTest) -> None:
    serve(sut)
    report(sut.port)
    os.abort()


def _ends(body: Body, status: int, sut: ServerUnderTest) -> None:
    process = TestProcess(sut, body)
    port = process.read_port()
    assert process.wait() == status
    process.assert_gone(port)


for name, body, status in (
    ("an uncaught exception", end_by_an_exception, 1),
    ("sys.exit", end_by_sys_exit, 3),
    ("os._exit", end_at_once, 4),
    ("os.abort", end_by_abort, -signal.SIGABRT),
):
    rows.add(f"the test ends by {name}, without a stop")(partial(_ends, body, status))


def end_beside_a_handler(sut: ServerUnderTest) -> None:
    entered = threading.Event()

    def block(path: str) -> str:
        entered.set()
        wait_forever()
        return path

    sut.start(block)
    client = socket.create_connection(("127.0.0.1", sut.port))
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    entered.wait()
    report(sut.port)
    sys.exit(3)


@rows.add("the test ends while a handler is blocked", limit=8.0)
def ends_beside_a_handler(sut: ServerUnderTest) -> None:
    _ends(end_beside_a_handler, 3, sut)


@rows.add("the thread that started it ends")
def starting_thread_ends(sut: ServerUnderTest) -> None:
    thread = threading.Thread(target=serve, args=[sut])
    thread.start()
    thread.join()
    assert eventually(lambda: not Path(f"/proc/self/task/{thread.native_id}").exists())
    assert fetch(sut.port, "/alive") == "/alive"
    sut.stop()


# A worker of pytest-xdist ------------------------------------------------------------------------

SUITE = """
import os, pytest
from pathlib import Path
from kit.servers import SERVERS, fetch
from kit.scripts import eventually

@pytest.fixture
def server():
    sut = SERVERS[os.environ["SERVER"]]()
    sut.start(str)
    yield sut
    sut.stop()

@pytest.mark.parametrize("number", range(4))
def test_served(server, number):
    assert fetch(server.port, "/served") == "/served"
    Path(f"serves-{os.getpid()}-{server.port}").touch()
    assert eventually(Path("go").exists, 20)
"""


def run_suite(sut: ServerUnderTest) -> None:
    Path("test_suite.py").write_text(SUITE)
    os.environ |= {"SERVER": sut.name, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    options = ["-n", "2", "-p", "xdist", "-p", "no:cacheprovider"]
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *options, "test_suite.py"])


@rows.add("a worker of pytest-xdist is killed", limit=40.0)
def worker_killed(sut: ServerUnderTest) -> None:
    def serving() -> list[str]:
        return [file.name for file in Path().glob("serves-*")]

    process = TestProcess(sut, run_suite)
    assert eventually(lambda: len(serving()) == 2, 20)
    pid, port = map(int, serving()[0].split("-")[1:])
    os.kill(pid, signal.SIGKILL)
    assert eventually(partial(is_free, port), 1.0), "leaves a port bound"
    Path("go").touch()
    assert process.popen.stdout is not None
    output = process.popen.stdout.read()
    assert process.wait() == 1, output
    assert "1 failed, 3 passed" in output, output
    assert "replacing crashed worker" in output, output
    process.assert_gone(*(int(name.split("-")[2]) for name in serving()))


test_row = rows.test()

if __name__ == "__main__":
    main(rows, globals())
