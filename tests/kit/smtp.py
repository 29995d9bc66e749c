"""A client of SMTP servers that can send anything."""

from __future__ import annotations

import socket
import struct
from typing import Self

from sidestage import SMTPServer

LONG = 30.0  # seconds; a bound for what ends at once unless it is broken
ENVELOPE = (b"EHLO me", b"MAIL FROM:<a@x>", b"RCPT TO:<b@y>")


class Bare:
    """A client that can send any line; entering it reads the greeting."""

    def __init__(self, server: SMTPServer) -> None:
        self.sock = socket.create_connection((server.host, server.port), LONG)
        self._file = self.sock.makefile("rb")

    def say(self, *lines: bytes) -> None:
        self.sock.sendall(b"".join(line + b"\r\n" for line in lines))

    def reply(self) -> bytes:
        """Read a reply; returns its last line, without the line end."""
        while (line := self._file.readline())[3:4] == b"-":
            continue
        return line.rstrip(b"\r\n")

    def ask(self, *lines: bytes) -> bytes:
        self.say(*lines)
        return self.reply()

    def codes(self, count: int) -> list[int]:
        return [int(self.reply()[:3]) for _ in range(count)]

    def rest(self) -> list[bytes]:
        """Read to the end; returns the last lines of all replies."""
        replies = iter(self.reply, b"")
        return list(replies)

    def finish(self) -> None:
        """Send the end, and go on reading."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._file.close()
        self.sock.close()

    def __enter__(self) -> Self:
        assert self.reply().startswith(b"220 ")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.sock.close()


def begin_data(client: Bare) -> None:
    """Do everything before the content of a mail."""
    for line in (*ENVELOPE, b"DATA"):
        assert client.ask(line)[:1] in b"23"
