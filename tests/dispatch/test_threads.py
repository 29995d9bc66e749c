"""Events become jobs with each kind of gate, and no wait is endless."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from kit.resources import own_threads
from kit.scripts import eventually
from kit.stages import WAIT, Stage, soon
from sidestage import HTTPServer, TCPServer
from sidestage.dispatch import threads
from sidestage.dispatch.gate import EpollGate, Gate, LockGate
from sidestage.pristine import system
from sidestage.pristine.waits import Deadline
from sidestage.process.pool import pool
from sidestage.wire.frames import LARGE_PIPE_SIZE, encode
from sidestage.wire.messages import Synced

GATES = [EpollGate, LockGate]


@pytest.fixture(params=GATES, ids=lambda gate: gate.__name__)
def gate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Any]]:
    """The kind of all gates: those that the pool keeps are of the usual kind."""
    monkeypatch.setattr(threads, "make_gate", request.param)
    kind: type[Any] = request.param
    close_gates()
    yield kind
    close_gates()


def close_gates() -> None:
    for process in pool.processes():
        gate, process.gate = process.gate, None
        if gate is not None:
            gate.close()


@pytest.fixture
def stage(gate: type[Any]) -> Iterator[Stage]:
    stage = Stage().threaded()
    yield stage
    stage.close()


def test_wait_for_threads_returns_once_they_run(monkeypatch: pytest.MonkeyPatch) -> None:
    start, may_run = system.start_thread, threading.Event()

    def start_late(work: Any, arguments: Any) -> None:
        start(lambda: (may_run.wait(), work(*arguments)), ())

    stage = Stage()
    with monkeypatch.context() as patched:
        patched.setattr(system, "start_thread", start_late)
        stage.threaded()
    waiter = threading.Thread(target=stage.threads.wait_for_threads)
    waiter.start()
    waiter.join(0.05)
    assert waiter.is_alive()
    may_run.set()
    waiter.join(WAIT)
    assert not waiter.is_alive()
    stage.close()


class Blocking:
    """A stage whose jobs with a token below 10 block until ``release`` is set."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.release = threading.Event()
        self.stage = Stage(self._before).threaded()

    def _before(self, token: int) -> None:
        if token < 10:
            self.entered.release()
            self.release.wait()

    def have_blocked(self, count: int) -> bool:
        return all(self.entered.acquire(timeout=WAIT) for _ in range(count))

    def have_idle(self, count: int) -> None:
        """Let a job block and return; ``count`` threads are idle then."""
        self.stage.say(1)
        assert self.have_blocked(1)
        self.release.set()
        assert eventually(lambda: self.stage.threads._idle == count, WAIT)
        self.release.clear()


@pytest.fixture
def blocking(gate: type[Any]) -> Iterator[Blocking]:
    blocking = Blocking()
    yield blocking
    blocking.release.set()
    blocking.stage.close()


