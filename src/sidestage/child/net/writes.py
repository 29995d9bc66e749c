"""What is written to clients in one pass of the loop, sent at its end.

A client that sleeps has to be woken, which costs the kernel more than all else in an answer.
So the first answer of a pass is sent at once, and the client wakes while the others are made;
those are sent in one go, to a client that is awake.
"""

from __future__ import annotations

import asyncio


class Writes:
    """The answers of one pass."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._first = True
        self._waiting: dict[asyncio.Transport, list[bytes]] = {}

    def begin_pass(self) -> None:
        """The next to be written is the first of its pass."""
        self._first = True

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        """Send ``data``, after what was written to ``transport`` before."""
        if (parts := self._waiting.get(transport)) is not None:
            parts.append(data)
        elif self._first:
            self._first = False
            transport.write(data)
        else:
            if not self._waiting:
                self._loop.call_soon(self._flush_all)
            self._waiting[transport] = [data]

    def flush(self, transport: asyncio.Transport) -> None:
        """Send what waits for ``transport``, which is to be closed or written to directly."""
        if (parts := self._waiting.pop(transport, None)) and not transport.is_closing():
            transport.write(b"".join(parts))

    def _flush_all(self) -> None:
        for transport in list(self._waiting):
            self.flush(transport)
