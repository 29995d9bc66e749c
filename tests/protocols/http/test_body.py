"""A thread that waits for a body, or to send one, is woken by whatever ends the request."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from kit.raw_http import RawClient
from kit.scripts import eventually
from sidestage import HTTPServer, ServerDied, ServerStopped

LONG = 30.0  # seconds; a bound for what ends at once unless it is broken
HEAD = "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n"
FIRST = b"x" * 70_000
READS: dict[str, Callable[[Any], Any]] = {
    "body": lambda request: request.body,
    "text": lambda request: request.text,
    "trailers": lambda request: request.trailers,
    "rfile": lambda request: request.rfile.read(),
    "lines": lambda request: list(request.rfile),
}
every_read = pytest.mark.parametrize("read", READS.values(), ids=READS)


class Upload:
    """A server, and a client that has sent a part of a body; another thread reads the rest."""

    def __init__(self) -> None:
        self.server = HTTPServer(handler=self._handle)
        self.request: Future[Any] = Future()
        self.done = threading.Event()

    def _handle(self, request: Any) -> str:
        self.request.set_result(request)
        assert self.done.wait(LONG)
        return "done"

    def begin(self, client: RawClient) -> Any:
        client.send(HEAD.encode() + FIRST)
        return self.request.result(LONG)

    def read(self, request: Any, read: Callable[[Any], Any]) -> Future[Any]:
        """Read in another thread; returns once that waits for more."""
        outcome: Future[Any] = Future()

        def run() -> None:
            try:
                outcome.set_result(read(request))
            except BaseException as error:  # noqa: BLE001 - the outcome
                outcome.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        changed = request._call._inflow._changed
        assert eventually(lambda: bool(changed._waiters), LONG)
        return outcome


@pytest.fixture
def upload() -> Iterator[Upload]:
    upload = Upload()
    with upload.server:
        try:
            yield upload
        finally:
            upload.done.set()


@every_read
def test_the_end_of_the_handler(read: Callable[[Any], Any], upload: Upload) -> None:
    """It gets what has come until then, and so does whoever looks at the record."""
    with RawClient(upload.server) as client:
        request = upload.begin(client)
        outcome = upload.read(request, read)
        upload.done.set()
        outcome.result(LONG)
        assert client.answer() == (200, b"done")
    assert upload.server.received[0].body == FIRST


def test_a_record_that_the_test_reads_meanwhile(upload: Upload) -> None:
    with RawClient(upload.server) as client:
        request = upload.begin(client)
        (record,) = upload.server.received
        outcome = upload.read(request, lambda _: record.body)
        upload.done.set()
        assert outcome.result(LONG) == FIRST


@every_read
def test_a_reset_by_the_client(read: Callable[[Any], Any], upload: Upload) -> None:
    with RawClient(upload.server) as client:
        outcome = upload.read(upload.begin(client), read)
        client.reset()
        assert isinstance(outcome.exception(LONG), ConnectionResetError)


@every_read
def test_a_stop_of_the_server(read: Callable[[Any], Any], upload: Upload) -> None:
    with RawClient(upload.server) as client:
        outcome = upload.read(upload.begin(client), read)
        stop = threading.Thread(target=upload.server.stop, args=(1.0,))
        stop.start()
        assert isinstance(outcome.exception(LONG), ServerStopped)
        upload.done.set()
        stop.join(LONG)


@every_read
def test_the_death_of_the_server(read: Callable[[Any], Any], upload: Upload) -> None:
    with RawClient(upload.server) as client:
        outcome = upload.read(upload.begin(client), read)
        assert upload.server.pid is not None
        os.kill(upload.server.pid, signal.SIGKILL)
        assert isinstance(outcome.exception(LONG), ServerStopped)
        upload.done.set()
        with pytest.raises(ServerDied):
            upload.server.stop()


def test_another_thread_that_writes_when_the_handler_fails() -> None:
    """Its client does not read, and nobody takes note of that any more."""
    writing: Future[Any] = Future()

    def write(request: Any) -> None:
        try:
            while True:
                request.wfile.write(bytes(1 << 20))
        except BaseException as error:  # noqa: BLE001 - the outcome
            writing.set_result(error)

    def handler(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.flush()
        threading.Thread(target=write, args=(request,), daemon=True).start()
        changed = request._call._response_body._changed
        assert eventually(lambda: bool(changed._waiters), LONG)
        raise LookupError

    server = HTTPServer(handler=handler).start()
    with RawClient(server) as client:
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        assert isinstance(writing.result(LONG), ValueError)
    with pytest.raises(LookupError):
        server.stop()
