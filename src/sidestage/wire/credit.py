"""Flow control of a call's byte streams, based on credit; and the limits of what is under way.

Each side may send ``WINDOW`` bytes before the other has consumed any. The consumer sends an ``Ack``
for each quarter of a window that it has consumed. Beyond a total for all streams of a server, a
stream has only a ``SHARE``, so that none is held back for ever by others that nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable

from .frames import WINDOW
from .messages import Ack, AckSoon

CALLS = 4096  # calls of handlers under way; a test may have handlers that wait for each other
LEAST_ROOM = 1 << 24  # bytes that they may hold together, however small ``keep`` is
CALL = 1 << 9  # bytes that each of them counts beyond what its client has sent
SHARE = 1 << 16  # bytes of one stream that may always be on their way


class Transit:
    """The bytes of all clients' streams that the test's process has not consumed."""

    def __init__(self, limit: int) -> None:
        self.limit = limit  # bytes
        self.size = 0  # bytes
        self.squeezed: dict[Backpressure, None] = {}  # paused because of the others

    def give(self, size: int) -> None:
        """Take ``size`` bytes off, and let those go on that waited for that."""
        self.size -= size
        if self.squeezed and self.size <= self.limit // 4 * 3:
            squeezed, self.squeezed = self.squeezed, {}
            for flow in squeezed:
                flow.go_on()


class Backpressure:
    """The child's end of both streams of one call: counts bytes and pauses reading.

    ``send`` sends a message. ``hold`` pauses reading from the client if its argument is true, else
    resumes it. ``blocked`` is whether the transport's buffer is full when the call begins.
    """

    def __init__(
        self,
        call: int,
        send: Callable[[Ack | AckSoon], None],
        hold: Callable[[bool], None],
        transit: Transit,
        *,
        blocked: bool = False,
    ) -> None:
        self.paused = False  # whether the parent has as much to consume as it may
        self._call = call
        self._send = send
        self._hold = hold
        self._transit = transit
        self._unread = 0  # bytes sent to the parent and not acknowledged
        self._released = 0  # bytes whose acknowledgement is not waited for any more
        self._owed = 0  # bytes from the parent that are not acknowledged
        self._step = WINDOW // 4  # bytes from the parent between two acknowledgements
        self._blocked = blocked
        self._hurried = False  # whether the parent was asked to acknowledge soon

    def sent(self, size: int) -> None:
        """Count ``size`` bytes of the client that were sent to the parent."""
        transit = self._transit
        self._unread += size
        transit.size += size
        if self._unread >= WINDOW:
            self._set_paused(True)
        elif self._unread >= SHARE and transit.size > transit.limit:
            self._squeeze()

    def _squeeze(self) -> None:
        self._transit.squeezed[self] = None
        if not self._hurried:  # else it would keep acknowledgements back that this waits for
            self._hurried = True
            self._send(AckSoon(call=self._call))
        self._set_paused(True)

    def acknowledged(self, size: int) -> None:
        """Count ``size`` bytes that the parent has consumed."""
        released = min(size, self._released)
        self._released -= released
        size -= released
        self._unread -= size
        self._transit.give(size)
        if self.paused:
            squeezed = self in self._transit.squeezed
            if self._unread < (SHARE if squeezed else WINDOW) // 2:
                self._transit.squeezed.pop(self, None)
                self._set_paused(False)

    def go_on(self) -> None:
        """Read again unless the window is full: the others have less on their way now."""
        self._set_paused(self._unread >= WINDOW)

    def release(self) -> None:
        """Read from the client again, whatever the parent consumes."""
        unread, self._unread = self._unread, 0
        self._released += unread
        self._transit.squeezed.pop(self, None)
        self._transit.give(unread)
        self._set_paused(False)

    def _set_paused(self, paused: bool) -> None:
        if paused != self.paused:
            self.paused = paused
            self._hold(paused)

    def wrote(self, size: int) -> None:
        """Count ``size`` bytes of the parent that were written to the client's transport."""
        self._owed += size
        if self._owed >= self._step:
            self._settle()

    def hurry(self) -> None:
        """Acknowledge in smaller steps from now on, starting with what was written."""
        self._step = SHARE // 4
        self._settle()

    def client_blocked(self, blocked: bool) -> None:
        """Note that the transport's buffer is full, or no longer is."""
        self._blocked = blocked
        self._settle()

    def _settle(self) -> None:
        if self._owed >= self._step and not self._blocked:
            owed, self._owed = self._owed, 0
            self._send(Ack(call=self._call, size=owed))
