"""HTTP in the child without sockets: bytes in, messages and bytes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from kit.encoded import decoded
from sidestage.child.iteration import Iteration
from sidestage.child.net.stream import Transport as BaseTransport
from sidestage.protocols.http.child import h1
from sidestage.protocols.http.child.service import HTTPService
from sidestage.protocols.http.matching.declared import matchers_of
from sidestage.protocols.http.matching.matchers import encode
from sidestage.protocols.http.messages import Canned, Fault, HTTPSettings, Request, Respond
from sidestage.wire.messages import Configure, Data, Declare, Message, Met, Reply, Withdraw


class Outbox:
    """Records the messages to the parent."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, *messages: Message) -> None:
        self.sent += messages

    record = note = send

    def add_encoded(self, message: bytes, *, kept: bool) -> None:
        self.sent.append(decoded(message))

    def send_data(self, call: int, data: bytes | memoryview) -> None:
        self.send(Data(call=call, data=bytes(data)))

    def flush(self) -> None:
        """They are there at once."""

    def of(self, kind: type) -> list[Any]:
        return [message for message in self.sent if isinstance(message, kind)]


class Timer:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """A loop whose time stands still until the test fires all timers."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[..., None], *args: Any) -> Timer:
        self.timers.append(Timer(lambda: call(*args)))
        return self.timers[-1]

    def call_soon(self, call: Callable[..., None], *args: Any) -> Timer:
        return self.call_later(0.0, call, *args)

    def fire(self) -> None:
        self.now += 3600
        timers, self.timers = self.timers, []
        for timer in timers:
            if not timer.cancelled:
                timer.call()


class Transport(BaseTransport):
    """Records the bytes to the client, and how the connection is ended."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.out = bytearray()
        self.reading = True
        self.half_closed = self.lingering = self.closed = False

    def write(self, data: Any) -> None:
        assert not any((self.half_closed, self.lingering, self.closed))
        self.out += data

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write_eof(self) -> None:
        self.half_closed = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def close_lingering(self) -> None:
        self.lingering = True

    def has_unread(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    abort = reset = reset_when_sent = close


class Client:
    """A connection of a service."""

    def __init__(self, service: HTTPService) -> None:
        self.transport = Transport()
        self.connection = h1.HTTPConnection(service)
        self.connection.connection_made(self.transport)

    def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            if not (self.transport.closed or self.transport.lingering):
                self.connection.data_received(memoryview(piece))


class Server:
    """A service with one connection."""

    def __init__(self, *, handled: bool = True, **options: Any) -> None:
        own = HTTPSettings(head_limit=options.pop("head_limit", 1 << 16))
        given: dict[str, Any] = {"handler_timeout": 30.0, "keep": 1 << 26, **options}
        config = Configure(
            protocol="http", settings=b"", host="", port=0, path=None, cwd=None, poll_interval=1.0,
            backlog=1, **given,
        )  # fmt: skip
        self.outbox, self.loop = Outbox(), Loop()
        loop: Any = self.loop
        outbox: Any = self.outbox
        self.service = HTTPService(Iteration(loop, outbox), config, own)
        self.service.handled = handled
        self._first = self.connect()
        self.connection, self.transport = self._first.connection, self._first.transport

    def connect(self) -> Client:
        """Open one more connection."""
        return Client(self.service)

    def feed(self, *pieces: bytes) -> None:
        self._first.feed(*pieces)

    def command(self, *messages: Any) -> None:
        """Carry out commands as the host does."""
        for message in messages:
            if isinstance(message, (Declare, Reply, Withdraw)):
                self.service.expect(message)
            else:
                self.service.command(message)

    @property
    def mets(self) -> list[Met | None]:
        """What the expectations have made of each request."""
        return [request.met for request in self.requests]

    @property
    def requests(self) -> list[Request]:
        return self.outbox.of(Request)

    def respond(self, request: Request, body: bytes = b"", *, more: bool = False) -> None:
        self.service.command(
            Respond(
                call=request.call,
                status=200,
                reason="OK",
                headers=(),
                body=body,
                length=None if more else len(body),
                more=more,
            )
        )


# Expectations ------------------------------------------------------------------------------------

_SPEC = ("allow", "least", "most", "group", "label", "place", "asked", "held", "early", "met")


def declare(entry: int, method: str, path: Any, **given: Any) -> Declare:
    """Declare an expectation; what is given is of the message, or else a matcher."""
    spec: dict[str, Any] = {
        "allow": False, "least": 1, "most": None, "group": 0, "label": f"{method} {path}",
        "place": f"test_shop.py:{entry}", "held": False, "early": False, "met": 0,
    }  # fmt: skip
    spec.update({name: given.pop(name) for name in _SPEC if name in given})
    matchers, _ = matchers_of(method, path, where_given=given.pop("where", False), **given)
    spec.setdefault("asked", matchers.asks)
    return Declare(entry=entry, matchers=encode(matchers), **spec)


def canned(body: bytes, status: int = 200, *, fault: Fault | None = None) -> bytes:
    """An answer that the child gives by itself, encoded."""
    answer = Canned(status=status, reason="So", headers=(("X", "y"),), body=body, fault=fault)
    return msgspec.msgpack.encode(answer)


def reply(entry: int, body: bytes | None = b"", *, least: int = 1, **given: Any) -> Reply:
    """Give an answer to an expectation; without a body it is a callable."""
    given.setdefault("delay", 0.0)
    status, fault = given.pop("status", 200), given.pop("fault", None)
    answer = None if body is None else canned(body, status, fault=fault)
    return Reply(entry=entry, least=least, answer=answer, **given)


# Requests ----------------------------------------------------------------------------------------


def head(method: str = "GET", target: str = "/", *fields: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: t", *fields, "", ""]
    return "\r\n".join(lines).encode()
