"""A plain HTTP client for tests that only need what a URL answers."""

from __future__ import annotations

import contextlib
import http.client
import urllib.error
import urllib.request

_WAIT = 10.0  # seconds


def fetch(url: str) -> bytes:
    """Return the body of a 200; raises ``HTTPError``, closed, for another status."""
    try:
        with urllib.request.urlopen(url, timeout=_WAIT) as response:
            body: bytes = response.read()
    except urllib.error.HTTPError as error:
        error.close()  # Python 3.14 warns of one that is not closed
        raise
    return body


def fetch_quietly(url: str) -> None:
    """Have a URL answered, or not."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        fetch(url)
