"""The test forks, and the copies do what copies do; the servers stay the original's.

A copy may use them as any client can. Nothing else that it does, leaves undone or keeps open
reaches them: not its stop, its exit or its long life. Nor does a fork warn of threads that the
test has not started itself.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil

from kit.matrix import Rows
from kit.scripts import all_gone, eventually
from kit.servers import Clock, ServerUnderTest, Sidestage, fetch, refuses

rows = Rows("Forking", __file__)

E = TypeVar("E", bound=BaseException)

_HANGS = 6.0  # seconds, after which a copy is taken to hang
_HELD = 8.0  # seconds, which no stop takes; one that waits for what a copy holds takes a minute


def _echo(path: str) -> str:
    return path


def _raised(kind: type[E], call: Callable[[], object]) -> E:
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised")


# Copies ------------------------------------------------------------------------------------------


def _reap(pid: int, expected: int = 0) -> None:
    """A copy ends, and as expected."""
    fd = os.pidfd_open(pid)
    ended = select.select([fd], [], [], _HANGS)[0]
    os.close(fd)
    if not ended:
        copy = psutil.Process(pid)
        for process in (*copy.children(recursive=True), copy):
            process.send_signal(signal.SIGABRT)  # faulthandler says where it hangs
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert ended, "the copy hangs"
    assert status == expected, f"the copy ends with status {status}"


def _do_and_leave(work: Callable[[], object]) -> None:
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - told here, and by the status
        traceback.print_exc()
    finally:
        os._exit(status)


def _in_copy(work: Callable[[], object]) -> None:
    """A copy does ``work`` and leaves at once."""
    pid = os.fork()
    if pid == 0:
        _do_and_leave(work)
    _reap(pid)


@contextmanager
def _lasting_copy() -> Iterator[int]:
    """A copy that lives on."""
    owner = os.getpid()
    pid = os.fork()
    if pid == 0:
        _do_and_leave(signal.pause)
    try:
        yield pid
    finally:
        if os.getpid() == owner:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# Servers -----------------------------------------------------------------------------------------


def _process_of(sut: ServerUnderTest) -> int | None:
    return sut.server.pid if isinstance(sut, Sidestage) else None


def _stop(sut: ServerUnderTest) -> None:
    """The stop needs neither force nor patience, and nobody listens after it."""
    port, began = sut.port, Clock.monotonic()
    sut.stop()
    _stopped(sut, port, began)


def _stopped(sut: ServerUnderTest, port: int, began: float) -> None:
    assert Clock.monotonic() - began < _HELD, "the stop takes too long"
    if isinstance(sut, Sidestage):
        assert sut.server.stop_report.rung == "ask"
    assert refuses(port), "the port is still open"


def _check(port: int, path: str) -> None:
    """A request is answered by what ``_echo`` makes of it."""
    answer = fetch(port, path)
    assert answer == path, f"the answer is {answer!r}"


def _as_before(sut: ServerUnderTest, process: int | None) -> None:
    _check(sut.port, "/after")
    assert _process_of(sut) == process


@contextmanager
def _served(sut: ServerUnderTest, answer: Callable[[str], str] = _echo) -> Iterator[None]:
    """A server that after all this is as it was: the same process, which answers and stops."""
    sut.start(answer)
    owner, process = os.getpid(), _process_of(sut)
    yield
    if os.getpid() == owner:
        _as_before(sut, process)
        _stop(sut)


def _have_own(sut: ServerUnderTest) -> None:
    """A copy has a server of its own."""
    own = type(sut)()
    own.start(lambda path: f"{path} of {os.getpid()}")
    assert fetch(own.port, "/own") == f"/own of {os.getpid()}"
    _stop(own)


def _ask(port: int, path: str) -> socket.socket:
    """A client that has asked, and that nobody waits for: a thread would make forks warn."""
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return client


def _answer(client: socket.socket) -> str:
    with client, client.makefile("rb") as file:
        return file.read().decode().partition("\r\n\r\n")[2]


def _wait_long(sut: ServerUnderTest) -> None:
    """A process that does not see the end of its pipe, since a copy holds it, is waited for."""
    if isinstance(sut, Sidestage):
        pool = importlib.import_module("sidestage.process.pool").pool
        assert pool.end_seconds < _HELD
        pool.end_seconds = 60.0


def _keep_no_processes(sut: ServerUnderTest) -> None:
    """Each stop is to end its process."""
    os.environ["SIDESTAGE_POOL"] = "0"
    _wait_long(sut)


class _Slow:
    """Answers, but ``/slow`` only when told to."""

    def __init__(self) -> None:
        self.entered, self.release = threading.Event(), threading.Event()

    def __call__(self, path: str) -> str:
        if path == "/slow":
            self.entered.set()
            self.release.wait(10)
        return path


# A fork warns of nothing -------------------------------------------------------------------------


def _silent(forks: int, before_each: Callable[[], object] = lambda: None) -> None:
    """Forks warn of nothing.

    That has to be recorded: where this warning is to be an error, CPython swallows it.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(forks):
            before_each()
            _in_copy(lambda: None)
    assert not caught, f"{len(caught)} of {forks} forks warn"


