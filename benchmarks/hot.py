"""The time of a request's Python code in a loop: no system calls, all caches warm.

The rest of a real request's CPU time is spent in the kernel and on cold caches after it.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from sidestage.child.channel import Outbox
from sidestage.child.iteration import Iteration
from sidestage.child.net.stream import Transport
from sidestage.dispatch.run import Run
from sidestage.dispatch.slot import Slot
from sidestage.dispatch.stacks import Tracers
from sidestage.journal.facts import Label
from sidestage.journal.journal import Journal
from sidestage.pristine.waits import Event
from sidestage.process.channel import Channel
from sidestage.protocols.http.call import PROTOCOL
from sidestage.protocols.http.child.h1 import HTTPConnection
from sidestage.protocols.http.child.service import HTTPService
from sidestage.protocols.http.matching.declared import matchers_of
from sidestage.protocols.http.matching.matchers import encode as encode_matchers
from sidestage.protocols.http.messages import VOCABULARY, Canned, HTTPSettings, Request, Respond
from sidestage.wire.frames import FrameBuffer, encode
from sidestage.wire.messages import Configure, Declare, Reply

CONNECTIONS, ROUNDS, REPEATS = 16, 50, 60
_REQUEST = b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1:40000\r\n\r\n"
_HEADERS = (("Content-Type", "text/plain; charset=utf-8"),)


class _Transport(Transport):
    """A transport that accepts everything and sends nothing."""

    def write(self, data: Any) -> None:
        pass

    def is_closing(self) -> bool:
        return False


class _Gate:
    """A wake-up that no thread waits for."""

    ended = False

    def wait(self) -> None: ...

    def wake(self) -> None: ...

    def close(self) -> None: ...


def child(*, handled: bool, declared: Iterable[Declare | Reply] = ()) -> float:
    """Microseconds of the child's code per request and reply."""
    config = Configure(
        protocol="http", settings=b"", host="", port=0, path=None, cwd=None, poll_interval=1.0,
        handler_timeout=30.0, keep=1 << 26, backlog=1,
    )  # fmt: skip
    loop, sink = asyncio.new_event_loop(), os.open(os.devnull, os.O_WRONLY)
    iteration = Iteration(loop, Outbox(loop, sink))
    service = HTTPService(iteration, config, HTTPSettings())
    service.handled = handled
    for message in declared:
        service.expect(message)
    connections = [HTTPConnection(service) for _ in range(CONNECTIONS)]
    for connection in connections:
        connection.connection_made(_Transport({"peername": ("127.0.0.1", 4711)}))
    replies = FrameBuffer(VOCABULARY.commands)

    def serve() -> float:
        began = time.thread_time()
        for connection in connections:
            iteration.received.append((connection.data_received, _REQUEST))
        iteration.act()
        spent = time.thread_time() - began
        data = bytes(encode(*(_reply(call) for call in service.calls._open)))
        began = time.thread_time()
        for message in replies.feed(data):
            service.command(message)
        iteration.end()
        return spent + time.thread_time() - began

    try:
        return _median(serve)
    finally:
        service.calls.end()
        loop.close()
        os.close(sink)


def expected() -> float:
    """Microseconds of the child's code per request that an expectation answers."""
    matchers, _ = matchers_of("GET", "/hello")
    declare = Declare(
        entry=1, allow=True, least=0, most=None, group=0, label="", place="", asked=False,
        held=False, early=False, met=0, matchers=encode_matchers(matchers),
    )  # fmt: skip
    answer = Canned(status=200, reason="OK", headers=_HEADERS, body=b"hello")
    reply = Reply(entry=1, least=0, delay=0.0, answer=msgspec.msgpack.encode(answer))
    return child(handled=False, declared=(declare, reply))


def _reply(call: int) -> Respond:
    return Respond(
        call=call, status=200, reason="OK", headers=_HEADERS, body=b"hello", length=5, more=False
    )


def parent() -> float:
    """Microseconds of the test process's code per request and reply."""
    events, write_events = os.pipe()
    sink = os.open(os.devnull, os.O_WRONLY)
    child: Any = type(
        "Child", (), {"channel": Channel(events, sink), "events": [], "process": None}
    )()
    child.channel.buffer.learn(VOCABULARY.events)
    run = Run(
        child,
        PROTOCOL,
        slot=Slot(lambda request: "hello"),
        journal=Journal(1 << 26),
        label=Label("server", None),
        ready=Event(),
        loop=None,
    )
    me, tracers, threads = threading.get_ident(), Tracers(), run.threads
    threads._gate, threads._idle = _Gate(), 1
    data = bytes(encode(*(_request(call) for call in range(1, CONNECTIONS + 1))))

    def serve() -> float:
        os.write(write_events, data)
        began = time.thread_time()
        threads._leader = me
        run.reader.unread = True
        threads._lead(me, tracers)
        return time.thread_time() - began

    try:
        return _median(serve)
    finally:
        for fd in (events, write_events, sink):
            os.close(fd)


def _request(call: int) -> Request:
    return Request(
        call=call, peer=("127.0.0.1", 4711), at=0.0, connection=1, method="GET", target="/hello",
        http_version="1.1", fields=b"Host: 127.0.0.1:40000", body=b"", more=False, cut=0,
    )  # fmt: skip


def _median(serve: Callable[[], float]) -> float:
    rounds = [sum(serve() for _ in range(ROUNDS)) for _ in range(REPEATS)]
    return statistics.median(rounds) / ROUNDS / CONNECTIONS * 1e6


def lines() -> list[str]:
    """A sentence for the documentation."""
    sentence = (
        "In a loop, with no kernel between, the Python code of such a request takes "
        f"{parent():.0f} µs in the test's process and {child(handled=True):.0f} µs in the child; "
        f"that of a canned one {child(handled=False):.0f} µs in the child, and that of an "
        f"expectation's reply {expected():.0f} µs."
    )
    return [sentence, ""]


if __name__ == "__main__":
    print("\n".join(lines()))
