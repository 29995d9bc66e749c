"""The server's process dies or hangs, or other code reaps it: the test gets an error in time."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psutil

from kit.matrix import Rows
from kit.processes import (
    FORKS,
    connection_ends,
    is_free,
    main,
    patch_host,
    raised,
    signal_server,
    time_limit,
)
from kit.resources import own_descriptors
from kit.runs import run_of
from kit.scripts import all_gone, eventually, gone
from kit.servers import ServerUnderTest, Sidestage, fetch
from sidestage import (
    ForcedStopWarning,
    HTTPServer,
    LeftRunningWarning,
    ServerDied,
    ServerStopped,
    StartError,
    StartTimeout,
    State,
    TCPServer,
    WaitTimeout,
)
from sidestage.process.pool import pool

rows = Rows("Dying", __file__)


# It dies -----------------------------------------------------------------------------------------


def _dies_of(number: signal.Signals, sut: ServerUnderTest) -> None:
    with HTTPServer(handler=lambda request: "fine") as other:
        server = HTTPServer(handler=lambda request: "fine").start()
        with socket.create_connection(server.server_address) as client:
            fetch(server.port)
            pid = signal_server(server, number)
            assert connection_ends(client)
        with time_limit(0):
            error = raised(ServerDied, server.wait_for, 2, 30)
        assert (error.signal, error.pid) == (number.name, pid)
        assert number.name in str(error)
        assert str(server.port) in str(error)
        assert server.state is State.FAILED
        assert [request.path for request in server.received] == ["/"]
        assert raised(ServerDied, server.stop) is error
        assert server.stop_report.rung == "died"
        server.stop()  # the death is raised once
        assert fetch(other.port) == "fine"


for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM):
    rows.add(f"the server dies of {number.name}", peers=False)(partial(_dies_of, number))


@rows.add("the server dies, and the with statement ends", peers=False)
def death_at_exit(sut: ServerUnderTest) -> None:
    def work() -> None:
        with HTTPServer() as server:
            signal_server(server)

    with time_limit(0):
        assert raised(ServerDied, work).signal == "SIGKILL"


@rows.add("the server dies while it is waited for", peers=False)
def death_while_waiting(sut: ServerUnderTest) -> None:
    for handler in (None, lambda request: None):
        server = HTTPServer(handler=handler).start()
        threading.Timer(0.05, signal_server, [server]).start()
        with time_limit(0.05):
            assert raised(ServerDied, server.wait_for, 1, 30).signal == "SIGKILL"
        raised(ServerDied, server.stop)


@rows.add("the server dies in the middle of a reply", peers=False)
def death_in_a_reply(sut: ServerUnderTest) -> None:
    ended: list[BaseException] = []

    def handler(request: Any) -> Iterator[bytes]:
        try:
            yield b"x" * 1000
            signal_server(server)
            while True:
                yield b"x" * 1000
        except BaseException as error:
            ended.append(error)
            raise

    server = HTTPServer(handler=handler).start()
    with socket.create_connection(server.server_address) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection_ends(client)
    assert eventually(lambda: len(ended) == 1)
    with time_limit(0):
        assert died(server).signal == "SIGKILL"


@rows.add("the server dies while a client streams", peers=False)
def death_in_a_stream(sut: ServerUnderTest) -> None:
    got = threading.Event()
    ended: list[BaseException] = []

    def handler(connection: Any) -> None:
        try:
            while connection.recv(1000):
                got.set()
        except BaseException as error:
            ended.append(error)
            raise

    server = TCPServer(handler=handler).start()
    with socket.create_connection(server.server_address) as client:
        client.sendall(b"x" * 100_000)
        assert got.wait(10)
        signal_server(server)
        with contextlib.suppress(ConnectionError):
            while True:
                client.sendall(b"x" * 1000)
    assert eventually(lambda: len(ended) == 1)
    assert isinstance(ended[0], ServerStopped)
    with time_limit(0):
        assert died(server).signal == "SIGKILL"


def died(server: HTTPServer | TCPServer) -> ServerDied:
    """The ServerDied that the stop raises; it may also raise errors of handlers."""
    error = raised(BaseException, server.stop)
    if isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ServerDied), error
    return error


@rows.add("the server dies while it stops", peers=False)
def death_in_a_stop(sut: ServerUnderTest) -> None:
    warnings.simplefilter("ignore", LeftRunningWarning)  # its handler goes on
    entered, release = threading.Event(), threading.Event()

    def handler(request: Any) -> None:
        entered.set()
        release.wait(10)

    server = HTTPServer(handler=handler).start()
    with socket.create_connection(server.server_address) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert entered.wait(10)
        threading.Timer(0.05, signal_server, [server]).start()
        with time_limit(0.05):
            error = raised(ServerDied, server.stop, 30)
        assert error.signal == "SIGKILL"
        assert connection_ends(client)
    release.set()


@rows.add("the server dies before it is ready", peers=False)
def death_in_a_start(sut: ServerUnderTest) -> None:
    for how, said in (
        ("print('last words', file=sys.stderr); sys.stderr.flush(); os._exit(3)", "status 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("signal.raise_signal(signal.SIGSEGV)", "SIGSEGV"),
    ):
        patch_host(f"def die(self, message): {how}\nHost._configure = die")
        with time_limit(0):
            error = raised(StartError, HTTPServer(fresh=True).start)
        if "last words" in how:
            assert "last words" in str(error)
        assert said in str(error), str(error)


@rows.add("the server dies in the pool", peers=False)
def death_in_the_pool(sut: ServerUnderTest) -> None:
    for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM):
        with HTTPServer() as server:
            pid = server.pid
        assert pid is not None
        os.kill(pid, number)
        assert all_gone([pid])  # a start in the moment of its death gets a server that has died
        with HTTPServer() as server:
            assert server.pid != pid
            assert fetch(server.port) == ""


@rows.add("the server is stopped (SIGSTOP) in the pool", peers=False)
def stopped_in_the_pool(sut: ServerUnderTest) -> None:
    with HTTPServer() as server:
        pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    with time_limit(0.3):
        # Not as it may have bound ahead: then nothing waits for it at the start.
        raised(StartTimeout, HTTPServer(start_timeout=0.3, backlog=16).start)
    assert eventually(lambda: gone(pid))
    with HTTPServer() as server:
        assert fetch(server.port) == ""


@rows.add("the server is stopped (SIGSTOP): calls end in time", peers=False)
def stopped(sut: ServerUnderTest) -> None:
    for handler in (None, lambda request: "fine"):
        server = HTTPServer(handler=handler).start()
        server._sync_seconds = 0.2
        fetch(server.port)
        server.wait_for(1)
        port, pid = server.port, signal_server(server, signal.SIGSTOP)
        with time_limit(1.5):
            raised(WaitTimeout, server.wait_for, 2, 0.2)
            assert len(server.received) == 1
            assert server.errors == server.diagnostics == ()
            assert server.state is State.READY
            server.raise_errors()
            assert server.stats().rss > 0
            server.handler = lambda request: "other"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with time_limit(0.4):
                assert server.stop(0.4).rung == "kill"
        assert [warning.category for warning in caught] == [ForcedStopWarning]
        assert gone(pid)
        assert is_free(port)


@rows.add("stop, with a server that is stuck", limit=8.0)
def stop_of_a_stuck_one(sut: ServerUnderTest) -> None:
    sut.start(str)
    port = sut.port
    sut.hang()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may say so
        with time_limit(0.4):
            sut.stop(0.4)
    assert is_free(port)


DEAF = """
async def never(self, message):
    await asyncio.Event().wait()