class TestJobs:
    def test_one_event_is_one_job(self, stage: Stage) -> None:
        stage.say(1)
        assert stage.is_done(1)

    def test_many_events_at_once(self, stage: Stage) -> None:
        stage.say(*range(500))
        assert stage.is_done(*range(500))

    def test_many_events_one_by_one(self, stage: Stage) -> None:
        for token in range(200):
            stage.say(token)
        assert stage.is_done(*range(200))

    def test_events_are_seen_in_order(self, stage: Stage) -> None:
        for token in range(0, 100, 4):
            stage.say(token, token + 1, token + 2, token + 3)
        assert stage.is_done(*range(100))
        assert stage.sink.seen == list(range(100))

    def test_a_blocked_job_does_not_hold_up_the_next(self, blocking: Blocking) -> None:
        blocking.stage.say(1)
        assert blocking.have_blocked(1)
        blocking.stage.say(10, 11)
        assert blocking.stage.is_done(10, 11)

    def test_nor_one_that_came_with_it(self, blocking: Blocking) -> None:
        blocking.stage.say(1, 2, 10, 3, 11)
        assert blocking.have_blocked(3)
        assert blocking.stage.is_done(10, 11)

    def test_nor_one_that_came_with_it_while_other_threads_are_idle(
        self, blocking: Blocking
    ) -> None:
        blocking.have_idle(2)
        blocking.stage.say(2, 3, 10)
        assert blocking.have_blocked(2)
        assert blocking.stage.is_done(1, 10)

    def test_a_blocked_job_does_not_hold_up_what_has_not_been_read(
        self, blocking: Blocking
    ) -> None:
        """The pipe has more than one read returns."""
        blocking.have_idle(2)
        fcntl.fcntl(blocking.stage.writer, fcntl.F_SETPIPE_SZ, LARGE_PIPE_SIZE)
        many = [Synced(token=token) for token in range(1000, 20000)]
        blocking.stage.say_raw(bytes(encode(Synced(token=1)) + encode(*many)))
        assert blocking.have_blocked(1)
        assert eventually(lambda: 1000 in blocking.stage.sink.done, WAIT)

    def test_nor_what_comes_before_it_begins(self, blocking: Blocking) -> None:
        """The kernel reports it once: the thread that it wakes leaves it to the reader."""
        blocking.have_idle(2)

        def between() -> None:
            blocking.stage.say(10)
            assert eventually(lambda: blocking.stage.threads._watching > 0, WAIT)

        blocking.stage.sink.after_seeing(1, between)
        blocking.stage.say(1)
        assert blocking.have_blocked(1)
        assert eventually(lambda: 10 in blocking.stage.sink.done, WAIT)

    def test_run_soon(self, stage: Stage) -> None:
        ran = threading.Event()
        stage.threads.run_soon(ran.set)
        assert ran.wait(WAIT)

    def test_run_soon_while_all_jobs_block(self, blocking: Blocking) -> None:
        blocking.stage.say(1, 2, 3)
        assert blocking.have_blocked(3)
        ran = threading.Event()
        blocking.stage.threads.run_soon(ran.set)
        assert ran.wait(WAIT)

    def test_run_soon_at_the_end(self, stage: Stage) -> None:
        ran = threading.Semaphore(0)

        def finish() -> None:
            stage.threads.run_soon(ran.release)
            stage.threads.finish()
            stage.threads.run_soon(ran.release)

        stage.sink.after_seeing(1, finish)
        stage.say(1)
        assert all(ran.acquire(timeout=WAIT) for _ in range(2))

    def test_threads_that_are_not_needed_go(self, blocking: Blocking) -> None:
        before = own_threads()
        blocking.stage.say(*range(9))
        assert blocking.have_blocked(9)
        blocking.release.set()
        most = len(before) + threads.MAX_IDLE + 1
        assert eventually(lambda: len(own_threads()) <= most, WAIT)


class TestDefects:
    def test_a_watcher_takes_over_from_a_reader_that_an_error_ends(self, stage: Stage) -> None:
        def end() -> None:
            stage.say(10)
            assert eventually(lambda: stage.threads._watching > 0, WAIT)
            raise SystemExit  # not an Exception, so it ends the thread silently

        stage.say(2)
        assert eventually(lambda: stage.threads._idle == 2, WAIT)
        stage.sink.after_seeing(1, end)
        stage.say(1)
        assert stage.is_done(2, 10)

    def test_a_sink_that_raises_does_not_kill_the_reader(self, stage: Stage) -> None:
        stage.say(1, -2, 3)
        assert stage.is_done(1, 3)
        stage.say(4)
        assert stage.is_done(1, 3, 4)
        assert [error.args for error in stage.sink.defects] == [(-2,)]

    def test_garbage_ends_it(self, stage: Stage) -> None:
        stage.say_raw(b"\xff" * 8)
        assert eventually(lambda: stage.sink.ends == 1, WAIT)
        assert not stage.reader.connected
        assert "4294967295 bytes" in stage.sink.why


