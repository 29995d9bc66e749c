"""Clients that people use, with and without the CA: what they get and what the test sees."""

from __future__ import annotations

import asyncio
import shutil
import smtplib
import socket
import ssl
import subprocess
import urllib.request
from typing import Any

import pytest

from kit.clients import connect
from kit.scripts import eventually
from kit.tls_clients import LONG, Buffered, https, join, rest
from sidestage import TLS, HTTPServer, SMTPServer, TCPServer

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


@pytest.fixture
def server() -> Any:
    with HTTPServer(tls=True, handler=lambda request: f"hello {request.tls.alpn}") as server:
        yield server


class TestHTTP:
    def test_urllib(self, server: HTTPServer) -> None:
        with urllib.request.urlopen(server.url, context=server.client_context()) as response:
            assert response.read().startswith(b"hello ")

    def test_requests(self, server: HTTPServer) -> None:
        requests = pytest.importorskip("requests")
        with requests.Session() as session:
            for _ in range(2):
                answer = session.get(server.url, verify=server.ca_file, timeout=LONG)
                assert answer.text.startswith("hello ")
        assert {one.connection_number for one in server.received} == {1}

    def test_httpx(self, server: HTTPServer) -> None:
        httpx = pytest.importorskip("httpx")
        with httpx.Client(verify=server.client_context()) as client:
            assert client.get(server.url).text == "hello http/1.1"

    def test_aiohttp(self, server: HTTPServer) -> None:
        aiohttp = pytest.importorskip("aiohttp")

        async def get() -> str:
            async with aiohttp.ClientSession() as session:
                async with session.get(server.url, ssl=server.client_context()) as response:
                    return await response.text()

        assert asyncio.run(get()).startswith("hello ")

    @needs_curl
    def test_curl(self, server: HTTPServer) -> None:
        command = ["curl", "-sS", "--max-time", f"{LONG}", server.url]
        ran = subprocess.run(
            command, env=server.client_env(), capture_output=True, timeout=LONG, check=True
        )
        assert ran.stdout == b"hello http/1.1"

    @needs_curl
    def test_curl_that_does_not_trust_the_server_makes_the_test_say_so(
        self, server: HTTPServer
    ) -> None:
        command = ["curl", "-sS", "--max-time", f"{LONG}", server.url]
        ran = subprocess.run(command, env={}, capture_output=True, timeout=LONG, check=False)
        assert ran.returncode == 60  # CURLE_PEER_FAILED_VERIFICATION
        assert eventually(lambda: server.diagnostics, LONG)
        (told,) = server.diagnostics
        assert "server.client_env()" in str(told)
        assert server.received == []


def test_smtplib() -> None:
    with SMTPServer(tls=True) as server:
        context = server.client_context()
        with smtplib.SMTP_SSL("localhost", server.port, timeout=LONG, context=context) as client:
            client.sendmail("me@x", "you@x", "Subject: hello\r\n\r\nhello\r\n")
        (mail,) = server.received
        assert mail.data == b"Subject: hello\r\n\r\nhello\r\n"
        assert mail.tls.version == "TLSv1.3"


class TestHalfCloses:
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_a_handler_answers_what_has_ended(self, version: ssl.TLSVersion) -> None:
        def handler(connection: Any) -> bytes:
            return b"after " + connection.makefile("rb").read()

        server = TCPServer(tls=True, handler=handler)
        with server, Buffered(server, maximum_version=version) as client:
            client.send(b"all")
            client.end()
            assert client.rest() == b"after all"

    @pytest.mark.parametrize("fin", [True, False])
    def test_http_answers_all_that_was_asked(self, fin: bool) -> None:
        server = HTTPServer(tls=True, handler=lambda request: request.target)
        with server, Buffered(server) as client:
            client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(3)))
            client.end()
            if fin:
                client.sock.shutdown(socket.SHUT_WR)
            got = client.rest()
        assert [got.count(b"\r\n\r\n/%d" % n) for n in range(3)] == [1, 1, 1]

    def test_the_server_may_end_first(self) -> None:
        got = []

        def handler(connection: Any) -> None:
            connection.sendall(b"all")
            connection.shutdown(1)
            got.append(connection.makefile("rb").read())

        with TCPServer(tls=True, handler=handler) as server, join(server) as client:
            assert rest(client) == b"all"
            client.sendall(b"thanks")
            client.unwrap().close()
            assert eventually(lambda: got, LONG)
        assert got == [b"thanks"]


class TestSeen:
    def test_a_transcript_has_what_was_agreed(self) -> None:
        with TCPServer(tls=TLS(alpn=("chat",))) as server:
            context = server.client_context()
            context.set_alpn_protocols(["chat"])
            join(server, context).close()
            server.wait_for(1, timeout=LONG)
            (transcript,) = server.received
            assert transcript.tls.alpn == "chat"
            assert transcript.tls.sni == "localhost"


class TestPlainClients:
    def test_of_http_are_told_where_to_go(self, server: HTTPServer) -> None:
        with connect(server.port) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = rest(client)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert f"https://127.0.0.1:{server.port}".encode() in answer
        (told,) = server.diagnostics
        assert "without TLS" in str(told)
        assert server.received == []

    @pytest.mark.parametrize("kind", [TCPServer, SMTPServer])
    def test_of_others_are_closed(self, kind: Any) -> None:
        with kind(tls=True) as server:
            with connect(server.port) as client:
                client.sendall(b"EHLO me\r\n")
                assert rest(client) == b""
            (told,) = server.diagnostics
            assert "b'EHLO me" in str(told)

    def test_others_are_served_meanwhile(self, server: HTTPServer) -> None:
        with connect(server.port) as silent, https(server) as client:
            silent.sendall(b"\x16\x03\x01")
            client.request("GET", "/")
            assert client.getresponse().read().startswith(b"hello")