@rows.add("no warning beside an idle server", "-W", "error")
def no_warning_beside_an_idle_server(sut: ServerUnderTest) -> None:
    with _served(sut):
        _silent(200)
        for _ in range(10):  # nor does it come to light in another way where it is an error
            _in_copy(lambda: None)


@rows.add("no warning right after a request", "-W", "error")
def no_warning_after_a_request(sut: ServerUnderTest) -> None:
    with _served(sut):
        _silent(200, lambda: fetch(sut.port))


@rows.add("no warning beside two servers", "-W", "error")
def no_warning_beside_two_servers(sut: ServerUnderTest) -> None:
    other = type(sut)()
    with _served(sut), _served(other):
        _silent(50, lambda: fetch(other.port))


@rows.add("no warning right after a stop", "-W", "error", peers=False)  # theirs: as luck has it
def no_warning_after_a_stop(sut: Sidestage) -> None:
    def serve() -> None:
        sut.start(_echo)
        fetch(sut.port)
        sut.stop()

    _silent(100, serve)


@rows.add("no warning after a handler was at work", "-W", "error")
def no_warning_after_work(sut: ServerUnderTest) -> None:
    slow = _Slow()
    with _served(sut, slow):
        client = _ask(sut.port, "/slow")
        assert slow.entered.wait(10)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the handler is the test's own
            _in_copy(lambda: None)
        slow.release.set()
        assert _answer(client) == "/slow"
        _silent(50)


@rows.add("no warning after a coroutine handler", "-W", "error", peers=False)
def no_warning_after_a_coroutine(sut: Sidestage) -> None:
    from sidestage import HTTPServer

    async def answer(request: Any) -> str:
        return str(request.path)

    sut.server = HTTPServer(handler=answer).start()
    process = _process_of(sut)
    _silent(100, lambda: fetch(sut.port))
    _in_copy(lambda: (sut.server.__del__(), vars(sut).clear(), gc.collect()))
    _as_before(sut, process)
    _stop(sut)


# How a copy leaves -------------------------------------------------------------------------------


@rows.add("a copy leaves by return", "-W", "error")
def a_copy_leaves_by_return(sut: ServerUnderTest) -> None:
    with _served(sut):
        pid = os.fork()
        if pid == 0:
            return
        _reap(pid)


@rows.add("a copy leaves by sys.exit", "-W", "error")
def a_copy_leaves_by_sys_exit(sut: ServerUnderTest) -> None:
    with _served(sut):
        pid = os.fork()
        if pid == 0:
            sys.exit()
        _reap(pid)


@rows.add("a copy leaves by os._exit", "-W", "error")
def a_copy_leaves_by_os_exit(sut: ServerUnderTest) -> None:
    with _served(sut):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        _reap(pid)


@rows.add("a copy leaves by an exception", "-W", "error")
def a_copy_leaves_by_an_exception(sut: ServerUnderTest) -> None:
    with _served(sut):
        pid = os.fork()
        if pid == 0:
            sys.excepthook = lambda *_: None
            raise RuntimeError("on purpose")
        _reap(pid, 1)


class _With:
    """The server's own ``with``, or what its users write in its place."""

    def __init__(self, sut: ServerUnderTest) -> None:
        self._subject = sut

    def __enter__(self) -> None:
        self._subject.start(_echo)

    def __exit__(self, *error: object) -> None:
        if isinstance(self._subject, Sidestage):
            self._subject.server.__exit__(*error)
        else:
            self._subject.stop()


