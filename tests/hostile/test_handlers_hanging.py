"""Handlers that hang: other requests are served, and the stop ends in time."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from kit.clients import (
    HANGS,
    HTTP,
    SECONDS,
    Driver,
    SidestageDriver,
    allow_forced_stops,
    error_of,
    expect_failure,
    expect_success,
    read_status,
    send_http,
    with_each_protocol_at_once,
    with_each_sidestage_protocol,
    with_each_sidestage_protocol_at_once,
)
from kit.matrix import Rows
from kit.servers import Clock, ServerUnderTest

rows = Rows("Handlers", __file__)


def _spin() -> None:
    sys.setswitchinterval(0.0001)  # four of them are not to hold up each other's stop
    while True:
        pass


def hang(how: Callable[[], None], timeout: float, sut: ServerUnderTest) -> None:
    """Stop while the handler hangs, which goes on until the interpreter ends."""

    def check(driver: Driver) -> None:
        allow_forced_stops(driver)
        begun = threading.Event()

        def work() -> None:
            begun.set()
            how()

        driver.start(work)
        with driver.send_request() as client:
            assert begun.wait(SECONDS)
            driver.stop(timeout)
            if driver.is_sidestage:
                assert driver.reports_as_open(client), driver.server.stop_report
                assert "handler running" in str(driver.server.stop_report)

    with_each_protocol_at_once(check)(sut)


for _name, _how in (
    ("hangs in a lock", lambda: threading.Event().wait()),
    ("hangs in time.sleep", lambda: time.sleep(3600)),
    ("hangs in a busy loop", _spin),
    ("hangs in a system call", lambda: os.read(os.pipe()[0], 1)),
):
    rows.add(_name, "-W", "error", limit=HANGS)(functools.partial(hang, _how, 0.5))


@rows.add("30 hang, and the next one is served", limit=HANGS)
@with_each_protocol_at_once
def serve_beside_hanging_ones(driver: Driver) -> None:
    allow_forced_stops(driver)
    first = itertools.count()
    begun = threading.Semaphore(0)

    def work() -> None:
        if next(first) < 30:
            begun.release()
            threading.Event().wait()

    driver.start(work)
    with contextlib.ExitStack() as clients:
        for _ in range(30):
            clients.enter_context(driver.send_request())
            assert begun.acquire(timeout=SECONDS), "one waits for another"
        expect_success(driver)
        driver.stop(0.5)


@rows.add("async: raises, or is cancelled", "-W", "error", peers=False)
@with_each_sidestage_protocol
def coroutines_raise(driver: SidestageDriver) -> None:
    error = ValueError("async")

    async def raising(request: Any) -> None:
        await asyncio.sleep(0)
        raise error

    async def cancelled(request: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    driver.serve(raising)
    expect_failure(driver)
    assert error_of(driver.stop) is error
    driver.serve(cancelled)
    expect_failure(driver)
    assert isinstance(error_of(driver.stop), asyncio.CancelledError)


@rows.add("async: hangs", "-W", "error", peers=False)
@with_each_sidestage_protocol_at_once
def coroutines_hang(driver: SidestageDriver) -> None:
    allow_forced_stops(driver)
    begun, cancelled = threading.Event(), threading.Event()

    async def handler(request: Any) -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    driver.serve(handler)
    with driver.send_request() as client:
        assert begun.wait(SECONDS)
        gc.collect()  # a loop alone does not keep its tasks
        assert not cancelled.is_set(), "the task is garbage"
        driver.stop(0.5)
        assert driver.reports_as_open(client)
    assert cancelled.wait(SECONDS)


@rows.add("async: blocks its loop", "-W", "error", peers=False)
@with_each_sidestage_protocol_at_once
def coroutines_block(driver: SidestageDriver) -> None:
    allow_forced_stops(driver)
    begun = threading.Event()

    async def handler(request: Any) -> None:
        begun.set()
        threading.Event().wait()

    driver.serve(handler)
    with driver.send_request() as client:
        assert begun.wait(SECONDS)
        before = Clock.monotonic()
        driver.stop(0.5)
        assert Clock.monotonic() - before < 1.2, "the stop waits for the loop, too"
        assert driver.reports_as_open(client)


@rows.add("async: hangs on the test's own loop", "-W", "error", peers=False)
def coroutine_hangs_on_the_tests_loop(sut: ServerUnderTest) -> None:
    from sidestage import HTTPServer

    allow_forced_stops(HTTP(sut))

    async def test() -> None:
        begun = asyncio.Event()

        async def handler(request: Any) -> None:
            begun.set()
            await asyncio.get_running_loop().create_future()

        async with HTTPServer(handler=handler, stop_timeout=0.5) as server:
            client = await asyncio.to_thread(send_http, server.port)
            await begun.wait()
        with client:
            assert read_status(client) == "no answer"
            (left,) = server.stop_report.connections
            assert left.client_address == client.getsockname()

    asyncio.run(test())


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
