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
    OurHTTP,
    Ours,
    Side,
    Work,
    connect,
    error_of,
    everything,
    fail,
    on_each_of_ours,
    on_each_of_ours_at_once,
    on_each_side,
    on_each_side_at_once,
    send,
    status,
    succeed,
)
from kit.matrix import Rows
from kit.scripts import eventually
from kit.servers import Clock, Sidestage, Subject, fetch

rows = Rows("Handlers", __file__)

HANGS = 15.0  # seconds granted to a row in which another server may well hang


# Hanging -----------------------------------------------------------------------------------------


def allow_forced_stops(side: Side) -> None:
    """On a loaded machine a short stop may go further than to ask; what counts is that it ends."""
    if side.ours:
        from sidestage import ForcedStopWarning

        warnings.simplefilter("ignore", ForcedStopWarning)


def _spin() -> None:
    sys.setswitchinterval(0.0001)  # four of them are not to hold up each other's stop
    while True:
        pass


def hang(how: Callable[[], None], timeout: float, subject: Subject) -> None:
    """Stop while the handler hangs, which it still does when the interpreter ends."""

    def check(side: Side) -> None:
        allow_forced_stops(side)
        begun = threading.Event()

        def work() -> None:
            begun.set()
            how()

        side.start(work)
        with side.call() as client:
            assert begun.wait(SECONDS)
            side.stop(timeout)
            if side.ours:
                assert side.names_as_open(client), side.server.stop_report
                assert "handler running" in str(side.server.stop_report)

    on_each_side_at_once(check)(subject)


for _name, _how in (
    ("hangs in a lock", lambda: threading.Event().wait()),
    ("hangs in time.sleep", lambda: time.sleep(3600)),
    ("hangs in a busy loop", _spin),
    ("hangs in a system call", lambda: os.read(os.pipe()[0], 1)),
):
    rows.add(_name, "-W", "error", limit=HANGS)(functools.partial(hang, _how, 0.5))


@rows.add("30 hang, and the next one is served", limit=HANGS)
@on_each_side_at_once
def serve_beside_hanging_ones(side: Side) -> None:
    allow_forced_stops(side)
    first = itertools.count()
    begun = threading.Semaphore(0)

    def work() -> None:
        if next(first) < 30:
            begun.release()
            threading.Event().wait()

    side.start(work)
    with contextlib.ExitStack() as clients:
        for _ in range(30):
            clients.enter_context(side.call())
            assert begun.acquire(timeout=SECONDS), "one waits for another"
        succeed(side)
        side.stop(0.5)


