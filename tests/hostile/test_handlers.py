"""A handler may do what a test may do: anything.

It is the test's own code in the test's own process. Whatever it does, its client gets an answer or
the protocol's failure, the test gets the error, other requests are served, and the stop ends.
"""

from __future__ import annotations

import functools
import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path

from kit.clients import (
    HANGS,
    SECONDS,
    Driver,
    SidestageDriver,
    Work,
    allow_forced_stops,
    connect,
    error_of,
    expect_success,
    with_each_protocol,
    with_each_sidestage_protocol,
)
from kit.matrix import Rows
from kit.scripts import eventually
from kit.servers import Clock, ServerUnderTest

rows = Rows("Handlers", __file__)


# Servers among themselves ------------------------------------------------------------------------


@rows.add("calls its own server, 20 deep", limit=HANGS)
@with_each_protocol
def call_its_own(driver: Driver) -> None:
    depth = itertools.count()

    def work() -> None:
        if next(depth) < 20:
            expect_success(driver)

    driver.start(work)
    expect_success(driver)
    driver.stop()


@rows.add("A waits for B, and B for A", limit=HANGS)
@with_each_protocol
def wait_for_each_other(driver: Driver) -> None:
    meeting = threading.Barrier(2, timeout=SECONDS)
    driver.start(lambda: [meeting.wait() for _ in range(5)])
    with driver.send_request() as one, driver.send_request() as other:
        assert [driver.read_answer(one), driver.read_answer(other)] == [driver.success] * 2, (
            "they wait in vain"
        )
    driver.stop()


@rows.add("waits for a request to its own server", peers=False)
@with_each_sidestage_protocol
def wait_for_its_own(driver: SidestageDriver) -> None:
    first = itertools.count()
    waiting = threading.Event()
    # A connection is recorded when it ends, all else when it comes.
    wanted = 1 if driver.protocol == "TCP" else 2

    def work() -> None:
        if next(first) == 0:
            waiting.set()
            assert len(driver.server.wait_for(wanted, SECONDS)) == wanted
            assert len(driver.server.received) == wanted

    driver.start(work)
    with driver.send_request() as client:
        assert waiting.wait(SECONDS)
        expect_success(driver)
        assert driver.read_answer(client) == driver.success
    driver.stop()


@rows.add("stops the server that it serves", limit=HANGS)
@with_each_protocol
def stop_its_own(driver: Driver) -> None:
    stopped = threading.Event()
    errors: list[BaseException | None] = []

    def work() -> None:
        errors.append(error_of(lambda: driver.stop(2)))
        stopped.set()

    driver.start(work)
    port = driver.port
    with driver.send_request():
        assert stopped.wait(SECONDS), "the stop does not end"
    assert errors == [None]
    if driver.protocol != "UDP":
        assert isinstance(error_of(lambda: connect(port).close()), ConnectionRefusedError)
    if driver.is_sidestage:
        assert driver.server.stop_report.clean, driver.server.stop_report
        driver.stop()  # nothing is left to raise


@rows.add("two stop each other's server", limit=HANGS)
@with_each_protocol
def stop_each_other(driver: Driver) -> None:
    allow_forced_stops(driver)
    other = driver.another()
    meeting = threading.Barrier(2, timeout=SECONDS)
    stopped = threading.Semaphore(0)

    def work(its: Driver) -> None:
        meeting.wait()
        its.stop(0.5)
        stopped.release()

    driver.start(lambda: work(other))
    other.start(lambda: work(driver))
    with driver.send_request(), other.send_request():
        for _ in range(2):
            assert stopped.acquire(timeout=SECONDS), "the stop does not end"
    if driver.is_sidestage:
        driver.stop()
        other.stop()


@rows.add("starts and stops another server")
@with_each_protocol
def start_another(driver: Driver) -> None:
    def work() -> None:
        other = driver.another()
        other.start(lambda: None)
        expect_success(other)
        other.stop()

    driver.start(work)
    expect_success(driver)
    expect_success(driver)
    driver.stop()


# What it does to the process ---------------------------------------------------------------------


def _raise_in_the_copy() -> None:
    raise ValueError("in the copy")


def fork(leave: Work, driver: Driver) -> None:
    """Whatever the copy does, the client gets only the original's answer, and the test no error."""
    calls = itertools.count()
    left, go = threading.Event(), threading.Event()

    def work() -> None:
        if next(calls) == 0:
            pid = os.fork()
            if pid == 0:
                leave()
                return  # as if it were the original
            os.waitpid(pid, 0)
            left.set()
            assert go.wait(SECONDS)

    driver.start(work)
    with driver.send_request() as client:
        assert left.wait(SECONDS), "the copy does not end"
        if driver.is_sidestage:
            expect_success(driver)  # what the copy had sent, it sent before
        assert not select.select([client], [], [], 0)[0], "the client hears of the copy"
        go.set()
        assert driver.read_answer(client) == driver.success
    expect_success(driver)
    driver.stop()


