"""How long a client in another process waits for an answer while the test's main thread computes.

All servers run all the time. Each gets requests in turn, with each kind of work in the main thread;
every figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import select
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pages
import servers
from contenders import DEFAULT_POLL, hello
from measuring import Serving
from pytest_httpserver import HTTPServer as PytestHTTPServer

from sidestage import HTTPServer

ROUNDS = 4
SECONDS = 0.4  # of requests to each server in each round
AT_LEAST = 5  # requests in that time
HELD = 0.05  # seconds for which one C call holds the GIL


Samples = dict[tuple[str, str], list[float]]  # milliseconds, by server and main thread


def main() -> None:
    """Measure, print and, if asked to, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the figures into FILE")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    figures = "\n".join(_table(measure(options.rounds), options.rounds, load))
    print(figures)
    if options.write is not None:
        pages.replace(options.write, "busy", figures)


# What is asked -----------------------------------------------------------------------------------


@contextmanager
def pytest_httpserver_canned() -> Iterator[int]:
    """pytest-httpserver without a handler."""
    with PytestHTTPServer(host="127.0.0.1", port=0) as server:
        server.expect_request("/").respond_with_data("hello")
        yield server.port


SERVERS: dict[str, Serving] = {
    "**HTTPServer, handler**": servers.ours(HTTPServer, hello),
    "**HTTPServer, canned**": servers.ours(HTTPServer),
    "ThreadingHTTPServer in a thread": partial(servers.threading_http, DEFAULT_POLL),
    "pytest-httpserver, handler": servers.pytest_httpserver,
    "pytest-httpserver, canned": pytest_httpserver_canned,
}


# What the main thread does -----------------------------------------------------------------------


def _pure_python() -> None:
    total = 0
    for number in range(10_000):
        total += number * number


def _holding_call() -> Callable[[], object]:
    """Find a sort that holds the GIL for ``HELD`` seconds."""
    dice = random.Random(1)
    numbers = [dice.random() for _ in range(200_000)]
    before = time.thread_time()  # CPU time: other processes do not count
    sorted(numbers)
    size = int(len(numbers) * HELD / (time.thread_time() - before))
    numbers = [dice.random() for _ in range(size)]
    return lambda: sorted(numbers)


def busy_until(done: threading.Event, step: Callable[[], object]) -> None:
    """Repeat ``step`` until ``done`` is set."""
    while not done.is_set():
        step()


# Measuring ---------------------------------------------------------------------------------------


class Client:
    """A process that sends GET requests one by one, each on a new connection."""

    _SOURCE = """
import http.client, json, sys, time

for line in sys.stdin:
    port, seconds, least = json.loads(line)
    times, end = [], time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        before = time.perf_counter()
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        client.request("GET", "/")
        answer = client.getresponse()
        answer.read()
        client.close()
        times.append((time.perf_counter() - before) * 1000)
        assert answer.status == 200
    print(json.dumps(times), flush=True)
"""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", self._SOURCE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def times(self, port: int, work: Callable[[threading.Event], object]) -> list[float]:
        """The milliseconds of each request, while ``work`` runs in this thread."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        done = threading.Event()

        def wait() -> None:
            select.select([stdout], [], [])
            done.set()

        waiter = threading.Thread(target=wait)
        waiter.start()
        os.write(stdin.fileno(), json.dumps([port, SECONDS, AT_LEAST]).encode() + b"\n")
        work(done)
        waiter.join()
        times: list[float] = json.loads(stdout.readline())
        return times

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def measure(rounds: int) -> tuple[Samples, Samples]:
    """The medians and the 99th percentiles of each round."""
    holding = _holding_call()
    doing: dict[str, Callable[[threading.Event], object]] = {
        "idle": lambda done: done.wait(),
        "Python": lambda done: busy_until(done, _pure_python),
        "C": lambda done: busy_until(done, holding),
    }
    medians: Samples = defaultdict(list)
    tails: Samples = defaultdict(list)
    with contextlib.ExitStack() as stack:
        client = Client()
        stack.callback(client.close)
        ports = {name: stack.enter_context(serving()) for name, serving in SERVERS.items()}
        for port in ports.values():
            client.times(port, doing["idle"])  # the first requests are cold
        order, dice = list(ports), random.Random(1)
        for _ in range(rounds):
            dice.shuffle(order)  # so that no server always follows the same other one
            for what, work in doing.items():
                for name in order:
                    times = client.times(ports[name], work)
                    medians[name, what].append(statistics.median(times))
                    tails[name, what].append(
                        statistics.quantiles(times, n=100, method="inclusive")[-1]
                    )
    return medians, tails


# The table ---------------------------------------------------------------------------------------


def _table(measured: tuple[Samples, Samples], rounds: int, load: float) -> Iterator[str]:
    medians, tails = measured
    yield (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.system()}, "
        f"{platform.python_implementation()} {platform.python_version()}; {rounds} rounds; "
        f"load {load:.1f} at the beginning. All times in milliseconds.\n"
    )
    held = f"C calls of {HELD * 1000:.0f} ms"
    yield _line("main thread:", "idle", "p99", "pure Python", "p99", held, "p99")
    yield _line("---", *["---:"] * 6)
    for name in SERVERS:
        cells = []
        for what in ("idle", "Python", "C"):
            cells += [_median(medians[name, what]), _median(tails[name, what])]
        yield _line(name, *cells)
    yield ""


def _median(times: list[float]) -> str:
    milliseconds = statistics.median(times)
    return f"{milliseconds:.0f}" if milliseconds >= 10 else f"{milliseconds:.1f}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
