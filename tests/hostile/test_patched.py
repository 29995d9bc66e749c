"""The test patches what servers are made of: the clock, sockets, files, threads, processes.

Each patch comes before the start, between the start and the request, and before the stop. Under
all of them the server starts, answers, is waited for in time and in vain, and stops: when asked,
and when its process is stuck and has to be killed, which waits and signals more than anything
else does. Then the process ends with the patch still in place.

"Before the import" is the first use of the server in its process; what was imported under the
patch is used without it afterwards.
"""

from __future__ import annotations

import posix
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from functools import partial
from typing import Any
from unittest import mock

from kit.matrix import Rows
from kit.servers import Clock, OutsideClient, ServerUnderTest, Sidestage, fetch

rows = Rows("Patched", __file__)

Patch = Callable[[], AbstractContextManager[Any]]
Fetch = Callable[[int, str], str]

MOMENTS = ("start", "request", "stop")
SOON = 5.0  # seconds: far more than any wait here takes, and far less than for ever


# What is done under each patch -------------------------------------------------------------------


def exercise(sut: ServerUnderTest, *patches: Patch, client: Fetch = fetch) -> None:
    """Use a server with the patch at each moment but the import; the last one stays in place."""
    sut.load()
    for moment in MOMENTS:
        for patch in patches:
            serve(sut, patch, moment, client)
        serve(sut, patches[-1], moment, client, stuck=True)
    serve(sut, nullcontext, "start", client)  # leaves a child in the pool
    patches[-1]().__enter__()


def exercise_first(sut: ServerUnderTest, patch: Patch, client: Fetch = fetch) -> None:
    """Use a server first under the patch, then without it."""
    serve(sut, patch, "start", client, stuck=True)
    serve(sut, nullcontext, "start", client)


def serve(
    sut: ServerUnderTest, patch: Patch, moment: str, client: Fetch, *, stuck: bool = False
) -> None:
    """One server from start to stop, patched from ``moment`` on.

    Only Sidestage can stop a stuck server: the others are stopped as usual.
    """
    sut = type(sut)()
    with ExitStack() as patched:

        def reach(now: str) -> None:
            if now == moment:
                patched.enter_context(patch())

        reach("start")
        sut.start(lambda path: path)
        reach("request")
        assert client(sut.port, "/alive") == "/alive"
        sut.wait_for(1)
        reach("stop")
        if stuck and isinstance(sut, Sidestage):
            wait_in_vain(sut)
            sut.stop_hung()
        else:
            sut.stop()


def wait_in_vain(sut: ServerUnderTest, count: int = 2) -> None:
    """Wait for one request more than has come."""
    from sidestage import WaitTimeout

    began = Clock.monotonic()
    try:
        sut.wait_for(count, timeout=0.05)
    except WaitTimeout:
        assert 0.05 <= Clock.monotonic() - began < SOON
    else:
        raise AssertionError("no such request has come")


@contextmanager
def outside() -> Iterator[Fetch]:
    """A client in another process, which is not patched."""
    with closing(OutsideClient()) as client:
        yield client.fetch


# Clocks ------------------------------------------------------------------------------------------


def _freeze(**options: Any) -> Patch:
    from freezegun import freeze_time

    return lambda: freeze_time("2012-01-14", **options)


def _travel(**options: Any) -> Patch:
    import time_machine

    return lambda: time_machine.travel(0, **options)


@rows.add("freezegun, before the import")
def freezegun_first(sut: ServerUnderTest) -> None:
    exercise_first(sut, _freeze())


@rows.add("freezegun")
def freezegun(sut: ServerUnderTest) -> None:
    exercise(sut, _freeze())


@rows.add("freezegun, ticking")
def freezegun_ticking(sut: ServerUnderTest) -> None:
    """The clock ticks in real time, or jumps by an hour at each reading."""
    exercise(sut, _freeze(tick=True), _freeze(auto_tick_seconds=3600))


@rows.add("time-machine, before the import")
def time_machine_first(sut: ServerUnderTest) -> None:
    exercise_first(sut, _travel(tick=False))


@rows.add("time-machine")
def time_machine(sut: ServerUnderTest) -> None:
    exercise(sut, _travel(), _travel(tick=False))


# Sockets, files and processes --------------------------------------------------------------------


@contextmanager
def _no_sockets() -> Iterator[None]:
    from pytest_socket import disable_socket, enable_socket

    disable_socket()
    try:
        yield
    finally:
        enable_socket()


def _fake_files() -> AbstractContextManager[Any]:
    from pyfakefs.fake_filesystem_unittest import Patcher

    return Patcher()


def _fake_processes() -> AbstractContextManager[Any]:
    from pytest_subprocess import FakeProcess

    context: AbstractContextManager[Any] = FakeProcess.context()
    return context


