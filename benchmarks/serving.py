"""How fast servers serve: Sidestage's and their peers, in turn."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import clients
import crowds
import secured
import servers
import suites
from bare import bare
from measuring import Figures, Row, Serving, Side, compare
from relay import relay

from sidestage import HTTPServer, SMTPServer, TCPServer

SLOW = 2  # a peer that takes long is measured in every second round


def hello(request: Any) -> str:
    """A typical HTTP handler of a test."""
    return "hello"


def nothing(request: Any) -> None:
    """A typical handler of a test for the other protocols."""


def fixed(value: Any) -> Serving:
    """A side that needs no server."""

    @contextmanager
    def serving() -> Iterator[Any]:
        yield value

    return serving


def whole(client: Callable[[str], None]) -> Callable[[Serving], float]:
    """Milliseconds of a small test: start, client, stop."""

    def act(serving: Serving) -> float:
        began = time.perf_counter()
        with serving() as port:
            client(f"http://127.0.0.1:{port}")
        return (time.perf_counter() - began) * 1000

    return act


HANDLED = servers.ours(HTTPServer, hello)
CANNED = servers.ours(HTTPServer)
LIMIT = Side("asyncio + httptools in a process, nothing else", bare)
RELAY = Side("a relay to a thread and back, nothing else", relay)


def on_one_core(serving: Serving) -> Serving:
    """The same server on the processor of its client, where waking it costs little."""

    @contextmanager
    def on_one() -> Iterator[Any]:
        cores = os.sched_getaffinity(0)
        crowds.empty_the_pool()
        os.sched_setaffinity(0, {min(cores)})  # threads and processes inherit it
        try:
            with serving() as port:
                yield port
        finally:
            os.sched_setaffinity(0, cores)
            crowds.empty_the_pool()

    return on_one


def _serial(what: str, ours: Serving, bound: float, *, one_core: bool) -> Row:
    where = on_one_core if one_core else (lambda serving: serving)
    return Row(
        f"request, one after another on a kept connection{what}{', one core' if one_core else ''}",
        "µs",
        Side(f"HTTPServer{what or ', handler'}", where(ours)),
        (
            Side("ThreadingHTTPServer in a thread", where(servers.threading_http), bound=bound),
            Side("uvicorn in a thread", where(servers.uvicorn_thread)),
            Side(LIMIT.name, where(LIMIT.serving)),
            Side(RELAY.name, where(RELAY.serving)),
        ),
        clients.serial,
    )


def _small_test(name: str, client: Callable[[str], None]) -> Row:
    return Row(
        f"small test with {name}: start, 3 requests, stop",
        "ms",
        Side("HTTPServer", fixed(HANDLED)),
        (
            Side("pytest-httpserver", fixed(servers.pytest_httpserver), bound=0.02),
            Side("uvicorn in a thread", fixed(servers.uvicorn_thread), bound=0.2),
        ),
        whole(client),
    )


def _expecting(count: int) -> Row:
    peers = [
        Side("uvicorn in a thread, one route", servers.uvicorn_thread, bound=2),
        Side("pytest-httpserver, data", servers.pytest_httpserver_expecting(count), bound=25),
    ]
    if count > 1:  # a request may cost 1.2 times as much as with one expectation
        peers.append(Side("HTTPServer, 1 expectation", servers.ours_expecting(1), bound=1 / 1.2))
    declared = "1 expectation" if count == 1 else f"{count:,} expectations"
    return Row(
        f"wrk, 16 kept connections, data of {declared}",
        "requests/s",
        Side("HTTPServer", servers.ours_expecting(count)),
        tuple(peers),
        clients.wrk,
        more_is_better=True,
    )


def _connections(count: int) -> str:
    return "one connection" if count == 1 else f"{count} connections"


def _echo(connections: int, act: Callable[[int], float]) -> Row:
    return Row(
        f"TCP echo of 64 bytes, {_connections(connections)}",
        "echoes/s",
        Side("TCPServer", servers.ours(TCPServer, servers.echo)),
        (
            Side("ThreadingTCPServer in a thread", servers.threading_tcp),
            Side(RELAY.name, partial(relay, b""), bound=1.1 if connections == 1 else None),
        ),
        act,
        more_is_better=True,
    )


def _mails(connections: int, count: int) -> Row:
    return Row(
        f"mails by smtplib, {_connections(connections)}",
        "mails/s",
        Side("SMTPServer", servers.ours(SMTPServer, nothing)),
        (Side("aiosmtpd Controller", servers.controller, bound=1.2),),
        partial(clients.mails, connections=connections, count=count),
        more_is_better=True,
    )


def _stream(direction: str) -> Row:
    def act(size: int) -> float:
        rate, here, there = crowds.stream(size, upload=direction == "upload")
        if max(here, there) > 32:
            clients.fail(f"memory has grown by {here:.0f} and {there:.0f} MiB")
        return rate

    return Row(
        f"{direction} of 1 GiB, streamed through a handler",
        "MiB/s",
        Side("HTTPServer", fixed(1 << 30)),
        (),
        act,
        rounds=5,
        more_is_better=True,
        limit=500,
    )


def _hundred(
    name: str, unit: str, figure: Callable[[float, float, float], float], limit: float
) -> Row:
    def act(count: int) -> float:
        crowds.empty_the_pool()
        return figure(*crowds.many_servers(count))

    return Row(name, unit, Side("HTTPServer", fixed(100)), (), act, rounds=5, limit=limit)


def _suite(workers: int) -> Row:
    return Row(
        f"suite of 300 tests, a server each{f', -n {workers}' if workers else ''}",
        "ms a test",
        Side("`http_server`", fixed(suites.OURS)),
        (
            Side("pytest-httpserver, one for the whole run", fixed(suites.SHARED), bound=1),
            Side(
                "pytest-httpserver of its own for each (20 tests)",
                fixed(suites.OWN),
                partial(suites.run, tests=20, workers=workers),
                bound=0.05,
                times=SLOW,
            ),
        ),
        partial(suites.run, workers=workers),
        rounds=5,
    )


def _expecting_suite(name: str, suite: suites.Suite) -> Row:
    return Row(
        f"suite of 300 tests, an expectation and a request each, {name}",
        "ms a test",
        Side("Sidestage", fixed(suite)),
        (Side("pytest-httpserver, one for the whole run", fixed(suites.SHARED), bound=1),),
        suites.run,
        rounds=5,
    )


ROWS = [
    _serial("", HANDLED, 0.75, one_core=False),
    _serial("", HANDLED, 1.25, one_core=True),
    _serial(", canned reply", CANNED, 0.35, one_core=False),
    _serial(", canned reply", CANNED, 0.4, one_core=True),
    Row(
        "start, `handler =`, `raise_errors()` and stop of a test with a fixture",
        "ms",
        Side("HTTPServer", lambda: contextlib.nullcontext(HTTPServer())),
        (),
        clients.life_of_a_test,
    ),
    _small_test("http.client", clients.with_http_client),
    _small_test("requests", clients.with_requests),
    _small_test("httpx", clients.with_httpx),
    Row(
        "wrk, 16 kept connections",
        "requests/s",
        Side("HTTPServer, handler", HANDLED),
        (
            Side("uvicorn in a thread", servers.uvicorn_thread, bound=1),
            Side("pytest-httpserver", servers.pytest_httpserver, bound=25),
            LIMIT,
            RELAY,
        ),
        clients.wrk,
        more_is_better=True,
    ),
    Row(
        "wrk, 16 kept connections, canned reply",
        "requests/s",
        Side("HTTPServer", CANNED),
        (Side("uvicorn in a thread", servers.uvicorn_thread, bound=2), LIMIT),
        clients.wrk,
        more_is_better=True,
    ),
    _expecting(1),
    _expecting(1000),
    _echo(1, clients.echo_one),
    _echo(16, clients.echo_many),
    Row(
        "burst of 50,000 datagrams, recorded",
        "datagrams/s",
        Side("UDPServer", servers.our_udp, partial(clients.burst, count=50_000)),
        (Side("ThreadingUDPServer in a thread", servers.threading_udp, bound=8),),
        partial(clients.burst, count=5_000),
        more_is_better=True,
    ),
    _mails(1, 50),
    _mails(8, 25),
    _stream("upload"),
    _stream("download"),
    Row(
        "16 handlers that block for 100 ms, at once",
        "ms",
        Side("HTTPServer", crowds.blocking),
        (),
        crowds.at_once,
        limit=150,
    ),
    Row(
        "request beside 1,000 idle connections",
        "µs",
        Side("HTTPServer", fixed(1000)),
        (),
        lambda count: crowds.idle_connections(count)[0],
        rounds=5,
    ),
    _hundred("start of 100 servers at once", "s", lambda start, stop, memory: start, limit=3),
    _hundred("memory of each of them (USS)", "MiB", lambda start, stop, memory: memory, limit=15),
    _suite(0),
    _suite(2),
    _expecting_suite("a server each", suites.EXPECTING),
    _expecting_suite("one server", suites.EXPECTING_SHARED),
    Row(
        "the 25 tests of a newcomer (`benchmarks/newcomer`)",
        "ms a test",
        Side("Sidestage", fixed(("sidestage.pytest_plugin", "test_sidestage.py"))),
        (
            Side(
                "pytest-httpserver, one for the whole run",
                fixed(("pytest_httpserver.pytest_plugin", "test_httpserver.py")),
                bound=1,
            ),
        ),
        lambda module: suites.run_newcomer(*module),
        rounds=5,
    ),
    *secured.ROWS,
]


def measure(rounds: int | None = None, only: str = "") -> Iterator[Figures]:
    """Measure the rows whose name contains ``only``, in any case."""
    for row in ROWS:
        if only.lower() not in row.name.lower():
            continue
        if row.act is clients.wrk and not clients.have_wrk():
            print(f"{row.name}: left out, wrk is not installed", flush=True)
            continue
        figures = compare(row, rounds)
        print("\n".join(_lines(figures)), flush=True)
        yield figures


def table(measured: Iterable[Figures]) -> list[str]:
    """A Markdown table."""
    lines = [
        "| what | server | median | least - most | ours is | target | reached |",
        "| --- | --- | ---: | ---: | ---: | --- | --- |",
    ]
    for figures in measured:
        lines += _lines(figures)
    return [*lines, ""]


def _lines(figures: Figures) -> Iterator[str]:
    row = figures.row
    targets = list(figures.verdicts())
    wanted = "; ".join(text for text, _ in targets)
    reached = "; ".join("yes" if holds else "**no**" for _, holds in targets)
    cells = [row.name, f"**{row.ours.name}**", *_median(figures, row.ours), "", wanted, reached]
    yield f"| {' | '.join(cells)} |"
    for peer in row.peers:
        ratio = f"{figures.ratio(peer):.2g} x"
        yield f"| {' | '.join(['', peer.name, *_median(figures, peer), ratio, '', ''])} |"


def _median(figures: Figures, side: Side) -> tuple[str, str]:
    least, most = figures.spread(side)
    return f"{_short(figures.median(side))} {figures.row.unit}", f"{_short(least)} - {_short(most)}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
