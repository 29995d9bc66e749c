"""What popular HTTP clients say about each fault: the table of docs/faults.md.

``make faults`` writes the table. Do not edit it by hand.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib.metadata
import shutil
import subprocess
from collections.abc import Callable
from typing import TypeAlias

from sidestage import HTTPServer, faults

from .client_tables import BRIEF, DOCS, WAIT, Client, ProgramError, Table, said

TABLE = Table(DOCS / "faults.md", "fault")
CLIENTS = ("curl", "http.client", "requests", "httpx", "aiohttp")  # as the table has them

Fetch: TypeAlias = Callable[[str, float], str]  # of a URL, within seconds

FAULTS: dict[str, Callable[[], object]] = {
    "reset()": lambda: faults.reset(),
    'reset("hello", after=2)': lambda: faults.reset("hello", after=2),
    "close()": lambda: faults.close(),
    'close("hello", after=2)': lambda: faults.close("hello", after=2),
    "stall()": lambda: faults.stall(),
    'stall("hello", after=2)': lambda: faults.stall("hello", after=2),
    'garbage(b"\\0junk\\r\\n")': lambda: faults.garbage(b"\0junk\r\n"),
    'garbage(b"\\0junk\\r\\n", iter([b"hello"]), after=2)': lambda: faults.garbage(
        b"\0junk\r\n", iter([b"hello"]), after=2
    ),
    'chunk_error("hello")': lambda: faults.chunk_error("hello"),
    'wrong_length("hello")': lambda: faults.wrong_length("hello"),
    'slow("hello", 100)': lambda: faults.slow("hello", 100),
    'reset("hello")': lambda: faults.reset("hello"),
    'close("hello")': lambda: faults.close("hello"),
}
HARMLESS = ('slow("hello", 100)', 'reset("hello")', 'close("hello")')  # to one request


def _curl(url: str, seconds: float) -> str:
    command = ["curl", "-sS", "--noproxy", "*", "--max-time", str(seconds), url]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise ProgramError(f"exit status {done.returncode}")
    return done.stdout.decode()


def curl_version() -> str:
    """The version of the curl that is on the path."""
    shown = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True)
    return shown.stdout.split()[1]


def _standard(url: str, seconds: float) -> str:
    host = url.removeprefix("http://").rstrip("/")
    connection = http.client.HTTPConnection(host, timeout=seconds)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def _requests(url: str, seconds: float) -> str:
    import requests

    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, timeout=seconds).text


def _httpx(url: str, seconds: float) -> str:
    import httpx

    with httpx.Client(trust_env=False, timeout=seconds) as client:
        return client.get(url).text


def _aiohttp(url: str, seconds: float) -> str:
    import aiohttp

    async def fetch() -> str:
        limit = aiohttp.ClientTimeout(total=seconds)
        async with aiohttp.ClientSession(timeout=limit) as session, session.get(url) as response:
            return await response.text()

    return asyncio.run(fetch())


def error_of(package: str, name: str) -> type[Exception]:
    """A class of exceptions of a package."""
    found: type[Exception] = getattr(__import__(package), name)
    return found


def version_of(package: str) -> Callable[[], str]:
    """What tells the version of a package that is installed."""
    return lambda: importlib.metadata.version(package)


def clients() -> dict[str, Client[Fetch]]:
    """The clients that are installed here."""
    every: dict[str, Client[Fetch]] = {
        "curl": Client(curl_version, _curl, (ProgramError,)),
        "http.client": Client(lambda: "", _standard, (OSError, http.client.HTTPException)),
        "requests": Client(
            version_of("requests"), _requests, (error_of("requests", "RequestException"),)
        ),
        "httpx": Client(version_of("httpx"), _httpx, (error_of("httpx", "HTTPError"),)),
        "aiohttp": Client(
            version_of("aiohttp"), _aiohttp, (error_of("aiohttp", "ClientError"), TimeoutError)
        ),
    }
    if shutil.which("curl") is None:
        del every["curl"]
    return every


def outcome(client: Client[Fetch], name: str) -> tuple[str, Exception | None]:
    """What ``client`` says about a fault, as in the table, and the exception."""
    stalls = name.startswith("stall")
    with HTTPServer(handler=lambda request: FAULTS[name]()) as server:
        return said(lambda: client.fetch(server.url, BRIEF if stalls else WAIT))


def main() -> None:
    """Write the table between the markers of the page."""
    TABLE.write(CLIENTS, clients(), FAULTS, lambda client, name: outcome(client, name)[0])


if __name__ == "__main__":
    main()
