"""A handler may do what a test may do: anything.

It is the test's own code in the test's own process. Whatever it does, its client gets an answer or
the protocol's failure, the test gets the error, other requests are served, and the stop ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import http.client
import itertools
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from kit.clients import (
    HTTP,
    SECONDS,
    SMTP,
    TCP,
    UDP,
    Driver,
    SidestageDriver,
    SidestageHTTP,
    Work,
    connect,
    error_of,
    expect_failure,
    expect_success,
    read_all,
    read_status,
    send_http,
    with_each_protocol,
    with_each_protocol_at_once,
    with_each_sidestage_protocol,
    with_each_sidestage_protocol_at_once,
)
from kit.matrix import Rows
from kit.scripts import eventually
from kit.servers import Clock, ServerUnderTest, Sidestage, fetch

rows = Rows("Handlers", __file__)

HANGS = 15.0  # seconds granted to a row in which another server may well hang


# Hanging -----------------------------------------------------------------------------------------


def allow_forced_stops(driver: Driver) -> None:
    """On a loaded machine a short stop may go further than to ask; what counts is that it ends."""
    if driver.is_sidestage:
        from sidestage import ForcedStopWarning

        warnings.simplefilter("ignore", ForcedStopWarning)


def _spin() -> None:
    sys.setswitchinterval(0.0001)  # four of them are not to hold up each other's stop
    while True:
        pass


def hang(how: Callable[[], None], timeout: float, sut: ServerUnderTest) -> None:
    """Stop while the handler hangs, which it still does when the interpreter ends."""

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


# Raising -----------------------------------------------------------------------------------------


class Unprintable(Exception):
    """Whoever wants to say what it is, fails."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Unmovable(Exception):
    """It can be neither pickled nor copied."""

    def __init__(self, lock: object) -> None:
        super().__init__(lock)

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError("not to be carried away")


class Unremarkable(Exception):
    """It takes no notes."""

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
    """The client hears of it, the next one is served, and the test gets the exception itself."""
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
    """It is raised where the test cannot miss it: at the stop, or at a check before it."""

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
    assert list(group.exceptions) == errors


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


# Nonsense ----------------------------------------------------------------------------------------


