"""What a server's process uses; a module of its own, because few tests ask for it."""

from __future__ import annotations

from typing import NamedTuple


class ServerStats(NamedTuple):
    """What the server's process uses now."""

    rss: int  # bytes
    cpu_seconds: float  # user and system time
    fds: int  # open descriptors
    threads: int
    connections: int
