"""How latency, throughput and memory grow with connections, bodies and servers."""

from __future__ import annotations

import crowds

MIB = 1 << 20

CONNECTIONS = (1, 10, 100, 1000)
SIZES = (1, 1 << 10, 1 << 14, 1 << 18, 1 << 22, 1 << 26, 1 << 30)  # bytes
SERVERS = (1, 3, 10, 30, 100)

Series = list[tuple[float, float]]


def with_connections() -> dict[str, Series]:
    """A request's latency and the child's memory, for several numbers of idle connections."""
    latency: Series = []
    memory: Series = []
    for count in CONNECTIONS:
        microseconds, kib = crowds.idle_connections(count)
        latency.append((count, microseconds))
        memory.append((count, kib))
    return {"latency of a request, µs": latency, "memory of a connection, KiB": memory}


def with_bodies() -> dict[str, Series]:
    """Milliseconds for an upload and a download through a handler, for several sizes."""
    times: dict[str, Series] = {"upload": [], "download": []}
    for size in SIZES:
        for direction, series in times.items():
            rate, _, _ = crowds.stream(size, upload=direction == "upload")
            series.append((size, size / MIB / rate * 1000))
    return times


def with_servers() -> dict[str, Series]:
    """Seconds to start and to stop servers in parallel, from an empty pool."""
    started: Series = []
    stopped: Series = []
    for count in SERVERS:
        crowds.empty_the_pool()
        start, stop, _ = crowds.many_servers(count)
        started.append((count, start * 1000))
        stopped.append((count, stop * 1000))
    return {"start of all, ms": started, "stop of all, ms": stopped}
