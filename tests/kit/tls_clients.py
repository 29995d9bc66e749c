"""Clients of TLS on real sockets."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import subprocess
from collections.abc import Iterator
from typing import Any

from kit.clients import connect

LONG = 20.0  # seconds; a bound for what ends at once unless it is broken


def join(server: Any, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    """A client that has done its handshake; an end without close_notify is an error for it."""
    plain = connect(server.port)
    plain.settimeout(LONG)
    try:
        return (context or server.client_context()).wrap_socket(
            plain, server_hostname="localhost", suppress_ragged_eofs=False
        )
    except BaseException:
        plain.close()
        raise


def rest(client: socket.socket) -> bytes:
    """All up to the end."""
    came = bytearray()
    while data := client.recv(1 << 16):
        came += data
    return bytes(came)


def hello(server: Any) -> bytes:
    """A ClientHello for ``server``."""
    outgoing = ssl.MemoryBIO()
    client = server.client_context().wrap_bio(
        ssl.MemoryBIO(), outgoing, server_hostname="localhost"
    )
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@contextlib.contextmanager
def https(server: Any) -> Iterator[http.client.HTTPSConnection]:
    """A connection of ``http.client``."""
    client = http.client.HTTPSConnection(
        "localhost", server.port, timeout=LONG, context=server.client_context()
    )
    try:
        yield client
    finally:
        client.close()


def s_client(server: Any, said: bytes, *options: str) -> bytes:
    """What ``openssl s_client`` gets, when it says ``said`` and then ends its side."""
    command = (
        "openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile", server.ca_file,
        "-connect", f"localhost:{server.port}", *options,
    )  # fmt: skip
    ran = subprocess.run(command, input=said, capture_output=True, timeout=LONG, check=False)
    return ran.stdout
