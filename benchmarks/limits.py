"""Lower limits of this machine for any server in another process, measured now."""

from __future__ import annotations

import os
import statistics
import time

import interpreters

ROUNDS = 15


def lines() -> list[str]:
    """A Markdown table."""
    bare = statistics.median(interpreters.bare() for _ in range(ROUNDS))
    fork = statistics.median(_fork() for _ in range(ROUNDS))
    return [
        "| limit | median |",
        "| --- | ---: |",
        f"| interpreter that does nothing, start to exit | {bare:.1f} ms |",
        f"| `os.fork` of the benchmark's own process, to its exit | {fork:.1f} ms |",
        f"| a byte through a pipe to another process and back | {pipe_round_trip():.0f} µs |",
        "",
    ]


def _fork() -> float:
    began = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return (time.perf_counter() - began) * 1000


def pipe_round_trip(count: int = 2000) -> float:
    """The median in microseconds."""
    theirs, ours = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(theirs[1])
        while data := os.read(theirs[0], 1):
            os.write(ours[1], data)
        os._exit(0)
    times: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        os.write(theirs[1], b"x")
        os.read(ours[0], 1)
        times.append(time.perf_counter() - began)
    for fd in (*theirs, *ours):
        os.close(fd)
    os.waitpid(pid, 0)
    return statistics.median(times) * 1e6