@rows.add("pytest-socket, before the import")
def pytest_socket_first(sut: ServerUnderTest) -> None:
    with outside() as client:
        exercise_first(sut, _no_sockets, client)


@rows.add("pytest-socket")
def pytest_socket(sut: ServerUnderTest) -> None:
    with outside() as client:
        exercise(sut, _no_sockets, client=client)


@rows.add("pyfakefs, before the import")
def pyfakefs_first(sut: ServerUnderTest) -> None:
    exercise_first(sut, _fake_files)


@rows.add("pyfakefs")
def pyfakefs(sut: ServerUnderTest) -> None:
    exercise(sut, _fake_files)


@rows.add("pytest-subprocess, before the import")
def pytest_subprocess_first(sut: ServerUnderTest) -> None:
    exercise_first(sut, _fake_processes)


@rows.add("pytest-subprocess")
def pytest_subprocess(sut: ServerUnderTest) -> None:
    exercise(sut, _fake_processes)


# mock.patch --------------------------------------------------------------------------------------


@contextmanager
def mocked(names: tuple[str, ...]) -> Iterator[None]:
    """Replace each by a mock that answers anything, as ``mock.patch`` does."""
    with ExitStack() as patches:
        for name in names:
            patches.enter_context(mock.patch(name))
        yield


@contextmanager
def forbidden(names: tuple[str, ...]) -> Iterator[None]:
    """Replace each by a function that raises."""
    with ExitStack() as patches:
        for name in names:
            error = AssertionError(f"{name} is patched")
            patches.enter_context(mock.patch(name, side_effect=error))
        yield


MOCKED: dict[str, tuple[str, ...]] = {
    "socket.socket": ("socket.socket",),
    "the functions of socket": (
        "socket.create_connection",
        "socket.create_server",
        "socket.socketpair",
        "socket.fromfd",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "socket.getfqdn",
    ),
    "select": ("select.select", "select.poll", "select.epoll"),
    "selectors": (
        "selectors.DefaultSelector",
        "selectors.EpollSelector",
        "selectors.PollSelector",
        "selectors.SelectSelector",
    ),
    "threading.Thread": ("threading.Thread",),
    "the locks of threading": (
        "threading.Lock",
        "threading.RLock",
        "threading.Condition",
        "threading.Event",
        "threading.Semaphore",
    ),
    "time.sleep": ("time.sleep",),
    "the clocks of time": (
        "time.time",
        "time.time_ns",
        "time.monotonic",
        "time.monotonic_ns",
        "time.perf_counter",
    ),
    "os.read, os.write, os.close": ("os.read", "os.write", "os.close"),
    "os.kill": ("os.kill", "os.killpg"),
    "os.fork, os.pipe, os.waitpid": (
        "os.fork",
        "os.pipe",
        "os.waitpid",
        "os.posix_spawn",
    ),
    "subprocess.Popen": ("subprocess.Popen",),
    "open": ("builtins.open", "io.open"),
    "the loops of asyncio": (
        "asyncio.get_event_loop",
        "asyncio.new_event_loop",
        "asyncio.set_event_loop",
        "asyncio.run",
    ),
}


def _mock_first(names: tuple[str, ...], sut: ServerUnderTest) -> None:
    with outside() as client:
        exercise_first(sut, lambda: mocked(names), client)


def _mock(names: tuple[str, ...], sut: ServerUnderTest) -> None:
    with outside() as client:
        exercise(sut, lambda: mocked(names), lambda: forbidden(names), client=client)


for _what, _names in MOCKED.items():
    rows.add(f"mock.patch of {_what}, before the import")(partial(_mock_first, _names))
    rows.add(f"mock.patch of {_what}")(partial(_mock, _names))


@rows.add("mock.patch of os.environ, before the import")
def environ_first(sut: ServerUnderTest) -> None:
    exercise_first(sut, partial(mock.patch, "os.environ", {}))


@rows.add("mock.patch of os.environ")
def environ(sut: ServerUnderTest) -> None:
    exercise(
        sut,
        partial(mock.patch.dict, "os.environ", {"PYTHONHOME": "/nowhere"}, clear=True),
        partial(mock.patch, "os.environ", {}),
    )


# Several at once ---------------------------------------------------------------------------------


@contextmanager
def _everything() -> Iterator[None]:
    with ExitStack() as patches:
        patches.enter_context(_no_sockets())
        patches.enter_context(_fake_files())
        patches.enter_context(mock.patch("subprocess.Popen"))
        patches.enter_context(_freeze()())
        yield


@rows.add("freezegun, pytest-socket, pyfakefs and mocks at once, before the import")
def everything_first(sut: ServerUnderTest) -> None:
    with outside() as client:
        exercise_first(sut, _everything, client)


