"""Divides what a client sends into command lines (RFC 5321 2.3.8)."""

from __future__ import annotations

from .. import rules

# A longer line is cut: whoever reads it refuses it, by its length.
_LONGEST = 4 * rules.COMMAND_LIMIT


class Lines:
    """What a client has sent and nobody has read."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._searched = 0  # bytes that contain no line end

    def __len__(self) -> int:
        return len(self._unread)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take ``data``."""
        self._unread += data

    def next(self) -> bytes | None:
        """Return the next line with its line end, or ``None`` before there is one."""
        unread = self._unread
        end = unread.find(b"\n", self._searched) + 1
        if not end:
            if rules.is_command_of_another_protocol(unread):
                return self.take()
            del unread[_LONGEST:]
            self._searched = len(unread)
            return None
        self._searched = 0
        line = bytes(unread[:end])
        del unread[:end]
        return line

    def beginning(self) -> bytes:
        """The first bytes of what is not read."""
        return bytes(self._unread[:80])

    def take(self) -> bytes:
        """Return everything that is not read."""
        rest = bytes(self._unread)
        self._unread.clear()
        self._searched = 0
        return rest
