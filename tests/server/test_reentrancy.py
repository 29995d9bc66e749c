"""Code of the test that runs inside of our calls: signal handlers, finalizers, handlers of logging.

They run in the same thread, between any two lines of ours, and may call the same server, or raise.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import threading
import urllib.error
import urllib.request
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from kit.clients import connect, read_all
from kit.interruptions import CallTracer
from kit.runs import run_of
from kit.scripts import eventually, gone
from kit.web import fetch, fetch_quietly
from sidestage import (
    ForcedStopWarning,
    HTTPServer,
    Server,
    ServerDied,
    State,
    StateError,
    WaitTimeout,
)
from sidestage.pristine import system, waits
from sidestage.pristine.waits import Clock
from sidestage.process.pool import pool
from sidestage.wire.messages import LogLine

EACH = 60
SLOW = 3.0  # seconds; a call waits for five if it waits for one that it has come into

Work = Callable[[HTTPServer], object]


def start(server: HTTPServer) -> None:
    server.start()


def stop(server: HTTPServer) -> None:
    server.stop()


def look(server: HTTPServer) -> None:
    assert repr(server)
    server.received, server.errors, server.diagnostics, server.state  # noqa: B018 - they look


def wait(server: HTTPServer) -> None:
    with contextlib.suppress(WaitTimeout):
        server.wait_for(2, timeout=0.01)


def set_handler(server: HTTPServer) -> None:
    server.handler = lambda request: "set"


def unset_handler(server: HTTPServer) -> None:
    server.handler = None


def serve_one(server: HTTPServer) -> None:
    server.start()
    fetch(server.url)


def handle_one(server: HTTPServer) -> None:
    set_handler(server)
    serve_one(server)


class Case(NamedTuple):
    """What runs undisturbed, and then what is disturbed."""

    work: Work
    prepare: Work = lambda server: None


CASES = {
    "start": Case(start, set_handler),
    "stop": Case(stop, serve_one),
    "stop with a handler": Case(stop, handle_one),
    "look": Case(look, serve_one),
    "look with a handler": Case(look, handle_one),
    "wait": Case(wait, serve_one),
    "set a handler": Case(set_handler, serve_one),
    "unset a handler": Case(unset_handler, handle_one),
}


class Attempt:
    """``case`` with ``act`` at one moment of it, and the stop after it."""

    def __init__(self, case: Case, at: int, act: Work | None) -> None:
        self.server = HTTPServer()
        case.prepare(self.server)
        work = lambda: self.act(case.work)  # noqa: E731
        if act is None:
            self.tracer = CallTracer(at)
        else:
            self.tracer = CallTracer(at, lambda: self.act(act))
        began = Clock.monotonic()
        try:
            self.tracer.run(work)
            pid = self.server.pid
            self.act(stop)
            assert Clock.monotonic() - began < SLOW
            assert self.server.state in (State.NEW, State.STOPPED, State.FAILED)
            assert self.server.pid is None
            assert run_of_a_new_start_answers(self.server), pid
        except BaseException as error:
            error.add_note(f"disturbed at moment {at}: {self.tracer.where}")
            raise

    def act(self, work: Work) -> None:
        # Refused because of the other call, or that had to end it by force.
        with contextlib.suppress(StateError, ServerDied, ForcedStopWarning):
            work(self.server)


def run_of_a_new_start_answers(server: HTTPServer) -> bool:
    """Whether it starts again, answers, and stops: nothing that it needs is locked."""
    server.handler = lambda request: "new"
    with server:
        return fetch(server.url) == b"new"


def each_attempt(case: Case, act: Work | None) -> Iterator[Attempt]:
    """One for each moment, or for every third where there are hundreds."""
    at, ended = 0, False
    while not ended:
        attempt = Attempt(case, at, act)
        yield attempt
        at, ended = at + (1 if at < EACH else 3), attempt.tracer.ended


@pytest.mark.parametrize("act", [look, stop, set_handler])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_signal_handler_may_call_the_server_at_any_moment(case: Case, act: Work) -> None:
    assert len(list(each_attempt(case, act))) > 10
    assert another_thread_may_start_one()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_exception_at_any_moment_leaves_nothing_locked(case: Case) -> None:
    assert len(list(each_attempt(case, None))) > 10
    assert another_thread_may_start_one()


def another_thread_may_start_one() -> bool:
    """Whether no lock that a start needs was left locked by this thread."""
    states = list[State]()

    def work() -> None:
        with HTTPServer() as server:
            states.append(server.state)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return states == [State.READY]


@contextlib.contextmanager
def soon(act: Callable[[], object]) -> Iterator[None]:
    """Call ``act`` in a signal handler, a moment after the body has begun."""
    before = signal.signal(signal.SIGALRM, lambda number, frame: act())
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Timed:
    """Calls ``work``, and notes how long it took."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.seconds: list[float] = []
        self._work = work

    def __call__(self) -> None:
        began = Clock.monotonic()
        self._work()
        self.seconds.append(Clock.monotonic() - began)


