"""A client that sends bytes to an HTTP server, and reads its answers head by head."""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Any, Self

WAIT = 10.0  # seconds; no test comes near it


class RawClient:
    """A connection to ``server``; what is sent is text in Latin-1 or bytes."""

    def __init__(self, server: Any) -> None:
        self.sock = socket.create_connection(server.server_address[:2], timeout=WAIT)
        self._file = self.sock.makefile("rb")

    def send(self, data: bytes | str) -> None:
        self.sock.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def end(self) -> None:
        """Stop sending."""
        self.sock.shutdown(socket.SHUT_WR)

    def head(self) -> list[str]:
        """The lines of the next head, without the empty one."""
        lines = [*iter(lambda: self._file.readline().rstrip(b"\r\n"), b"")]
        return [line.decode("latin-1") for line in lines]

    def status(self) -> int:
        """The status of the next head."""
        return int(self.head()[0].split()[1])

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        data = self._file.read(size)
        assert len(data) == size, data
        return data

    def answer(self) -> tuple[int, bytes]:
        """The status and the body of the next answer, which must have a length."""
        first, *fields = self.head()
        [length] = [field[16:] for field in fields if field.startswith("Content-Length: ")]
        return int(first.split()[1]), self.read(int(length))

    def line(self) -> bytes:
        """The next line, or what there is of it."""
        return self._file.readline()

    def rest(self) -> bytes:
        """Everything up to the end."""
        return self._file.read()

    def reset(self) -> None:
        """Drop the connection, so that the server gets a reset (RST)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._file.close()
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