@rows.add("a copy returns through the server's with", "-W", "error")
def a_copy_returns_through_with(sut: ServerUnderTest) -> None:
    with _With(sut):
        pid = os.fork()
        if pid == 0:
            return
        _reap(pid)
        _check(sut.port, "/after")
    _stopped(sut, sut.port, Clock.monotonic())


@rows.add("a copy raises through the server's with", "-W", "error")
def a_copy_raises_through_with(sut: ServerUnderTest) -> None:
    class OnPurposeError(Exception):
        pass

    pid = None
    with suppress(OnPurposeError), _With(sut):
        pid = os.fork()
        if pid == 0:
            raise OnPurposeError
        _reap(pid)
        _check(sut.port, "/after")
    if pid:
        _stopped(sut, sut.port, Clock.monotonic())


@rows.add("a copy's exit handler stops the server", "-W", "error")
def a_copys_exit_handler_stops(sut: ServerUnderTest) -> None:
    sut.start(_echo)
    process = _process_of(sut)
    owner = os.getpid()
    atexit.register(lambda: _stop(sut) if os.getpid() == owner else sut.stop())
    pid = os.fork()
    if pid == 0:
        return
    _reap(pid)
    _as_before(sut, process)


class _Stopper:
    """Stops a server when it is destroyed."""

    def __init__(self, sut: ServerUnderTest) -> None:
        self._stop = sut.stop

    def __del__(self) -> None:
        self._stop()


@rows.add("a copy's destructor stops the server", "-W", "error")
def a_copys_destructor_stops(sut: ServerUnderTest) -> None:
    sut.start(_echo)
    process, port = _process_of(sut), sut.port
    stopper = _Stopper(sut)
    pid = os.fork()
    if pid == 0:
        del stopper
        return
    _reap(pid)
    _as_before(sut, process)
    began = Clock.monotonic()
    del stopper
    _stopped(sut, port, began)


@rows.add("a copy destroys the server object", "-W", "error")
def a_copy_destroys_the_server(sut: ServerUnderTest) -> None:
    def destroy() -> None:
        vars(sut).clear()
        gc.collect()

    with _served(sut):
        _in_copy(destroy)
        pid = os.fork()
        if pid == 0:
            destroy()
            sys.exit()
        _reap(pid)


# What a copy does --------------------------------------------------------------------------------


@rows.add("a copy is a client", "-W", "error")
def a_copy_is_a_client(sut: ServerUnderTest) -> None:
    seen: list[str] = []

    def answer(path: str) -> str:
        seen.append(path)
        return path

    with _served(sut, answer):
        _in_copy(lambda: fetch(sut.port, "/copy"))
        assert seen == ["/copy"]  # the handler ran here
        sut.wait_for(1)


@rows.add("a copy calls stop", "-W", "error")
def a_copy_calls_stop(sut: ServerUnderTest) -> None:
    with _served(sut):
        _in_copy(lambda: (sut.stop(), sut.stop()))


@rows.add("a copy calls stop after a handler has failed", "-W", "error", peers=False)
def a_copy_calls_stop_after_an_error(sut: Sidestage) -> None:
    def fail(path: str) -> str:
        raise RuntimeError("on purpose")

    sut.start(fail)
    with suppress(AssertionError):
        fetch(sut.port)
    _in_copy(lambda: sut.stop())  # the error is the original's to raise
    _raised(RuntimeError, sut.stop)


@rows.add("a copy calls start and restart", "-W", "error", peers=False)
def a_copy_calls_start(sut: Sidestage) -> None:
    from sidestage import StateError

    def refuse() -> None:
        server = sut.server
        for call in (server.start, server.restart, lambda: server.stop() and server.start()):
            assert "forked copy" in str(_raised(StateError, call))

    with _served(sut):
        _in_copy(refuse)


@rows.add("a copy looks at the server", "-W", "error", peers=False)
def a_copy_looks(sut: Sidestage) -> None:
    from sidestage import WaitTimeout

    def look() -> None:
        server = sut.server
        assert [request.path for request in server.received] == ["/before"]
        assert [request.path for request in server.wait_for(1)] == ["/before"]
        assert "forked copy" in str(_raised(WaitTimeout, lambda: server.wait_for(2, timeout=60)))
        assert str(server.pid) in repr(server)
        assert server.url.endswith(str(server.port))
        assert server.errors == ()

    with _served(sut):
        fetch(sut.port, "/before")
        _in_copy(look)


