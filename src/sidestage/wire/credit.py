"""Flow control of a call's byte streams, based on credit.

Each side may send ``WINDOW`` bytes before the other has consumed any. The consumer sends an ``Ack``
for each quarter of a window that it has consumed.
"""

from __future__ import annotations

from collections.abc import Callable

from .frames import WINDOW
from .messages import Ack


class Backpressure:
    """The child's end of both streams of one call: counts bytes and pauses reading.

    ``send`` sends an ``Ack``. ``hold`` pauses reading from the client if its argument is true, else
    resumes it. ``blocked`` is whether the transport's buffer is full when the call begins.
    """

    def __init__(
        self,
        call: int,
        send: Callable[[Ack], None],
        hold: Callable[[bool], None],
        *,
        blocked: bool = False,
    ) -> None:
        self.paused = False  # whether the parent has a full window to consume
        self._call = call
        self._send = send
        self._hold = hold
        self._unread = 0  # bytes sent to the parent and not acknowledged
        self._owed = 0  # bytes from the parent that are not acknowledged
        self._blocked = blocked

    def sent(self, size: int) -> None:
        """Count ``size`` bytes of the client that were sent to the parent."""
        self._unread += size
        self._set_paused(self.paused or self._unread >= WINDOW)

    def acknowledged(self, size: int) -> None:
        """Count ``size`` bytes that the parent has consumed."""
        self._unread -= size
        self._set_paused(self.paused and self._unread >= WINDOW // 2)

    def release(self) -> None:
        """Read from the client again, whatever the parent consumes."""
        self._unread = 0
        self._set_paused(False)

    def _set_paused(self, paused: bool) -> None:
        if paused != self.paused:
            self.paused = paused
            self._hold(paused)

    def wrote(self, size: int) -> None:
        """Count ``size`` bytes of the parent that were written to the client's transport."""
        self._owed += size
        self._settle()

    def client_blocked(self, blocked: bool) -> None:
        """Note that the transport's buffer is full, or no longer is."""
        self._blocked = blocked
        self._settle()

    def _settle(self) -> None:
        if self._owed >= WINDOW // 4 and not self._blocked:
            owed, self._owed = self._owed, 0
            self._send(Ack(call=self._call, size=owed))
