"""TLS over a relayed connection, terminated in the test's process with a given SSLContext.

A context cannot be sent to another process, nor can its private key be taken out of it. So the
child relays the encrypted bytes, and the context stays where it was made.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import Any

from ...dispatch.streams import open_file
from .connection import Connection

_READ = 1 << 16  # bytes


class TLSConnection:
    """The server's side of a TLS connection, with the methods of a socket that handlers use.

    Raises ssl.SSLError or ConnectionError when the handshake fails.
    """

    def __init__(self, connection: Connection, context: ssl.SSLContext) -> None:
        self._connection = connection
        self._encrypted_in = ssl.MemoryBIO()
        self._encrypted_out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._encrypted_in, self._encrypted_out, server_side=True)
        self._until_done(self._tls.do_handshake)

    def _until_done(self, operation: Callable[..., Any], *arguments: Any) -> Any:
        """Run an operation, carrying encrypted bytes both ways as it asks for them."""
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
        """Up to ``bufsize`` decrypted bytes; ``b""`` at the end."""
        try:
            data: bytes = self._until_done(self._tls.read, bufsize)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        return data

    def sendall(self, data: Any) -> None:
        """Encrypt and send all of ``data``."""
        view = memoryview(data).cast("B")
        while view:
            view = view[self._until_done(self._tls.write, view) :]

    def makefile(self, mode: str = "r", buffering: int | None = None, **options: Any) -> Any:
        """A file over this connection, as ``socket.makefile`` makes it."""
        return open_file(self.recv, self.sendall, mode, buffering, **options)

    def unwrap(self) -> None:
        """Tell the client that nothing more comes."""
        with contextlib.suppress(ssl.SSLError):  # the client need not answer, mostly does not
            self._tls.unwrap()
        self._flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)  # settimeout, getpeername, close and the like
