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
from kit.servers import Clock, OutsideClient, Sidestage, Subject, fetch

rows = Rows("Patched", __file__)

Patch = Callable[[], AbstractContextManager[Any]]
Fetch = Callable[[int, str], str]

MOMENTS = ("start", "request", "stop")
SOON = 5.0  # seconds: far more than any wait here takes, and far less than for ever


# What is done under each patch -------------------------------------------------------------------


def exercise(subject: Subject, *patches: Patch, client: Fetch = fetch) -> None:
    """Every moment of every patch, the import excepted; ends with the last one in place."""
    subject.load()
    for moment in MOMENTS:
        for patch in patches:
            serve(subject, patch, moment, client)
        serve(subject, patches[-1], moment, client, stuck=True)
    serve(subject, nullcontext, "start", client)  # leaves a child in the pool
    patches[-1]().__enter__()


def exercise_first(subject: Subject, patch: Patch, client: Fetch = fetch) -> None:
    """The first use is under the patch, and a later one is not."""
    serve(subject, patch, "start", client, stuck=True)
    serve(subject, nullcontext, "start", client)


def serve(
    subject: Subject, patch: Patch, moment: str, client: Fetch, *, stuck: bool = False
) -> None:
    """One server from start to stop, patched from ``moment`` on.

    Only ours knows a stop that copes with a stuck server: the others are stopped as usual.
    """
    subject = type(subject)()
    with ExitStack() as patched:

        def reach(now: str) -> None:
            if now == moment:
                patched.enter_context(patch())

        reach("start")
        subject.start(lambda path: path)
        reach("request")
        assert client(subject.port, "/alive") == "/alive"
        subject.wait_for(1)
        reach("stop")
        if stuck and isinstance(subject, Sidestage):
            wait_in_vain(subject)
            subject.stop_stuck()
        else:
            subject.stop()


def wait_in_vain(subject: Subject, count: int = 2) -> None:
    """One request more than has come."""
    from sidestage import WaitTimeout

    began = Clock.monotonic()
    try:
        subject.wait_for(count, timeout=0.2)
    except WaitTimeout:
        assert 0.2 <= Clock.monotonic() - began < SOON
    else:
        raise AssertionError("no such request has come")


@contextmanager
def outside() -> Iterator[Fetch]:
    """A client that no patch reaches."""
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
def freezegun_first(subject: Subject) -> None:
    exercise_first(subject, _freeze())


@rows.add("freezegun")
def freezegun(subject: Subject) -> None:
    exercise(subject, _freeze())


@rows.add("freezegun, ticking")
def freezegun_ticking(subject: Subject) -> None:
    """Real seconds pass, and then each look at the clock is an hour."""
    exercise(subject, _freeze(tick=True), _freeze(auto_tick_seconds=3600))


@rows.add("time-machine, before the import")
def time_machine_first(subject: Subject) -> None:
    exercise_first(subject, _travel(tick=False))


@rows.add("time-machine")
def time_machine(subject: Subject) -> None:
    exercise(subject, _travel(), _travel(tick=False))


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
def pytest_socket_first(subject: Subject) -> None:
    with outside() as client:
        exercise_first(subject, _no_sockets, client)


@rows.add("pytest-socket")
def pytest_socket(subject: Subject) -> None:
    with outside() as client:
        exercise(subject, _no_sockets, client=client)


@rows.add("pyfakefs, before the import")
def pyfakefs_first(subject: Subject) -> None:
    exercise_first(subject, _fake_files)


@rows.add("pyfakefs")
def pyfakefs(subject: Subject) -> None:
    exercise(subject, _fake_files)


@rows.add("pytest-subprocess, before the import")
def pytest_subprocess_first(subject: Subject) -> None:
    exercise_first(subject, _fake_processes)


@rows.add("pytest-subprocess")
def pytest_subprocess(subject: Subject) -> None:
    exercise(subject, _fake_processes)


# mock.patch --------------------------------------------------------------------------------------


@contextmanager
def mocked(names: tuple[str, ...]) -> Iterator[None]:
    """Each answers anything, with a mock, as ``mock.patch`` has it."""
    with ExitStack() as patches:
        for name in names:
            patches.enter_context(mock.patch(name))
        yield


@contextmanager
def forbidden(names: tuple[str, ...]) -> Iterator[None]:
    """Each raises when it is called."""
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


def _mock_first(names: tuple[str, ...], subject: Subject) -> None:
    with outside() as client:
        exercise_first(subject, lambda: mocked(names), client)


def _mock(names: tuple[str, ...], subject: Subject) -> None:
    with outside() as client:
        exercise(subject, lambda: mocked(names), lambda: forbidden(names), client=client)


for _what, _names in MOCKED.items():
    rows.add(f"mock.patch of {_what}, before the import")(partial(_mock_first, _names))
    rows.add(f"mock.patch of {_what}")(partial(_mock, _names))


@rows.add("mock.patch of os.environ, before the import")
def environ_first(subject: Subject) -> None:
    exercise_first(subject, partial(mock.patch, "os.environ", {}))