Host._stop = never
Host._end = lambda self: self.loop.remove_reader(self._commands_fd)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
"""
FAMILY = """
configure = Host._configure
def configure_and_fork(self, message):
    if os.fork() == 0:
        os.setsid()
        threading.Event().wait()
    configure(self, message)
Host._configure = configure_and_fork
"""


@rows.add("the server ignores SIGTERM, and has a descendant in another session", peers=False)
def deaf(sut: ServerUnderTest) -> None:
    patch_host(DEAF + FAMILY)
    server = TCPServer().start()
    port, pid = server.port, server.pid
    assert pid is not None
    (descendant,) = psutil.Process(pid).children()
    with warnings.catch_warnings(), time_limit(0.4):
        warnings.simplefilter("ignore")
        report = server.stop(0.4)
    assert (report.rung, report.swept) == ("kill", (descendant.pid,))
    assert eventually(lambda: gone(pid) and gone(descendant.pid) and is_free(port))


@rows.add("another process has got the server's pid", peers=False)
def reused(sut: ServerUnderTest) -> None:
    """This can happen once other code has reaped the server."""
    server = TCPServer().start()
    os.waitpid(signal_server(server), 0)
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, process_group=0
    ) as other:
        run_of(server).child.process.launched.pid = other.pid
        with time_limit(0):
            raised(ServerDied, server.stop)
        assert other.poll() is None, "the stranger was killed"
        other.communicate(b"\n")
    assert other.returncode == 0, "the stranger's status was taken"


@rows.add("the server writes 1 MB to stderr", peers=False)
def much_stderr(sut: ServerUnderTest) -> None:
    patch_host(
        "configure = Host._configure\n"
        "def write_much(self, message):\n"
        "    sys.stderr.write('x' * 1_000_000 + 'the end'); sys.stderr.flush()\n"
        "    configure(self, message)\n"
        "Host._configure = write_much\n"
    )
    server = HTTPServer(handler=lambda request: "fine").start()
    assert fetch(server.port) == "fine"
    signal_server(server)
    error = raised(ServerDied, server.stop)
    assert error.stderr.endswith("xthe end")
    assert len(error.stderr) < 65536


# The test reaps all children ---------------------------------------------------------------------


def _live_and_die(sut: ServerUnderTest) -> None:
    """A server's life; with a separate process also a forced stop and a sudden death."""
    sut.start(str)
    assert fetch(sut.port, "/alive") == "/alive"
    sut.stop()
    if isinstance(sut, Sidestage):
        for handler in (None, lambda request: "fine"):
            stuck = HTTPServer(handler=handler).start()
            signal_server(stuck, signal.SIGSTOP)
            with warnings.catch_warnings(), time_limit(0.3):
                warnings.simplefilter("ignore")
                assert stuck.stop(0.3).rung == "kill"
            dead = HTTPServer(handler=handler).start()
            signal_server(dead)
            with time_limit(0):
                raised(ServerDied, dead.wait_for, 1, 30)
                raised(ServerDied, dead.stop)


