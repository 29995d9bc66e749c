"""Processes that a signal has stopped: every call ends within the time that it was given.

A stopped process reads nothing and answers nothing. The kernel tells once that one was stopped.
``just_now`` is for a process that is stopped right after that was asked.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.scripts import all_gone, eventually
from sidestage import (
    ForcedStopWarning,
    HTTPServer,
    ServerManager,
    StartTimeout,
    StateError,
    TCPServer,
    WaitTimeout,
)
from sidestage.pristine.waits import Deadline
from sidestage.process import fork_hooks
from sidestage.process.handle import ServerProcess
from sidestage.process.pool import Child, Configure, Pool

SOON = 0.5  # seconds that a call is given
BUSY = 1.4  # seconds that a busy machine may add; the waits that are too long take two and more


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """A pool of its own for the test, which ends the processes that the test has stopped."""
    pool = Pool()
    monkeypatch.setattr("sidestage.backends.hosted.pool", pool)
    monkeypatch.setattr("sidestage.backends.ladder.pool", pool)
    yield pool
    pool.close()


@pytest.fixture
def just_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the kernel say nothing of stopped processes."""
    monkeypatch.setattr(ServerProcess, "can_answer", lambda self: not self.has_ended())


@contextlib.contextmanager
def in_time(seconds: float = SOON) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds + BUSY


def halt(*pids: int | None) -> None:
    """Stop processes, and wait until all their threads are stopped, as only then anybody knows."""
    for pid in pids:
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        assert eventually(functools.partial(is_stopped, pid))


def is_stopped(pid: int) -> bool:
    stats = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def idle(pool: Pool) -> int:
    """The pid of an idle child, which has bound ahead."""
    with TCPServer():
        pass
    (child,) = pool
    assert child.events or child.channel.poll(Deadline(30))  # it says that it has
    return child.process.launched.pid


def forking(pool: Pool) -> int:
    """The pid of a fork server."""
    with TCPServer(), TCPServer():
        pass
    pids = {child.process.launched.pid for child in pool}
    (pid,) = {process.launched.pid for process in pool.processes()} - pids
    return pid


class TestAStart:
    def test_with_an_idle_child_that_is_stopped(self, pool: Pool) -> None:
        pid = idle(pool)
        halt(pid)
        with in_time(), pytest.raises(StartTimeout):
            TCPServer(start_timeout=SOON, backlog=16).start()
        assert all_gone([pid])

    def test_with_one_that_has_bound_ahead_and_need_not_answer(self, pool: Pool) -> None:
        """It is the next call that finds out."""
        pid = idle(pool)
        halt(pid)
        server = TCPServer(start_timeout=SOON)
        with in_time():
            server.start()
        assert server.pid == pid
        with in_time(), pytest.warns(ForcedStopWarning):
            server.stop(SOON)
        assert all_gone([pid])

    def test_with_one_whose_pipe_is_full(self, pool: Pool) -> None:
        pid = idle(pool)
        halt(pid)
        (child,) = pool
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(child.channel.commands_fd, b"x" * 4096)
        with in_time(), pytest.raises(StartTimeout):
            TCPServer(start_timeout=SOON, backlog=16).start()
        assert all_gone([pid])

    def test_with_a_fork_server_that_is_stopped(self, pool: Pool) -> None:
        pid = forking(pool)
        halt(pid)
        with in_time(5.0), TCPServer(fresh=True):
            assert all_gone([pid])

    def test_with_a_fork_server_that_was_stopped_just_now(self, pool: Pool, just_now: None) -> None:
        """It may start in an interpreter, if the rest of the time is enough for that."""
        pid = forking(pool)
        halt(pid)
        server = TCPServer(fresh=True, start_timeout=SOON)
        with in_time(), contextlib.suppress(StartTimeout):
            server.start()
        assert all_gone([pid])
        server.stop()

    def test_with_all_of_them(self, pool: Pool, just_now: None) -> None:
        halt(forking(pool), *(process.launched.pid for process in pool.processes()))
        pids = [process.launched.pid for process in pool.processes()]
        manager = ServerManager(
            {str(n): TCPServer(start_timeout=SOON, backlog=9) for n in range(4)}
        )
        with in_time(), pytest.raises(StartTimeout):
            manager.start()
        pool.close()
        assert all_gone(pids)

    def test_a_short_time_does_not_give_up_fork_servers(self, pool: Pool, just_now: None) -> None:
        pid = forking(pool)
        halt(pid)
        with contextlib.suppress(StartTimeout), TCPServer(fresh=True, start_timeout=0.1):
            pass
        with TCPServer(fresh=True):
            assert all(process.launched.pid != pid for process in pool.processes())
            assert pool._fork_client is not None
            assert not pool._fork_client._impossible

    def test_while_another_thread_launches_a_process(self, pool: Pool) -> None:
        holds, go = threading.Event(), threading.Event()

        def hold() -> None:
            with fork_hooks.launch_lock:
                holds.set()
                go.wait(30)

        thread = threading.Thread(target=hold)
        thread.start()
        assert holds.wait(10)
        with in_time(), pytest.raises(StartTimeout):
            TCPServer(start_timeout=SOON).start()
        go.set()
        thread.join()

    def test_of_one_that_runs_and_is_stopped(self, pool: Pool) -> None:
        server = TCPServer().start()
        server.start_timeout = SOON
        halt(server.pid)
        with in_time(), pytest.raises(StateError, match="started already"):
            server.start()
        with pytest.warns(ForcedStopWarning):
            server.stop(0.1)


