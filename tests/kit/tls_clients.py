"""Clients of TLS on real sockets."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Self

from kit.clients import connect

LONG = 20.0  # seconds; a bound for what ends at once unless it is broken


def join(
    server: Any, context: ssl.SSLContext | None = None, host: str = "localhost"
) -> ssl.SSLSocket:
    """A client that has done its handshake; an end without close_notify is an error for it."""
    plain = connect(server.port)
    plain.settimeout(LONG)
    try:
        return (context or server.client_context()).wrap_socket(
            plain, server_hostname=host, suppress_ragged_eofs=False
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


class Buffered:
    """A client that goes on reading after it has ended its side, as ``ssl.SSLSocket`` does not."""

    def __init__(self, server: Any, **attributes: Any) -> None:
        context: ssl.SSLContext = server.client_context()
        for name, value in attributes.items():
            setattr(context, name, value)
        self.sock = connect(server.port)
        self.sock.settimeout(LONG)
        self.raw = bytearray()  # all that has come
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self._do(self.tls.do_handshake)

    def _do(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Do a step of TLS, with what it needs of the socket."""
        while True:
            try:
                done = step(*arguments)
            except ssl.SSLWantReadError:
                self.flush()
                self.receive()
            else:
                self.flush()
                return done

    def receive(self) -> None:
        """Take what has come, or its end."""
        data = self.sock.recv(1 << 16)
        if data:
            self.raw += data
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    @property
    def is_cut(self) -> bool:
        """Whether what has come ends in the middle of a record."""
        at = 0
        while at + 5 <= len(self.raw):
            at += 5 + int.from_bytes(self.raw[at + 3 : at + 5])
        return at != len(self.raw)

    def flush(self) -> None:
        if self.outgoing.pending:
            self.sock.sendall(self.outgoing.read())

    def send(self, data: bytes) -> None:
        self._do(self.tls.write, data)

    def read(self, size: int) -> int:
        """Read up to ``size`` bytes, and drop them; returns how many came."""
        came = 0
        while came < size and (data := self._do(self.tls.read, min(1 << 16, size - came))):
            came += len(data)
        return came

    def end(self) -> None:
        """Send close_notify, and keep the socket as it is."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()

    def rest(self) -> bytes:
        """All up to the end; raises SSLEOFError if close_notify has not said it."""
        came = bytearray()
        with contextlib.suppress(ssl.SSLZeroReturnError):
            while data := self._do(self.tls.read, 1 << 16):
                came += data
        return bytes(came)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.sock.close()
