"""The test's process is killed, ends without a stop, or is interrupted: nothing of it is left."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import warnings
from functools import partial
from pathlib import Path

import psutil

from kit.matrix import Rows
from kit.processes import (
    FORKS,
    Action,
    Body,
    CallTrigger,
    ForkedCopies,
    TerminalProcess,
    TestProcess,
    interrupt_own_process,
    is_free,
    kill_own_process,
    main,
    patch_host,
    report,
    time_limit,
    wait_forever,
)
from kit.scripts import eventually
from kit.servers import ServerUnderTest, Sidestage, fetch
from sidestage import HTTPServer

rows = Rows("Dying", __file__)

CTRL_C, CTRL_Z = b"\x03", b"\x1a"


# Killed ------------------------------------------------------------------------------------------


def serve_on(sut: ServerUnderTest) -> None:
    sut.start(str)
    fetch(sut.port)
    report(sut.port)
    wait_forever()


@rows.add("the test is killed, idle")
def killed_idle(sut: ServerUnderTest) -> None:
    process = TestProcess(sut, serve_on)
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


# At any moment -----------------------------------------------------------------------------------


def warmed(sut: ServerUnderTest) -> ServerUnderTest:
    """Another one, once all is imported that a life of it takes."""
    serve(sut)
    sut.stop()
    return type(sut)()


def serve(sut: ServerUnderTest) -> None:
    sut.start(str)
    fetch(sut.port)


def stop_and_start(sut: ServerUnderTest) -> None:
    sut.stop()
    sut.start(str)


def replace_what_is_stuck(sut: ServerUnderTest) -> None:
    sut.hang()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sut.stop(0.1)
    sut.start(str)


def die_while(prepare: Action, action: Action) -> None:
    """Be killed at any moment of ``action``: nothing is left."""

    def triggered(trigger: CallTrigger) -> None:
        with trigger:
            action()

    copies = ForkedCopies(kill_own_process)
    assert copies.run(prepare, triggered) == {-signal.SIGKILL}
    copies.assert_gone()


@rows.add("the test is killed at any moment of a start", *FORKS)
def killed_while_starting(sut: ServerUnderTest) -> None:
    sut = warmed(sut)
    die_while(int, partial(sut.start, str))


@rows.add("the test is killed at any moment of a stop", *FORKS)
def killed_while_stopping(sut: ServerUnderTest) -> None:
    sut = warmed(sut)
    die_while(partial(serve, sut), sut.stop)


@rows.add("the test is killed at any moment of a restart", *FORKS)
def killed_while_restarting(sut: ServerUnderTest) -> None:
    sut = warmed(sut)
    die_while(partial(serve, sut), partial(stop_and_start, sut))


@rows.add("the test is killed while a stuck process is replaced", *FORKS, peers=False)
def killed_while_replacing(sut: ServerUnderTest) -> None:
    sut = warmed(sut)
    die_while(partial(serve, sut), partial(replace_what_is_stuck, sut))


def interrupt_while(prepare: Action, action: Action, afterwards: Action) -> None:
    """Ctrl-C at any moment of ``action`` raises KeyboardInterrupt; ``afterwards`` then works."""

    def triggered(trigger: CallTrigger) -> None:
        try:
            with trigger:
                action()
        except KeyboardInterrupt:
            afterwards()
            sys.exit(3)

    copies = ForkedCopies(interrupt_own_process)
    assert copies.run(prepare, triggered) == {3}, "Ctrl-C is lost, or nothing works afterwards"
    copies.assert_gone()


def serve_and_stop(sut: ServerUnderTest) -> None:
    serve(sut)
    sut.stop()


def stop_again_and_serve(sut: ServerUnderTest) -> None:
    """A second stop finishes what the first may have left to do."""
    with warnings.catch_warnings(), time_limit(1):
        warnings.simplefilter("ignore")
        sut.stop(1)
    assert is_free(sut.port)
    serve_and_stop(type(sut)())


@rows.add("Ctrl-C at any moment of a start", *FORKS)
def interrupted_while_starting(sut: ServerUnderTest) -> None:
    sut = warmed(sut)
    other = type(sut)()
    interrupt_while(int, partial(sut.start, str), partial(serve_and_stop, other))


@rows.add("Ctrl-C at any moment of a stop", *FORKS)
def interrupted_while_stopping(sut: ServerUnderTest) -> None:
    sut = warmed(sut)
    again = partial(stop_again_and_serve, sut)
    interrupt_while(partial(serve, sut), sut.stop, again)


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


# The terminal and the process group --------------------------------------------------------------


def go_on_after_an_interrupt(sut: ServerUnderTest) -> None:
    serve(sut)
    try:
        report(sut.port)
        wait_forever()
    except KeyboardInterrupt:
        report(fetch(sut.port, "/after"))
        sut.stop()


@rows.add("Ctrl-C at the terminal: the server serves on")
def interrupted(sut: ServerUnderTest) -> None:
    process = TerminalProcess(sut, go_on_after_an_interrupt)
    port = process.read_port()
    process.press(CTRL_C)
    assert process.read_line() == "/after"
    assert process.wait() == 0
    process.assert_gone(port)


def report_when_in(call: str) -> None:
    """Have a thread say so when the main thread waits in a call of that name.

    CPython does not notice a signal that comes when it is just about to wait for a lock.
    """
    main_thread, stat = threading.get_ident(), Path(f"/proc/self/task/{os.getpid()}/stat")

    def in_it() -> bool:
        threading.Event().wait(0.05)  # in which the main thread may do what it wants
        frame = sys._current_frames().get(main_thread)
        while frame is not None and frame.f_code.co_name not in (call, "wait_forever"):
            frame = frame.f_back
        return frame is not None and stat.read_text().rpartition(")")[2].split()[0] == "S"

    def look() -> None:
        eventually(in_it, 10)
        report(call)

    threading.Thread(target=look, daemon=True).start()


def wait_for_what_never_comes(sut: ServerUnderTest) -> None:
    sut.start(str)
    report(sut.port)
    report_when_in("wait_for")
    sut.wait_for(1, 60)


def wait_without_a_handler(sut: ServerUnderTest) -> None:
    with HTTPServer() as server:
        report(server.port)
        report_when_in("wait_for")
        server.wait_for(1, 60)


def be_interrupted(sut: ServerUnderTest, body: Body) -> None:
    """Get Ctrl-C once the process has said that the time has come; KeyboardInterrupt ends it."""
    process = TerminalProcess(sut, body)
    port = process.read_port()
    process.read_line()
    process.press(CTRL_C)
    with time_limit(0):
        assert process.wait() == -signal.SIGINT & 0xFF, "KeyboardInterrupt is lost"
    process.assert_gone(port)


@rows.add("Ctrl-C while it waits for a request")
def interrupted_while_waiting(sut: ServerUnderTest) -> None:
    be_interrupted(sut, wait_for_what_never_comes)
    if isinstance(sut, Sidestage):
        be_interrupted(sut, wait_without_a_handler)


NEVER_READY = """
def never(self, message):
    os.kill(os.getppid(), signal.SIGUSR1)