class TestTheEnd:
    def test_of_the_pipe_ends_every_idle_thread(self, gate: type[Any]) -> None:
        before = own_threads()
        stage = Stage().threaded()
        stage.say(*range(50))
        assert stage.is_done(*range(50))
        stage.hang_up()
        assert eventually(lambda: own_threads() <= before, WAIT)
        assert stage.sink.ends == 1
        stage.close()

    def test_comes_after_what_was_said(self, stage: Stage) -> None:
        stage.say(1, 2)
        stage.hang_up()
        assert stage.reader.wait_until(lambda: stage.sink.ends == 1, soon())
        assert stage.sink.seen == [1, 2]

    def test_close_ends_the_idle_threads(self, gate: type[Any]) -> None:
        before = own_threads()
        stage = Stage().threaded()
        stage.say(*range(50))
        assert stage.is_done(*range(50))
        stage.close()
        assert eventually(lambda: own_threads() <= before, WAIT)

    def test_close_never_waits_for_a_job(self, blocking: Blocking) -> None:
        blocking.stage.say(1)
        assert blocking.have_blocked(1)
        blocking.stage.threads.close()
        assert blocking.stage.sink.done == []

    def test_close_in_a_job(self, gate: type[Any]) -> None:
        closed = threading.Event()

        def close(token: int) -> None:
            stage.threads.close()
            closed.set()

        stage = Stage(close).threaded()
        stage.say(1)
        assert closed.wait(WAIT)
        assert stage.is_done(1)
        stage.close()

    def test_close_is_final_and_can_be_repeated(self, stage: Stage) -> None:
        stage.threads.close()
        stage.threads.close()
        stage.say(1)
        assert not stage.reader.wait_until(lambda: bool(stage.sink.seen), Deadline(0))

    def test_closing_again_and_again_while_events_come_leaves_no_thread(
        self, gate: type[Any]
    ) -> None:
        before = own_threads()
        for _ in range(30):
            stage = Stage().threaded()
            stage.say(*range(20))
            stage.close()
        assert eventually(lambda: own_threads() <= before, WAIT)


class TestParking:
    def test_leaves_no_thread(self, gate: type[Any]) -> None:
        before = own_threads()
        stage = Stage().threaded()
        stage.say(*range(20))
        assert stage.is_done(*range(20))
        stage.threads.park()
        assert eventually(lambda: own_threads() <= before, WAIT)
        stage.close()

    def test_notes_which_threads_end(self, stage: Stage) -> None:
        stage.say(1)
        assert stage.is_done(1)
        threads = own_threads()
        system.ended_threads.clear()
        stage.threads.park()
        ended = {str(tid) for tid in system.ended_threads}
        assert ended
        assert ended <= threads
        assert eventually(lambda: not ended & own_threads(), WAIT)
        stage.threads.resume()

    def test_loses_nothing(self, stage: Stage) -> None:
        expected: list[int] = []
        for round_ in range(20):
            tokens = range(round_ * 10, round_ * 10 + 10)
            stage.say(*tokens[:5])
            stage.threads.park()
            stage.say(*tokens[5:])
            stage.threads.resume()
            expected += tokens
        assert stage.is_done(*expected)

    def test_leaves_a_job_alone(self, blocking: Blocking) -> None:
        blocking.stage.say(1)
        assert blocking.have_blocked(1)
        blocking.stage.threads.park()
        blocking.release.set()
        assert blocking.stage.is_done(1)
        blocking.stage.threads.resume()
        blocking.stage.say(10)
        assert blocking.stage.is_done(1, 10)

    def test_resume_after_the_end_starts_nothing(self, stage: Stage) -> None:
        stage.threads.park()
        stage.threads.close()
        before = own_threads()
        stage.threads.resume()
        assert own_threads() <= before