def _reap_in_a_thread(reap: Callable[[], object], sut: ServerUnderTest) -> None:
    def loop() -> None:
        while True:
            try:
                reap()
            except ChildProcessError:
                threading.Event().wait(0.001)  # no child yet

    threading.Thread(target=loop, daemon=True).start()
    _live_and_die(sut)


rows.add("a thread of the test loops in os.wait")(partial(_reap_in_a_thread, os.wait))
rows.add("a thread of the test loops in os.waitpid(-1)")(
    partial(_reap_in_a_thread, partial(os.waitpid, -1, 0))
)


@rows.add("SIGCHLD is ignored")
def ignored(sut: ServerUnderTest) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _live_and_die(sut)


@rows.add("a handler of SIGCHLD reaps all")
def reaped_by_a_handler(sut: ServerUnderTest) -> None:
    def reap(*arguments: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    signal.signal(signal.SIGCHLD, reap)
    _live_and_die(sut)


# No descriptor is left ---------------------------------------------------------------------------


@contextlib.contextmanager
def descriptors(left: int) -> Iterator[None]:
    """Limit how many more descriptors can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(left):
            os.close(taken.pop())
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def refused(sut: ServerUnderTest, left: int) -> OSError | None:
    """The error of a start with this many descriptors, if it fails."""
    with descriptors(left):
        try:
            sut.start(str)
        except OSError as error:
            return error
    return None


def start_with(left: int, sut: ServerUnderTest) -> None:
    """A start with this many descriptors works, or fails and then works with more."""
    error = refused(sut, left)
    if error is not None:
        assert error.errno == errno.EMFILE, repr(error)
        assert isinstance(error, StartError) or not isinstance(sut, Sidestage), repr(error)
        sut = type(sut)()
        sut.start(str)
    assert fetch(sut.port, "/alive") == "/alive"
    sut.stop()


@rows.add("no descriptor is left at a start")
def none_left(sut: ServerUnderTest) -> None:
    kind = type(sut)
    gc.disable()  # what only the collector closes is left open until it happens to run
    start_with(100, sut)
    before = len(own_descriptors() - _kept())
    for left in range(10):
        start_with(left, kind())
    assert len(own_descriptors() - _kept()) <= before, "leaves descriptors open"


def _kept() -> set[str]:
    """The descriptors of the processes that the pool keeps on purpose."""
    return {str(fd) for process in pool.processes() for fd in process.descriptors()}


@rows.add("no descriptor is left at the first start", *FORKS)
def none_left_at_first(sut: ServerUnderTest) -> None:
    for left in range(0, 10, 2):
        copy = os.fork()
        if copy == 0:
            start_with(left, sut)
            sys.exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
        assert status == 0, f"with {left} descriptors: see above"


test_row = rows.test()

if __name__ == "__main__":
    main(rows, globals())
