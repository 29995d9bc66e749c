"""Signals from the terminal, or to the test's process group."""

from __future__ import annotations

import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path

import psutil

from kit.matrix import Rows
from kit.processes import (
    Body,
    TerminalProcess,
    TestProcess,
    main,
    patch_host,
    report,
    serve,
    serve_until_killed,
    time_limit,
    wait_forever,
)
from kit.scripts import eventually
from kit.servers import ServerUnderTest, Sidestage, fetch
from sidestage import HTTPServer

rows = Rows("Dying", __file__)

CTRL_C, CTRL_Z = b"\x03", b"\x1a"


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
    """Start a thread that reports when the main thread waits in a call of that name.

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
    """Press Ctrl-C once the process has reported; KeyboardInterrupt ends it."""
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
    process = TerminalProcess(sut, serve_until_killed)
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
    process = TerminalProcess(sut, serve_until_killed)
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
    process = TestProcess(sut, serve_until_killed)
    port = process.read_port()
    os.killpg(process.popen.pid, number)
    assert process.wait() == -number
    process.assert_gone(port)


for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    rows.add(f"{number.name} to the test's process group")(partial(_group_gets, number))


test_row = rows.test()

if __name__ == "__main__":
    main(rows, globals())