@rows.add("mock.patch of os.environ")
def environ(subject: Subject) -> None:
    exercise(
        subject,
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
def everything_first(subject: Subject) -> None:
    with outside() as client:
        exercise_first(subject, _everything, client)


@rows.add("freezegun, pytest-socket, pyfakefs and mocks at once")
def everything(subject: Subject) -> None:
    with outside() as client:
        exercise(subject, _everything, client=client)


# gevent ------------------------------------------------------------------------------------------
# It cannot be undone, so each moment is a row of its own.


def _patch_with_gevent() -> None:
    """Its own warning of a late call is for whoever calls it late."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gevent import monkey

        monkey.patch_all()


def serve_greenlets(subject: Subject) -> None:
    """A server and its clients as gevent's users write them: clients are greenlets.

    What this one waits for in the server needs them to run meanwhile.
    """
    subject = type(subject)()
    subject.start(lambda path: path)
    use_greenlets(subject)


def use_greenlets(subject: Subject) -> None:
    """The rest of it, with a server that has just been started."""
    import gevent

    client = gevent.spawn(fetch, subject.port, "/alive")
    subject.wait_for(1)
    assert client.get(timeout=SOON) == "/alive"
    several = [gevent.spawn(fetch, subject.port, f"/{number}") for number in range(5)]
    subject.wait_for(6)
    gevent.joinall(several, timeout=SOON, raise_error=True)
    assert [client.value for client in several] == [f"/{number}" for number in range(5)]
    if isinstance(subject, Sidestage):
        ran: list[bool] = []
        other = gevent.spawn(lambda: ran.append(True))
        wait_in_vain(subject, count=7)
        assert ran  # without a join, which would let it
        other.join()
    subject.stop()


def stop_amid_a_request(subject: Subject) -> None:
    """The stop lets a handler that sleeps finish, and its client, a greenlet, read all of it."""
    import gevent

    stopping: list[bool] = []
    much = "x" * 16_000_000  # more than sockets hold

    def slowly(path: str) -> str:
        while not stopping:
            time.sleep(0.01)
        gevent.sleep(0.05)
        return much

    subject = type(subject)()
    subject.start(slowly)
    client = gevent.spawn(fetch, subject.port)
    subject.wait_for(1)
    stopping.append(True)
    subject.stop()
    assert client.get(timeout=SOON) == much


def stop_stuck_amid_a_request(subject: Subject) -> None:
    """The process is killed, and its client hears of it."""
    import gevent

    if not isinstance(subject, Sidestage):
        return
    subject = Sidestage()
    answer = posix.pipe()
    subject.start(lambda path: str(posix.read(answer[0], 1)))
    client = gevent.spawn(_fetch_in_vain, subject.port)
    subject.wait_for(1)
    subject.stop_stuck()
    assert client.get(timeout=SOON)
    posix.write(answer[1], b"x")


def _fetch_in_vain(port: int) -> bool:
    try:
        fetch(port)
    except (ConnectionError, AssertionError):  # reset, or closed without an answer
        return True
    return False


def use_as_gevent_user(subject: Subject) -> None:
    """All of it, twice, so that the second server may get a process of the first."""
    for _ in range(2):
        serve_greenlets(subject)
        stop_amid_a_request(subject)
    stop_stuck_amid_a_request(subject)
    serve_greenlets(subject)


@rows.add("gevent, before the import")
def gevent_first(subject: Subject) -> None:
    _patch_with_gevent()
    use_as_gevent_user(subject)


@rows.add("gevent, before the start")
def gevent_before_start(subject: Subject) -> None:
    subject.load()
    _patch_with_gevent()
    use_as_gevent_user(subject)


@rows.add("gevent, between start and request")
def gevent_before_request(subject: Subject) -> None:
    subject.start(lambda path: path)
    _patch_with_gevent()
    use_greenlets(subject)
    serve_greenlets(subject)


@rows.add("gevent, before the stop")
def gevent_before_stop(subject: Subject) -> None:
    other = type(subject)()
    for server in (subject, other):
        server.start(lambda path: path)
        assert fetch(server.port, "/alive") == "/alive"
        server.wait_for(1)
    _patch_with_gevent()
    subject.stop()
    if isinstance(other, Sidestage):
        wait_in_vain(other)
        other.stop_stuck()
    else:
        other.stop()
    serve_greenlets(subject)


@rows.add("gevent, many greenlets wait")
def gevent_many(subject: Subject) -> None:
    """More than its pool has threads, which the clients' names are looked up in, too."""
    _patch_with_gevent()
    import gevent

    subject = type(subject)()
    subject.start(lambda path: path)
    waiting = [gevent.spawn(subject.wait_for, 1) for _ in range(20)]
    gevent.sleep(0)
    assert gevent.spawn(fetch, subject.port, "/alive").get(timeout=SOON) == "/alive"
    gevent.joinall(waiting, timeout=SOON, raise_error=True)
    assert all(greenlet.ready() for greenlet in waiting)
    subject.stop()


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