@rows.add("a copy has a server of its own", "-W", "error")
def a_copy_has_its_own(sut: ServerUnderTest) -> None:
    with _served(sut):
        _in_copy(lambda: (_have_own(sut), fetch(sut.port), _have_own(sut)))


@rows.add("a copy of a copy does all that", "-W", "error")
def a_copy_of_a_copy(sut: ServerUnderTest) -> None:
    def all_that(server: ServerUnderTest) -> None:
        _check(server.port, "/copy")
        server.stop()
        _have_own(server)

    def with_its_own() -> None:
        own = type(sut)()
        with _served(own):
            _in_copy(lambda: (all_that(sut), all_that(own)))
        all_that(sut)

    with _served(sut):
        _in_copy(with_its_own)
        pid = os.fork()
        if pid == 0:
            inner = os.fork()
            if inner:
                _reap(inner)
            return
        _reap(pid)


@rows.add("copies have servers before the original has one", peers=False)
def copies_before_the_first_start(sut: Sidestage) -> None:
    """The process that pytest's plugin keeps ready is for one of them at most."""
    Path("test_it.py").write_text(_WORKERS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


_WORKERS = """
import os
from urllib.request import urlopen
from sidestage import HTTPServer

def serve(tell, go_on):
    with HTTPServer(handler=lambda request: str(os.getpid())) as server:
        os.write(tell, server.pid.to_bytes(4, "big"))
        os.read(go_on, 1)
        with urlopen(server.url, timeout=5) as reply:
            assert int(reply.read()) == os.getpid()

def test_two_copies():
    told, tell = os.pipe()
    go_on, go = os.pipe()
    copies = []
    for _ in range(2):
        copies.append(os.fork())
        if copies[-1] == 0:
            status = 1
            try:
                os.close(go)
                serve(tell, go_on)
                status = 0
            finally:
                os._exit(status)
    servers = {os.read(told, 4) for _ in copies}
    os.close(go)
    assert [os.waitpid(copy, 0)[1] for copy in copies] == [0, 0]
    assert len(servers) == 2
    for fd in (told, tell, go_on):
        os.close(fd)

def test_the_original(http_server):
    with urlopen(http_server.url, timeout=5):
        pass
"""


# One outlives the other --------------------------------------------------------------------------


class _Owner:
    """A process that has servers, and a copy that lives on."""

    def __init__(self, sut: ServerUnderTest, *, stops: bool = False) -> None:
        said, say = os.pipe()
        until, self._go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._go)
            self._be(sut, say, until, stops=stops)
        os.close(until)
        os.close(say)
        with os.fdopen(said) as file:
            self.port, self.copy = json.loads(file.readline())
        family = psutil.Process(self.pid).children()
        self.servers = [process.pid for process in family if process.pid != self.copy]

    def _be(self, sut: ServerUnderTest, say: int, until: int, *, stops: bool) -> None:
        _wait_long(sut)
        spare = type(sut)()
        for server in (spare, sut):
            server.start(_echo)
        spare.stop()  # its process waits for the next start
        copy = os.fork()
        if copy == 0:
            os.close(say)
            _do_and_leave(signal.pause)
        os.write(say, json.dumps([sut.port, copy]).encode() + b"\n")
        os.read(until, 1)
        if stops:
            sut.stop()
        else:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # for the warning that nobody did
        sys.exit()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing of its servers is there a second later, and the copy still is."""
        try:
            if error[0] is None:
                assert eventually(lambda: refuses(self.port), 1.0), "the port is still open"
                assert all_gone(self.servers), "the server's process is left"
        finally:
            os.kill(self.copy, signal.SIGKILL)  # fails if it is not

    def leave(self) -> None:
        """It leaves, and does not wait for its copy."""
        os.close(self._go)
        _reap(self.pid)

    def kill(self) -> None:
        """It is killed."""
        os.kill(self.pid, signal.SIGKILL)
        _reap(self.pid, -signal.SIGKILL)


@rows.add("a copy outlives the test, which is killed", "-W", "error")
def a_copy_outlives_the_killed(sut: ServerUnderTest) -> None:
    with _Owner(sut) as owner:
        owner.kill()


@rows.add("a copy outlives the test, which has stopped the server", "-W", "error")
def a_copy_outlives_the_orderly(sut: ServerUnderTest) -> None:
    with _Owner(sut, stops=True) as owner:
        owner.leave()


@rows.add("a copy outlives the test, which just ends", "-W", "error")
def a_copy_outlives_the_careless(sut: ServerUnderTest) -> None:
    with _Owner(sut) as owner:
        owner.leave()


@rows.add("a copy outlives the stop", "-W", "error")
def a_copy_outlives_the_stop(sut: ServerUnderTest) -> None:
    _keep_no_processes(sut)
    sut.start(_echo)
    with _lasting_copy():
        _check(sut.port, "/after")
        _stop(sut)


@rows.add("a copy of a copy outlives the stop", "-W", "error")
def a_copy_of_a_copy_outlives_the_stop(sut: ServerUnderTest) -> None:
    _keep_no_processes(sut)
    told, tell = os.pipe()
    sut.start(_echo)

    def outlive() -> None:
        os.write(tell, b"%d" % os.getpid())
        signal.pause()

    _in_copy(lambda: os.fork() or _do_and_leave(outlive))
    inner = int(os.read(told, 20))
    try:
        _check(sut.port, "/after")
        _stop(sut)
    finally:
        os.kill(inner, signal.SIGKILL)


# In the middle of something ----------------------------------------------------------------------


@rows.add("a fork inside a handler", "-W", "error")
def a_fork_inside_a_handler(sut: ServerUnderTest) -> None:
    def answer(path: str) -> str:
        if path == "/fork":
            _in_copy(lambda: _have_own(sut))
        return path

    with _served(sut, answer):
        for _ in range(3):
            _check(sut.port, "/fork")


@rows.add("a copy returns from the handler that forked", "-W", "error", limit=10)
def a_copy_returns_from_the_handler(sut: ServerUnderTest) -> None:
    def answer(path: str) -> str:
        if path == "/fork":
            pid = os.fork()
            if pid == 0:
                return "/copy"
            _reap(pid)
        return path

    with _served(sut, answer):
        _check(sut.port, "/fork")


@rows.add("a fork in a thread", "-W", "error")
def a_fork_in_a_thread(sut: ServerUnderTest) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                _in_copy(lambda: fetch(sut.port, "/copy"))
            _in_copy(lambda: _have_own(sut))
        except BaseException as error:  # noqa: BLE001 - raised below
            failed.append(error)

    with _served(sut):
        _check(sut.port, "/before")  # no import is to be under way when a copy is made
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            _check(sut.port, "/meanwhile")
        for thread in threads:
            thread.join()
        for error in failed:
            raise error


@rows.add("a fork during a request", "-W", "error")
def a_fork_during_a_request(sut: ServerUnderTest) -> None:
    slow = _Slow()
    with _served(sut, slow):
        with socket.create_connection(("127.0.0.1", sut.port), timeout=10) as half:
            half.sendall(b"GET /half HTTP/1.1\r\nHost:")
            pid = os.fork()
            if pid == 0:
                sys.exit()
            _reap(pid)
            half.sendall(b" x\r\nConnection: close\r\n\r\n")
            assert _answer(half) == "/half"
        client = _ask(sut.port, "/slow")
        assert slow.entered.wait(10)
        with _lasting_copy():
            slow.release.set()
            assert _answer(client) == "/slow"


@rows.add("a fork during a stop", "-W", "error")
def a_fork_during_a_stop(sut: ServerUnderTest) -> None:
    _keep_no_processes(sut)
    slow = _Slow()
    sut.start(slow)
    port = sut.port
    client = _ask(port, "/slow")
    assert slow.entered.wait(10)
    stopping = threading.Thread(target=sut.stop)
    stopping.start()
    if isinstance(sut, Sidestage):
        assert eventually(lambda: not sut.server.ready.is_set())
    with _lasting_copy():
        _in_copy(lambda: _have_own(sut))
        pid = os.fork()
        if pid == 0:
            client.close()
            sys.exit()
        _reap(pid)
        began = Clock.monotonic()
        slow.release.set()
        assert _answer(client) == "/slow"
        stopping.join()
        _stopped(sut, port, began)


@rows.add("a fork with processes kept ready", "-W", "error", peers=False)
def a_fork_with_a_full_pool(sut: Sidestage) -> None:
    def started() -> list[Sidestage]:
        servers = [Sidestage() for _ in range(4)]
        for server in servers:
            server.start(_echo)
        return servers

    def pids(servers: list[Sidestage]) -> set[int | None]:
        return {_process_of(server) for server in servers}

    def stop(servers: list[Sidestage]) -> None:
        for server in servers:
            _stop(server)

    first = started()
    kept = pids(first)
    stop(first)
    pid = os.fork()
    if pid == 0:
        own = started()
        assert not kept & pids(own)
        stop(own)
        sys.exit()
    _reap(pid)
    with _lasting_copy():
        again = started()
        assert pids(again) == kept
        stop(again)


@rows.add("a fork while another thread starts a server", "-W", "error")
def a_fork_during_a_start(sut: ServerUnderTest) -> None:
    _keep_no_processes(sut)
    with _served(sut):
        for _ in range(5):
            other = type(sut)()
            starting = threading.Thread(target=other.start, args=[_echo])
            starting.start()
            with _lasting_copy():
                _in_copy(lambda: fetch(sut.port))
                starting.join()
                _check(other.port, "/other")
                _stop(other)


class _Import:
    """Holds another thread up in an import until this one has forked, or has to wait to do so."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.reached, self.forked = threading.Event(), threading.Event()
        sys.meta_path.insert(0, self)  # type: ignore[arg-type]

    def find_spec(self, name: str, *_: object) -> None:
        """What every import asks for."""
        if name == self.name:
            sys.meta_path.remove(self)  # type: ignore[arg-type]
            self.reached.set()
            self.forked.wait(0.3)

    @contextmanager
    def while_starting(self, sut: ServerUnderTest) -> Iterator[None]:
        """Another thread starts the server, and is there."""
        _keep_no_processes(sut)
        starting = threading.Thread(target=sut.start, args=[_echo])
        starting.start()
        assert self.reached.wait(10)
        yield
        self.forked.set()
        starting.join()
        _check(sut.port, "/started")


