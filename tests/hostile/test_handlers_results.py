"""What a handler returns: any other type is a clear error, and any size works."""

from __future__ import annotations

import contextlib
import http.client
import threading
from typing import Any

from kit.clients import (
    HANGS,
    HTTP,
    SECONDS,
    TCP,
    SidestageDriver,
    allow_forced_stops,
    error_of,
    expect_failure,
    expect_success,
    send_http,
    with_each_sidestage_protocol,
)
from kit.matrix import Rows
from kit.scripts import eventually
from kit.servers import ServerUnderTest, Sidestage, fetch

rows = Rows("Handlers", __file__)


class Nameless:
    """An error whose text cannot be formatted."""

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


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