@pytest.mark.parametrize("act", [look, stop, set_handler, unset_handler])
@pytest.mark.parametrize("prepare", [serve_one, handle_one])
def test_while_the_same_thread_waits(prepare: Work, act: Work) -> None:
    server = HTTPServer()
    prepare(server)
    timed = Timed(lambda: act(server))
    with soon(timed), contextlib.suppress(WaitTimeout):
        server.wait_for(2, timeout=0.3)
    assert timed.seconds
    assert timed.seconds[0] < SLOW
    if act is stop:
        assert server.stop_report.rung == "ask"
    elif act is set_handler:
        assert fetch(server.url) == b"set"
    server.stop()


class Finalized:
    """In a cycle, and calls ``act`` when the collector finds it."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.me = self
        self._act = act

    def __del__(self) -> None:
        self._act()


@pytest.mark.parametrize("act", [look, stop, set_handler])
def test_a_finalizer_that_the_collector_runs_while_the_same_thread_waits(act: Work) -> None:
    server = HTTPServer()
    serve_one(server)
    timed = Timed(lambda: act(server))
    Finalized(timed)
    with soon(gc.collect), contextlib.suppress(WaitTimeout):
        server.wait_for(2, timeout=0.3)
    assert timed.seconds
    assert timed.seconds[0] < SLOW
    server.stop()


def test_the_collector_finds_a_forgotten_server_in_its_own_handler_thread() -> None:
    """The thread reads for that server's run, and holds what its end needs."""
    server = HTTPServer()
    handle_one(server)
    url, pid, threads = server.url, server.pid or 0, run_of(server).threads
    reader, next_job = threads._reader, threads._reader.next_job
    seconds: list[float] = []

    def collect(*options: Any) -> Any:
        reader.next_job = next_job  # type: ignore[method-assign]
        with threads._guard:
            began = Clock.monotonic()
            gc.collect()
            seconds.append(Clock.monotonic() - began)
        return next_job(*options)

    gc.disable()
    try:
        forget_in_a_cycle(server)
        del server
        with pytest.warns(ResourceWarning, match="never stopped"):
            reader.next_job = collect  # type: ignore[method-assign]
            with contextlib.suppress(OSError):
                urllib.request.urlopen(url, timeout=10).close()
            assert eventually(lambda: bool(seconds))
        assert gone(pid)
    finally:
        gc.enable()
    assert seconds[0] < SLOW


def forget_in_a_cycle(server: HTTPServer) -> None:
    cycle: list[Any] = [server]
    cycle.append(cycle)