@rows.add("a fork while another thread launches a process", "-W", "error", peers=False)
def a_fork_during_a_launch(sut: Sidestage) -> None:
    """Where the process will find its packages is looked up when its pipes are there already."""
    from sidestage import ServerDied

    with _copy_while(_Import("httptools"), sut):
        os.kill(sut.server.pid, signal.SIGKILL)  # the copy does not keep this from being seen
        _raised(ServerDied, lambda: sut.wait_for(2, timeout=5))
        _raised(ServerDied, sut.stop)


@rows.add("a fork while another thread's start imports", "-W", "error", peers=False)
def a_fork_during_an_import(sut: Sidestage) -> None:
    with _Import("multiprocess").while_starting(sut):
        _in_copy(lambda: _have_own(sut))
    _stop(sut)


@rows.add("a fork before another thread owns its process", "-W", "error", peers=False)
def a_fork_before_the_process_is_owned(sut: Sidestage) -> None:
    with _copy_while(_Import("multiprocess"), sut):
        _stop(sut)


@contextmanager
def _copy_while(point: _Import, sut: ServerUnderTest) -> Iterator[None]:
    """A copy that was made while another thread started the server, and lives on."""
    with ExitStack() as stack:
        with point.while_starting(sut):
            stack.enter_context(_lasting_copy())
        yield


