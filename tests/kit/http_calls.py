"""One request of a client that is no library: its status, reason and body."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

_WAIT = 10.0  # seconds


class Response(NamedTuple):
    """What a client got."""

    status: int
    reason: str
    headers: dict[str, str]
    text: str


def request(
    server: Any,
    method: str,
    target: str,
    body: object = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Send one request on a connection of its own; a dict or list is JSON."""
    data = json.dumps(body) if isinstance(body, (dict, list)) else body
    client = http.client.HTTPConnection(server.host, server.port, timeout=_WAIT)
    try:
        client.request(method, target, data, headers or {})  # type: ignore[arg-type] # as given
        answer = client.getresponse()
        return Response(
            answer.status, answer.reason, dict(answer.getheaders()), answer.read().decode()
        )
    finally:
        client.close()


def later(work: Callable[..., Response], *arguments: Any) -> Future[Response]:
    """Do it in another thread; the result of the future waits for it."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(work, *arguments)
    finally:
        pool.shutdown(wait=False)