class Nameless:
    """Whoever wants to say what it is, fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no name")


async def _asynchronous() -> Any:
    yield b"bytes"


def _never_ending() -> list[object]:
    ring: list[object] = []
    ring.append(ring)
    return ring


NOWHERE = [
    object(),
    Nameless,
    True,
    1.5,
    {1},
    _never_ending(),
    _asynchronous(),
    len,
    NotImplemented,
]

NONSENSE: dict[str, list[object]] = {
    "HTTP": [
        *(("x",), ("x", "y"), ("x", 200, {}, None), ("x", 200, 5), ("x", 200.0), 99, 10**30),
        *({"key": object()}, ("x", 200, {"a b": "c"}), ("x", 200, {"a": "b\r\nc: d"})),
        *(iter([1]), iter("text"), iter([None]), "\ud800"),
    ],
    "SMTP": [b"250 fine", 250, "", "fine", "250 fine\r\n221 bye", "999 no", ("250", "fine"), {}],
    "TCP": ["text", 1, [b"fine"], iter([b"fine"]), {}],
    "UDP": ["text", 1, {}, [b"fine", "text"], [None], b"x" * 70000],
}


@rows.add("returns nonsense", peers=False)  # what makes no sense is each server's own matter
@with_each_sidestage_protocol
def return_nonsense(driver: SidestageDriver) -> None:
    result: object = None
    driver.serve(lambda request: result)
    for count, result in enumerate([*NONSENSE[driver.protocol], *NOWHERE], 1):
        with driver.send_request() as client:
            assert eventually(lambda count=count: len(driver.server.errors) == count), repr(result)
            if driver.failure is not None:
                assert driver.read_answer(client) == driver.failure, repr(result)
        error = error_of(driver.server.raise_errors)
        assert isinstance(error, TypeError | ValueError), repr(error)
        if result in NOWHERE:
            assert "return" in str(error), f"the error does not say what may be returned: {error}"
    result = driver.result
    expect_success(driver)
    driver.stop()


@rows.add("returns what has no repr", peers=False)
@with_each_sidestage_protocol
def return_the_nameless(driver: SidestageDriver) -> None:
    driver.serve(lambda request: Nameless())
    expect_failure(driver)
    error = error_of(driver.stop)
    assert isinstance(error, TypeError), repr(error)
    assert "Nameless" in str(error)


@rows.add("returns a huge reply")
def return_much(sut: ServerUnderTest) -> None:
    size = 32 << 20
    sut.start(lambda path: "x" * size)
    assert len(fetch(sut.port)) == size
    sut.stop()
    if isinstance(sut, Sidestage):
        driver = TCP()
        driver.serve(lambda connection: b"x" * size)
        assert len(driver.request()) == size
        driver.stop()


@rows.add("returns a huge reply that nobody reads", "-W", "error", limit=HANGS)
def return_much_in_vain(sut: ServerUnderTest) -> None:
    allow_forced_stops(HTTP(sut))
    begun = threading.Event()

    def answer(path: str) -> str:
        begun.set()
        return "x" * (32 << 20)

    sut.start(answer)
    with send_http(sut.port):
        assert begun.wait(SECONDS)
        sut.stop(0.5)
    if isinstance(sut, Sidestage):
        assert len(sut.server.stop_report.connections) == 1


@rows.add("does not read a body of 1 MB")
def leave_the_body(sut: ServerUnderTest) -> None:
    sut.start(lambda path: path)
    for path in ("/one", "/two"):
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", sut.port, timeout=SECONDS)
        ) as client:
            client.request("GET", path, body=b"x" * 1_000_000)
            assert client.getresponse().read().decode() == path
    sut.stop()


# Servers among themselves ------------------------------------------------------------------------


@rows.add("calls its own server, 20 deep", limit=HANGS)
@with_each_protocol
def call_its_own(driver: Driver) -> None:
    depth = itertools.count()

    def work() -> None:
        if next(depth) < 20:
            expect_success(driver)

    driver.start(work)
    expect_success(driver)
    driver.stop()


@rows.add("A waits for B, and B for A", limit=HANGS)
@with_each_protocol
def wait_for_each_other(driver: Driver) -> None:
    meeting = threading.Barrier(2, timeout=SECONDS)
    driver.start(lambda: [meeting.wait() for _ in range(5)])
    with driver.send_request() as one, driver.send_request() as other:
        assert [driver.read_answer(one), driver.read_answer(other)] == [driver.success] * 2, (
            "they wait in vain"
        )
    driver.stop()


@rows.add("waits for a request to its own server", peers=False)
@with_each_sidestage_protocol
def wait_for_its_own(driver: SidestageDriver) -> None:
    first = itertools.count()
    waiting = threading.Event()
    # A connection is recorded when it ends, all else when it comes.
    wanted = 1 if driver.protocol == "TCP" else 2

    def work() -> None:
        if next(first) == 0:
            waiting.set()
            assert len(driver.server.wait_for(wanted, SECONDS)) == wanted
            assert len(driver.server.received) == wanted

    driver.start(work)
    with driver.send_request() as client:
        assert waiting.wait(SECONDS)
        expect_success(driver)
        assert driver.read_answer(client) == driver.success
    driver.stop()


@rows.add("stops the server that it serves", limit=HANGS)
@with_each_protocol
def stop_its_own(driver: Driver) -> None:
    stopped = threading.Event()
    errors: list[BaseException | None] = []

    def work() -> None:
        errors.append(error_of(lambda: driver.stop(2)))
        stopped.set()

    driver.start(work)
    port = driver.port
    with driver.send_request():
        assert stopped.wait(SECONDS), "the stop does not end"
    assert errors == [None]
    if driver.protocol != "UDP":
        assert isinstance(error_of(lambda: connect(port).close()), ConnectionRefusedError)
    if driver.is_sidestage:
        assert driver.server.stop_report.clean, driver.server.stop_report
        driver.stop()  # nothing is left to raise


@rows.add("two stop each other's server", limit=HANGS)
@with_each_protocol
def stop_each_other(driver: Driver) -> None:
    allow_forced_stops(driver)
    other = driver.another()
    meeting = threading.Barrier(2, timeout=SECONDS)
    stopped = threading.Semaphore(0)

    def work(its: Driver) -> None:
        meeting.wait()
        its.stop(0.5)
        stopped.release()

    driver.start(lambda: work(other))
    other.start(lambda: work(driver))
    with driver.send_request(), other.send_request():
        for _ in range(2):
            assert stopped.acquire(timeout=SECONDS), "the stop does not end"
    if driver.is_sidestage:
        driver.stop()
        other.stop()


@rows.add("starts and stops another server")
@with_each_protocol
def start_another(driver: Driver) -> None:
    def work() -> None:
        other = driver.another()
        other.start(lambda: None)
        expect_success(other)
        other.stop()

    driver.start(work)
    expect_success(driver)
    expect_success(driver)
    driver.stop()


# Late --------------------------------------------------------------------------------------------


@rows.add("replies after the client left")
@with_each_protocol
def reply_to_nobody(driver: Driver) -> None:
    begun, left = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert left.wait(SECONDS)

    driver.start(work)
    with driver.send_request() as client:
        assert begun.wait(SECONDS)
        if driver.protocol != "UDP":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    left.set()
    expect_success(driver)
    driver.stop()


@rows.add("writes on after the client left", peers=False)  # the others' rows return text
def write_to_nobody(sut: ServerUnderTest) -> None:
    def over_http(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        write = request.wfile.write
        while True:
            write(b"x" * 65536)

    def over_tcp(connection: Any) -> None:
        while True:
            connection.sendall(b"x" * 65536)

    for driver, handler in ((SidestageHTTP(), over_http), (TCP(), over_tcp)):
        driver.serve(handler)
        with driver.send_request() as client:
            assert client.recv(65536)
        assert eventually(lambda driver=driver: bool(driver.server.diagnostics))
        assert "left" in driver.server.diagnostics[0].text
        driver.stop()  # it is no error
        assert driver.server.stop_report.clean


@rows.add("replies after handler_timeout", peers=False)
@with_each_sidestage_protocol
def reply_too_late(driver: SidestageDriver) -> None:
    if driver.protocol in {"TCP", "UDP"}:
        return  # no protocol for saying so

    def by_hand(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(b"x" * 100_000)

    for reply in (None, by_hand) if driver.protocol == "HTTP" else (None,):
        _reply_too_late(driver, reply or (lambda request: None))


def _reply_too_late(driver: SidestageDriver, reply: Callable[[Any], None]) -> None:
    calls = itertools.count()
    told, replied = threading.Event(), threading.Event()

    def handler(request: Any) -> None:
        if next(calls) == 0:
            assert told.wait(SECONDS)
            try:
                reply(request)
            finally:
                replied.set()

    driver.serve(handler, handler_timeout=0.2)
    assert driver.request() == {"HTTP": "504", "SMTP": "451"}[driver.protocol]
    told.set()
    assert replied.wait(SECONDS)
    expect_success(driver)
    driver.stop()  # it is no error
    assert any("no answer" in diagnostic.text for diagnostic in driver.server.diagnostics)


def _respond(request: Any) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.flush()


LATE_USES: dict[str, list[Callable[[Any], object]]] = {
    "HTTP": [_respond],
    "SMTP": [],  # a mail is all there
    "TCP": [lambda client: client.sendall(b"late"), lambda client: client.recv_exactly(100)],
    "UDP": [lambda datagram: datagram.reply(b"late")],
}


@rows.add("reads or writes after the stop", "-W", "error", peers=False)
@with_each_sidestage_protocol_at_once
def use_after_the_stop(driver: SidestageDriver) -> None:
    for use in LATE_USES[driver.protocol]:
        _use_after_the_stop(driver, use)


def _use_after_the_stop(driver: SidestageDriver, use: Callable[[Any], object]) -> None:
    from sidestage import ServerStopped

    allow_forced_stops(driver)
    begun, stopped = threading.Event(), threading.Event()
    errors: list[BaseException | None] = []

    def handler(request: Any) -> None:
        if not begun.is_set():
            begun.set()
            assert stopped.wait(SECONDS)
            errors.append(error_of(lambda: use(request)))

    driver.serve(handler)
    with driver.send_request():
        assert begun.wait(SECONDS)
        driver.stop(0.5)
    driver.server.start()  # what comes too late is not for this one either
    known = len(driver.server.received)
    stopped.set()
    assert eventually(lambda: bool(errors))
    assert isinstance(errors[0], ServerStopped), repr(errors[0])
    with driver.send_request():
        driver.server.wait_for(known + 1)
    driver.stop()


@rows.add("raises after handler_timeout, or after the stop", peers=False)
@with_each_sidestage_protocol_at_once
def raise_too_late(driver: SidestageDriver) -> None:
    allow_forced_stops(driver)
    begun, late = threading.Event(), threading.Event()
    errors = [ValueError("after it was given up"), ValueError("after the stop")]
    left = iter(errors)

    def handler(request: Any) -> None:
        begun.set()
        assert late.wait(SECONDS)
        raise next(left)

    if driver.protocol in {"HTTP", "SMTP"}:
        driver.serve(handler, handler_timeout=0.2)
        assert driver.request() in {"504", "451"}
        late.set()
        assert eventually(lambda: bool(driver.server.errors))
        assert error_of(driver.stop) is errors[0]
    else:
        next(left)
    begun.clear()
    late.clear()
    driver.serve(handler)
    with driver.send_request():
        assert begun.wait(SECONDS)
        driver.stop(0.5)
    late.set()
    assert eventually(lambda: bool(driver.server.errors))
    assert error_of(driver.stop) is errors[1], "nobody hears of it"


@rows.add("keeps the request beyond its return", peers=False)
def keep_the_request(sut: ServerUnderTest) -> None:
    import pytest

    kept: list[Any] = []

    def handler(request: Any) -> object:
        kept.append(request)
        return driver.result

    driver: SidestageDriver = SidestageHTTP()
    driver.serve(handler)
    expect_success(driver)
    request = kept.pop()
    assert (request.path, request.body, request.rfile.read()) == ("/", b"", b"")
    # The client has its answer a moment before the handler's thread is done with it.
    assert eventually(lambda: "answered" in str(error_of(lambda: request.send_response(200))))
    driver.stop()

    driver = SMTP()
    driver.serve(handler)
    expect_success(driver)
    assert kept.pop().message["Subject"] == "hello"
    driver.stop()

    driver = TCP()
    driver.serve(handler)
    expect_success(driver)
    connection = kept.pop()
    with pytest.raises(OSError, match="closed"):
        connection.sendall(b"late")
    with pytest.raises(OSError, match="closed"):
        connection.recv(1)
    driver.stop()

    driver = UDP()
    driver.serve(handler)
    with driver.send_request() as client:
        assert driver.read_answer(client) == driver.success
        kept.pop().reply(b"once more")
        assert driver.read_answer(client) == "once more"
    driver.stop()


# What it does to the process ---------------------------------------------------------------------


def _raise_in_the_copy() -> None:
    raise ValueError("in the copy")


def fork(leave: Work, driver: Driver) -> None:
    """Whatever the copy does, the client hears of the original alone, and the test of no error."""
    calls = itertools.count()
    left, go = threading.Event(), threading.Event()

    def work() -> None:
        if next(calls) == 0:
            pid = os.fork()
            if pid == 0:
                leave()
                return  # as if it were the original
            os.waitpid(pid, 0)
            left.set()
            assert go.wait(SECONDS)

    driver.start(work)
    with driver.send_request() as client:
        assert left.wait(SECONDS), "the copy does not end"
        if driver.is_sidestage:
            expect_success(driver)  # what the copy had sent, it sent before
        assert not select.select([client], [], [], 0)[0], "the client hears of the copy"
        go.set()
        assert driver.read_answer(client) == driver.success
    expect_success(driver)
    driver.stop()


for _name, _leave in (
    ("leaves by os._exit", lambda: os._exit(0)),
    ("leaves by sys.exit", lambda: sys.exit(0)),
    ("raises", _raise_in_the_copy),
    ("returns", lambda: None),
):
    # A handler is a thread beside the main one, so Python rightly warns of its fork from 3.12 on.
    rows.add(f"forks, and the copy {_name}", "-W", "ignore::DeprecationWarning", limit=HANGS)(
        with_each_protocol(functools.partial(fork, _leave))
    )


@rows.add("starts a thread that outlives it", "-W", "error")
@with_each_protocol
def leave_a_thread(driver: Driver) -> None:
    over, threads = threading.Event(), list[threading.Thread]()

    def work() -> None:
        threads.append(threading.Thread(target=over.wait))
        threads[0].start()
        threading.Thread(target=threading.Event().wait, daemon=True).start()

    driver.start(work)
    expect_success(driver)
    driver.stop()
    over.set()
    threads[0].join(SECONDS)
    assert not threads[0].is_alive()


@rows.add("changes directory, environment, signal mask, limits")
@with_each_protocol
def change_everything(driver: Driver) -> None:
    first = itertools.count()
    home = Path.cwd()

    def work() -> None:
        if next(first) == 0:
            Path("gone").mkdir()
            os.chdir("gone")
            (home / "gone").rmdir()
            os.environ.clear()
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            os.umask(0o777)
            sys.setrecursionlimit(200)
            socket.setdefaulttimeout(SECONDS)

    driver.start(work)
    try:
        expect_success(driver)
        expect_success(driver)
        other = driver.another()
        other.start(lambda: None)
        expect_success(other)
        other.stop()
        driver.stop()
    finally:
        os.chdir(home)


# The end of the process --------------------------------------------------------------------------

_ENDING = """
import logging, socket, sys, threading, time
from kit.servers import SERVERS

