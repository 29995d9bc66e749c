"""TLS in the child without sockets: a client's ``SSLObject`` below, a receiver above."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

from kit.certificates import client_context, settings
from kit.connections import Receiver as BaseReceiver
from kit.http_child import Loop, Outbox, Transport
from sidestage.child.iteration import Iteration
from sidestage.child.service import Service
from sidestage.layers.tls.child.layer import TLS, TLSLayer
from sidestage.wire.messages import Configure, Diagnostic


class Receiver(BaseReceiver):
    """A protocol that records the calls it gets, and the number of pieces that came."""

    number = 7

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[int] = []

    def data_received(self, data: bytes | memoryview) -> None:
        self.pieces.append(len(data))
        super().data_received(data)


class Below(Transport):
    """The stream below: what the layer writes is for the client to take."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.unsent = 0  # bytes, as far as the layer knows
        self.was_reset = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        known = {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 4433)}
        return known.get(name, default)

    def write(self, data: Any) -> None:
        if data:
            self.writes += 1
            super().write(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def reset(self) -> None:
        self.closed = self.was_reset = True

    def take(self) -> bytes:
        """What was written since the last time."""
        out, self.out = bytes(self.out), bytearray()
        return out


class Server:
    """A service with the layer."""

    def __init__(self, **given: Any) -> None:
        self.outbox, self.loop = Outbox(), Loop()
        loop: Any = self.loop
        outbox: Any = self.outbox
        config = Configure(
            protocol="tcp", settings=b"", host="", port=0, path=None, cwd=None, poll_interval=1.0,
            backlog=1, handler_timeout=30.0, keep=1 << 26,
        )  # fmt: skip
        self.service = Service(Iteration(loop, outbox), config, None)
        self.tls = TLS(self.service, settings(**given))

    def connect(
        self, context: ssl.SSLContext | None = None, host: str | None = "localhost"
    ) -> Client:
        """A client that has connected and sent nothing."""
        return Client(self, context or client_context(), host)

    @property
    def told(self) -> list[str]:
        """The texts of the diagnostics."""
        return [message.text for message in self.outbox.of(Diagnostic)]


class Client:
    """A client of TLS, and the connection that it has."""

    def __init__(self, server: Server, context: ssl.SSLContext, host: str | None) -> None:
        self.receiver, self.below = Receiver(), Below()
        self.layer: TLSLayer = server.tls(self.receiver)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=host)
        self.layer.connection_made(self.below)

    def feed(self, data: bytes, piece: int = 1 << 18) -> None:
        """Give the layer ``data`` as the stream does, ``piece`` bytes at once."""
        for start in range(0, len(data), piece):
            if not (self.below.closed or self.below.lingering):
                self.layer.data_received(memoryview(data)[start : start + piece])

    def hello(self) -> bytes:
        """The ClientHello."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def handshake(self, piece: int = 1 << 18) -> Client:
        """Do the whole handshake; raises what OpenSSL does on the client's side."""
        while True:
            done = True
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLError:
                self.flush(piece)  # the alert
                raise
            self.flush(piece)
            if done:
                return self
            self.pull()

    def flush(self, piece: int = 1 << 18) -> None:
        """Let the layer have what the client has written."""
        self.feed(self.outgoing.read(), piece)

    def pull(self) -> None:
        """Let the client have what the layer has written."""
        came = self.below.take()
        if came:
            self.incoming.write(came)
        if self.below.closed or self.below.lingering or self.below.half_closed:
            self.incoming.write_eof()

    def send(self, data: bytes, piece: int = 1 << 18) -> None:
        view = memoryview(data)
        while view:
            view = view[self.tls.write(view) :]
        self.flush(piece)

    def read(self) -> bytes:
        """All that has come; raises SSLEOFError if that is an end without close_notify."""
        self.pull()
        came = bytearray()
        while True:
            try:
                part = self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                return bytes(came)
            except ssl.SSLEOFError:
                if not came:
                    raise
                return bytes(came)
            if not part:
                return bytes(came)
            came += part

    def has_ended(self) -> bool:
        """Whether close_notify has come behind all else; raises if the end came without it."""
        self.pull()
        try:
            return self.tls.read(1) == b""
        except ssl.SSLZeroReturnError:  # the client has said so before
            return True
        except ssl.SSLWantReadError:
            return False

    def end(self) -> None:
        """Send close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()