@rows.add("freezegun, pytest-socket, pyfakefs and mocks at once")
def everything(sut: ServerUnderTest) -> None:
    with outside() as client:
        exercise(sut, _everything, client=client)


# gevent ------------------------------------------------------------------------------------------
# It cannot be undone, so each moment is a row of its own.


def _patch_with_gevent() -> None:
    """Ignore gevent's own warning that it patches too late."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gevent import monkey

        monkey.patch_all()


def serve_greenlets(sut: ServerUnderTest) -> None:
    """A server and its clients as users of gevent write them: clients are greenlets.

    They must run while this one waits for the server.
    """
    sut = type(sut)()
    sut.start(lambda path: path)
    use_greenlets(sut)


def use_greenlets(sut: ServerUnderTest) -> None:
    """Use and stop a server that has just been started."""
    import gevent

    client = gevent.spawn(fetch, sut.port, "/alive")
    sut.wait_for(1)
    assert client.get(timeout=SOON) == "/alive"
    several = [gevent.spawn(fetch, sut.port, f"/{number}") for number in range(5)]
    sut.wait_for(6)
    gevent.joinall(several, timeout=SOON, raise_error=True)
    assert [client.value for client in several] == [f"/{number}" for number in range(5)]
    if isinstance(sut, Sidestage):
        ran: list[bool] = []
        other = gevent.spawn(lambda: ran.append(True))
        wait_in_vain(sut, count=7)
        assert ran  # without a join, which would let it
        other.join()
    sut.stop()


def stop_amid_a_request(sut: ServerUnderTest) -> None:
    """The stop lets a handler that sleeps finish, and its client, a greenlet, read all of it."""
    import gevent

    stopping: list[bool] = []
    much = "x" * 16_000_000  # more than sockets hold

    def slowly(path: str) -> str:
        while not stopping:
            time.sleep(0.01)
        gevent.sleep(0.05)
        return much

    sut = type(sut)()
    sut.start(slowly)
    client = gevent.spawn(fetch, sut.port)
    sut.wait_for(1)
    stopping.append(True)
    sut.stop()
    assert client.get(timeout=SOON) == much


def stop_stuck_amid_a_request(sut: ServerUnderTest) -> None:
    """The process is killed, and its client gets an error."""
    import gevent

    if not isinstance(sut, Sidestage):
        return
    sut = Sidestage()
    answer = posix.pipe()
    sut.start(lambda path: str(posix.read(answer[0], 1)))
    client = gevent.spawn(_fetch_in_vain, sut.port)
    sut.wait_for(1)
    sut.stop_hung()
    assert client.get(timeout=SOON)
    posix.write(answer[1], b"x")


def _fetch_in_vain(port: int) -> bool:
    try:
        fetch(port)
    except (ConnectionError, AssertionError):  # reset, or closed without an answer
        return True
    return False


def use_as_gevent_user(sut: ServerUnderTest) -> None:
    """All of it, twice, so that the second server may get a process of the first."""
    for _ in range(2):
        serve_greenlets(sut)
        stop_amid_a_request(sut)
    stop_stuck_amid_a_request(sut)
    serve_greenlets(sut)


@rows.add("gevent, before the import")
def gevent_first(sut: ServerUnderTest) -> None:
    _patch_with_gevent()
    use_as_gevent_user(sut)


@rows.add("gevent, before the start")
def gevent_before_start(sut: ServerUnderTest) -> None:
    sut.load()
    _patch_with_gevent()
    use_as_gevent_user(sut)


@rows.add("gevent, between start and request")
def gevent_before_request(sut: ServerUnderTest) -> None:
    sut.start(lambda path: path)
    _patch_with_gevent()
    use_greenlets(sut)
    serve_greenlets(sut)


@rows.add("gevent, before the stop")
def gevent_before_stop(sut: ServerUnderTest) -> None:
    other = type(sut)()
    for server in (sut, other):
        server.start(lambda path: path)
        assert fetch(server.port, "/alive") == "/alive"
        server.wait_for(1)
    _patch_with_gevent()
    sut.stop()
    if isinstance(other, Sidestage):
        wait_in_vain(other)
        other.stop_hung()
    else:
        other.stop()
    serve_greenlets(sut)


@rows.add("gevent, many greenlets wait")
def gevent_many(sut: ServerUnderTest) -> None:
    """Wait in more greenlets than gevent's pool, which also resolves host names, has threads."""
    _patch_with_gevent()
    import gevent

    sut = type(sut)()
    sut.start(lambda path: path)
    waiting = [gevent.spawn(sut.wait_for, 1) for _ in range(20)]
    gevent.sleep(0)
    assert gevent.spawn(fetch, sut.port, "/alive").get(timeout=SOON) == "/alive"
    gevent.joinall(waiting, timeout=SOON, raise_error=True)
    assert all(greenlet.ready() for greenlet in waiting)
    sut.stop()


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
