"""Existing tests once more, over TLS: their servers speak it, and so do their clients.

``again`` runs a test module a second time, as a copy in which servers have TLS. Its clients need no
change: while such a test runs, ``socket.create_connection`` gives a ``SecureClient``.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib.util
import io
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

import sidestage

_TESTS = Path(__file__).resolve().parent.parent
_KINDS = ("HTTPServer", "SMTPServer", "TCPServer")
_PART = 1 << 16  # bytes, encrypted at once
_create_connection = socket.create_connection


@functools.cache
def trusting() -> ssl.SSLContext:
    """A context of clients that trust the servers of this process."""
    return sidestage.TCPServer(tls=True).client_context()


class SecureClient:
    """A socket with TLS above it that can end its side alone, which ``ssl.SSLSocket`` cannot.

    An end without close_notify raises ``ssl.SSLEOFError``.
    """

    def __init__(self, sock: socket.socket, host: str, context: ssl.SSLContext) -> None:
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._lock = threading.RLock()  # one thread may send while another reads
        self._read_ahead = bytearray()
        self._files = 0
        self._closed = False
        try:
            self._until_done(self.session.do_handshake)
        except BaseException:
            sock.close()
            raise

    def __getattr__(self, name: str) -> Any:
        """What is the same with TLS and without: addresses, options, time-outs."""
        return getattr(self.sock, name)

    def _until_done(self, act: Callable[[], Any]) -> Any:
        """Do what may have to read first."""
        while True:
            with self._lock:
                try:
                    done = act()
                except ssl.SSLWantReadError:
                    done = None
                    wants = True
                else:
                    wants = False
                data = self._outgoing.read()
            if data:
                self.sock.sendall(data)
            if not wants:
                return done
            self._fill()

    def _fill(self) -> None:
        came = self.sock.recv(1 << 18)
        with self._lock:
            if came:
                self._incoming.write(came)
            else:
                self._incoming.write_eof()

    def recv(self, size: int, flags: int = 0) -> bytes:
        assert not flags
        data: bytes = self._until_done(lambda: self._read(size))
        return data

    def _read(self, size: int) -> bytes:
        if ahead := bytes(self._read_ahead[:size]):
            del self._read_ahead[:size]
            return ahead
        try:
            return self.session.read(size)
        except ssl.SSLZeroReturnError:
            return b""

    def recv_into(self, buffer: Any) -> int:
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def sendall(self, data: Any) -> None:
        data = memoryview(data).cast("B")
        for start in range(0, len(data), _PART):
            part = data[start : start + _PART]
            self._until_done(functools.partial(self.session.write, part))

    def send(self, data: Any) -> int:
        self.sendall(data)
        return len(data)

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_WR
        self.end()
        try:
            self.sock.shutdown(how)
        except OSError as error:
            # The server had closed already, so that close_notify has brought a reset. What it had
            # sent before can still be read.
            if error.errno != errno.ENOTCONN:
                raise

    def end(self) -> None:
        """Send close_notify, and nothing more; what the server sends can still be read."""
        with self._lock:
            while size := self.session.pending():  # what OpenSSL has would be in the way
                self._read_ahead += self.session.read(size)
            waiting = self._incoming.read()
            with contextlib.suppress(ssl.SSLWantReadError):  # the server has not ended its side
                self.session.unwrap()
            self._incoming.write(waiting)
            data = self._outgoing.read()
        self.sock.sendall(data)

    def makefile(self, mode: str = "rb", buffering: int = -1) -> Any:
        assert mode == "rb"
        self._files += 1
        return io.BufferedReader(_File(self)) if buffering else _File(self)

    def file_closed(self) -> None:
        self._files -= 1
        if self._closed and not self._files:
            self.sock.close()

    def close(self) -> None:
        self._closed = True
        if not self._files:
            self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


class _File(io.RawIOBase):
    """A file that reads from a client, and keeps its socket open as those of sockets do."""

    def __init__(self, client: SecureClient) -> None:
        self._client = client

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._client.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._client.file_closed()


def connect(address: tuple[str, int], timeout: float = 30.0, *_: Any) -> SecureClient:
    """What stands in for ``socket.create_connection``."""
    return SecureClient(_create_connection(address[:2], timeout), address[0], trusting())


@pytest.fixture
def secure_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every client speak TLS that connects by ``socket.create_connection``."""
    trusting()
    monkeypatch.setattr(socket, "create_connection", connect)


def again(file: str, without: dict[str, str] | None = None) -> dict[str, Any]:
    """The names of a copy of the test module ``file``, whose servers speak TLS.

    ``without`` are the tests that say nothing about TLS, or differ with it, and why.
    """
    path = _TESTS / file
    name = f"over_tls_{path.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for kind in _KINDS:
        if hasattr(module, kind):
            setattr(module, kind, functools.partial(getattr(sidestage, kind), tls=True))
    for test in without or {}:
        delattr(module, test)
    return {name: value for name, value in vars(module).items() if not name.startswith("__")}
