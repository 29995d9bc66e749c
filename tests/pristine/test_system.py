"""The primitives wait in the kernel, lose no wake-up, and do not notice what tests patch."""

from __future__ import annotations

import contextlib
import inspect
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest

from kit.resources import own_threads
from kit.scripts import eventually, run_script
from sidestage import HTTPServer
from sidestage.pristine import system
from sidestage.pristine.system import POLLIN, POLLOUT, close_quietly
from sidestage.pristine.waits import Deadline, Wakeup, poll_fd

NEVER = Deadline(None)


def soon() -> Deadline:
    """A deadline that is never reached unless something hangs."""
    return Deadline(10)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        close_quietly(end)


def in_threads(count: int, work: Callable[[], Any]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> bool:
    for thread in threads:
        thread.join(10)
    return not any(thread.is_alive() for thread in threads)


class TestDeadline:
    def test_never_comes(self) -> None:
        assert NEVER.left() == -1.0  # as the kernel's waits have it
        assert not NEVER.passed()

    def test_in_the_past(self) -> None:
        assert Deadline(0).passed()
        assert Deadline(0).left() == 0.0
        assert Deadline(-5).left() == 0.0

    def test_ahead(self) -> None:
        assert 29 < Deadline(30).left() <= 30
        assert not Deadline(30).passed()

    def test_the_sooner_of_two(self) -> None:
        assert Deadline(10).sooner(30).left() <= 10
        assert Deadline(30).sooner(10).left() <= 10
        assert 0 < NEVER.sooner(10).left() <= 10

    @pytest.mark.parametrize("seconds", [3e6, 1e300])
    def test_too_far_ahead_for_the_kernel_can_be_waited_for(
        self, seconds: float, pipe: tuple[int, int]
    ) -> None:
        deadline = Deadline(seconds)
        assert poll_fd(pipe[1], POLLOUT, deadline.left())
        assert system.Lock().acquire(True, deadline.left())


class TestPollFd:
    def test_ready(self, pipe: tuple[int, int]) -> None:
        assert poll_fd(pipe[1], POLLOUT, -1.0) == POLLOUT

    def test_nothing_by_the_deadline(self, pipe: tuple[int, int]) -> None:
        assert poll_fd(pipe[0], POLLIN, 0.01) == 0
        assert poll_fd(pipe[0], POLLIN, 0.0) == 0

    def test_a_hang_up_is_seen(self, pipe: tuple[int, int]) -> None:
        os.close(pipe[1])
        assert poll_fd(pipe[0], POLLIN, -1.0) & select.POLLHUP

    def test_a_wait_shorter_than_the_kernels_unit_is_a_wait(self, pipe: tuple[int, int]) -> None:
        """It would be a busy loop if it were rounded down."""
        began = time.monotonic()
        assert poll_fd(pipe[0], POLLIN, 0.0001) == 0
        assert time.monotonic() - began >= 0.0001


class TestCloseQuietly:
    def test_twice(self) -> None:
        fd = os.open(os.devnull, os.O_RDONLY)
        close_quietly(fd)
        close_quietly(fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


class TestSignal:
    def test_a_condition_that_holds_needs_no_signal(self) -> None:
        assert Wakeup().wait_until(lambda: True, Deadline(0))

    def test_times_out(self) -> None:
        assert not Wakeup().wait_until(lambda: False, Deadline(0.01))

    def test_wakes_every_waiter(self) -> None:
        signal, done = Wakeup(), threading.Event()
        waiters = in_threads(5, lambda: signal.wait_until(done.is_set, soon()))
        done.set()
        signal.notify()
        assert join(waiters)

    def test_a_waiter_whose_condition_does_not_hold_yet_goes_on_waiting(self) -> None:
        signal, looks, done = Wakeup(), threading.Semaphore(0), threading.Event()

        def condition() -> bool:
            looks.release()
            return done.is_set()

        waiters = in_threads(1, lambda: signal.wait_until(condition, soon()))
        for _ in range(3):
            assert looks.acquire(timeout=10)
            signal.notify()
        assert waiters[0].is_alive()
        done.set()
        signal.notify()
        assert join(waiters)

    def test_what_comes_true_between_the_look_and_the_wait_is_seen(self) -> None:
        answers, deadline = iter([False, True, True]), soon()
        assert Wakeup().wait_until(lambda: next(answers), deadline)
        assert not deadline.passed()

    def test_no_wake_up_is_lost_among_many_threads(self) -> None:
        signal, guard, turns = Wakeup(), threading.Lock(), [0]
        count, rounds = 8, 200

        def take_turns() -> None:
            for _ in range(rounds):
                with guard:
                    mine = turns[0] = turns[0] + 1
                signal.notify()
                wait_for(mine + 1)

        def wait_for(turn: int) -> None:
            alone = lambda: len(finished) == count - 1  # noqa: E731
            assert signal.wait_until(lambda: turns[0] >= turn or alone(), soon())

        finished: list[int] = []

        def work() -> None:
            take_turns()
            finished.append(1)
            signal.notify()

        assert join(in_threads(count, work))
        assert turns == [count * rounds]

    def test_one_of_many_waiters_can_be_woken(self) -> None:
        signal, looks, done = Wakeup(), threading.Semaphore(0), threading.Event()

        def condition() -> bool:
            looks.release()
            return done.is_set()

        waiters = in_threads(3, lambda: signal.wait_until(condition, soon()))
        for _ in range(2 * len(waiters)):  # before a wait, and once that is listed
            assert looks.acquire(timeout=10)
        signal.notify_one()
        for _ in range(2):  # it waits again
            assert looks.acquire(timeout=10)
        assert not looks.acquire(timeout=0.05)
        done.set()
        signal.notify()
        assert join(waiters)

    def test_to_wake_one_wakes_nobody_where_nobody_waits(self) -> None:
        Wakeup().notify_one()

    def test_a_waiter_that_gave_up_is_forgotten(self) -> None:
        signal = Wakeup()
        signal.wait_until(lambda: False, Deadline(0.001))
        assert not signal._waiters


def broken(*arguments: Any, **options: Any) -> Any:
    raise AssertionError("patched by the test")


PATCHED = [
    "time.monotonic",
    "time.sleep",
    "os.read",
    "os.write",
    "os.close",
    "os.pipe",
    "os.kill",
    "os.waitpid",
    "select.poll",
    "select.epoll",
    "threading.Thread",
    "threading.Lock",
    "threading.Condition",
]


@pytest.mark.parametrize("name", PATCHED)
def test_a_server_does_not_notice_what_is_patched(name: str) -> None:
    server = HTTPServer(handler=lambda request: None)
    with mock.patch(name, broken):
        server.start()
        assert server.stop(5).rung == "ask"


def test_waits_do_not_notice_what_is_patched(pipe: tuple[int, int]) -> None:
    with contextlib.ExitStack() as patches:
        for name in PATCHED:
            patches.enter_context(mock.patch(name, broken))
        assert not Wakeup().wait_until(lambda: False, Deadline(0.01))
        assert poll_fd(pipe[0], POLLIN, 0.01) == 0
        system.write(pipe[1], b"x")
        assert system.read(pipe[0], 1) == b"x"


def test_a_clock_that_stands_still_does_not_stop_a_deadline() -> None:
    with mock.patch("time.monotonic", return_value=0.0):
        deadline = Deadline(0.005)
        assert not Wakeup().wait_until(lambda: False, deadline)
        assert deadline.passed()


def test_a_clock_rewritten_in_every_module_does_not_matter() -> None:
    """What freezegun does: replace each module global that is the real clock."""
    source = """
        import sys, time
        from sidestage import HTTPServer
        from sidestage.pristine import waits
        server = HTTPServer(handler=print)
        with server:
            pass
        for module in list(sys.modules.values()):
            for name, value in list(vars(module).items()):
                if getattr(value, "__name__", "") == "monotonic":
                    setattr(module, name, lambda: 0.0)
        deadline = waits.Deadline(0.01)
        waits.Wakeup().wait_until(lambda: False, deadline)
        with server:
            print(time.monotonic(), deadline.passed(), server.state.value)
    """
    assert run_script(source) == "0.0 True READY\n"


def test_what_was_patched_before_the_import_does_not_matter() -> None:
    source = """
        import posix, select, time
        real = time.monotonic
        def fail(*args): raise AssertionError("patched")
        select.poll = select.epoll = posix.read = posix.write = time.monotonic = fail
        from sidestage.pristine import system, waits
        print(waits.poll_fd(0, 0, 0.0) >= 0, waits.Clock.monotonic() <= real())
        reader, writer = system.pipe()
        system.write(writer, b"x")
        print(system.read(reader, 1))
        print(waits.Wakeup().wait_until(lambda: False, waits.Deadline(0.01)))
    """
    assert run_script(source) == "True True\nb'x'\nFalse\n"


def test_functions_of_the_system_are_no_functions_to_pyfakefs() -> None:
    for name in ("read", "write", "close", "stat", "lseek", "unlink", "getcwd", "pipe"):
        kept = getattr(system, name)
        assert not inspect.isfunction(kept)
        assert not inspect.isbuiltin(kept)


def test_threads_end_after_their_work(pipe: tuple[int, int]) -> None:
    before = own_threads()
    ran = threading.Event()
    system.start_thread(ran.set, ())
    assert ran.wait(10)
    assert eventually(lambda: own_threads() <= before)