for _name, _leave in (
    ("leaves by os._exit", lambda: os._exit(0)),
    ("leaves by sys.exit", lambda: sys.exit(0)),
    ("raises", _raise_in_the_copy),
    ("returns", lambda: None),
):
    # A handler is a thread beside the main one, so Python rightly warns of its fork from 3.12 on.
    rows.add(f"forks, and the copy {_name}", "-W", "ignore::DeprecationWarning", limit=HANGS)(
        with_each_protocol(functools.partial(fork, _leave))
    )


@rows.add("starts a thread that outlives it", "-W", "error")
@with_each_protocol
def leave_a_thread(driver: Driver) -> None:
    over, threads = threading.Event(), list[threading.Thread]()

    def work() -> None:
        threads.append(threading.Thread(target=over.wait))
        threads[0].start()
        threading.Thread(target=threading.Event().wait, daemon=True).start()

    driver.start(work)
    expect_success(driver)
    driver.stop()
    over.set()
    threads[0].join(SECONDS)
    assert not threads[0].is_alive()


@rows.add("changes directory, environment, signal mask, limits")
@with_each_protocol
def change_everything(driver: Driver) -> None:
    first = itertools.count()
    home = Path.cwd()

    def work() -> None:
        if next(first) == 0:
            Path("gone").mkdir()
            os.chdir("gone")
            (home / "gone").rmdir()
            os.environ.clear()
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            os.umask(0o777)
            sys.setrecursionlimit(200)
            socket.setdefaulttimeout(SECONDS)

    driver.start(work)
    try:
        expect_success(driver)
        expect_success(driver)
        other = driver.another()
        other.start(lambda: None)
        expect_success(other)
        other.stop()
        driver.stop()
    finally:
        os.chdir(home)


# The end of the process --------------------------------------------------------------------------

_ENDING = """
import logging, socket, sys, threading, time
from kit.servers import SERVERS

name, doing, number = sys.argv[1:]
begun = threading.Event()

def answer(path):
    begun.set()
    while doing == "spins":
        pass
    while doing == "logs":
        logging.warning("still here")
    while doing == "prints":
        print("still here")
    time.sleep(0.002 * int(number))
    return path

sut = SERVERS[name]()
sut.start(answer)
client = socket.create_connection(("127.0.0.1", sut.port))
client.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
begun.wait()
"""


def end_the_process(doings: tuple[str, ...], sut: ServerUnderTest) -> None:
    """Exit without a stop, 20 times; stderr has only what the handler logs."""
    enough = Clock.monotonic() + 15  # on a machine that is too slow for 20

    def end(number: int) -> tuple[int, list[str]]:
        if Clock.monotonic() > enough:
            return 0, []
        doing = doings[number % len(doings)]
        # -u: an interpreter that ends while a thread writes to a buffered stdout aborts by itself.
        done = subprocess.run(
            [sys.executable, "-u", "-c", _ENDING, sut.name, doing, str(number)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        said = [line for line in done.stderr.splitlines() if not line.endswith("still here")]
        return done.returncode, said

    with ThreadPoolExecutor(2) as pool:
        bad = [ended for ended in pool.map(end, range(20)) if ended != (0, [])]
    assert not bad, f"{len(bad)} of 20 end badly: {bad[0]}"


for _name, _doings in (
    ("the interpreter ends while it runs", ("spins", "returns")),
    ("the interpreter ends while it logs", ("logs", "prints")),
):
    rows.add(_name, limit=55)(functools.partial(end_the_process, _doings))


# What it sees of the test, and the test of it ----------------------------------------------------

_variable: ContextVar[str] = ContextVar("variable", default="nothing")


@rows.add("sees the context variables of the test")
@with_each_protocol
def see_context_variables(driver: Driver) -> None:
    seen: list[str] = []

    def work() -> None:
        seen.append(_variable.get())
        _variable.set("the handler's")

    _variable.set("the test's")
    driver.start(work)
    expect_success(driver)
    expect_success(driver)
    driver.stop()
    assert seen == ["the test's"] * 2, f"it sees {seen[0]}"
    assert _variable.get() == "the test's"


@rows.add("threading.local, current_thread, enumerate", "-W", "error", limit=HANGS)
@with_each_protocol
def use_threading(driver: Driver) -> None:
    own = threading.local()
    numbers = itertools.count()
    seen: list[bool] = []
    before = set(threading.enumerate())

    def work() -> None:
        own.number = number = next(numbers)
        thread = threading.current_thread()
        seen.append(own.number == number and thread in threading.enumerate() and bool(thread.name))

    driver.start(work)
    expect_success(driver)
    expect_success(driver)
    driver.stop()
    assert seen == [True, True]
    assert eventually(lambda: set(threading.enumerate()) == before)


@rows.add("warns, and the test sees it")
@with_each_protocol
def warn(driver: Driver) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        driver.start(lambda: warnings.warn("hello", UserWarning, stacklevel=2))
        expect_success(driver)
        driver.stop()
    assert [str(warning.message) for warning in caught] == ["hello"]


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
