"""What a handler raises: its client gets the protocol's failure, and the test the exception."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from kit.clients import (
    HANGS,
    Driver,
    SidestageDriver,
    SidestageHTTP,
    Work,
    error_of,
    expect_failure,
    expect_success,
    read_all,
    read_status,
    send_http,
    with_each_protocol,
    with_each_sidestage_protocol,
)
from kit.matrix import Rows
from kit.scripts import eventually
from kit.servers import ServerUnderTest

rows = Rows("Handlers", __file__)


class Unprintable(Exception):
    """An error whose text cannot be formatted."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Unmovable(Exception):
    """An error that can be neither pickled nor copied."""

    def __init__(self, lock: object) -> None:
        super().__init__(lock)

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError("not to be carried away")


class Unremarkable(Exception):
    """An error that takes no notes."""

    def add_note(self, note: str) -> None:
        raise TypeError("no notes")


def _raise(error: BaseException) -> None:
    raise error


def _outcome(name: str) -> None:
    import pytest

    getattr(pytest, name)("hello")


def _recurse() -> None:
    _recurse()


RAISING: dict[str, list[Work]] = {
    "an Exception": [lambda: _raise(ValueError("hello"))],
    "SystemExit": [lambda: sys.exit(3)],
    "KeyboardInterrupt": [lambda: _raise(KeyboardInterrupt())],
    "StopIteration, GeneratorExit, CancelledError": [
        lambda: next(iter(())),
        lambda: _raise(GeneratorExit()),
        lambda: _raise(asyncio.CancelledError()),
    ],
    "RecursionError, MemoryError": [_recurse, lambda: bytearray(1 << 62)],
    "the outcomes of pytest.fail, skip, xfail": [
        lambda: _outcome("fail"),
        lambda: _outcome("skip"),
        lambda: _outcome("xfail"),
    ],
    "groups of exceptions": [
        lambda: _raise(ExceptionGroup("two", [ValueError("a"), KeyError("b")])),
        lambda: _raise(BaseExceptionGroup("two", [ValueError("a"), KeyboardInterrupt()])),
    ],
    "a ConnectionError of its own": [
        lambda: _raise(ConnectionResetError()),
        lambda: _raise(BrokenPipeError()),
    ],
    "what cannot be printed, pickled or annotated": [
        lambda: _raise(Unprintable()),
        lambda: _raise(Unmovable(threading.Lock())),
        lambda: _raise(Unremarkable()),
    ],
}


def raise_one(work: Work, driver: Driver) -> None:
    """The client gets a failure, the next one is served, and the test gets the exception itself."""
    raised: list[BaseException] = []

    def fail_once() -> None:
        if not raised:
            try:
                work()
            except BaseException as error:
                raised.append(error)
                raise

    driver.start(fail_once)
    expect_failure(driver)
    expect_success(driver)
    if driver.is_sidestage:
        assert error_of(driver.stop) is raised[0], "the test gets something else"
    else:  # what the test gets from the others, see below
        driver.stop()


def raise_each(works: list[Work], driver: Driver) -> None:
    for work in works:
        raise_one(work, driver)


for _name, _works in RAISING.items():
    rows.add(f"raises {_name}: a 500, and the next one is served", limit=HANGS)(
        with_each_protocol(functools.partial(raise_each, _works))
    )


def reach_the_test(make: Callable[[], BaseException], sut: ServerUnderTest) -> None:
    """The error is raised in the test: by the stop, or by a check before it."""

    def check(driver: Driver) -> None:
        error = make()
        driver.start(lambda: _raise(error))
        with driver.send_request() as client:
            if driver.failure is not None:
                driver.read_answer(client)
            elif driver.is_sidestage:
                assert eventually(lambda: bool(driver.server.errors))

        def leave() -> None:
            try:
                sut.check()
            finally:
                driver.stop()

        got = error_of(leave)
        assert got is error, f"the test gets {type(got).__name__}" if got else "the test passes"

    with_each_protocol(check)(sut)


for _name, _make in (
    ("an exception reaches the test", lambda: ValueError("hello")),
    ("an assertion fails the test", lambda: AssertionError("hello")),
    ("sys.exit reaches the test", lambda: SystemExit(3)),
    ("pytest.fail fails the test", lambda: error_of(lambda: _outcome("fail"))),
):
    rows.add(_name, limit=HANGS)(functools.partial(reach_the_test, _make))


@rows.add("many raise, and the test gets them all", peers=False)
@with_each_sidestage_protocol
def raise_many(driver: SidestageDriver) -> None:
    same = ValueError("a module's own, raised twice")
    errors = [KeyError("one"), same, same, SystemExit(2)]
    left = iter(errors)
    driver.serve(lambda request: _raise(next(left)))
    for count in range(1, len(errors) + 1):
        with driver.send_request():
            assert eventually(lambda count=count: len(driver.server.errors) == count)
    group = error_of(driver.stop)
    assert isinstance(group, BaseExceptionGroup)
    assert list(group.exceptions) == [errors[0], same, errors[3]], "equal ones are told once"
    assert list(driver.server.errors) == errors


@rows.add("a generator raises midway", peers=False)
def raise_midway(sut: ServerUnderTest) -> None:
    errors = [ValueError("before the first chunk"), ValueError("after it")]

    def chunks(path: str) -> Iterator[bytes]:
        if path == "/first":
            raise errors[0]
        yield b"z" * 150_000
        raise errors[1]

    driver = SidestageHTTP()
    driver.serve(lambda request: b"fine" if request.path == "/" else chunks(request.path))
    with send_http(driver.port, "/first") as client:
        assert read_status(client) == "500"
    with send_http(driver.port, "/second") as client:
        came = read_all(client)
    assert came.startswith(b"HTTP/1.1 200")
    assert came.count(b"z") == 150_000
    assert not came.endswith(b"0\r\n\r\n"), "the response looks complete"
    expect_success(driver)
    group = error_of(driver.stop)
    assert isinstance(group, ExceptionGroup)
    assert list(group.exceptions) == errors


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
