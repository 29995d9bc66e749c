"""One process: its exit, its signals, its tree, what it writes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import psutil
import pytest
from pyfakefs.fake_filesystem_unittest import Patcher

from kit.fake_children import StartFakeChild, fake_child, kill_and_reap, read_line
from kit.resources import own_descriptors
from kit.scripts import all_gone
from sidestage.pristine import system
from sidestage.pristine.waits import Deadline
from sidestage.process import handle, launch
from sidestage.process.handle import TAIL, ServerProcess

__all__ = ["fake_child"]  # the fixture

NOW = Deadline(0)
FAMILY = """
    def family(new_session):
        pid = os.fork()
        if pid == 0:
            if new_session:
                os.setsid()
            report(str(os.getpid()))
            threading.Event().wait()
"""


def soon() -> Deadline:
    """A deadline that is never reached unless something hangs."""
    return Deadline(30)


@pytest.fixture(params=["pidfd", "no pidfd"])
def any_platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "no pidfd":
        monkeypatch.setattr(system, "pidfd_open", None)


@pytest.mark.usefixtures("any_platform")
class TestExit:
    @pytest.mark.parametrize("status", [0, 1, 77])
    def test_its_status(self, fake_child: StartFakeChild, status: int) -> None:
        process = fake_child(f"sys.exit({status})")
        assert process.wait(soon())
        assert process.exit_code == status

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT])
    def test_its_signal(self, fake_child: StartFakeChild, number: signal.Signals) -> None:
        process = fake_child("report('up'); wait_for_stop()")
        read_line(process)
        process.signal(number)
        assert process.wait(soon())
        assert process.exit_code == -number

    def test_a_wait_ends_at_the_deadline(self, fake_child: StartFakeChild) -> None:
        process = fake_child("wait_for_stop()")
        assert not process.wait(NOW)
        assert not process.wait(Deadline(0.03))
        assert process.exit_code is None

    def test_it_ends_when_its_pipe_is_closed(self, fake_child: StartFakeChild) -> None:
        process = fake_child("wait_for_stop()")
        process.close_commands()
        assert process.wait(soon())
        assert process.exit_code == 0

    def test_reaped_by_another(self, fake_child: StartFakeChild) -> None:
        process = fake_child("pass")
        os.waitpid(process.launched.pid, 0)
        assert process.wait(soon())
        assert process.exit_code is None

    def test_reaped_by_the_kernel(self, fake_child: StartFakeChild) -> None:
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            process = fake_child("wait_for_stop()")
            assert not process.wait(NOW)
            process.kill()
            assert process.wait(soon())
        finally:
            signal.signal(signal.SIGCHLD, before)

    def test_several_that_wait_all_see_it(self, fake_child: StartFakeChild) -> None:
        process = fake_child("wait_for_stop()")
        seen: list[bool] = []
        threads = [
            threading.Thread(target=lambda: seen.append(process.wait(soon()))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        process.kill()
        for thread in threads:
            thread.join(10)
        assert seen == [True] * 4

    def test_signals_after_the_end_are_not_sent(self, fake_child: StartFakeChild) -> None:
        process = fake_child("pass")
        assert process.wait(soon())
        process.terminate()
        process.kill()
        process.signal(signal.SIGUSR1)


class TestKill:
    def test_one_that_ignores_being_asked(self, fake_child: StartFakeChild) -> None:
        process = fake_child(
            "signal.signal(15, signal.SIG_IGN); report('up'); threading.Event().wait()"
        )
        read_line(process)
        process.terminate()
        assert not process.wait(Deadline(0.05))
        process.kill()
        assert process.wait(soon())

    def test_one_that_is_stopped(self, fake_child: StartFakeChild) -> None:
        process = fake_child("report('up'); wait_for_stop()")
        read_line(process)
        process.signal(signal.SIGSTOP)
        process.kill()
        assert process.wait(soon())

    def test_its_group_too(self, fake_child: StartFakeChild) -> None:
        process = fake_child(FAMILY + "\n    family(False); wait_for_stop()")
        child = int(read_line(process))
        process.kill()
        assert all_gone([process.launched.pid, child])


class TestSweep:
    def test_descendants_in_another_session(self, fake_child: StartFakeChild) -> None:
        process = fake_child(FAMILY + "\n    family(True); wait_for_stop()")
        child = int(read_line(process))
        process.snapshot(soon())
        process.kill()
        assert process.wait(soon())
        assert process.sweep() == [child]
        assert all_gone([child])

    def test_also_when_the_root_dies_first(self, fake_child: StartFakeChild) -> None:
        """That is why the tree is noted before the first signal."""
        process = fake_child(FAMILY + "\n    family(True); wait_for_stop()")
        child = int(read_line(process))
        process.snapshot(soon())
        os.kill(process.launched.pid, signal.SIGKILL)
        assert process.wait(soon())
        assert process.sweep() == [child]
        assert all_gone([child])

    def test_a_root_that_has_died_before(self, fake_child: StartFakeChild) -> None:
        process = fake_child("pass")
        assert process.wait(soon())
        process.snapshot(soon())
        assert process.sweep() == []

    @pytest.mark.parametrize(
        "veil",
        [
            lambda: mock.patch("builtins.open", side_effect=AssertionError("patched")),
            lambda: mock.patch("builtins.open"),  # whose files make psutil see nonsense
            Patcher,
        ],
        ids=["raising open", "mocked open", "pyfakefs"],
    )
    def test_where_the_test_has_hidden_the_processes(
        self, fake_child: StartFakeChild, veil: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        process = fake_child(FAMILY + "\n    family(True); wait_for_stop()")
        child = int(read_line(process))
        with veil():
            process.snapshot(soon())
            process.kill()
            assert process.wait(soon())
            swept = process.sweep()
        assert swept == [child]
        assert all_gone([child])

    def test_nothing_to_sweep(self, fake_child: StartFakeChild) -> None:
        process = fake_child("wait_for_stop()")
        process.snapshot(soon())
        process.kill()
        assert process.wait(soon())
        assert process.sweep() == []

    def test_never_a_process_that_has_got_the_number_since(
        self, fake_child: StartFakeChild
    ) -> None:
        process, other = fake_child("wait_for_stop()"), fake_child("wait_for_stop()")
        process.snapshot(soon())
        stranger = psutil.Process(other.launched.pid)
        stranger._create_time = stranger.create_time() - 100  # an older one had the number
        stranger._ident = (stranger.pid, stranger._create_time)
        process._tree._noted = [stranger]
        assert process.sweep() == []
        assert not other.wait(Deadline(0.02))


class TestStderr:
    def test_nothing(self, fake_child: StartFakeChild) -> None:
        process = fake_child("report('up'); wait_for_stop()")
        read_line(process)
        assert process.stderr_tail() == ""
        assert process.stderr_size() == 0

    def test_both_streams(self, fake_child: StartFakeChild) -> None:
        process = fake_child("print('out', flush=True); print('err', file=sys.stderr)")
        assert process.wait(soon())
        assert process.stderr_tail() == "out\nerr"

    def test_since_some_point(self, fake_child: StartFakeChild) -> None:
        process = fake_child("print('first')")
        assert process.wait(soon())
        assert process.stderr_tail(3) == "st"
        assert process.stderr_tail(process.stderr_size()) == ""

    def test_much_of_it_does_not_block_and_the_end_is_kept(
        self, fake_child: StartFakeChild
    ) -> None:
        process = fake_child("sys.stderr.write('x' * 1_000_000 + 'the end')")
        assert process.wait(soon())
        assert process.stderr_size() == 1_000_007
        tail = process.stderr_tail()
        assert len(tail) == TAIL
        assert tail.endswith("xthe end")

    def test_what_is_no_text(self, fake_child: StartFakeChild) -> None:
        process = fake_child("os.write(2, b'\\xff bytes')")
        assert process.wait(soon())
        assert process.stderr_tail() == "� bytes"

    def test_after_the_close(self, fake_child: StartFakeChild) -> None:
        process = fake_child("print('words')")
        assert process.wait(soon())
        process.close()
        assert process.stderr_tail() == ""


class TestDescriptors:
    def test_close_lets_go_of_all_and_can_be_repeated(self) -> None:
        before = own_descriptors()
        process = ServerProcess(launch.launch())
        assert {str(fd) for fd in process.descriptors()} <= own_descriptors()
        kill_and_reap(process)
        process.close()
        assert process.descriptors() == frozenset()
        assert own_descriptors() == before

    def test_close_commands_closes_nothing_twice(self, fake_child: StartFakeChild) -> None:
        process = fake_child("wait_for_stop()")
        process.close_commands()
        reused = os.open(os.devnull, os.O_RDONLY)
        process.close_commands()
        process.close()
        assert os.fstat(reused)
        os.close(reused)


class TestEndAll:
    def test_all_end_under_one_deadline(self, fake_child: StartFakeChild) -> None:
        stubborn = [fake_child("report('up'); threading.Event().wait()") for _ in range(3)]
        polite = fake_child("wait_for_stop()")
        for process in stubborn:
            read_line(process)
        ServerProcess.end_all([*stubborn, polite], 0.5)
        assert [process.exit_code for process in stubborn] == [-signal.SIGKILL] * 3
        assert polite.exit_code == 0

    def test_without_any_time_none_is_left_a_zombie(self, fake_child: StartFakeChild) -> None:
        """As at the end of a stop that has used up its time."""
        processes = [fake_child("report('up'); wait_for_stop()") for _ in range(3)]
        for process in processes:
            read_line(process)
        ServerProcess.end_all(processes, 0.0)
        assert not {process.launched.pid for process in processes} & _children()

    def test_one_that_may_not_be_killed_is_reaped_once_it_has_ended(
        self, fake_child: StartFakeChild, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        process = fake_child("report('up'); threading.Event().wait()")
        read_line(process)
        with monkeypatch.context() as patch:
            patch.setattr(ServerProcess, "kill", lambda self: False)
            patch.setattr(handle, "_KILLED_SECONDS", 0.0)
            ServerProcess.end_all([process], 0.0)
        pid = process.launched.pid
        assert pid in _children()
        os.kill(pid, signal.SIGKILL)
        assert all_gone([pid])
        before = own_descriptors()
        other = fake_child("wait_for_stop()")
        assert pid not in _children()
        assert len(own_descriptors() - before) == len(other.descriptors()) - 1  # its pidfd is gone


def _children() -> set[int]:
    """The children of this process, zombies too."""
    return {process.pid for process in psutil.Process().children()}


def test_what_it_uses(fake_child: StartFakeChild) -> None:
    process = fake_child("report('up'); wait_for_stop()")
    read_line(process)
    usage = process.usage()
    assert set(usage) == {"rss", "cpu_seconds", "fds", "threads", "connections"}
    assert usage["threads"] == 1
    process.kill()
    assert process.wait(soon())
    with pytest.raises(psutil.Error):
        process.usage()
