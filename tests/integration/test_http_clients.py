"""Popular HTTP clients with a real server: each sends requests of its own kind."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sidestage import HTTPRequest, HTTPServer

MIB = 1 << 20
WAIT = 10.0  # seconds; no test comes near it

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def curl(*arguments: str, stdin: bytes = b"", code: int = 0) -> bytes:
    """Run curl, which must exit with ``code``; returns its output."""
    command = ["curl", "-sS", "--noproxy", "*", "--max-time", "20", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    assert done.returncode == code, done.stderr.decode()
    return done.stdout


def echo(request: HTTPRequest) -> Any:
    return request.body


def describe(request: HTTPRequest) -> dict[str, Any]:
    return {"method": request.method, "path": request.path, "query": dict(request.query)}


# curl ------------------------------------------------------------------------------------------


@needs_curl
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2"])
@pytest.mark.parametrize("size", [10, 2 * MIB])
def test_curl_posts_and_gets_it_back(version: str, size: int) -> None:
    """With an Expect for the large one, and with --http2 an Upgrade that is ignored."""
    with HTTPServer(handler=echo) as server:
        sent = b"x" * size
        assert curl(version, "--data-binary", "@-", server.url, stdin=sent) == sent
        assert server.received[0].http_version == ("1.0" if version == "--http1.0" else "1.1")
        assert not server.diagnostics


@needs_curl
def test_curl_sends_chunks() -> None:
    with HTTPServer(handler=echo) as server:
        sent = b"y" * MIB
        chunked = ("-H", "Transfer-Encoding: chunked", "-T", "-")
        assert curl(*chunked, server.url, stdin=sent) == sent
        assert server.received[0].headers["Transfer-Encoding"] == "chunked"


@needs_curl
def test_curl_waits_for_100_continue() -> None:
    with HTTPServer(handler=echo) as server:
        expecting = ("-H", "Expect: 100-continue", "--expect100-timeout", "15", "-d", "hello", "-i")
        answer = curl(*expecting, server.url)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"hello")


@needs_curl
def test_curl_keeps_its_connection() -> None:
    with HTTPServer(handler=describe) as server:
        curl(server.url + "/1", server.url + "/2", "--head", "--next", "-sS", server.url + "/3")
        assert [r.method for r in server.received] == ["HEAD", "HEAD", "GET"]
        assert len({request.client_address for request in server.received}) == 1


@needs_curl
def test_curl_sends_a_form(tmp_path: Path) -> None:
    file = tmp_path / "up.bin"
    file.write_bytes(bytes(range(256)))
    with HTTPServer(handler=lambda r: (r.form["name"], 201)) as server:
        assert curl("-F", "name=é", "-F", f"up=@{file}", server.url) == "é".encode()
        assert server.received[0].files == {"up": ("up.bin", bytes(range(256)))}


@needs_curl
def test_curl_on_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with HTTPServer(path, handler=describe) as server:
        answer = json.loads(curl("--unix-socket", path, "http://localhost/p?q=1"))
        assert answer == {"method": "GET", "path": "/p", "query": {"q": "1"}}
        assert server.received[0].headers["Host"] == "localhost"


@needs_curl
def test_curl_sees_that_a_reply_is_broken() -> None:
    def handler(request: HTTPRequest) -> Iterator[bytes]:
        yield b"part"
        raise LookupError("midway")

    with pytest.raises(LookupError), HTTPServer(handler=handler) as server:
        assert curl(server.url, code=18) == b"part"  # CURLE_PARTIAL_FILE


# The standard library --------------------------------------------------------------------------


def test_urllib_follows_a_redirect_and_raises_for_an_error() -> None:
    def handler(request: HTTPRequest) -> Any:
        if request.path == "/old":
            return "", 302, {"Location": "/new"}
        return ("here", 200) if request.path == "/new" else ("no", 404)

    with HTTPServer(handler=handler) as server:
        with urllib.request.urlopen(server.url + "/old", timeout=WAIT) as reply:
            assert reply.read() == b"here"
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(server.url + "/none", timeout=WAIT)
        with caught.value as error:
            assert (error.code, error.read()) == (404, b"no")


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 3 * MIB])
def test_http_client_gets_back_what_it_posts(size: int) -> None:
    """At and around the size from which a body is streamed."""
    with HTTPServer(handler=echo) as server:
        with closing(http.client.HTTPConnection(server.host, server.port, timeout=WAIT)) as client:
            for chunked in (False, True):
                body: Any = iter([b"z" * size]) if chunked else b"z" * size
                field = {"Transfer-Encoding": "chunked"} if chunked else {}
                client.request("POST", "/", body, field, encode_chunked=chunked)
                assert client.getresponse().read() == b"z" * size
    assert [len(request.body) for request in server.received] == [size, size]


def test_http_client_reads_a_stream_line_by_line() -> None:
    turn = threading.Semaphore(0)

    def handler(request: HTTPRequest) -> Iterator[bytes]:
        for number in range(3):
            assert turn.acquire(timeout=WAIT)
            yield f"line {number}\n".encode()

    with HTTPServer(handler=handler) as server:
        with closing(http.client.HTTPConnection(server.host, server.port, timeout=WAIT)) as client:
            turn.release()
            client.request("GET", "/")
            reply = client.getresponse()
            for number in range(3):
                assert reply.readline() == f"line {number}\n".encode()
                turn.release()


def test_many_clients_at_once() -> None:
    everybody = threading.Barrier(20)

    def handler(request: HTTPRequest) -> str:
        everybody.wait(WAIT)
        return request.path

    def fetch(number: int) -> None:
        with urllib.request.urlopen(f"{server.url}/{number}", timeout=WAIT) as reply:
            answers.add(reply.read())

    answers: set[bytes] = set()
    with HTTPServer(handler=handler) as server:
        clients = [threading.Thread(target=fetch, args=(number,)) for number in range(20)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert answers == {f"/{number}".encode() for number in range(20)}


def test_asyncio_streams_and_an_async_handler() -> None:
    """The handler runs on the loop of the test, beside its client."""

    async def handler(request: HTTPRequest) -> str:
        await asyncio.sleep(0)
        return f"{request.path} on {id(asyncio.get_running_loop())}"

    async def main() -> None:
        async with HTTPServer(handler=handler) as server:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(b"GET /a HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            answer = await asyncio.wait_for(reader.read(), WAIT)
            assert answer.endswith(f"/a on {id(asyncio.get_running_loop())}".encode())
            writer.close()
            await writer.wait_closed()

    asyncio.run(main())


def test_a_client_that_sends_byte_by_byte() -> None:
    request = b"POST /slow HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
    with HTTPServer(handler=echo) as server:
        with socket.create_connection((server.host, server.port), timeout=WAIT) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in request:
                sock.sendall(bytes([byte]))
            answer = b"".join(iter(lambda: sock.recv(4096), b""))
    assert answer.endswith(b"\r\n\r\nabc")
