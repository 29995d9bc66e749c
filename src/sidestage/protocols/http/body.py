"""The body of a request that comes in pieces, and how much of it is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...dispatch.calls import ClientLeft
from ...dispatch.streams import Inflow
from ...errors import ServerStopped
from ...pristine import waits
from ...pristine.system import Lock
from ...pristine.waits import Deadline

if TYPE_CHECKING:
    from ...journal.journal import Journal

_CHUNK = 1 << 16  # bytes
_NEVER = Deadline(None)
_REST_SECONDS = 1.0  # after the answer, to receive the unread rest of a body


class Counted:
    """Counts in the journal what is kept of the body of ``record``."""

    def __init__(self, journal: Journal[Any], record: object) -> None:
        self._journal = journal
        self._record = record
        self._size = 0  # bytes

    def hold(self, size: int) -> int:
        """Count up to ``size`` bytes; returns how many may be kept."""
        taken = self._journal.hold(size)
        self._size += taken
        return taken

    def settle(self, more: int) -> None:
        """The body is complete, and its record holds ``more`` bytes beside it."""
        self._journal.settle(self._record, self._size, more)


class Body:
    """The body of a request that comes in pieces, and the part of it that is kept.

    The first ``limit`` bytes are kept, as far as ``counted`` has room for them. Once the handler is
    done, only that part can be read. The test may read a record while the handler does, so a lock
    lets one thread at a time read from the stream. ``ask`` is called before the first read, if the
    client waits for that.
    """

    def __init__(
        self,
        inflow: Inflow,
        limit: int,
        counted: Counted,
        ask: Callable[[], None] | None = None,
    ) -> None:
        self.answered = False  # the handler wants no more, so nobody waits for it
        self.buffered = 0  # bytes that a file over this body has
        self.cut = 0  # bytes received beyond the limit, which were not kept
        self._inflow: Inflow | None = inflow
        self._whole: bytes | None = None  # once it is complete
        self._kept = bytearray()  # the first bytes that came, up to the limit
        self._at = 0  # bytes that the handler has read
        self._failed = False
        self._guard = Lock()
        self._limit = limit
        self._counted = counted
        self._ask = ask

    def read(self, limit: int) -> bytes:
        """Read up to ``limit`` bytes, waiting for them if there are none; ``b""`` at the end.

        Raises ClientLeft or ServerStopped.
        """
        with self._guard:
            if self._whole is None:
                data = self._take(limit, _NEVER)
            else:
                data = self._whole[self._at : self._at + limit]
            self._at += len(data)
            return data

    def whole(self) -> bytes:
        """The whole body; only the kept part if the handler is done or had read more than that.

        Raises ClientLeft or ServerStopped.
        """
        with self._guard:
            if self._whole is not None:
                return self._whole
            if self._failed:
                return bytes(self._kept)
            if self.answered:
                return self._finish()
            before, missing = bytes(self._kept), self.cut
            rest = b"".join(iter(lambda: self._take(_CHUNK, _NEVER), b""))
            self._whole = bytes(self._kept) if missing else before + rest
            return self._whole

    def seen(self) -> tuple[bytes, int, bool]:
        """What is kept, how many bytes were read, and whether that is all; waits for nothing."""
        whole = self._whole
        kept = bytes(self._kept) if whole is None else whole
        if whole is None and self._whole is not None:  # complete since then
            kept = whole = self._whole
        return kept, len(kept) + self.cut, whole is not None

    def _take(self, limit: int, deadline: Deadline) -> bytes:
        if self._inflow is None:
            return b""
        try:
            if self._ask is not None:
                ask, self._ask = self._ask, None
                ask()
            data = self._inflow.read_some(limit, deadline)
        except (ClientLeft, ServerStopped):
            self._failed = True
            raise
        kept = 0
        if not self.cut:  # what is kept is the beginning
            kept = self._counted.hold(min(len(data), self._limit - len(self._kept)))
        self._kept += data[:kept]
        self.cut += len(data) - kept
        return data

    def close(self) -> None:
        """After the handler: receive what it has not read, for up to a second.

        A thread that waits for more gets the end then.
        """
        if not waits.acquire(self._guard, _REST_SECONDS):
            if (inflow := self._inflow) is not None:
                inflow.end()
            waits.acquire(self._guard, -1.0)
        try:
            self._finish()
        finally:
            self._guard.release()

    def _finish(self) -> bytes:
        # A client that was not asked for the body need not send it.
        deadline = Deadline(_REST_SECONDS if self._ask is None else 0.0)
        self._ask = None
        try:
            while self._take(_CHUNK, deadline):
                pass
        except (ClientLeft, ServerStopped, TimeoutError):
            pass  # keep what has come
        if self._inflow is not None:
            self._whole = bytes(self._kept)
            self._inflow = None
            self._kept.clear()
            self._counted.settle(self.buffered)
            del self._counted  # it refers to the journal, whose records refer to this body
        return self._whole or b""