Host._configure = never
"""


def start_for_ever(sut: ServerUnderTest) -> None:
    patch_host(NEVER_READY)
    signal.signal(signal.SIGUSR1, lambda *_: report_when_in("start"))
    report(0)  # no port yet
    HTTPServer(start_timeout=60).start()


@rows.add("Ctrl-C while it starts", peers=False)
def interrupted_in_a_start(sut: ServerUnderTest) -> None:
    be_interrupted(sut, start_for_ever)


def stop_for_ever(sut: ServerUnderTest) -> None:
    sut.start(str)
    sut.hang()
    report(sut.port)
    report_when_in("stop")
    sut.stop(60)
    wait_forever()  # where that does not take so long


@rows.add("Ctrl-C while a server that is stuck stops", limit=8.0)
def interrupted_in_a_stop(sut: ServerUnderTest) -> None:
    be_interrupted(sut, stop_for_ever)


@rows.add("Ctrl-Z and fg")
def suspended(sut: ServerUnderTest) -> None:
    process = TerminalProcess(sut, serve_on)
    port = process.read_port()
    process.press(CTRL_Z)
    assert eventually(lambda: process.job.status() == psutil.STATUS_STOPPED)
    for child in process.job.children():
        assert child.status() != psutil.STATUS_STOPPED, "the server is stopped, too"
    process.job.send_signal(signal.SIGCONT)
    assert fetch(port, "/after") == "/after"
    process.press(CTRL_C)
    process.wait()
    process.assert_gone(port)


@rows.add("the terminal hangs up")
def hung_up(sut: ServerUnderTest) -> None:
    process = TerminalProcess(sut, serve_on)
    port = process.read_port()
    process.hang_up()
    process.wait()
    process.assert_gone(port)


def go_on_after_a_termination(sut: ServerUnderTest) -> None:
    def leave(*arguments: object) -> None:
        sys.exit(5)

    signal.signal(signal.SIGTERM, leave)
    serve(sut)
    try:
        report(sut.port)
        wait_forever()
    finally:
        report(fetch(sut.port, "/after"))
        sut.stop()


@rows.add("SIGTERM to the test's process group, and it cleans up")
def terminated(sut: ServerUnderTest) -> None:
    process = TestProcess(sut, go_on_after_a_termination)
    port = process.read_port()
    os.killpg(process.popen.pid, signal.SIGTERM)
    assert process.read_line() == "/after"
    assert process.wait() == 5
    process.assert_gone(port)


def _group_gets(number: signal.Signals, sut: ServerUnderTest) -> None:
    process = TestProcess(sut, serve_on)
    port = process.read_port()
    os.killpg(process.popen.pid, number)
    assert process.wait() == -number
    process.assert_gone(port)


for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    rows.add(f"{number.name} to the test's process group")(partial(_group_gets, number))


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