@rows.add("async: raises, or is cancelled", "-W", "error", peers=False)
@on_each_of_ours
def coroutines_raise(side: Ours) -> None:
    error = ValueError("async")

    async def raising(request: Any) -> None:
        await asyncio.sleep(0)
        raise error

    async def cancelled(request: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    side.serve(raising)
    fail(side)
    assert error_of(side.stop) is error
    side.serve(cancelled)
    fail(side)
    assert isinstance(error_of(side.stop), asyncio.CancelledError)


@rows.add("async: hangs", "-W", "error", peers=False)
@on_each_of_ours_at_once
def coroutines_hang(side: Ours) -> None:
    allow_forced_stops(side)
    begun, cancelled = threading.Event(), threading.Event()

    async def handler(request: Any) -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    side.serve(handler)
    with side.call() as client:
        assert begun.wait(SECONDS)
        gc.collect()  # a loop alone does not keep its tasks
        assert not cancelled.is_set(), "the task is garbage"
        side.stop(0.5)
        assert side.names_as_open(client)
    assert cancelled.wait(SECONDS)


@rows.add("async: blocks its loop", "-W", "error", peers=False)
@on_each_of_ours_at_once
def coroutines_block(side: Ours) -> None:
    allow_forced_stops(side)
    begun = threading.Event()

    async def handler(request: Any) -> None:
        begun.set()
        threading.Event().wait()

    side.serve(handler)
    with side.call() as client:
        assert begun.wait(SECONDS)
        before = Clock.monotonic()
        side.stop(0.5)
        assert Clock.monotonic() - before < 1.2, "the stop waits for the loop, too"
        assert side.names_as_open(client)


@rows.add("async: hangs on the test's own loop", "-W", "error", peers=False)
def coroutine_hangs_on_the_tests_loop(subject: Subject) -> None:
    from sidestage import HTTPServer

    allow_forced_stops(HTTP(subject))

    async def test() -> None:
        begun = asyncio.Event()

        async def handler(request: Any) -> None:
            begun.set()
            await asyncio.get_running_loop().create_future()

        async with HTTPServer(handler=handler, stop_timeout=0.5) as server:
            client = await asyncio.to_thread(send, server.port)
            await begun.wait()
        with client:
            assert status(client) == "no answer"
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


def raise_one(work: Work, side: Side) -> None:
    """The client hears of it, the next one is served, and the test gets the exception itself."""
    raised: list[BaseException] = []

    def fail_once() -> None:
        if not raised:
            try:
                work()
            except BaseException as error:
                raised.append(error)
                raise

    side.start(fail_once)
    fail(side)
    succeed(side)
    if side.ours:
        assert error_of(side.stop) is raised[0], "the test gets something else"
    else:  # what the test gets from the others, see below
        side.stop()


def raise_each(works: list[Work], side: Side) -> None:
    for work in works:
        raise_one(work, side)


for _name, _works in RAISING.items():
    rows.add(f"raises {_name}: a 500, and the next one is served", limit=HANGS)(
        on_each_side(functools.partial(raise_each, _works))
    )


def reach_the_test(make: Callable[[], BaseException], subject: Subject) -> None:
    """It is raised where the test cannot miss it: at the stop, or at a check before it."""

    def check(side: Side) -> None:
        error = make()
        side.start(lambda: _raise(error))
        with side.call() as client:
            if side.failure is not None:
                side.answer(client)
            elif side.ours:
                assert eventually(lambda: bool(side.server.errors))

        def leave() -> None:
            try:
                subject.check()
            finally:
                side.stop()

        got = error_of(leave)
        assert got is error, f"the test gets {type(got).__name__}" if got else "the test passes"

    on_each_side(check)(subject)


for _name, _make in (
    ("an exception reaches the test", lambda: ValueError("hello")),
    ("an assertion fails the test", lambda: AssertionError("hello")),
    ("sys.exit reaches the test", lambda: SystemExit(3)),
    ("pytest.fail fails the test", lambda: error_of(lambda: _outcome("fail"))),
):
    rows.add(_name, limit=HANGS)(functools.partial(reach_the_test, _make))


@rows.add("many raise, and the test gets them all", peers=False)
@on_each_of_ours
def raise_many(side: Ours) -> None:
    same = ValueError("a module's own, raised twice")
    errors = [KeyError("one"), same, same, SystemExit(2)]
    left = iter(errors)
    side.serve(lambda request: _raise(next(left)))
    for count in range(1, len(errors) + 1):
        with side.call():
            assert eventually(lambda count=count: len(side.server.errors) == count)
    group = error_of(side.stop)
    assert isinstance(group, BaseExceptionGroup)
    assert list(group.exceptions) == errors


@rows.add("a generator raises midway", peers=False)
def raise_midway(subject: Subject) -> None:
    errors = [ValueError("before the first chunk"), ValueError("after it")]

    def chunks(path: str) -> Iterator[bytes]:
        if path == "/first":
            raise errors[0]
        yield b"z" * 150_000
        raise errors[1]

    side = OurHTTP()
    side.serve(lambda request: b"fine" if request.path == "/" else chunks(request.path))
    with send(side.port, "/first") as client:
        assert status(client) == "500"
    with send(side.port, "/second") as client:
        came = everything(client)
    assert came.startswith(b"HTTP/1.1 200")
    assert came.count(b"z") == 150_000
    assert not came.endswith(b"0\r\n\r\n"), "the response looks complete"
    succeed(side)
    group = error_of(side.stop)
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
@on_each_of_ours
def return_nonsense(side: Ours) -> None:
    result: object = None
    side.serve(lambda request: result)
    for count, result in enumerate([*NONSENSE[side.protocol], *NOWHERE], 1):
        with side.call() as client:
            assert eventually(lambda count=count: len(side.server.errors) == count), repr(result)
            if side.failure is not None:
                assert side.answer(client) == side.failure, repr(result)
        error = error_of(side.server.raise_errors)
        assert isinstance(error, TypeError | ValueError), repr(error)
        if result in NOWHERE:
            assert "return" in str(error), f"the error does not say what may be returned: {error}"
    result = side.result
    succeed(side)
    side.stop()


@rows.add("returns what has no repr", peers=False)
@on_each_of_ours
def return_the_nameless(side: Ours) -> None:
    side.serve(lambda request: Nameless())
    fail(side)
    error = error_of(side.stop)
    assert isinstance(error, TypeError), repr(error)
    assert "Nameless" in str(error)


@rows.add("returns a huge reply")
def return_much(subject: Subject) -> None:
    size = 32 << 20
    subject.start(lambda path: "x" * size)
    assert len(fetch(subject.port)) == size
    subject.stop()
    if isinstance(subject, Sidestage):
        side = TCP()
        side.serve(lambda connection: b"x" * size)
        assert len(side.ask()) == size
        side.stop()


@rows.add("returns a huge reply that nobody reads", "-W", "error", limit=HANGS)
def return_much_in_vain(subject: Subject) -> None:
    allow_forced_stops(HTTP(subject))
    begun = threading.Event()

    def answer(path: str) -> str:
        begun.set()
        return "x" * (32 << 20)

    subject.start(answer)
    with send(subject.port):
        assert begun.wait(SECONDS)
        subject.stop(0.5)
    if isinstance(subject, Sidestage):
        assert len(subject.server.stop_report.connections) == 1


@rows.add("does not read a body of 1 MB")
def leave_the_body(subject: Subject) -> None:
    subject.start(lambda path: path)
    for path in ("/one", "/two"):
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", subject.port, timeout=SECONDS)
        ) as client:
            client.request("GET", path, body=b"x" * 1_000_000)
            assert client.getresponse().read().decode() == path
    subject.stop()


