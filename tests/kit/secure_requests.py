"""Requests to a server with TLS, from this process and from another.

Imports are late, as in ``kit/servers``: a row may have to patch the process first.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

WAIT = 10.0  # seconds for anything a client waits for
_OUTSIDE = """
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=10) as answer:
    print(answer.read().decode())
"""


def ask(server: Any, path: str = "/alive") -> str:
    """The body of one GET, by a client of this process."""
    context = server.client_context()
    with (
        socket.create_connection((server.host, server.port), timeout=WAIT) as plain,
        context.wrap_socket(plain, server_hostname=server.host) as client,
    ):
        client.sendall(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        came = b"".join(iter(lambda: client.recv(1 << 16), b""))
    return came.decode().partition("\r\n\r\n")[2]


def ask_outside(server: Any, path: str = "/alive") -> str:
    """The same by a client of another process, which trusts the server by its environment."""
    done = subprocess.run(
        [sys.executable, "-c", _OUTSIDE, server.url + path],
        env={**os.environ, **server.client_env()},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()
