"""Flow control of a call's byte streams, by credit: each side may send so much ahead.

Either side may have ``WINDOW`` bytes under way that the other has not consumed. Whoever consumes
sends an ``Ack`` for each quarter of that.
"""

from __future__ import annotations

from collections.abc import Callable

from .frames import WINDOW
from .messages import Ack


class Backpressure:
    """Counts stream bytes both ways on one connection, in the server's process.

    ``send`` passes an ``Ack`` on. ``hold`` is called with whether not to read from the client.
    """

    def __init__(self, send: Callable[[Ack], None], hold: Callable[[bool], None]) -> None:
        self.call = 0
        self.paused = False  # the parent has not consumed enough
        self._send = send
        self._hold = hold
        self._unread = 0  # sent to the parent, not acknowledged
        self._owed = 0  # taken from the parent, not acknowledged
        self._blocked = False  # the client does not read

    def start(self, call: int) -> None:
        """Begin the stream ``call``."""
        self.call, self._unread, self._owed = call, 0, 0

    def sent(self, size: int) -> None:
        """``size`` bytes from the client went to the parent."""
        self._unread += size
        self._set_paused(self.paused or self._unread >= WINDOW)

    def acknowledged(self, size: int) -> None:
        """The parent has consumed ``size`` bytes."""
        self._unread -= size
        self._set_paused(self.paused and self._unread >= WINDOW // 2)

    def release(self) -> None:
        """Read from the client again, whatever the parent has consumed."""
        self._unread = 0
        self._set_paused(False)

    def _set_paused(self, paused: bool) -> None:
        if paused != self.paused:
            self.paused = paused
            self._hold(paused)

    def wrote(self, size: int) -> None:
        """``size`` bytes from the parent went to the client's transport."""
        self._owed += size
        self._settle()

    def client_blocked(self, blocked: bool) -> None:
        """The transport's buffer is full, or has room again."""
        self._blocked = blocked
        self._settle()

    def _settle(self) -> None:
        if self._owed >= WINDOW // 4 and not self._blocked:
            owed, self._owed = self._owed, 0
            self._send(Ack(call=self.call, size=owed))