# Other ways to fork ------------------------------------------------------------------------------


@rows.add("os.forkpty and pty.fork", "-W", "error")
def forkpty(sut: ServerUnderTest) -> None:
    with _served(sut), warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", ".*multi-threaded")
        for fork in (os.forkpty, pty.fork):
            pid, terminal = fork()
            if pid == 0:
                _do_and_leave(lambda: fetch(sut.port, "/copy"))
            _reap(pid)
            os.close(terminal)
        assert not caught, f"{len(caught)} of 2 forks warn"


@rows.add("a subprocess outlives the stop", "-W", "error")
def a_subprocess_outlives_the_stop(sut: ServerUnderTest) -> None:
    _keep_no_processes(sut)
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    command = ["/bin/sh", "-c", f"read line <&{read_end}"]
    try:
        with _served(sut):
            processes = [
                subprocess.Popen(command, close_fds=False, preexec_fn=work)  # noqa: PLW1509 - meant
                for work in (None, lambda: None)
            ]
            spawned = os.posix_spawn(command[0], command, dict(os.environ))
            spawned_by_number = os.spawnv(os.P_NOWAIT, command[0], command)
    finally:
        os.close(write_end)
    for process in processes:
        process.wait()
    for pid in (spawned, spawned_by_number):
        os.waitpid(pid, 0)


