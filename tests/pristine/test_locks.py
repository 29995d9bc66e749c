from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest.mock import MagicMock

import pytest

from sidestage.pristine import system
from sidestage.pristine.locks import InterruptibleLock


class Interruption(BaseException):
    """Raised by the signal handler of a test."""


@pytest.fixture(autouse=True)
def interrupting() -> Iterator[None]:
    """SIGUSR1 raises Interruption."""

    def interrupt(*_: object) -> None:
        raise Interruption

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)


class Interrupting:
    """Index 0: looking it up in a list sends this thread SIGUSR1.

    The C library's function, called without any bytecode, leaves it to the interpreter when to run
    the handler. A look-up is no such moment, so that comes later.
    """

    __index__ = staticmethod(partial(ctypes.PyDLL(None)["raise"], signal.SIGUSR1))


def held(lock: Any) -> bool:
    """Whether another thread cannot acquire ``lock``."""
    acquired: list[bool] = []
    thread = threading.Thread(target=lambda: acquired.append(lock.acquire(False)))
    thread.start()
    thread.join()
    return not acquired[0]


KINDS: dict[str, Callable[[], Any]] = {
    "Lock": system.Lock,
    "RLock": system.RLock,
    "on the affected versions": partial(InterruptibleLock, threading.Lock),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def lock(request: pytest.FixtureRequest) -> Any:
    return request.param()


def test_a_signal_while_it_is_acquired_does_not_leave_it_locked(lock: Any) -> None:
    locks, first = [lock], Interrupting()
    with pytest.raises(Interruption):
        with locks[first]:
            pass
    assert not held(lock)


def test_a_signal_while_it_waits_for_another_thread() -> None:
    waiting = MagicMock()
    waiting.acquire.side_effect = [Interruption, True]
    lock = InterruptibleLock(lambda: waiting)
    with pytest.raises(Interruption):
        with lock:
            raise AssertionError("another thread holds it")
    waiting.__exit__.assert_not_called()
    with lock:
        waiting.__exit__.assert_not_called()
    waiting.__exit__.assert_called_once()


def test_one_thread_at_a_time_is_in_the_block(lock: Any) -> None:
    with lock:
        assert held(lock)
    assert not held(lock)


def test_an_error_in_the_block_releases_it(lock: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        with lock:
            raise ValueError("expected")
    assert not held(lock)