# Servers among themselves ------------------------------------------------------------------------


@rows.add("calls its own server, 20 deep", limit=HANGS)
@on_each_side
def call_its_own(side: Side) -> None:
    depth = itertools.count()

    def work() -> None:
        if next(depth) < 20:
            succeed(side)

    side.start(work)
    succeed(side)
    side.stop()


@rows.add("A waits for B, and B for A", limit=HANGS)
@on_each_side
def wait_for_each_other(side: Side) -> None:
    meeting = threading.Barrier(2, timeout=SECONDS)
    side.start(lambda: [meeting.wait() for _ in range(5)])
    with side.call() as one, side.call() as other:
        assert [side.answer(one), side.answer(other)] == [side.success] * 2, "they wait in vain"
    side.stop()


@rows.add("waits for a request to its own server", peers=False)
@on_each_of_ours
def wait_for_its_own(side: Ours) -> None:
    first = itertools.count()
    waiting = threading.Event()
    # A connection is recorded when it ends, all else when it comes.
    wanted = 1 if side.protocol == "TCP" else 2

    def work() -> None:
        if next(first) == 0:
            waiting.set()
            assert len(side.server.wait_for(wanted, SECONDS)) == wanted
            assert len(side.server.received) == wanted

    side.start(work)
    with side.call() as client:
        assert waiting.wait(SECONDS)
        succeed(side)
        assert side.answer(client) == side.success
    side.stop()


@rows.add("stops the server that it serves", limit=HANGS)
@on_each_side
def stop_its_own(side: Side) -> None:
    stopped = threading.Event()
    errors: list[BaseException | None] = []

    def work() -> None:
        errors.append(error_of(lambda: side.stop(2)))
        stopped.set()

    side.start(work)
    port = side.port
    with side.call():
        assert stopped.wait(SECONDS), "the stop does not end"
    assert errors == [None]
    if side.protocol != "UDP":
        assert isinstance(error_of(lambda: connect(port).close()), ConnectionRefusedError)
    if side.ours:
        assert side.server.stop_report.clean, side.server.stop_report
        side.stop()  # nothing is left to raise


@rows.add("two stop each other's server", limit=HANGS)
@on_each_side
def stop_each_other(side: Side) -> None:
    allow_forced_stops(side)
    other = side.another()
    meeting = threading.Barrier(2, timeout=SECONDS)
    stopped = threading.Semaphore(0)

    def work(its: Side) -> None:
        meeting.wait()
        its.stop(0.5)
        stopped.release()

    side.start(lambda: work(other))
    other.start(lambda: work(side))
    with side.call(), other.call():
        for _ in range(2):
            assert stopped.acquire(timeout=SECONDS), "the stop does not end"
    if side.ours:
        side.stop()
        other.stop()


@rows.add("starts and stops another server")
@on_each_side
def start_another(side: Side) -> None:
    def work() -> None:
        other = side.another()
        other.start(lambda: None)
        succeed(other)
        other.stop()

    side.start(work)
    succeed(side)
    succeed(side)
    side.stop()


# Late --------------------------------------------------------------------------------------------


@rows.add("replies after the client left")
@on_each_side
def reply_to_nobody(side: Side) -> None:
    begun, left = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert left.wait(SECONDS)

    side.start(work)
    with side.call() as client:
        assert begun.wait(SECONDS)
        if side.protocol != "UDP":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    left.set()
    succeed(side)
    side.stop()


