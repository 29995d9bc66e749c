"""Decodes a chunked body (RFC 9112 7.1). No I/O here.

httptools decodes them too, but does not tell where one ends, and what follows may be a request with
a method that it does not know.
"""

from __future__ import annotations

import re

from ..rules import malformed, too_large
from .head import parse_trailers

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n\0]*)?\r\n")
_PART_OF_SIZE = re.compile(rb"(?:[0-9A-Fa-f]{1,16}[ \t]*(?:;[^\r\n\0]*)?\r?)?")


class Chunks:
    """One chunked body; ``limit`` is for a size's line and for the trailers, in bytes."""

    def __init__(self, limit: int) -> None:
        self.trailers = b""  # the fields after the body, as they came
        self._limit = limit
        self._kept = b""  # the beginning of a line that is not complete
        self._left = 0  # bytes of the chunk
        self._ends = False  # the line end after a chunk comes next
        self._last = False  # the last chunk was there: the trailers come next

    # Not split: it is one decoder, a branch for each state.
    def feed(self, data: bytes | memoryview) -> tuple[list[bytes], bytes | memoryview | None]:
        """The pieces of the body in ``data``, and what follows it; ``None`` until it is complete.

        Raises Refused.
        """
        pieces: list[bytes] = []
        if self._kept:
            data, self._kept = self._kept + bytes(data), b""
        at = 0
        while at < len(data):
            if self._left:
                piece = bytes(data[at : at + self._left])
                at += len(piece)
                self._left -= len(piece)
                self._ends = not self._left
                pieces.append(piece)
            elif self._last:
                return pieces, self._trailers(bytes(data[at:]))
            elif self._ends:
                end = bytes(data[at : at + 2])
                if not b"\r\n".startswith(end):
                    raise malformed(f"{end!r} after a chunk, not its line end (RFC 9112 7.1)")
                if len(end) < 2:
                    return self._keep(pieces, data, at)
                at += 2
                self._ends = False
            elif (end_of_line := self._take_size(data, at)) is None:
                return self._keep(pieces, data, at)
            else:
                at = end_of_line
        return pieces, None

    def _take_size(self, data: bytes | memoryview, at: int) -> int | None:
        """Take a size's line; returns where it ends, ``None`` if it is not complete."""
        if (found := _SIZE.match(data, at)) is not None:
            if found.end() - at > self._limit:
                raise too_large()
            self._left = int(found[1], 16)
            self._last = not self._left
            return found.end()
        if _PART_OF_SIZE.fullmatch(data, at):
            return None
        if _PART_OF_SIZE.fullmatch(data, at, at + self._limit):
            raise too_large()
        start = bytes(data[at : at + 20])
        raise malformed(f"{start!r} is no size of a chunk (RFC 9112 7.1)")

    def _keep(
        self, pieces: list[bytes], data: bytes | memoryview, at: int
    ) -> tuple[list[bytes], None]:
        self._kept = bytes(data[at:])
        if len(self._kept) > self._limit:
            raise too_large()
        return pieces, None

    def _trailers(self, data: bytes) -> bytes | None:
        if data.startswith(b"\r\n"):
            return data[2:]
        fields, end, rest = data.partition(b"\r\n\r\n")
        if len(fields) > self._limit:
            parse_trailers(data[: self._limit])  # as if they had come in pieces
            raise too_large()
        if not end:
            parse_trailers(data)
            self._kept = data
            return None
        parse_trailers(fields + end)
        self.trailers = fields
        return rest
