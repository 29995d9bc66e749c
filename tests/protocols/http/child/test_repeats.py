"""The test's process is told of requests that are alike as of any others."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from kit.http_child import Client, Server, declare, head, reply
from sidestage.protocols.http.messages import Request

PLAIN = head()
WITH_BODY = head("POST", "/", "Content-Length: 3") + b"abc"
CHUNKED = head("POST", "/", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\nX: y\r\n\r\n"
SENT = [
    *[PLAIN] * 4, head(target="/other"), PLAIN, WITH_BODY, *[PLAIN] * 3, CHUNKED, CHUNKED,
    *[head("HEAD")] * 3, *[WITH_BODY] * 3, *[head("GET", "/", "X: " + "x" * 5000)] * 3, PLAIN,
]  # fmt: skip


def handled() -> Server:
    return Server()


def recorded() -> Server:
    return Server(handled=False)


def strict() -> Server:
    """One that answers the first two requests of a line differently, and has no answer to some."""
    server = Server(handled=False)
    server.command(
        declare(1, "GET", "/", allow=True, least=0),
        reply(1, b"first", least=0),
        reply(1, b"others", least=0),
        declare(2, "HEAD", "/", least=1, most=2),
    )
    return server


def strict_and_handled() -> Server:
    server = strict()
    server.service.handled = True
    return server


MODES = [handled, recorded, strict, strict_and_handled]


def told(server: Server, clients: Callable[[], Client]) -> list[Request]:
    """What the test's process is told of ``SENT``, each at another time."""
    for request in SENT:
        server.loop.now += 1.5
        clients().feed(request)
        if (last := server.requests[-1]).call:
            server.respond(last)
    return server.requests


@pytest.mark.parametrize("mode", MODES)
def test_what_one_client_repeats_is_told_as_from_many(mode: Callable[[], Server]) -> None:
    one, many = mode(), mode()
    client = one.connect()
    repeated, each = told(one, lambda: client), told(many, many.connect)
    assert len(repeated) == len(SENT)
    assert [msgspec.structs.replace(request, call=0, connection=0) for request in repeated] == [
        msgspec.structs.replace(request, call=0, connection=0) for request in each
    ]
    assert {request.connection for request in repeated} == {client.connection.number}


def test_each_call_has_its_own_id() -> None:
    server = handled()
    client = server.connect()
    calls = [request.call for request in told(server, lambda: client)]
    assert len(set(calls)) == len(SENT)
    assert not len(server.service.calls)


def test_requests_that_are_alike_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else this would test nothing of them."""
    server, made = recorded(), []
    client = server.connect()
    monkeypatch.setattr(
        "sidestage.protocols.http.child.exchange.Request", lambda **fields: made.append(fields)
    )
    monkeypatch.setattr(server.outbox, "record", lambda message: None)
    monkeypatch.setattr("sidestage.protocols.http.child.repeats.Repeated", _Encoded)
    monkeypatch.setattr(server.outbox, "add_encoded", lambda message, kept: None)
    client.feed(*[PLAIN] * 10)
    assert len(made) == 2


class _Encoded:
    def __init__(self, message: object) -> None: ...

    def encoded(self, call: int, at: float) -> bytes:
        return b""
