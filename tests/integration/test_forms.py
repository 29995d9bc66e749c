"""Forms of real clients: each has its own way to escape names and to say charsets."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests
import urllib3

from sidestage import HTTPRequest, HTTPServer

CONTENT = bytes(range(256))
Upload = Callable[[str, str, str], object]  # url, field name, file name


def by_requests(url: str, name: str, filename: str) -> None:
    requests.post(url, files={name: (filename, CONTENT)}, timeout=20).raise_for_status()


def by_urllib3(url: str, name: str, filename: str) -> None:
    with urllib3.PoolManager() as pool:
        assert pool.request("POST", url, fields={name: (filename, CONTENT)}).status == 200


def by_httpx(url: str, name: str, filename: str) -> None:
    httpx.post(url, files={name: (filename, CONTENT)}, trust_env=False).raise_for_status()


def by_aiohttp(url: str, name: str, filename: str) -> None:
    async def post() -> None:
        form = aiohttp.FormData(quote_fields=True)
        form.add_field(name, CONTENT, filename=filename)
        async with aiohttp.ClientSession() as client, client.post(url, data=form) as reply:
            assert reply.status == 200

    asyncio.run(post())


def curl(url: str, *arguments: str) -> None:
    command = ["curl", "-sS", "--fail", "--noproxy", "*", "--max-time", "20", *arguments, url]
    subprocess.run(command, check=True, capture_output=True)


def by_curl(url: str, name: str, filename: str, *options: str) -> None:
    shown = filename.replace("\\", "\\\\").replace('"', '\\"')
    with open(FILE, "wb") as file:  # noqa: PTH123 - a path that the fixture has set
        file.write(CONTENT)
    curl(url, *options, "-F", f'{name}=@{FILE};filename="{shown}"')


def by_curl_with_backslashes(url: str, name: str, filename: str) -> None:
    by_curl(url, name, filename, "--form-escape")


FILE = ""


@pytest.fixture(autouse=True)
def _file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "FILE", str(tmp_path / "file"))


CLIENTS: list[Upload] = [by_requests, by_urllib3, by_httpx, by_aiohttp]
CLIENTS += [by_curl, by_curl_with_backslashes]
NAMES = ["plain", "größe", "☃ 🎉", "dir\\", 'a"b', 'x\\"y', "it's", "a;b", "100%", "a b", "q=1&r"]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_name_arrives_as_it_was_given(client: Upload) -> None:
    with HTTPServer() as server:
        for name in NAMES:
            if "=" in name and client in (by_curl, by_curl_with_backslashes):
                continue  # what follows the first is curl's own syntax
            client(server.url, name, "a.txt")
            [part] = server.received[-1].parts
            assert (part.name, part.filename, part.content) == (name, "a.txt", CONTENT)
            assert server.received[-1].files == {name: ("a.txt", CONTENT)}
        assert not server.diagnostics


@pytest.mark.parametrize("client", [c for c in CLIENTS if c is not by_aiohttp])
def test_a_file_name_arrives_as_it_was_given(client: Upload) -> None:
    with HTTPServer() as server:
        for filename in NAMES:
            client(server.url, "up", filename)
            assert server.received[-1].files == {"up": (filename, CONTENT)}


def test_aiohttp_escapes_file_names_by_itself() -> None:
    """With %XX, which other clients send for a name that has percent signs."""
    with HTTPServer() as server:
        by_aiohttp(server.url, "up", "größe")
        assert server.received[0].files == {"up": ("gr%C3%B6%C3%9Fe", CONTENT)}


def test_what_a_browser_sends() -> None:
    """Chrome, Firefox and Safari: the same bytes but for the boundary."""
    boundary = "----WebKitFormBoundaryx1"
    parts = [
        ('name="na%22me"\r\n', "zwei\r\nZeilen"),
        ('name="f\\"; filename="größe %22x%22.txt"\r\nContent-Type: text/plain\r\n', "inhalt"),
        ('name="none"; filename=""\r\nContent-Type: application/octet-stream\r\n', ""),
    ]
    start = f"--{boundary}\r\nContent-Disposition: form-data; "
    body = "".join(f"{start}{head}\r\n{content}\r\n" for head, content in parts)
    with HTTPServer(handler=lambda request: dict(request.form)) as server:
        reply = requests.post(
            server.url,
            data=f"{body}--{boundary}--\r\n".encode(),
            headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
            timeout=20,
        )
        assert reply.json() == {'na"me': "zwei\r\nZeilen", "f\\": "inhalt", "none": ""}
        assert server.received[0].files == {"f\\": ('größe "x".txt', b"inhalt")}


def test_url_encoded_forms_of_clients() -> None:
    pairs = {"größe": "ß & ü", "a": "1+1=2"}

    def handler(request: HTTPRequest) -> dict[str, str]:
        return dict(request.form)

    async def aio(url: str) -> object:
        async with aiohttp.ClientSession() as client, client.post(url, data=pairs) as reply:
            return await reply.json()

    with HTTPServer(handler=handler) as server:
        assert requests.post(server.url, data=pairs, timeout=20).json() == pairs
        assert httpx.post(server.url, data=pairs, trust_env=False).json() == pairs
        assert asyncio.run(aio(server.url)) == pairs


def test_a_form_in_another_charset() -> None:
    form = aiohttp.FormData(charset="iso-8859-1")
    form.add_field("é", "ü")

    async def post(url: str) -> None:
        async with aiohttp.ClientSession() as client, client.post(url, data=form):
            pass

    with HTTPServer() as server:
        asyncio.run(post(server.url))
        assert "iso-8859-1" in server.received[0].headers["Content-Type"]
        assert server.received[0].form == {"é": "ü"}
