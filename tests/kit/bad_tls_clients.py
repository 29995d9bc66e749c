"""What popular clients say about each kind of bad TLS: the table of docs/bad-tls.md.

``make faults`` writes the table. Do not edit it by hand.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import ssl
import subprocess
import urllib.parse
from collections.abc import Callable
from typing import TypeAlias

from sidestage import TLS, HTTPServer, faults

from .client_tables import BRIEF, DOCS, WAIT, Client, ProgramError, Table, said
from .faulty_clients import curl_version, error_of, version_of

TABLE = Table(DOCS / "bad-tls.md", "the server")
CLIENTS = ("curl", "ssl", "requests", "httpx", "aiohttp", "node")  # as the table has them

Fetch: TypeAlias = Callable[[str, str, float], str]  # of a URL, with a CA's file, within seconds

GOOD = "TLS()"
KINDS: dict[str, Callable[[], TLS | faults.Fault]] = {
    "TLS.expired()": TLS.expired,
    "TLS.not_yet_valid()": TLS.not_yet_valid,
    "TLS.wrong_host()": TLS.wrong_host,
    "TLS.self_signed()": TLS.self_signed,
    "TLS.untrusted()": TLS.untrusted,
    "TLS.wrong_chain()": TLS.wrong_chain,
    "TLS.weak_key()": TLS.weak_key,
    "TLS.old_version()": TLS.old_version,
    "TLS.fails()": TLS.fails,
    "TLS.stalls()": TLS.stalls,
    "TLS.cut()": TLS.cut,
    'faults.close_in_record("hello", after=2)': lambda: faults.close_in_record("hello", after=2),
    'faults.close_without_notify("hello", after=2)': lambda: faults.close_without_notify(
        "hello", after=2
    ),
    'TLS(client_auth="required")': lambda: TLS(client_auth="required"),
    GOOD: TLS,
}

_NODE = """\
const [url, milliseconds] = process.argv.slice(1)
const options = { agent: false, signal: AbortSignal.timeout(Number(milliseconds)) }
function fail(error) {
  console.log(error.code)
  process.exitCode = 1
}
require("https").get(url, options, (response) => {
  let body = ""
  response.on("data", (data) => { body += data })
  response.on("end", () => process.stdout.write(body)).on("error", fail)
}).on("error", fail)
"""


def _curl(url: str, ca_file: str, seconds: float) -> str:
    command = ["curl", "-sS", "--noproxy", "*", "--max-time", str(seconds), "--cacert", ca_file]
    done = subprocess.run([*command, url], capture_output=True, check=False)
    if done.returncode:
        raise ProgramError(f"exit status {done.returncode}")
    return done.stdout.decode()


def _ssl(url: str, ca_file: str, seconds: float) -> str:
    context = ssl.create_default_context(cafile=ca_file)
    host = urllib.parse.urlsplit(url).netloc
    connection = http.client.HTTPSConnection(host, timeout=seconds, context=context)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def _requests(url: str, ca_file: str, seconds: float) -> str:
    import requests

    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, timeout=seconds, verify=ca_file).text


def _httpx(url: str, ca_file: str, seconds: float) -> str:
    import httpx

    context = ssl.create_default_context(cafile=ca_file)
    with httpx.Client(trust_env=False, timeout=seconds, verify=context) as client:
        return client.get(url).text


def _aiohttp(url: str, ca_file: str, seconds: float) -> str:
    import aiohttp

    async def fetch() -> str:
        limit = aiohttp.ClientTimeout(total=seconds)
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=ca_file))
        async with (
            aiohttp.ClientSession(timeout=limit, connector=connector) as session,
            session.get(url) as response,
        ):
            return await response.text()

    return asyncio.run(fetch())


def _node(url: str, ca_file: str, seconds: float) -> str:
    done = subprocess.run(
        ["node", "-e", _NODE, url, str(int(seconds * 1000))],
        capture_output=True,
        check=False,
        env={**os.environ, "NODE_EXTRA_CA_CERTS": ca_file},
        text=True,
    )
    if done.returncode:
        raise ProgramError(f"`{done.stdout.strip()}`")
    return done.stdout


def _node_version() -> str:
    shown = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    return shown.stdout.strip().removeprefix("v")


def clients() -> dict[str, Client[Fetch]]:
    """The clients that are installed here; the version of ``ssl`` is that of OpenSSL."""
    openssl = ssl.OPENSSL_VERSION.split()[1]
    requests_error = error_of("requests", "RequestException")
    aiohttp_errors = (error_of("aiohttp", "ClientError"), TimeoutError)
    every: dict[str, Client[Fetch]] = {
        "curl": Client(curl_version, _curl, (ProgramError,)),
        "ssl": Client(lambda: openssl, _ssl, (OSError, http.client.HTTPException)),
        "requests": Client(version_of("requests"), _requests, (requests_error,)),
        "httpx": Client(version_of("httpx"), _httpx, (error_of("httpx", "HTTPError"),)),
        "aiohttp": Client(version_of("aiohttp"), _aiohttp, aiohttp_errors),
        "node": Client(_node_version, _node, (ProgramError,)),
    }
    for program in ("curl", "node"):
        if shutil.which(program) is None:
            del every[program]
    return every


def outcome(client: Client[Fetch], name: str) -> tuple[str, Exception | None]:
    """What ``client`` says about a kind of TLS, as in the table, and the exception."""
    seconds = BRIEF if name == "TLS.stalls()" else WAIT
    made = KINDS[name]()
    tls, answer = (made, "hello") if isinstance(made, TLS) else (True, made)
    with HTTPServer(handler=lambda request: answer, tls=tls) as server:
        told, error = said(lambda: client.fetch(server.url, server.ca_file, seconds))
    if type(error) is ssl.SSLCertVerificationError:  # a class of aiohttp's is derived from it
        told += f": {error.verify_message.rstrip('.')}"
    return told, error


def main() -> None:
    """Write the table between the markers of the page."""
    TABLE.write(CLIENTS, clients(), KINDS, lambda client, name: outcome(client, name)[0])


if __name__ == "__main__":
    main()
