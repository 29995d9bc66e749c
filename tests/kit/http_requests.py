"""HTTP requests without a server: messages, records, calls, and a run that notes what is sent."""

from __future__ import annotations

from typing import Any

from sidestage.dispatch.streams import Unacknowledged
from sidestage.errors import ServerStopped
from sidestage.journal.journal import Journal
from sidestage.protocols.http.call import HTTPCall, open_call
from sidestage.protocols.http.messages import Request
from sidestage.protocols.http.request import HTTPRequest
from sidestage.wire import messages as wire


class FakeRun:
    """Records the messages to the child."""

    def __init__(self, *, ended: bool = False) -> None:
        self.sent: list[wire.Message] = []
        self.unacknowledged = Unacknowledged(1 << 30)
        self._ended = ended

    def send(self, *messages: wire.Message) -> None:
        if self._ended:
            raise ServerStopped("there is no child any more")
        self.sent += messages


def fake_run(*, ended: bool = False) -> Any:
    return FakeRun(ended=ended)


def fields(*pairs: tuple[str, str]) -> bytes:
    """Header fields as they come from a client."""
    return "\r\n".join(f"{name}: {value}" for name, value in pairs).encode("latin-1")


def message(target: str = "/", body: bytes = b"", kind: str = "", **changes: Any) -> Request:
    values: dict[str, Any] = {
        "call": 0,
        "peer": ("127.0.0.1", 1),
        "at": 1.0,
        "connection": 1,
        "method": "POST",
        "target": target,
        "http_version": "1.1",
        "fields": fields(("Host", "t"), *([("Content-Type", kind)] if kind else [])),
        "body": body,
        "more": False,
        "cut": 0,
    }
    return Request(**values | changes)


def record(*args: Any, **changes: Any) -> HTTPRequest:
    return HTTPRequest(message(*args, **changes))


def streamed(body: bytes = b"", keep: int = 100) -> HTTPCall:
    call = open_call(fake_run(), message(body=body, call=1, more=True), Journal(4 * keep))
    assert isinstance(call, HTTPCall)
    return call


def feed(call: HTTPCall, *chunks: bytes, end: bool = True) -> HTTPRequest:
    for chunk in chunks:
        call.event(wire.Data(call=1, data=chunk))
    if end:
        call.event(wire.End(call=1))
    return call.request
