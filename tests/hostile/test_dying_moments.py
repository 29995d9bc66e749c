"""The test's process is killed or interrupted at any moment of a server's life."""

from __future__ import annotations

import signal
import sys
import warnings
from functools import partial

from kit.matrix import Rows
from kit.processes import (
    FORKS,
    Action,
    CallTrigger,
    ForkedCopies,
    interrupt_own_process,
    is_free,
    kill_own_process,
    main,
    serve,
    time_limit,
)
from kit.servers import ServerUnderTest

rows = Rows("Dying", __file__)


def warmed(sut: ServerUnderTest) -> ServerUnderTest:
    """A new server, after importing everything that a start and a stop need."""
    serve(sut)
    sut.stop()
    return type(sut)()


def stop_and_start(sut: ServerUnderTest) -> None:
    sut.stop()
    sut.start(str)


def replace_what_is_stuck(sut: ServerUnderTest) -> None:
    sut.hang()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sut.stop(0.1)
    sut.start(str)


def die_while(prepare: Action, action: Action) -> None:
    """Kill this process at any moment of ``action``: nothing is left."""

    def triggered(trigger: CallTrigger) -> None:
        with trigger:
            action()

    copies = ForkedCopies(kill_own_process)
    assert copies.run(prepare, triggered) == {-signal.SIGKILL}
    copies.assert_gone()


@rows.add("the test is killed at any moment of a start", *FORKS)
def killed_while_starting(sut: ServerUnderTest) -> None:
    sut = warmed(sut)
    die_while(int, partial(sut.start, str))


@rows.add("the test is killed at any moment of a stop", *FORKS)
def killed_while_stopping(sut: ServerUnderTest) -> None:
    sut = warmed(sut)
    die_while(partial(serve, sut), sut.stop)


@rows.add("the test is killed at any moment of a restart", *FORKS)
def killed_while_restarting(sut: ServerUnderTest) -> None:
    sut = warmed(sut)
    die_while(partial(serve, sut), partial(stop_and_start, sut))


@rows.add("the test is killed while a stuck process is replaced", *FORKS, peers=False)
def killed_while_replacing(sut: ServerUnderTest) -> None:
    sut = warmed(sut)
    die_while(partial(serve, sut), partial(replace_what_is_stuck, sut))


def interrupt_while(prepare: Action, action: Action, afterwards: Action) -> None:
    """Ctrl-C at any moment of ``action`` raises KeyboardInterrupt; ``afterwards`` then works."""

    def triggered(trigger: CallTrigger) -> None:
        try:
            with trigger:
                action()
        except KeyboardInterrupt:
            afterwards()
            sys.exit(3)

    copies = ForkedCopies(interrupt_own_process)
    assert copies.run(prepare, triggered) == {3}, "Ctrl-C is lost, or nothing works afterwards"
    copies.assert_gone()


def serve_and_stop(sut: ServerUnderTest) -> None:
    serve(sut)
    sut.stop()


def stop_again_and_serve(sut: ServerUnderTest) -> None:
    """A second stop finishes what the first may have left to do."""
    with warnings.catch_warnings(), time_limit(1):
        warnings.simplefilter("ignore")
        sut.stop(1)
    assert is_free(sut.port)
    serve_and_stop(type(sut)())


@rows.add("Ctrl-C at any moment of a start", *FORKS)
def interrupted_while_starting(sut: ServerUnderTest) -> None:
    sut = warmed(sut)
    other = type(sut)()
    interrupt_while(int, partial(sut.start, str), partial(serve_and_stop, other))


@rows.add("Ctrl-C at any moment of a stop", *FORKS)
def interrupted_while_stopping(sut: ServerUnderTest) -> None:
    sut = warmed(sut)
    again = partial(stop_again_and_serve, sut)
    interrupt_while(partial(serve, sut), sut.stop, again)


test_row = rows.test()

if __name__ == "__main__":
    main(rows, globals())
