"""What clients can do to a server with TLS: little, and never to the others."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import struct
import subprocess
from typing import Any

import psutil
import pytest

from kit.clients import connect
from kit.runs import pid_of
from kit.scripts import eventually
from kit.tls_clients import LONG, hello, https, join, rest
from sidestage import HTTPServer, TCPServer

HALF = 300  # clients that never go on; more would need more descriptors than a user may have
EACH = 40_000  # bytes of memory for one of them, at most


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


@pytest.fixture
def server() -> Any:
    with HTTPServer(tls=True, handler=lambda request: "hello") as server:
        yield server


def is_served(server: HTTPServer) -> None:
    with https(server) as client:
        client.request("GET", "/")
        assert client.getresponse().read() == b"hello"


@pytest.mark.parametrize("size", [0, 5, 200, None], ids=["nothing", "a head", "most", "all"])
def test_half_handshakes_cost_little_and_hold_up_nobody(
    server: HTTPServer, size: int | None
) -> None:
    is_served(server)
    process = psutil.Process(pid_of(server))
    before = process.memory_info().rss
    first = hello(server)
    with contextlib.ExitStack() as clients:
        for _ in range(HALF):
            client = clients.enter_context(connect(server.port))
            client.sendall(first if size is None else first[:size])
        is_served(server)
        after = process.memory_info().rss
        assert after - before < HALF * (EACH if size is not None else 4 * EACH)
    assert eventually(lambda: len(server.diagnostics) == (HALF if size else HALF * (size is None)))


def test_a_client_hello_that_comes_byte_by_byte_is_served(server: HTTPServer) -> None:
    data = hello(server)
    with connect(server.port) as client:
        client.settimeout(LONG)
        for byte in data[:-1]:
            client.send(bytes((byte,)))
        is_served(server)
        client.send(data[-1:])
        assert client.recv(1) == b"\x16"  # the beginning of the server's answer


def test_a_stop_waits_for_no_half_handshake() -> None:
    server = HTTPServer(tls=True).start()
    with connect(server.port) as silent, connect(server.port) as half:
        half.sendall(hello(server)[:100])
        report = server.stop(LONG)
        assert report.clean
        assert report.rung == "ask"
        assert rest(silent) == b""


@pytest.mark.parametrize(
    "record",
    [
        b"\x17\x03\x03\x00\x20" + bytes(32),
        b"\x17\x03\x03\xff\xff" + bytes(0xFFFF),
        b"\x16\x03\x03\x40\x01" + bytes(0x4001),
        bytes(range(256)),
    ],
    ids=["forged", "oversized", "handshake", "noise"],
)
def test_a_broken_record_ends_its_connection_alone(server: HTTPServer, record: bytes) -> None:
    with join(server) as good, socket.socket(fileno=join(server).detach()) as bad:
        bad.settimeout(LONG)
        bad.sendall(record)
        with contextlib.suppress(ConnectionResetError):  # after much that was not read
            rest(bad)
        good.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert rest(good).endswith(b"hello")
    assert eventually(lambda: server.diagnostics, LONG)
    assert "TLS record is refused" in str(server.diagnostics[0])


def s_client(server: Any, said: bytes, version: str) -> str:
    """What ``openssl s_client`` prints; lines of one letter are commands to it."""
    command = (
        "openssl", "s_client", version, "-CAfile", server.ca_file,
        "-connect", f"127.0.0.1:{server.port}",
    )  # fmt: skip
    ran = subprocess.run(command, input=said, capture_output=True, timeout=LONG, check=False)
    return (ran.stdout + ran.stderr).decode()


@needs_openssl
def test_a_client_cannot_renegotiate(server: HTTPServer) -> None:
    said = s_client(server, b"R\n", "-tls1_2")
    assert "RENEGOTIATING" in said
    assert "no renegotiation" in said
    is_served(server)


@needs_openssl
def test_a_client_may_change_its_keys(server: HTTPServer) -> None:
    said = s_client(server, b"K\n", "-tls1_3")
    assert "KEYUPDATE" in said
    is_served(server)
    assert server.diagnostics == ()


def test_empty_records_do_not_keep_the_server_busy() -> None:
    with TCPServer(tls=True) as server:
        with join(server) as client:
            for _ in range(1000):
                with contextlib.suppress(ssl.SSLError):
                    client.write(b"")
            client.sendall(b"done")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.wait_for(1, timeout=LONG)
        assert server.received[0].ended == "reset by the client"
