"""Handlers that act too late: after the client has left, after a timeout, or after the stop."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from kit.clients import (
    SECONDS,
    SMTP,
    TCP,
    UDP,
    Driver,
    SidestageDriver,
    SidestageHTTP,
    allow_forced_stops,
    error_of,
    expect_success,
    with_each_protocol,
    with_each_sidestage_protocol,
    with_each_sidestage_protocol_at_once,
)
from kit.matrix import Rows
from kit.scripts import eventually
from kit.servers import ServerUnderTest

rows = Rows("Handlers", __file__)


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
    timed_out, replied = threading.Event(), threading.Event()

    def handler(request: Any) -> None:
        if next(calls) == 0:
            assert timed_out.wait(SECONDS)
            try:
                reply(request)
            finally:
                replied.set()

    driver.serve(handler, handler_timeout=0.2)
    assert driver.request() == {"HTTP": "504", "SMTP": "451"}[driver.protocol]
    timed_out.set()
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


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