name, doing, number = sys.argv[1:]
begun = threading.Event()

def answer(path):
    begun.set()
    while doing == "spins":
        pass
    while doing == "logs":
        logging.warning("still here")
    while doing == "prints":
        print("still here")
    time.sleep(0.002 * int(number))
    return path

sut = SERVERS[name]()
sut.start(answer)
client = socket.create_connection(("127.0.0.1", sut.port))
client.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
begun.wait()
"""


def end_the_process(doings: tuple[str, ...], sut: ServerUnderTest) -> None:
    """20 times, with nobody to stop the server; what is said is but what the handler logs."""
    enough = Clock.monotonic() + 15  # on a machine that is too slow for 20

    def end(number: int) -> tuple[int, list[str]]:
        if Clock.monotonic() > enough:
            return 0, []
        doing = doings[number % len(doings)]
        # -u: an interpreter that ends while a thread writes to a buffered stdout aborts by itself.
        done = subprocess.run(
            [sys.executable, "-u", "-c", _ENDING, sut.name, doing, str(number)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        said = [line for line in done.stderr.splitlines() if not line.endswith("still here")]
        return done.returncode, said

    with ThreadPoolExecutor(2) as pool:
        bad = [ended for ended in pool.map(end, range(20)) if ended != (0, [])]
    assert not bad, f"{len(bad)} of 20 end badly: {bad[0]}"


for _name, _doings in (
    ("the interpreter ends while it runs", ("spins", "returns")),
    ("the interpreter ends while it logs", ("logs", "prints")),
):
    rows.add(_name, limit=55)(functools.partial(end_the_process, _doings))


# What it sees of the test, and the test of it ----------------------------------------------------

_variable: ContextVar[str] = ContextVar("variable", default="nothing")


@rows.add("sees the context variables of the test")
@with_each_protocol
def see_context_variables(driver: Driver) -> None:
    seen: list[str] = []

    def work() -> None:
        seen.append(_variable.get())
        _variable.set("the handler's")

    _variable.set("the test's")
    driver.start(work)
    expect_success(driver)
    expect_success(driver)
    driver.stop()
    assert seen == ["the test's"] * 2, f"it sees {seen[0]}"
    assert _variable.get() == "the test's"


@rows.add("threading.local, current_thread, enumerate", "-W", "error", limit=HANGS)
@with_each_protocol
def use_threading(driver: Driver) -> None:
    own = threading.local()
    numbers = itertools.count()
    seen: list[bool] = []
    before = set(threading.enumerate())

    def work() -> None:
        own.number = number = next(numbers)
        thread = threading.current_thread()
        seen.append(own.number == number and thread in threading.enumerate() and bool(thread.name))

    driver.start(work)
    expect_success(driver)
    expect_success(driver)
    driver.stop()
    assert seen == [True, True]
    assert eventually(lambda: set(threading.enumerate()) == before)


@rows.add("warns, and the test sees it")
@with_each_protocol
def warn(driver: Driver) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        driver.start(lambda: warnings.warn("hello", UserWarning, stacklevel=2))
        expect_success(driver)
        driver.stop()
    assert [str(warning.message) for warning in caught] == ["hello"]


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