class TestAStop:
    def test_of_several(self, pool: Pool) -> None:
        manager = ServerManager(a=TCPServer(), b=HTTPServer(handler=lambda request: None)).start()
        halt(*(server.pid for server in manager.values()))
        with in_time(), pytest.warns(ForcedStopWarning):
            reports = manager.stop(SOON)
        assert {report.rung for report in reports.values()} == {"kill"}

    def test_where_an_idle_child_has_to_make_room(
        self, monkeypatch: pytest.MonkeyPatch, just_now: None
    ) -> None:
        pool = Pool(cap=1)
        monkeypatch.setattr("sidestage.backends.hosted.pool", pool)
        monkeypatch.setattr("sidestage.backends.ladder.pool", pool)
        other, server = TCPServer().start(), TCPServer().start()
        other.stop()
        (child,) = pool
        child.process.launched.surroundings = ("others", "")
        halt(child.process.launched.pid)
        with in_time():
            assert server.stop(SOON).rung == "ask"
        assert all_gone([child.process.launched.pid])
        pool.close()

    def test_and_a_restart(self, pool: Pool) -> None:
        server = TCPServer().start()
        server.start_timeout = server.stop_timeout = SOON
        halt(server.pid, forking(pool))
        with in_time(2 * SOON), pytest.warns(ForcedStopWarning):
            with contextlib.suppress(StartTimeout):
                server.restart()
        server.stop()


def test_a_wait(pool: Pool) -> None:
    server = TCPServer().start()
    halt(server.pid)
    with in_time(), pytest.raises(WaitTimeout):
        server.wait_for(1, timeout=SOON)
    with pytest.warns(ForcedStopWarning):
        server.stop(0.1)


def test_the_end_of_the_pool(pool: Pool) -> None:
    pid = forking(pool)
    pids = [process.launched.pid for process in pool.processes()]
    halt(*pids)
    with in_time(0.0):
        pool.close()
    assert pid in pids
    assert all_gone(pids)


def test_a_child_that_is_killed_as_it_is_taken(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has bound ahead, so it does not answer: the last look finds it dead, and takes another."""
    pid = idle(pool)
    reuse = Pool._reuse

    def kill_meanwhile(self: Pool, child: Child, configure: Configure) -> bool:
        fits = reuse(self, child, configure)
        os.kill(pid, signal.SIGKILL)
        assert all_gone([pid])
        return fits

    monkeypatch.setattr(Pool, "_reuse", kill_meanwhile)
    with TCPServer() as server:
        assert server.pid != pid
