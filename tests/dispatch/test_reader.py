"""Whoever waits reads the events for itself, until handler threads take the reading over."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator

import pytest

from kit.resources import own_threads
from kit.scripts import eventually
from kit.stages import WAIT, Stage, soon
from sidestage.dispatch import threads
from sidestage.dispatch.gate import EpollGate, LockGate
from sidestage.pristine import waits
from sidestage.pristine.waits import Deadline

GATES = [EpollGate, LockGate]


class TestWithoutThreads:
    @pytest.fixture
    def stage(self) -> Iterator[Stage]:
        stage = Stage()
        yield stage
        stage.close()

    def test_the_waiting_thread_reads(self, stage: Stage) -> None:
        before = own_threads()
        stage.say(1)
        assert stage.reader.wait_until(lambda: stage.sink.seen == [1], soon())
        assert own_threads() == before

    def test_until_the_deadline(self, stage: Stage) -> None:
        assert not stage.reader.wait_until(lambda: False, Deadline(0.01))

    def test_until_the_end(self, stage: Stage) -> None:
        stage.hang_up()
        assert not stage.reader.wait_until(lambda: False, Deadline(None))

    def test_several_that_wait_all_see_it(self, stage: Stage) -> None:
        seen: list[bool] = []

        def wait() -> None:
            seen.append(stage.reader.wait_until(lambda: 2 in stage.sink.seen, soon()))

        threads = [threading.Thread(target=wait) for _ in range(5)]
        for thread in threads:
            thread.start()
        stage.say(1)
        stage.say(2)
        for thread in threads:
            thread.join(WAIT)
        assert seen == [True] * 5

    def test_threads_take_over_from_one_that_waits(self) -> None:
        for _ in range(20):
            stage = Stage()
            seen: list[bool] = []
            waits = threading.Thread(target=self.wait_for_token, args=(stage, 3, seen))
            waits.start()
            stage.threads.start(lambda stage=stage: stage.say(1))
            stage.say(2, 3)
            assert stage.is_done(1, 2, 3)
            waits.join(WAIT)
            assert seen == [True]
            stage.close()

    def wait_for_token(self, stage: Stage, token: int, seen: list[bool]) -> None:
        reached = stage.reader.wait_until(lambda: token in stage.sink.seen, Deadline(5))
        seen.append(reached)

    def test_threads_take_over_from_one_that_was_about_to_read(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It has found that it may read, and gets the lock once the child has confirmed."""
        reader, seen = stage.reader, list[bool]()
        done, has_lock = threading.Event(), threading.Event()
        heir = threading.Thread(
            target=reader.hand_over, args=(lambda: has_lock.wait(WAIT),), daemon=True
        )
        read_until = reader._read_until

        def read_late(condition: Callable[[], bool], deadline: Deadline) -> bool:
            monkeypatch.undo()
            heir.start()
            assert eventually(lambda: reader._heir is not None, WAIT)
            has_lock.set()
            return read_until(condition, deadline)

        monkeypatch.setattr(reader, "_read_until", read_late)
        waiter = threading.Thread(
            target=lambda: seen.append(reader.wait_until(done.is_set, Deadline(5)))
        )
        waiter.start()
        assert has_lock.wait(WAIT)
        heir.join(2)
        assert not heir.is_alive()
        done.set()
        reader.changed.notify()
        waiter.join(WAIT)
        assert seen == [True]

    def test_the_end_may_be_among_what_an_interrupted_reader_has_left(self, stage: Stage) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        def end() -> None:
            stage.reader.finished = True

        stage.sink.after_seeing(1, interrupt)
        stage.sink.after_seeing(2, end)
        stage.say(1, 2)
        with pytest.raises(KeyboardInterrupt):
            stage.reader.wait_until(lambda: False, soon())
        began = waits.Clock.monotonic()
        assert not stage.reader.wait_until(lambda: False, Deadline(5))
        assert waits.Clock.monotonic() - began < 4

    def test_a_start_that_fails_leaves_it_as_it_was(self, stage: Stage) -> None:
        def fail() -> None:
            raise ConnectionError

        seen: list[bool] = []
        threads = [
            threading.Thread(target=self.wait_for_token, args=(stage, token, seen))
            for token in (1, 2)
        ]
        for thread in threads:
            thread.start()
        assert eventually(stage.reader._reading.locked, WAIT)  # so that it has to be woken
        with pytest.raises(ConnectionError):
            stage.threads.start(fail)
        assert not stage.threads.running
        stage.say(1)
        assert eventually(lambda: len(seen) == 1, WAIT)
        stage.say(2)  # the other one must have taken the reading over
        assert eventually(lambda: seen == [True, True], WAIT)

    def test_nor_does_one_without_a_gate(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(fd: int) -> None:
            raise OSError(errno.EMFILE, "no descriptor is left")

        monkeypatch.setattr(threads, "make_gate", fail)
        with pytest.raises(OSError, match="no descriptor"):
            stage.threads.start(lambda: None)
        assert not stage.threads.running
        stage.say(1)
        assert stage.reader.wait_until(lambda: 1 in stage.sink.seen, Deadline(5))

    def test_nobody_is_woken_where_nobody_reads(self, stage: Stage) -> None:
        woken: list[bool] = []
        stage.threads.start(lambda: woken.append(True))
        stage.say(1)
        assert stage.is_done(1)
        assert woken == []


class TestCatchingUp:
    @pytest.fixture
    def stage(self) -> Iterator[Stage]:
        stage = Stage()
        yield stage
        stage.close()

    def test_takes_what_is_in_the_pipe_and_waits_for_nothing(self, stage: Stage) -> None:
        assert stage.reader.catch_up(Deadline(5))
        assert stage.sink.seen == []
        stage.say(1, 2)
        stage.say(3)
        assert stage.reader.catch_up(Deadline(5))
        assert stage.sink.seen == [1, 2, 3]

    def test_with_handler_threads_it_waits_until_they_have_taken_it(self, stage: Stage) -> None:
        stage.threaded()
        for token in range(200):
            stage.say(token)
            assert stage.reader.catch_up(Deadline(5))
            assert token in stage.sink.seen
