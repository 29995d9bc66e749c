"""TLS over a relayed connection, terminated in the test's process with a given SSLContext.

A context cannot be sent to another process, and its private key cannot be read from it. So the
child relays the encrypted bytes, and the context stays in the test's process.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import Any

from ...dispatch.connection import Connection
from ...dispatch.streams import open_file
from ...wire.values import buffer

_READ = 1 << 16  # bytes


class TLSConnection:
    """The server's side of a TLS connection, with a socket's methods.

    Raises ssl.SSLError or ConnectionError when the handshake fails.
    """

    def __init__(self, connection: Connection, context: ssl.SSLContext) -> None:
        self._connection = connection
        self._sent = 0  # bytes, before they were encrypted
        self._encrypted_in = ssl.MemoryBIO()
        self._encrypted_out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._encrypted_in, self._encrypted_out, server_side=True)
        self._until_done(self._tls.do_handshake)

    def _until_done(self, operation: Callable[..., Any], *arguments: Any) -> Any:
        """Repeat ``operation`` until it has the bytes it needs, relaying encrypted bytes."""
        while True:
            try:
                result = operation(*arguments)
            except ssl.SSLWantReadError:
                self._flush()
                if data := self._connection.recv(_READ):
                    self._encrypted_in.write(data)
                else:
                    self._encrypted_in.write_eof()
            else:
                self._flush()
                return result

    def _flush(self) -> None:
        if data := self._encrypted_out.read():
            self._connection.sendall(data)

    def recv(self, bufsize: int) -> bytes:
        """Receive up to ``bufsize`` decrypted bytes; ``b""`` at the end."""
        try:
            data: bytes = self._until_done(self._tls.read, bufsize)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        return data

    def sendall(self, data: Any) -> None:
        """Encrypt and send all of ``data``."""
        view = buffer("what is sent", data)
        self._sent += len(view)
        while view:
            view = view[self._until_done(self._tls.write, view) :]

    def makefile(self, mode: str = "r", buffering: int | None = None, **options: Any) -> Any:
        """Return a file over this connection, like ``socket.makefile``."""
        return open_file(self.recv, self.sendall, mode, buffering, **options)

    def unwrap(self) -> None:
        """Send the client a close_notify alert."""
        with contextlib.suppress(ssl.SSLError):  # the client need not answer it
            self._tls.unwrap()
        self._flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)  # settimeout, getpeername, close and others
