"""The exceptions: their bases, attributes and messages."""

from __future__ import annotations

import errno
import inspect
import pickle
import signal

import pytest

import sidestage
from sidestage import errors
from sidestage.errors import (
    ForcedStopWarning,
    LeftRunningWarning,
    NotOneRecord,
    ServerDied,
    ServerStopped,
    SidestageError,
    StartError,
    StartTimeout,
    StateError,
    UnexpectedRequest,
    UnmetExpectation,
    WaitTimeout,
)

TREE = {
    SidestageError: (Exception,),
    StartError: (SidestageError, OSError),
    StartTimeout: (StartError, TimeoutError),
    StateError: (SidestageError, RuntimeError),
    ServerDied: (SidestageError,),
    ServerStopped: (SidestageError, ConnectionError),
    WaitTimeout: (SidestageError, TimeoutError),
    NotOneRecord: (SidestageError, AssertionError),
    UnexpectedRequest: (SidestageError, AssertionError),
    UnmetExpectation: (SidestageError, AssertionError),
    ForcedStopWarning: (RuntimeWarning,),
    LeftRunningWarning: (RuntimeWarning,),
}


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_the_tree(kind: type[Exception]) -> None:
    assert kind.__bases__ == TREE[kind]


def test_nothing_is_missing_in_the_tree() -> None:
    own = {
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert own == set(TREE)
    assert {kind.__name__ for kind in TREE} == set(errors.__all__)


def test_the_documented_tree_names_them_with_their_standard_bases() -> None:
    assert errors.__doc__ is not None
    lines = errors.__doc__.splitlines()
    for kind, bases in TREE.items():
        (line,) = (line for line in lines if kind.__name__ in line.replace("(", " ").split())
        for base in bases:
            assert base.__module__ != "builtins" or base is Exception or base.__name__ in line


def test_all_are_public() -> None:
    assert set(errors.__all__) <= set(sidestage.__all__)


class TestStartError:
    def test_carries_what_the_system_said(self) -> None:
        error = StartError(errno.EADDRINUSE, "taken", address=("127.0.0.1", 1), stderr="")
        assert (error.errno, error.strerror) == (errno.EADDRINUSE, "taken")
        assert error.address == ("127.0.0.1", 1)
        assert str(error) == "taken"

    def test_quotes_the_childs_last_words(self) -> None:
        error = StartError(errno.ECHILD, "it ended", stderr="one\ntwo")
        assert str(error) == "it ended\nits stderr ends with:\n  | one\n  | two"
        assert error.stderr == "one\ntwo"

    def test_without_an_errno(self) -> None:
        assert StartError(None, "no reason").errno is None

    def test_a_timeout_is_an_oserror_and_a_timeout(self) -> None:
        error = StartTimeout(errno.ETIMEDOUT, "late")
        assert isinstance(error, TimeoutError)
        assert isinstance(error, OSError)
        assert error.errno == errno.ETIMEDOUT


class TestServerDied:
    def test_of_a_signal(self) -> None:
        error = ServerDied("TCPServer", pid=7, exit_code=-signal.SIGSEGV)
        assert error.signal == "SIGSEGV"
        assert str(error) == (
            "the process of TCPServer (pid 7) was killed by SIGSEGV; its stderr is empty"
        )

    def test_of_a_signal_without_a_name(self) -> None:
        assert ServerDied("TCPServer", pid=7, exit_code=-63).signal == "signal 63"

    def test_with_a_status(self) -> None:
        error = ServerDied("TCPServer", pid=7, exit_code=3, stderr="oops")
        assert (error.signal, error.exit_code, error.pid) == (None, 3, 7)
        assert "exited with status 3\nits stderr ends with:\n  | oops" in str(error)

    def test_reaped_by_another(self) -> None:
        error = ServerDied("TCPServer", pid=7, exit_code=None)
        assert error.signal is None
        assert "taken by another waiter" in str(error)


def test_a_wait_timeout_carries_what_came() -> None:
    error = WaitTimeout("1 of 2", expected=2, received=("one",))
    assert (error.expected, error.received, str(error)) == (2, ("one",), "1 of 2")


@pytest.mark.parametrize(
    "error",
    [
        ServerDied("it", pid=1, exit_code=-9, stderr="last words"),
        WaitTimeout("too late", expected=2, received=(1,)),
        StartError(98, "taken", address=("127.0.0.1", 1), stderr="why"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_facts_survive_a_pickle(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


class TestExpectations:
    def test_an_unexpected_request_crosses_between_processes(self) -> None:
        error = UnexpectedRequest("GET /a at it", server="it", request=("GET", "/a"))
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), copy.server, copy.request) == ("GET /a at it", "it", ("GET", "/a"))

    def test_an_unmet_expectation_crosses_between_processes(self) -> None:
        error = UnmetExpectation(
            "unmet", expectation="expect GET /a", place="test_it.py:3", count=1, expected=2
        )
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), copy.expectation, copy.place) == ("unmet", "expect GET /a", error.place)
        assert (copy.count, copy.expected) == (1, 2)
