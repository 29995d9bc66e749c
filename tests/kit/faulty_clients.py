"""What popular HTTP clients say about each fault: the table of docs/faults.md.

``make faults`` writes the table. Do not edit it by hand.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib.metadata
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from sidestage import HTTPServer, faults

PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- clients: begin -->", "<!-- clients: end -->"
BRIEF = 1.0  # seconds until a client gives up on what is stalled
WAIT = 20.0  # seconds; nothing else comes near it

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


class Client(NamedTuple):
    """A client: fetches a URL with a limit in seconds; says what it got, or raises ``errors``."""

    version: Callable[[], str]
    fetch: Callable[[str, float], str]
    errors: tuple[type[Exception], ...]


class CurlError(Exception):
    """The exit status of curl."""


def _curl(url: str, seconds: float) -> str:
    command = ["curl", "-sS", "--noproxy", "*", "--max-time", str(seconds), url]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise CurlError(f"exit status {done.returncode}")
    return done.stdout.decode()


def _curl_version() -> str:
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


def _of(package: str, name: str) -> type[Exception]:
    found: type[Exception] = getattr(__import__(package), name)
    return found


def clients() -> dict[str, Client]:
    """The clients that are installed here."""

    def version(package: str) -> Callable[[], str]:
        return lambda: importlib.metadata.version(package)

    every = {
        "curl": Client(_curl_version, _curl, (CurlError,)),
        "http.client": Client(lambda: "", _standard, (OSError, http.client.HTTPException)),
        "requests": Client(version("requests"), _requests, (_of("requests", "RequestException"),)),
        "httpx": Client(version("httpx"), _httpx, (_of("httpx", "HTTPError"),)),
        "aiohttp": Client(
            version("aiohttp"), _aiohttp, (_of("aiohttp", "ClientError"), TimeoutError)
        ),
    }
    if shutil.which("curl") is None:
        del every["curl"]
    return every


def outcome(client: Client, name: str) -> tuple[str, Exception | None]:
    """What ``client`` says about a fault, as in the table, and the exception."""
    stalls = name.startswith("stall")
    with HTTPServer(handler=lambda request: FAULTS[name]()) as server:
        try:
            got = client.fetch(server.url, BRIEF if stalls else WAIT)
        except Exception as error:  # noqa: BLE001 - which it is, is the question
            shown = str(error) if isinstance(error, CurlError) else f"`{type(error).__name__}`"
            return shown, error
    return f"`{got!r}`", None


def told() -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """The versions of the clients on the page, and its cells by fault and client."""
    text = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    versions = dict(re.findall(r"(\S+) (\d[\d.]*\d)", text.partition("|")[0]))
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    (_, *names), _, *body = rows
    cells = {
        (row[0].strip("`"), name): cell
        for row in body
        for name, cell in zip(names, row[1:], strict=True)
    }
    return versions, cells


def main() -> None:
    """Write the table between the markers of the page."""
    found = clients()
    versions = ", ".join(f"{name} {one.version()}".strip() for name, one in found.items())
    lines = [f"With {versions}:", "", f"| fault | {' | '.join(found)} |"]
    lines.append("| --- " * (len(found) + 1) + "|")
    for name in FAULTS:
        cells: list[Any] = [outcome(client, name)[0] for client in found.values()]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    head, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