@rows.add("an inheritable listener of the test's closes", "-W", "error")
def an_inheritable_listener(sut: ServerUnderTest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        port = listener.getsockname()[1]
        sut.start(_echo)
    assert refuses(port)
    _stop(sut)


# Workers -----------------------------------------------------------------------------------------


def _workers(tool: str, method: str, sut: ServerUnderTest) -> None:
    """Some were there before the server, and all stay longer."""
    _keep_no_processes(sut)
    context = importlib.import_module(tool).get_context(method)
    with context.Pool(1) as early:
        early.apply(int)  # is up
        sut.start(_echo)
        with context.Pool(1) as late:
            for pool in (early, late):
                pool.starmap(_check, [(sut.port, f"/{number}") for number in range(4)])
            _check(sut.port, "/after")
            _stop(sut)
            for pool in (late, early):
                pool.close()
                pool.join()


def _executor(method: str, sut: ServerUnderTest) -> None:
    _keep_no_processes(sut)
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, context) as early, ProcessPoolExecutor(1, context) as late:
        early.submit(int).result()  # is up; the other one is not before it gets work
        with _served(sut):
            done = [
                executor.submit(_check, sut.port, f"/{number}")
                for executor in (early, late)
                for number in range(4)
            ]
            for future in done:
                future.result()


for _method in ("fork", "forkserver", "spawn"):
    for _tool in ("multiprocessing", "multiprocess"):
        rows.add(f"{_tool} workers, by {_method}", "-W", "error")(partial(_workers, _tool, _method))
    rows.add(f"ProcessPoolExecutor, by {_method}", "-W", "error")(partial(_executor, _method))


@rows.add("a worker is terminated during its request", "-W", "error")
def a_terminated_worker(sut: ServerUnderTest) -> None:
    from multiprocessing import get_context

    slow = _Slow()
    with _served(sut, slow):
        worker = get_context("fork").Process(target=fetch, args=(sut.port, "/slow"))
        worker.start()
        assert slow.entered.wait(10)
        worker.terminate()
        worker.join()
        slow.release.set()


@rows.add("a daemon worker is left at the end", "-W", "error")
def a_daemon_worker(sut: ServerUnderTest) -> None:
    from multiprocessing import get_context

    _keep_no_processes(sut)
    with _served(sut):
        get_context("fork").Process(target=signal.pause, daemon=True).start()


@rows.add("a worker is left at the end", "-W", "error")
def a_left_worker(sut: ServerUnderTest) -> None:
    """The end waits for it, and as long as it lives, handlers answer it."""

    def stop() -> None:
        assert worker.exitcode == 0
        _stop(sut)

    assert "multiprocessing.util" not in sys.modules
    atexit.register(stop)  # so that it runs after multiprocessing has waited for the worker
    from multiprocessing import get_context

    sut.start(_echo)
    ended, end = os.pipe()
    worker = get_context("fork").Process(target=_ask_at_the_end, args=(sut.port, ended, end))
    worker.start()
    atexit.register(os.close, end)  # so that it runs first


def _ask_at_the_end(port: int, ended: int, end: int) -> None:
    os.close(end)
    os.read(ended, 1)
    _check(port, "/at-the-end")


@rows.add("no resource tracker", "-W", "error")
def no_resource_tracker(sut: ServerUnderTest) -> None:
    with _served(sut):
        _in_copy(lambda: _have_own(sut))
    for tool in ("multiprocessing", "multiprocess"):
        tracker = importlib.import_module(f"{tool}.resource_tracker")
        assert tracker._resource_tracker._pid is None


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
