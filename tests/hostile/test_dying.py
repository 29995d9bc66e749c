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
    Act,
    Copies,
    Play,
    Strike,
    Terminal,
    Victim,
    forever,
    free,
    in_time,
    interrupt_myself,
    kill_myself,
    main,
    replaced,
    say,
)
from kit.scripts import eventually
from kit.servers import Sidestage, Subject, fetch
from sidestage import HTTPServer

rows = Rows("Dying", __file__)

CTRL_C, CTRL_Z = b"\x03", b"\x1a"


# Killed ------------------------------------------------------------------------------------------


def serve_on(subject: Subject) -> None:
    subject.start(str)
    fetch(subject.port)
    say(subject.port)
    forever()


@rows.add("the test is killed, idle")
def killed_idle(subject: Subject) -> None:
    victim = Victim(subject, serve_on)
    port = victim.port()
    assert fetch(port, "/served") == "/served"
    victim.kill()
    victim.assert_gone(port)


def die_in_a_handler(subject: Subject) -> None:
    def die(path: str) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return path

    subject.start(die)
    say(subject.port)
    fetch(subject.port)


@rows.add("the test is killed in a handler")
def killed_in_a_handler(subject: Subject) -> None:
    victim = Victim(subject, die_in_a_handler)
    port = victim.port()
    assert victim.status() == -signal.SIGKILL
    victim.assert_gone(port)


def leave_a_copy(subject: Subject) -> None:
    subject.start(str)
    say(subject.port)
    copy = os.fork()
    if copy == 0:
        forever()
    say(copy)
    forever()


@rows.add("the test is killed, a forked copy lives on", *FORKS)
def killed_beside_a_copy(subject: Subject) -> None:
    victim = Victim(subject, leave_a_copy)
    port, copy = victim.port(), int(victim.hear())
    victim.kill()
    try:
        victim.assert_gone(port, beside=[copy])
    finally:
        os.kill(copy, signal.SIGKILL)


def get_stuck(subject: Subject) -> None:
    subject.start(str)
    subject.get_stuck()
    for child in psutil.Process().children():  # no signal stops a process at once
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    say(subject.port)
    forever()


@rows.add("the test is killed, its server is stuck")
def killed_with_a_stuck_server(subject: Subject) -> None:
    victim = Victim(subject, get_stuck)
    port = victim.port()
    victim.kill()
    victim.assert_gone(port)


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


def have_it_spin(subject: Subject) -> None:
    replaced(SPINNING)
    subject.start(str)
    say(subject.port)
    forever()


@rows.add("the test is killed, its server is in an endless loop", peers=False)
def killed_with_a_spinning_server(subject: Subject) -> None:
    victim = Victim(subject, have_it_spin)
    port = victim.port()
    victim.kill()
    victim.assert_gone(port)


# At any moment -----------------------------------------------------------------------------------


def warmed(subject: Subject) -> Subject:
    """Another one, once all is imported that a life of it takes."""
    serve(subject)
    subject.stop()
    return type(subject)()


def serve(subject: Subject) -> None:
    subject.start(str)
    fetch(subject.port)


def stop_and_start(subject: Subject) -> None:
    subject.stop()
    subject.start(str)


def replace_what_is_stuck(subject: Subject) -> None:
    subject.get_stuck()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        subject.stop(0.1)
    subject.start(str)


def die_while(prepare: Act, act: Act) -> None:
    """Be killed at any moment of ``act``: nothing is left."""

    def struck(strike: Strike) -> None:
        with strike:
            act()

    copies = Copies(kill_myself)
    assert copies.run(prepare, struck) == {-signal.SIGKILL}
    copies.assert_gone()


@rows.add("the test is killed at any moment of a start", *FORKS)
def killed_while_starting(subject: Subject) -> None:
    subject = warmed(subject)
    die_while(int, partial(subject.start, str))


@rows.add("the test is killed at any moment of a stop", *FORKS)
def killed_while_stopping(subject: Subject) -> None:
    subject = warmed(subject)
    die_while(partial(serve, subject), subject.stop)


@rows.add("the test is killed at any moment of a restart", *FORKS)
def killed_while_restarting(subject: Subject) -> None:
    subject = warmed(subject)
    die_while(partial(serve, subject), partial(stop_and_start, subject))


@rows.add("the test is killed while a stuck process is replaced", *FORKS, peers=False)
def killed_while_replacing(subject: Subject) -> None:
    subject = warmed(subject)
    die_while(partial(serve, subject), partial(replace_what_is_stuck, subject))


def interrupt_while(prepare: Act, act: Act, afterwards: Act) -> None:
    """Get Ctrl-C at any moment of ``act``: it gets through, and what is done afterwards works."""

    def struck(strike: Strike) -> None:
        try:
            with strike:
                act()
        except KeyboardInterrupt:
            afterwards()
            sys.exit(3)

    copies = Copies(interrupt_myself)
    assert copies.run(prepare, struck) == {3}, "Ctrl-C is lost, or nothing works afterwards"
    copies.assert_gone()