class TestServers:
    """Whole servers, with each kind of gate."""

    def fetch(self, url: str) -> bytes:
        with urllib.request.urlopen(url, timeout=WAIT) as response:
            body: bytes = response.read()
        return body

    def test_a_request(self, gate: type[Any]) -> None:
        with HTTPServer(handler=lambda request: request.path) as server:
            assert [self.fetch(server.url + "/a") for _ in range(5)] == [b"/a"] * 5

    def test_a_handler_is_set_while_another_thread_waits(self, gate: type[Any]) -> None:
        for _ in range(5):
            with HTTPServer() as server:
                waits = threading.Thread(target=server.wait_for, args=(1, WAIT))
                waits.start()
                server.handler = lambda request: "handled"
                assert self.fetch(server.url) == b"handled"
                waits.join(WAIT)
                assert not waits.is_alive()

    def test_no_gate_can_be_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(fd: int) -> Gate:
            raise OSError(errno.EMFILE, "no descriptor is left")

        server = HTTPServer(fresh=True).start()
        with monkeypatch.context() as patch:
            patch.setattr(threads, "make_gate", refuse)
            with pytest.raises(OSError, match="no descriptor"):
                server.handler = lambda request: "fine"
        assert server.handler is None
        assert self.fetch(server.url) == b""
        assert len(server.received) == 1
        server.handler = lambda request: "fine"
        assert self.fetch(server.url) == b"fine"
        assert server.stop().rung == "ask"

    def test_a_nested_call(self, gate: type[Any]) -> None:
        def handler(request: Any) -> bytes:
            depth = int(request.query["n"])
            return b"end" if depth == 0 else self.fetch(f"{server.url}/?n={depth - 1}")

        with HTTPServer(handler=handler) as server:
            assert self.fetch(f"{server.url}/?n=5") == b"end"

    @pytest.mark.filterwarnings("ignore::sidestage.LeftRunningWarning")
    def test_a_stop_with_a_handler_that_blocks(self, gate: type[Any]) -> None:
        entered, release = threading.Event(), threading.Event()

        def handler(request: Any) -> None:
            entered.set()
            release.wait()

        server = TCPServer(handler=handler).start()
        client = threading.Thread(target=self.connect_to, args=(server,))
        client.start()
        assert entered.wait(WAIT)
        assert server.stop(1.0).rung == "ask"
        release.set()
        client.join(WAIT)

    def connect_to(self, server: TCPServer) -> None:
        with socket.create_connection(server.server_address) as client:
            client.recv(1)

    def test_a_death(self, gate: type[Any]) -> None:
        server = HTTPServer(handler=lambda request: None).start()
        self.fetch(server.url)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(Exception, match="SIGKILL"):
            server.stop()

    def test_a_fork(self, gate: type[Any]) -> None:
        with HTTPServer(handler=lambda request: "here") as server:
            for _ in range(3):
                pid = os.fork()
                if pid == 0:
                    os._exit(0)
                assert os.waitpid(pid, 0) == (pid, 0)
                assert self.fetch(server.url) == b"here"


def test_no_more_handlers_begin_than_may_run_and_the_pipe_is_read_all_the_same(
    gate: type[Any],
) -> None:
    entered, release = threading.Semaphore(0), threading.Semaphore(0)

    def block(token: int) -> None:
        entered.release()
        release.acquire(timeout=WAIT)

    stage = Stage(block, most=3).threaded()
    try:
        stage.say(*range(1, 8))
        assert all(entered.acquire(timeout=WAIT) for _ in range(3))
        assert eventually(lambda: stage.full == [3], WAIT)
        stage.say(8)
        assert eventually(lambda: stage.sink.seen == list(range(1, 9)), WAIT)
        assert not entered.acquire(timeout=0.1)
        for _ in range(5):
            release.release()  # one returns, one begins
            assert entered.acquire(timeout=WAIT)
            assert not entered.acquire(timeout=0.05)
        assert stage.full == [3]
        for _ in range(3):
            release.release()
        assert stage.is_done(*range(1, 9))
    finally:
        for _ in range(10):
            release.release()
        stage.close()


def test_handlers_that_are_awaited_count_too(gate: type[Any]) -> None:
    stage = Stage(most=2).threaded()
    try:
        stage.threads.began_awaiting()
        stage.threads.began_awaiting()
        stage.say(1)
        assert eventually(lambda: stage.full == [2], WAIT)
        assert stage.sink.done == []
        stage.threads.run_soon(stage.threads.ended_awaiting)
        assert stage.is_done(1)
    finally:
        stage.close()