class Logs(logging.Handler):
    """A handler of logging that calls ``act``."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act = act

    def emit(self, record: logging.LogRecord) -> None:
        self._act()


@pytest.mark.parametrize("act", [look, stop, set_handler, unset_handler, wait])
@pytest.mark.parametrize("prepare", [serve_one, handle_one])
def test_a_handler_of_logging_may_call_the_server_while_we_log(prepare: Work, act: Work) -> None:
    server = HTTPServer()
    prepare(server)
    run = run_of(server)
    timed = Timed(lambda: act(server))
    logger, logs = logging.getLogger("sidestage.expected"), Logs(timed)
    logger.addHandler(logs)
    line = LogLine(name=logger.name, level=logging.WARNING, text="expected", at=0.0)
    run.reader._events.append(line)  # as if it had just been read
    try:
        fetch_quietly(server.url)  # wakes the thread that reads, if there is one
        look(server)
    finally:
        logger.removeHandler(logs)
    assert eventually(lambda: bool(timed.seconds))
    assert timed.seconds[0] < SLOW
    server.stop()


class Curious(Exception):
    """Its text calls the server whose handler raises it."""

    def __init__(self, server: Server[Any], work: Callable[[Server[Any]], object]) -> None:
        super().__init__()
        self._server = server
        self._work = work

    def __str__(self) -> str:
        return f"seen: {self._work(self._server)!r}"

    __repr__ = __str__


class Unprintable(BaseException):
    """Has no text."""

    def __str__(self) -> str:
        raise SystemExit("expected")

    __repr__ = __str__


def test_the_text_of_an_error_may_call_the_server() -> None:
    server = HTTPServer()

    def fail(request: object) -> None:
        raise Curious(server, lambda server: len(server.received))

    server.handler = fail
    server.start()
    with connect(server.port) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert read_all(client).endswith(b"\r\n\r\nthe handler raised Curious: seen: 1\n")
    with pytest.raises(Curious):
        server.stop()


def test_an_error_whose_text_ends_the_thread_is_answered() -> None:
    def fail(request: object) -> None:
        raise Unprintable

    server = HTTPServer(handler=fail).start()
    with pytest.raises(urllib.error.HTTPError, match="500"):
        fetch(server.url)
    with pytest.raises(Unprintable):
        server.stop()


@pytest.mark.parametrize("act", [stop, set_handler, unset_handler])
def test_a_handler_may_change_its_own_server(act: Work) -> None:
    server = HTTPServer()
    timed = Timed(lambda: act(server))

    def handler(request: object) -> str:
        timed()
        return "changed"

    server.handler = handler
    server.start()
    with contextlib.suppress(OSError):
        assert fetch(server.url) == b"changed"
    assert eventually(lambda: bool(timed.seconds))
    assert timed.seconds[0] < SLOW
    server.stop()


def test_a_handler_may_restart_its_own_server() -> None:
    server = HTTPServer()
    restarted, done = list[bool](), list[bool]()

    def handler(request: object) -> str:
        if not restarted:
            restarted.append(True)
            server.restart()
            done.append(True)
        return "answered"

    server.handler = handler
    server.start()
    fetch_quietly(server.url)
    assert eventually(lambda: bool(done))
    assert fetch(server.url) == b"answered"
    server.stop()


def test_what_ran_handlers_is_freed_without_the_collector() -> None:
    gc.disable()
    try:
        server = HTTPServer()
        handle_one(server)
        run = run_of(server)
        left = [weakref.ref(part) for part in (run, run.threads, run.reader)]
        del run
        server.stop()
        assert eventually(lambda: [ref() for ref in left] == [None] * 3)
    finally:
        gc.enable()


@pytest.mark.parametrize("place", [(waits, "poll_fd"), (system, "posix_spawn"), (system, "note")])
def test_the_time_out_of_an_alarm_is_not_taken_for_ours(
    place: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an alarm raises while a start waits or launches ends it, and is no StartError."""

    def alarm(*arguments: object, **named: object) -> None:
        raise TimeoutError("the alarm of the test")

    pool.close()  # and the fork server with it: it may be there already
    server = HTTPServer(fresh=True)
    with monkeypatch.context() as patched:
        patched.setattr(*place, alarm)
        with pytest.raises(TimeoutError, match=r"^the alarm of the test$") as caught:
            server.start()
    assert caught.type is TimeoutError
    assert run_of_a_new_start_answers(server)
    assert another_thread_may_start_one()
