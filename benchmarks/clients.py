"""Clients for the benchmarks: each uses a server and returns how long that took."""

from __future__ import annotations

import http.client
import re
import shutil
import smtplib
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import requests
from servers import BODY, Recorder

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
WRK_SECONDS = 2
MESSAGE = b"x" * 64


def connect(port: int) -> socket.socket:
    """A connection with TCP_NODELAY."""
    client = socket.create_connection(("127.0.0.1", port), 10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


# HTTP --------------------------------------------------------------------------------------------


def serial(port: int, count: int = 500) -> float:
    """The median time of a request on one connection, in microseconds."""
    with connect(port) as client:
        return median_of(partial(_exchange, client), count)


def _exchange(client: socket.socket) -> None:
    client.sendall(REQUEST)
    answer = b""
    while not answer.endswith((BODY, b"\r\n\r\n")):  # the empty body of a canned reply
        answer += client.recv(65536) or fail("the server has closed the connection")


def life_of_a_test(server: Any) -> float:
    """Milliseconds of what a test with a fixture does to its server, without its requests."""
    return statistics.median(_life_of_a_test(server) for _ in range(100))


def _life_of_a_test(server: Any) -> float:
    began = time.perf_counter()
    server.start()
    server.handler = _hello
    spent = time.perf_counter() - began
    with connect(server.port) as client:
        _exchange(client)
    began = time.perf_counter()
    server.raise_errors()
    server.stop()
    return (spent + time.perf_counter() - began) * 1000


def _hello(request: Any) -> str:
    return BODY.decode()


def median_of(act: Callable[[], object], count: int) -> float:
    """The median time of an act in microseconds, after some to warm up."""
    for _ in range(max(1, count // 10)):
        act()
    times: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def fail(why: str) -> Any:
    """End the benchmark: a measurement has failed."""
    raise AssertionError(why)


def wrk(port: int, connections: int = 16) -> float:
    """Requests per second, measured with wrk."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{WRK_SECONDS}s", f"http://127.0.0.1:{port}/"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    if found := re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout):
        fail(f"{found[1]} requests failed")
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    return float(found[1]) if found else fail(done.stdout)


def have_wrk() -> bool:
    """Whether wrk is installed; it is not a Python package."""
    return shutil.which("wrk") is not None


def with_http_client(url: str) -> None:
    """Send three requests as a test with the standard library does."""
    for _ in range(3):
        host, port = url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().read() == BODY
        connection.close()


def with_requests(url: str) -> None:
    """Send three requests as a test with requests does."""
    for _ in range(3):
        assert requests.get(url + "/", timeout=10).content == BODY


def with_httpx(url: str) -> None:
    """Send three requests as a test with httpx does."""
    with httpx.Client() as client:
        for _ in range(3):
            assert client.get(url + "/").content == BODY


# TCP ---------------------------------------------------------------------------------------------


def echo_one(port: int, count: int = 500) -> float:
    """Echoes per second on one connection, with the client in the test's process."""

    def once() -> None:
        client.sendall(MESSAGE)
        if len(client.recv(100)) != len(MESSAGE):
            fail("not the whole message came back at once")

    with connect(port) as client:
        began = time.perf_counter()
        for _ in range(count):
            once()
        return count / (time.perf_counter() - began)


def echo_many(port: int, connections: int = 16, seconds: float = 1.0) -> float:
    """Echoes per second on many connections, with the client in another process, like wrk."""
    arguments = [str(port), str(connections), str(seconds)]
    command = [sys.executable, str(Path(__file__).parent / "echoing.py"), *arguments]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


# UDP ---------------------------------------------------------------------------------------------


def burst(server: Recorder, count: int) -> float:
    """Datagrams per second, from the first sent to the last recorded."""
    began = time.perf_counter()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", server.port))
        for number in range(count):
            client.send(b"%064d" % number)
    received = server.received()
    while received < count:
        before, received = received, server.received()
        if received == before:
            time.sleep(0.01)
            if server.received() == before:
                break
    return received / (time.perf_counter() - began)


# SMTP --------------------------------------------------------------------------------------------


def _mails(port: int, count: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, local_hostname="localhost", timeout=30) as client:
        for _ in range(count):
            client.sendmail("me@example.org", ["you@example.org"], "Subject: hi\r\n\r\nhello\r\n")


def mails(port: int, connections: int = 1, count: int = 50) -> float:
    """Mails per second, with each client in a thread of the test's process."""
    began = time.perf_counter()
    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(lambda _: _mails(port, count), range(connections)))
    return connections * count / (time.perf_counter() - began)