def serve_and_stop(subject: Subject) -> None:
    serve(subject)
    subject.stop()


def stop_again_and_serve(subject: Subject) -> None:
    """A second stop finishes what the first may have left to do."""
    with warnings.catch_warnings(), in_time(1):
        warnings.simplefilter("ignore")
        subject.stop(1)
    assert free(subject.port)
    serve_and_stop(type(subject)())


@rows.add("Ctrl-C at any moment of a start", *FORKS)
def interrupted_while_starting(subject: Subject) -> None:
    subject = warmed(subject)
    other = type(subject)()
    interrupt_while(int, partial(subject.start, str), partial(serve_and_stop, other))


@rows.add("Ctrl-C at any moment of a stop", *FORKS)
def interrupted_while_stopping(subject: Subject) -> None:
    subject = warmed(subject)
    again = partial(stop_again_and_serve, subject)
    interrupt_while(partial(serve, subject), subject.stop, again)


# Test processes that end by themselves -----------------------------------------------------------


def end_by_an_exception(subject: Subject) -> None:
    serve(subject)
    say(subject.port)
    raise RuntimeError("the test has failed")


def end_by_sys_exit(subject: Subject) -> None:
    serve(subject)
    say(subject.port)
    sys.exit(3)


def end_at_once(subject: Subject) -> None:
    serve(subject)
    say(subject.port)
    os._exit(4)


def end_by_abort(subject: Subject) -> None:
    serve(subject)
    say(subject.port)
    os.abort()


def _ends(play: Play, status: int, subject: Subject) -> None:
    victim = Victim(subject, play)
    port = victim.port()
    assert victim.status() == status
    victim.assert_gone(port)


for name, play, status in (
    ("an uncaught exception", end_by_an_exception, 1),
    ("sys.exit", end_by_sys_exit, 3),
    ("os._exit", end_at_once, 4),
    ("os.abort", end_by_abort, -signal.SIGABRT),
):
    rows.add(f"the test ends by {name}, without a stop")(partial(_ends, play, status))


def end_beside_a_handler(subject: Subject) -> None:
    entered = threading.Event()

    def block(path: str) -> str:
        entered.set()
        forever()
        return path

    subject.start(block)
    client = socket.create_connection(("127.0.0.1", subject.port))
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    entered.wait()
    say(subject.port)
    sys.exit(3)


@rows.add("the test ends while a handler is blocked", limit=8.0)
def ends_beside_a_handler(subject: Subject) -> None:
    _ends(end_beside_a_handler, 3, subject)


@rows.add("the thread that started it ends")
def starting_thread_ends(subject: Subject) -> None:
    thread = threading.Thread(target=serve, args=[subject])
    thread.start()
    thread.join()
    assert eventually(lambda: not Path(f"/proc/self/task/{thread.native_id}").exists())
    assert fetch(subject.port, "/alive") == "/alive"
    subject.stop()


# The terminal and the process group --------------------------------------------------------------


def go_on_after_an_interrupt(subject: Subject) -> None:
    serve(subject)
    try:
        say(subject.port)
        forever()
    except KeyboardInterrupt:
        say(fetch(subject.port, "/after"))
        subject.stop()


@rows.add("Ctrl-C at the terminal: the server serves on")
def interrupted(subject: Subject) -> None:
    victim = Terminal(subject, go_on_after_an_interrupt)
    port = victim.port()
    victim.press(CTRL_C)
    assert victim.hear() == "/after"
    assert victim.status() == 0
    victim.assert_gone(port)


def say_when_in(call: str) -> None:
    """Have a thread say so when the main thread waits in a call of that name.

    CPython does not notice a signal that comes when it is just about to wait for a lock.
    """
    main_thread, stat = threading.get_ident(), Path(f"/proc/self/task/{os.getpid()}/stat")

    def in_it() -> bool:
        threading.Event().wait(0.05)  # in which the main thread may do what it wants
        frame = sys._current_frames().get(main_thread)
        while frame is not None and frame.f_code.co_name not in (call, "forever"):
            frame = frame.f_back
        return frame is not None and stat.read_text().rpartition(")")[2].split()[0] == "S"

    def look() -> None:
        eventually(in_it, 10)
        say(call)

    threading.Thread(target=look, daemon=True).start()


def wait_for_what_never_comes(subject: Subject) -> None:
    subject.start(str)
    say(subject.port)
    say_when_in("wait_for")
    subject.wait_for(1, 60)


def wait_without_a_handler(subject: Subject) -> None:
    with HTTPServer() as server:
        say(server.port)
        say_when_in("wait_for")
        server.wait_for(1, 60)


def be_interrupted(subject: Subject, play: Play) -> None:
    """Get Ctrl-C once the victim has said that the time has come; KeyboardInterrupt ends it."""
    victim = Terminal(subject, play)
    port = victim.port()
    victim.hear()
    victim.press(CTRL_C)
    with in_time(0):
        assert victim.status() == -signal.SIGINT & 0xFF, "KeyboardInterrupt is lost"
    victim.assert_gone(port)


