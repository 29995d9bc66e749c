"""The pool keeps children, hands them out again and ends them: not too many, and no dead ones."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from kit.resources import own_descriptors
from kit.scripts import all_gone, eventually, gone, run_script
from sidestage import TCPServer
from sidestage.pristine.waits import Deadline
from sidestage.process.channel import Channel
from sidestage.process.pool import Child, Pool, end


def soon() -> Deadline:
    """A deadline that is never reached unless something hangs."""
    return Deadline(30)


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.close()


def pid_of(child: Child) -> int:
    return child.process.launched.pid


def pids_of(pool: Pool) -> list[int]:
    return [pid_of(child) for child in pool]


class TestRecycling:
    def test_what_is_released_is_acquired_again(self, pool: Pool) -> None:
        child = pool.acquire()
        assert pool.release(child)
        assert pool.acquire() is child
        end([child])

    def test_a_fresh_one_is_never_recycled(self, pool: Pool) -> None:
        pool.release(pool.acquire())
        child = pool.acquire(fresh=True)
        assert pid_of(child) not in pids_of(pool)
        end([child])

    def test_one_in_use_is_not_in_the_pool(self, pool: Pool) -> None:
        child = pool.acquire()
        assert list(pool) == []
        end([child])

    def test_no_more_than_the_cap_are_kept(self) -> None:
        pool = Pool(cap=2)
        children = [pool.acquire() for _ in range(3)]
        assert [pool.release(child) for child in children] == [True, True, False]
        assert list(pool) == children[:2]
        assert gone(pid_of(children[2]))
        pool.close()

    def test_stderr_of_an_earlier_server_is_not_shown_to_the_next(self, pool: Pool) -> None:
        child = pool.acquire()
        assert child.channel.poll(soon())  # it is up
        os.kill(pid_of(child), signal.SIGUSR1)  # it writes its stack
        assert eventually(lambda: "Current thread" in child.stderr_tail())
        pool.release(child)
        assert pool.acquire().stderr_tail() == ""
        end([child])


class TestConfiguring:
    def test_a_new_and_a_pooled_child_are_configured_before_they_are_returned(
        self, pool: Pool
    ) -> None:
        configured: list[Channel] = []
        child = pool.acquire(configured.append)
        pool.release(child)
        assert pool.acquire(configured.append) is child
        assert configured == [child.channel, child.channel]
        end([child])

    @pytest.mark.parametrize("kept", [False, True])
    def test_a_child_that_cannot_be_configured_is_ended(self, pool: Pool, kept: bool) -> None:
        others = {process.pid for process in psutil.Process().children()}
        pids: list[int] = []

        def refuse(channel: Channel) -> None:
            present = {process.pid for process in psutil.Process().children()}
            pids.extend(present - others)
            raise KeyboardInterrupt

        before = own_descriptors()
        if kept:
            pool.release(pool.acquire())
        with pytest.raises(KeyboardInterrupt) as caught:
            pool.acquire(refuse)
        assert pids
        assert all_gone(pids), caught  # which keeps what the error refers to
        assert own_descriptors() == before


class TestDeath:
    def test_an_idle_child_that_was_killed_is_replaced(self, pool: Pool) -> None:
        dead, alive = pool.acquire(), pool.acquire()
        pool.release(alive)
        pool.release(dead)
        os.kill(pid_of(dead), signal.SIGKILL)
        assert eventually(lambda: gone(pid_of(dead)))
        assert pool.acquire() is alive
        assert dead.process.exit_code == -signal.SIGKILL
        end([alive])

    def test_all_of_them(self, pool: Pool) -> None:
        dead = pool.acquire()
        pool.release(dead)
        os.kill(pid_of(dead), signal.SIGKILL)
        assert eventually(lambda: gone(pid_of(dead)))
        child = pool.acquire()
        assert pid_of(child) != pid_of(dead)
        assert not child.process.wait(Deadline(0))
        end([child])

    @pytest.mark.parametrize("how", ["boot", "warm"])
    def test_one_that_was_killed_before_its_first_start(
        self, pool: Pool, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sidestage.backends.hosted.pool", pool)
        monkeypatch.setattr("sidestage.backends.ladder.pool", pool)
        before = own_descriptors()
        getattr(pool, how)()
        (pid,) = [pid_of(child) for child in pool] or [one.pid for one in pool._booting]
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: gone(pid))
        with TCPServer() as server:
            assert server.pid != pid
        pool.close()
        assert own_descriptors() == before


class TestWarm:
    def test_a_child_is_there(self, pool: Pool) -> None:
        pool.warm()
        (child,) = pool
        assert pool.acquire() is child
        end([child])

    def test_one_is_enough(self, pool: Pool) -> None:
        pool.warm()
        pids = pids_of(pool)
        pool.warm()
        assert pids_of(pool) == pids

    def test_what_boots_is_what_is_acquired(self, pool: Pool) -> None:
        pool.boot()
        pool.boot()
        (launched,) = pool._booting
        child = pool.acquire()
        assert pid_of(child) == launched.pid
        assert pool._booting == []
        end([child])

    def test_to_boot_imports_nothing_heavy(self) -> None:
        source = """
            import sys
            from sidestage.process.pool import pool
            pool.boot()
            print(sorted({"multiprocess", "psutil", "msgspec", "asyncio"} & set(sys.modules)))
        """
        assert run_script(source) == "[]\n"


class TestClose:
    def test_ends_all_that_are_idle(self, pool: Pool) -> None:
        children = [pool.acquire() for _ in range(2)]
        for child in children:
            pool.release(child)
        pool.close()
        assert list(pool) == []
        assert [child.process.exit_code for child in children] == [0, 0]

    def test_ends_what_still_boots(self, pool: Pool) -> None:
        pool.boot()
        (launched,) = pool._booting
        pool.close()
        assert gone(launched.pid)

    def test_twice(self, pool: Pool) -> None:
        pool.warm()
        pool.close()
        pool.close()

    def test_it_can_be_used_afterwards(self, pool: Pool) -> None:
        pool.close()
        pool.warm()
        assert len(list(pool)) == 1

    @pytest.mark.parametrize("leave", ["pass", "sys.exit(0)"])
    def test_at_the_exit_of_the_test_nothing_is_left(self, leave: str) -> None:
        source = f"""
            import sys
            from sidestage.process.pool import pool
            children = [pool.acquire() for _ in range(2)]
            for child in children:
                pool.release(child)
                print(child.process.launched.pid)
            pool.boot()
            {leave}
        """
        assert all_gone([int(pid) for pid in run_script(source).split()])

    def test_one_that_ignores_it_is_killed(self) -> None:
        pool = Pool(end_seconds=0.1)
        child = pool.acquire()
        pool.release(child)
        os.kill(pid_of(child), signal.SIGSTOP)
        pool.close()
        assert child.process.exit_code == -signal.SIGKILL


class TestForget:
    def test_a_copy_has_an_empty_pool_and_the_originals_goes_on(self, pool: Pool) -> None:
        pool.warm()
        pool.boot()
        (child,) = pool
        pid = os.fork()
        if pid == 0:
            pool.forget()
            emptied = not list(pool) and not child.process.descriptors()
            pool.close()
            os._exit(0 if emptied else 1)
        assert os.waitpid(pid, 0) == (pid, 0)
        assert not child.process.wait(Deadline(0.02))

    def test_a_copy_that_forgets_nothing_ends_nothing(self, pool: Pool) -> None:
        pool.warm()
        pid = os.fork()
        if pid == 0:
            pool.close()
            os._exit(0)
        assert os.waitpid(pid, 0) == (pid, 0)
        (child,) = pool
        assert not child.process.wait(Deadline(0.02))


class TestWithoutPool:
    @pytest.fixture(autouse=True)
    def disabled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SIDESTAGE_POOL", "0")

    def test_nothing_is_kept(self, pool: Pool) -> None:
        child = pool.acquire()
        assert not pool.release(child)
        assert child.process.exit_code == 0
        assert list(pool) == []

    def test_nothing_is_warmed(self, pool: Pool) -> None:
        pool.warm()
        pool.boot()
        assert list(pool) == []
        assert pool._booting == []
