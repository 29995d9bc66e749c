"""A fork warns of nothing, and a copy may leave in any way."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kit.forks import (
    SlowHandler,
    assert_echo,
    assert_stopped,
    assert_unchanged,
    echo,
    read_body,
    reap,
    run_in_copy,
    send_request,
    served,
    server_pid,
    stop_cleanly,
)
from kit.matrix import Rows
from kit.servers import Clock, ServerUnderTest, Sidestage, fetch

rows = Rows("Forking", __file__)


# A fork warns of nothing -------------------------------------------------------------------------


def _silent(forks: int, before_each: Callable[[], object] = lambda: None) -> None:
    """Forks warn of nothing.

    That has to be recorded: where this warning is to be an error, CPython swallows it.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(forks):
            before_each()
            run_in_copy(lambda: None)
    assert not caught, f"{len(caught)} of {forks} forks warn"


# A hundred copies and more: coverage.py writes a file for each, which takes ten times as long.
_MANY = 55  # seconds


@rows.add("no warning beside an idle server", "-W", "error", limit=_MANY)
def no_warning_beside_an_idle_server(sut: ServerUnderTest) -> None:
    with served(sut):
        _silent(200)
        for _ in range(10):  # nor does it come to light in another way where it is an error
            run_in_copy(lambda: None)


@rows.add("no warning right after a request", "-W", "error", limit=_MANY)
def no_warning_after_a_request(sut: ServerUnderTest) -> None:
    with served(sut):
        _silent(200, lambda: fetch(sut.port))


@rows.add("no warning beside two servers", "-W", "error")
def no_warning_beside_two_servers(sut: ServerUnderTest) -> None:
    other = type(sut)()
    with served(sut), served(other):
        _silent(50, lambda: fetch(other.port))


@rows.add(
    "no warning right after a stop", "-W", "error", limit=_MANY, peers=False
)  # theirs: as luck has it
def no_warning_after_a_stop(sut: Sidestage) -> None:
    def serve() -> None:
        sut.start(echo)
        fetch(sut.port)
        sut.stop()

    _silent(100, serve)


@rows.add("no warning after a handler was at work", "-W", "error")
def no_warning_after_work(sut: ServerUnderTest) -> None:
    slow = SlowHandler()
    with served(sut, slow):
        client = send_request(sut.port, "/slow")
        assert slow.entered.wait(10)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the handler is the test's own
            run_in_copy(lambda: None)
        slow.release.set()
        assert read_body(client) == "/slow"
        _silent(50)


@rows.add("no warning after a coroutine handler", "-W", "error", limit=_MANY, peers=False)
def no_warning_after_a_coroutine(sut: Sidestage) -> None:
    from sidestage import HTTPServer

    async def answer(request: Any) -> str:
        return str(request.path)

    sut.server = HTTPServer(handler=answer).start()
    process = server_pid(sut)
    _silent(100, lambda: fetch(sut.port))
    run_in_copy(lambda: (sut.server.__del__(), vars(sut).clear(), gc.collect()))
    assert_unchanged(sut, process)
    stop_cleanly(sut)


# How a copy leaves -------------------------------------------------------------------------------


@rows.add("a copy leaves by return", "-W", "error")
def a_copy_leaves_by_return(sut: ServerUnderTest) -> None:
    with served(sut):
        pid = os.fork()
        if pid == 0:
            return
        reap(pid)


@rows.add("a copy leaves by sys.exit", "-W", "error")
def a_copy_leaves_by_sys_exit(sut: ServerUnderTest) -> None:
    with served(sut):
        pid = os.fork()
        if pid == 0:
            sys.exit()
        reap(pid)


@rows.add("a copy leaves by os._exit", "-W", "error")
def a_copy_leaves_by_os_exit(sut: ServerUnderTest) -> None:
    with served(sut):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        reap(pid)


@rows.add("a copy leaves by an exception", "-W", "error")
def a_copy_leaves_by_an_exception(sut: ServerUnderTest) -> None:
    with served(sut):
        pid = os.fork()
        if pid == 0:
            sys.excepthook = lambda *_: None
            raise RuntimeError("on purpose")
        reap(pid, 1)


class _With:
    """The server's own ``with``, or what its users write in its place."""

    def __init__(self, sut: ServerUnderTest) -> None:
        self._subject = sut

    def __enter__(self) -> None:
        self._subject.start(echo)

    def __exit__(self, *error: object) -> None:
        if isinstance(self._subject, Sidestage):
            self._subject.server.__exit__(*error)
        else:
            self._subject.stop()


@rows.add("a copy returns through the server's with", "-W", "error")
def a_copy_returns_through_with(sut: ServerUnderTest) -> None:
    with _With(sut):
        pid = os.fork()
        if pid == 0:
            return
        reap(pid)
        assert_echo(sut.port, "/after")
    assert_stopped(sut, sut.port, Clock.monotonic())


@rows.add("a copy raises through the server's with", "-W", "error")
def a_copy_raises_through_with(sut: ServerUnderTest) -> None:
    class OnPurposeError(Exception):
        pass

    pid = None
    with suppress(OnPurposeError), _With(sut):
        pid = os.fork()
        if pid == 0:
            raise OnPurposeError
        reap(pid)
        assert_echo(sut.port, "/after")
    if pid:
        assert_stopped(sut, sut.port, Clock.monotonic())


@rows.add("a copy's exit handler stops the server", "-W", "error")
def a_copys_exit_handler_stops(sut: ServerUnderTest) -> None:
    sut.start(echo)
    process = server_pid(sut)
    owner = os.getpid()
    atexit.register(lambda: stop_cleanly(sut) if os.getpid() == owner else sut.stop())
    pid = os.fork()
    if pid == 0:
        return
    reap(pid)
    assert_unchanged(sut, process)


class _Stopper:
    """Stops a server when it is destroyed."""

    def __init__(self, sut: ServerUnderTest) -> None:
        self._stop = sut.stop

    def __del__(self) -> None:
        self._stop()


@rows.add("a copy's destructor stops the server", "-W", "error")
def a_copys_destructor_stops(sut: ServerUnderTest) -> None:
    sut.start(echo)
    process, port = server_pid(sut), sut.port
    stopper = _Stopper(sut)
    pid = os.fork()
    if pid == 0:
        del stopper
        return
    reap(pid)
    assert_unchanged(sut, process)
    began = Clock.monotonic()
    del stopper
    assert_stopped(sut, port, began)


@rows.add("a copy destroys the server object", "-W", "error")
def a_copy_destroys_the_server(sut: ServerUnderTest) -> None:
    def destroy() -> None:
        vars(sut).clear()
        gc.collect()

    with served(sut):
        run_in_copy(destroy)
        pid = os.fork()
        if pid == 0:
            destroy()
            sys.exit()
        reap(pid)


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