@rows.add("writes on after the client left", peers=False)  # the others' rows return text
def write_to_nobody(subject: Subject) -> None:
    def over_http(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        write = request.wfile.write
        while True:
            write(b"x" * 65536)

    def over_tcp(connection: Any) -> None:
        while True:
            connection.sendall(b"x" * 65536)

    for side, handler in ((OurHTTP(), over_http), (TCP(), over_tcp)):
        side.serve(handler)
        with side.call() as client:
            assert client.recv(65536)
        assert eventually(lambda side=side: bool(side.server.diagnostics))
        assert "left" in side.server.diagnostics[0].text
        side.stop()  # it is no error
        assert side.server.stop_report.clean


@rows.add("replies after handler_timeout", peers=False)
@on_each_of_ours
def reply_too_late(side: Ours) -> None:
    if side.protocol in {"TCP", "UDP"}:
        return  # no protocol for saying so

    def by_hand(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(b"x" * 100_000)

    for reply in (None, by_hand) if side.protocol == "HTTP" else (None,):
        _reply_too_late(side, reply or (lambda request: None))


def _reply_too_late(side: Ours, reply: Callable[[Any], None]) -> None:
    calls = itertools.count()
    told, replied = threading.Event(), threading.Event()

    def handler(request: Any) -> None:
        if next(calls) == 0:
            assert told.wait(SECONDS)
            try:
                reply(request)
            finally:
                replied.set()

    side.serve(handler, handler_timeout=0.2)
    assert side.ask() == {"HTTP": "504", "SMTP": "451"}[side.protocol]
    told.set()
    assert replied.wait(SECONDS)
    succeed(side)
    side.stop()  # it is no error
    assert any("no answer" in diagnostic.text for diagnostic in side.server.diagnostics)


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
@on_each_of_ours_at_once
def use_after_the_stop(side: Ours) -> None:
    for use in LATE_USES[side.protocol]:
        _use_after_the_stop(side, use)


def _use_after_the_stop(side: Ours, use: Callable[[Any], object]) -> None:
    from sidestage import ServerStopped

    allow_forced_stops(side)
    begun, stopped = threading.Event(), threading.Event()
    errors: list[BaseException | None] = []

    def handler(request: Any) -> None:
        if not begun.is_set():
            begun.set()
            assert stopped.wait(SECONDS)
            errors.append(error_of(lambda: use(request)))

    side.serve(handler)
    with side.call():
        assert begun.wait(SECONDS)
        side.stop(0.5)
    side.server.start()  # what comes too late is not for this one either
    known = len(side.server.received)
    stopped.set()
    assert eventually(lambda: bool(errors))
    assert isinstance(errors[0], ServerStopped), repr(errors[0])
    with side.call():
        side.server.wait_for(known + 1)
    side.stop()


@rows.add("raises after handler_timeout, or after the stop", peers=False)
@on_each_of_ours_at_once
def raise_too_late(side: Ours) -> None:
    allow_forced_stops(side)
    begun, late = threading.Event(), threading.Event()
    errors = [ValueError("after it was given up"), ValueError("after the stop")]
    left = iter(errors)

    def handler(request: Any) -> None:
        begun.set()
        assert late.wait(SECONDS)
        raise next(left)

    if side.protocol in {"HTTP", "SMTP"}:
        side.serve(handler, handler_timeout=0.2)
        assert side.ask() in {"504", "451"}
        late.set()
        assert eventually(lambda: bool(side.server.errors))
        assert error_of(side.stop) is errors[0]
    else:
        next(left)
    begun.clear()
    late.clear()
    side.serve(handler)
    with side.call():
        assert begun.wait(SECONDS)
        side.stop(0.5)
    late.set()
    assert eventually(lambda: bool(side.server.errors))
    assert error_of(side.stop) is errors[1], "nobody hears of it"


@rows.add("keeps the request beyond its return", peers=False)
def keep_the_request(subject: Subject) -> None:
    import pytest

    kept: list[Any] = []

    def handler(request: Any) -> object:
        kept.append(request)
        return side.result

    side: Ours = OurHTTP()
    side.serve(handler)
    succeed(side)
    request = kept.pop()
    assert (request.path, request.body, request.rfile.read()) == ("/", b"", b"")
    # The client has its answer a moment before the handler's thread is done with it.
    assert eventually(lambda: "answered" in str(error_of(lambda: request.send_response(200))))
    side.stop()

    side = SMTP()
    side.serve(handler)
    succeed(side)
    assert kept.pop().message["Subject"] == "hello"
    side.stop()

    side = TCP()
    side.serve(handler)
    succeed(side)
    connection = kept.pop()
    with pytest.raises(OSError, match="closed"):
        connection.sendall(b"late")
    with pytest.raises(OSError, match="closed"):
        connection.recv(1)
    side.stop()

    side = UDP()
    side.serve(handler)
    with side.call() as client:
        assert side.answer(client) == side.success
        kept.pop().reply(b"once more")
        assert side.answer(client) == "once more"
    side.stop()


# What it does to the process ---------------------------------------------------------------------


def _raise_in_the_copy() -> None:
    raise ValueError("in the copy")


def fork(leave: Work, side: Side) -> None:
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

    side.start(work)
    with side.call() as client:
        assert left.wait(SECONDS), "the copy does not end"
        if side.ours:
            succeed(side)  # what the copy had sent, it sent before
        assert not select.select([client], [], [], 0)[0], "the client hears of the copy"
        go.set()
        assert side.answer(client) == side.success
    succeed(side)
    side.stop()


for _name, _leave in (
    ("leaves by os._exit", lambda: os._exit(0)),
    ("leaves by sys.exit", lambda: sys.exit(0)),
    ("raises", _raise_in_the_copy),
    ("returns", lambda: None),
):
    # A handler is a thread beside the main one, so Python rightly warns of its fork from 3.12 on.
    rows.add(f"forks, and the copy {_name}", "-W", "ignore::DeprecationWarning", limit=HANGS)(
        on_each_side(functools.partial(fork, _leave))
    )


@rows.add("starts a thread that outlives it", "-W", "error")
@on_each_side
def leave_a_thread(side: Side) -> None:
    over, threads = threading.Event(), list[threading.Thread]()

    def work() -> None:
        threads.append(threading.Thread(target=over.wait))
        threads[0].start()
        threading.Thread(target=threading.Event().wait, daemon=True).start()

    side.start(work)
    succeed(side)
    side.stop()
    over.set()
    threads[0].join(SECONDS)
    assert not threads[0].is_alive()


@rows.add("changes directory, environment, signal mask, limits")
@on_each_side
def change_everything(side: Side) -> None:
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

    side.start(work)
    try:
        succeed(side)
        succeed(side)
        other = side.another()
        other.start(lambda: None)
        succeed(other)
        other.stop()
        side.stop()
    finally:
        os.chdir(home)


# The end of the process --------------------------------------------------------------------------

_ENDING = """
import logging, socket, sys, threading, time
from kit.servers import SUBJECTS

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

subject = SUBJECTS[name]()
subject.start(answer)
client = socket.create_connection(("127.0.0.1", subject.port))
client.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
begun.wait()
"""


def end_the_process(doings: tuple[str, ...], subject: Subject) -> None:
    """20 times, with nobody to stop the server; what is said is but what the handler logs."""
    enough = Clock.monotonic() + 15  # on a machine that is too slow for 20

    def end(number: int) -> tuple[int, list[str]]:
        if Clock.monotonic() > enough:
            return 0, []
        doing = doings[number % len(doings)]
        # -u: an interpreter that ends while a thread writes to a buffered stdout aborts by itself.
        done = subprocess.run(
            [sys.executable, "-u", "-c", _ENDING, subject.name, doing, str(number)],
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
@on_each_side
def see_context_variables(side: Side) -> None:
    seen: list[str] = []

    def work() -> None:
        seen.append(_variable.get())
        _variable.set("the handler's")

    _variable.set("the test's")
    side.start(work)
    succeed(side)
    succeed(side)
    side.stop()
    assert seen == ["the test's"] * 2, f"it sees {seen[0]}"
    assert _variable.get() == "the test's"


@rows.add("threading.local, current_thread, enumerate", "-W", "error", limit=HANGS)
@on_each_side
def use_threading(side: Side) -> None:
    own = threading.local()
    numbers = itertools.count()
    seen: list[bool] = []
    before = set(threading.enumerate())

    def work() -> None:
        own.number = number = next(numbers)
        thread = threading.current_thread()
        seen.append(own.number == number and thread in threading.enumerate() and bool(thread.name))

    side.start(work)
    succeed(side)
    succeed(side)
    side.stop()
    assert seen == [True, True]
    assert eventually(lambda: set(threading.enumerate()) == before)


@rows.add("warns, and the test sees it")
@on_each_side
def warn(side: Side) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        side.start(lambda: warnings.warn("hello", UserWarning, stacklevel=2))
        succeed(side)
        side.stop()
    assert [str(warning.message) for warning in caught] == ["hello"]


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
