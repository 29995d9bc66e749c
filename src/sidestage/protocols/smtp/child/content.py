"""The content of a mail as it comes after DATA: where it ends, and what is wrong with it.

Only CRLF ends a line, and only CRLF, a dot and CRLF end the content (RFC 5321 2.3.8, 4.1.1.4).
"""

from __future__ import annotations

import re

from .. import rules
from ..rules import LINE_LIMIT, Refused

_CRLF = b"\r\n"
_END = b"\r\n.\r\n"
_LONE_DOT = re.compile(rb"(\r\n|\n|\r)\.(\r\n|\n|\r)")  # with any line ends
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_CONTEXT = 40  # bytes before a bare line end that are quoted


class Content:
    """Collects the content of one mail of up to ``limit`` bytes.

    Content that is refused is read to its end, and not kept.
    """

    def __init__(self, limit: int) -> None:
        self.refused: Refused | None = None
        self.size = 0  # bytes that have come, its end included
        self.ended = False
        self._limit = limit
        # What is kept: all, or the last bytes if it is refused. It starts with the end of DATA's
        # own line, so that each line of the content comes after a line end.
        self._kept = bytearray(_CRLF)
        self._stuffed = 0  # dots that the client has added

    @property
    def held(self) -> int:
        """Bytes in memory."""
        return len(self._kept)

    def feed(self, data: bytes) -> bytes:
        """Take ``data``; returns what follows the content, once that has ended.

        The end may be one that the client must not use; ``refused.last`` is true then.
        """
        kept = self._kept
        old = len(kept)
        kept += data
        self.size += len(data)
        end = kept.find(_END, max(0, old - 4))
        self._check(old, len(kept) if end < 0 else end + 2)
        if self.refused is not None and (found := self._find_end(old)) is not None:
            end = found.start()
            if found[0] != _END:
                self.refused = rules.false_end(self.refused)
                self.ended = True
                return b""
        if end < 0:
            if self.refused is not None:
                del kept[:-4]
            return b""
        self.ended = True
        rest = bytes(kept[end + len(_END) :])
        self.size -= len(rest)
        del kept[end + 2 :]
        return rest

    def refuse(self, refused: Refused) -> None:
        """Keep none of it, and refuse it once it has come."""
        if self.refused is None:
            self.refused = refused
            del self._kept[:-4]

    def whole(self) -> bytes:
        """The content after its end, without added dots; raises Refused."""
        if self.refused is not None:
            raise self.refused
        # RFC 5321 4.5.2; each line, the first too, comes after a line end.
        content = self._kept.replace(b"\r\n.", _CRLF)
        self._kept = bytearray()
        if len(content) - 2 > self._limit:
            raise rules.too_large(self._limit)
        _check_lines(content)
        return bytes(memoryview(content)[2:])

    def _check(self, old: int, end: int) -> None:
        """Check what has come from ``old`` to ``end``, in ``_kept``."""
        if self.refused is not None:
            return
        kept = self._kept
        lines = kept.count(_CRLF, max(0, old - 1), end)
        self._stuffed += kept.count(b"\r\n.", max(0, old - 2), end)
        # Of a CR at the end, the next byte decides.
        carriage_returns = kept.count(b"\r", max(0, old - 1), end - 1)
        if kept.count(b"\n", old, end) != lines or carriage_returns != lines:
            self._refuse_bare(old, end)
        elif end - 2 - self._stuffed > self._limit:
            self.refused = rules.too_large(self._limit)

    def _refuse_bare(self, old: int, end: int) -> None:
        kept = self._kept
        found = _BARE.search(kept, max(0, old - 1), end)
        assert found is not None
        at = found.start()
        if at - 2 - kept.count(b"\r\n.", 0, at) > self._limit:  # that came first
            self.refused = rules.too_large(self._limit)
            return
        line = max(kept.rfind(_CRLF, 0, at) + 2, at - _CONTEXT)
        number = kept.count(_CRLF, 0, at)
        self.refused = rules.bare_line_end(number, bytes(kept[line:at]), found[0])

    def _find_end(self, old: int) -> re.Match[bytes] | None:
        """The end of content that is refused, or what its client may take for the end."""
        found = _LONE_DOT.search(self._kept, max(0, old - 4))
        if found is not None and found[1] == _CRLF and found[2] == b"\r":
            return found if found.end() < len(self._kept) else None  # LF may still come
        return found


def _check_lines(content: bytearray) -> None:
    """RFC 5321 4.5.3.1.6; the limit does not count dots that were added."""
    start, size = 0, len(content)
    while start + LINE_LIMIT < size:
        end = content.rfind(_CRLF, start, start + LINE_LIMIT + 2)
        if end < 0:
            number = content.count(_CRLF, 0, start)
            raise rules.line_too_long(number, content.find(_CRLF, start) - start)
        start = end + 2