@rows.add("Ctrl-C while it waits for a request")
def interrupted_while_waiting(subject: Subject) -> None:
    be_interrupted(subject, wait_for_what_never_comes)
    if isinstance(subject, Sidestage):
        be_interrupted(subject, wait_without_a_handler)


NEVER_READY = """
def never(self, message):
    os.kill(os.getppid(), signal.SIGUSR1)
Host._configure = never
"""


def start_for_ever(subject: Subject) -> None:
    replaced(NEVER_READY)
    signal.signal(signal.SIGUSR1, lambda *_: say_when_in("start"))
    say(0)  # no port yet
    HTTPServer(start_timeout=60).start()


@rows.add("Ctrl-C while it starts", peers=False)
def interrupted_in_a_start(subject: Subject) -> None:
    be_interrupted(subject, start_for_ever)


def stop_for_ever(subject: Subject) -> None:
    subject.start(str)
    subject.get_stuck()
    say(subject.port)
    say_when_in("stop")
    subject.stop(60)
    forever()  # where that does not take so long


@rows.add("Ctrl-C while a server that is stuck stops", limit=8.0)
def interrupted_in_a_stop(subject: Subject) -> None:
    be_interrupted(subject, stop_for_ever)


@rows.add("Ctrl-Z and fg")
def suspended(subject: Subject) -> None:
    victim = Terminal(subject, serve_on)
    port = victim.port()
    victim.press(CTRL_Z)
    assert eventually(lambda: victim.job.status() == psutil.STATUS_STOPPED)
    for child in victim.job.children():
        assert child.status() != psutil.STATUS_STOPPED, "the server is stopped, too"
    victim.job.send_signal(signal.SIGCONT)
    assert fetch(port, "/after") == "/after"
    victim.press(CTRL_C)
    victim.status()
    victim.assert_gone(port)


@rows.add("the terminal hangs up")
def hung_up(subject: Subject) -> None:
    victim = Terminal(subject, serve_on)
    port = victim.port()
    victim.hang_up()
    victim.status()
    victim.assert_gone(port)


def go_on_after_a_termination(subject: Subject) -> None:
    def leave(*arguments: object) -> None:
        sys.exit(5)

    signal.signal(signal.SIGTERM, leave)
    serve(subject)
    try:
        say(subject.port)
        forever()
    finally:
        say(fetch(subject.port, "/after"))
        subject.stop()


@rows.add("SIGTERM to the test's process group, and it cleans up")
def terminated(subject: Subject) -> None:
    victim = Victim(subject, go_on_after_a_termination)
    port = victim.port()
    os.killpg(victim.process.pid, signal.SIGTERM)
    assert victim.hear() == "/after"
    assert victim.status() == 5
    victim.assert_gone(port)


def _group_gets(number: signal.Signals, subject: Subject) -> None:
    victim = Victim(subject, serve_on)
    port = victim.port()
    os.killpg(victim.process.pid, number)
    assert victim.status() == -number
    victim.assert_gone(port)


for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    rows.add(f"{number.name} to the test's process group")(partial(_group_gets, number))


# A worker of pytest-xdist ------------------------------------------------------------------------

SUITE = """
import os, pytest
from pathlib import Path
from kit.servers import SUBJECTS, fetch
from kit.scripts import eventually

@pytest.fixture
def server():
    subject = SUBJECTS[os.environ["SUBJECT"]]()
    subject.start(str)
    yield subject
    subject.stop()

@pytest.mark.parametrize("number", range(4))
def test_served(server, number):
    assert fetch(server.port, "/served") == "/served"
    Path(f"serves-{os.getpid()}-{server.port}").touch()
    assert eventually(Path("go").exists, 20)
"""


def run_suite(subject: Subject) -> None:
    Path("test_suite.py").write_text(SUITE)
    os.environ |= {"SUBJECT": subject.name, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    options = ["-n", "2", "-p", "xdist", "-p", "no:cacheprovider"]
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *options, "test_suite.py"])


@rows.add("a worker of pytest-xdist is killed", limit=40.0)
def worker_killed(subject: Subject) -> None:
    def serving() -> list[str]:
        return [file.name for file in Path().glob("serves-*")]

    victim = Victim(subject, run_suite)
    assert eventually(lambda: len(serving()) == 2, 20)
    pid, port = map(int, serving()[0].split("-")[1:])
    os.kill(pid, signal.SIGKILL)
    assert eventually(partial(free, port), 1.0), "leaves a port bound"
    Path("go").touch()
    assert victim.process.stdout is not None
    output = victim.process.stdout.read()
    assert victim.status() == 1, output
    assert "1 failed, 3 passed" in output, output
    assert "replacing crashed worker" in output, output
    victim.assert_gone(*(int(name.split("-")[2]) for name in serving()))


test_row = rows.test()

if __name__ == "__main__":
    main(rows, globals())
