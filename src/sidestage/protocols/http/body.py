"""The body of a request that is still coming, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable

from ...dispatch.calls import ClientLeft
from ...dispatch.streams import Inflow
from ...errors import ServerStopped
from ...pristine.system import Lock
from ...pristine.waits import Deadline

_CHUNK = 1 << 16  # bytes
_NEVER = Deadline(None)
_REST_SECONDS = 1.0  # after the answer, for the rest of a body that nobody has read


class Body:
    """A request's body that is still coming; when the handler is done, what was kept of it.

    The first ``limit`` bytes are; ``grown`` is told of each that comes to them. The test may look
    at a record while the handler reads, so one thread at a time takes from it.
    """

    def __init__(self, inflow: Inflow, limit: int, grown: Callable[[int], None]) -> None:
        self.cut = 0  # bytes that were not kept
        self._inflow: Inflow | None = inflow
        self._whole: bytes | None = None
        self._kept = bytearray()  # of what was taken from the inflow
        self._at = 0  # bytes that were read
        self._failed = False
        self._guard = Lock()
        self._limit = limit
        self._grown = grown

    def read(self, limit: int) -> bytes:
        """Up to ``limit`` bytes; ``b""`` at the end."""
        with self._guard:
            if self._whole is None:
                data = self._take(limit, _NEVER)
            else:
                data = self._whole[self._at : self._at + limit]
            self._at += len(data)
            return data

    def whole(self) -> bytes:
        """Everything, while the handler runs; if it had read more than is kept, what is."""
        with self._guard:
            if self._whole is not None:
                return self._whole
            if self._failed:
                return bytes(self._kept)
            before, missing = bytes(self._kept), self.cut
            rest = b"".join(iter(lambda: self._take(_CHUNK, _NEVER), b""))
            self._whole = bytes(self._kept) if missing else before + rest
            return self._whole

    def _take(self, limit: int, deadline: Deadline) -> bytes:
        if self._inflow is None:
            return b""
        try:
            data = self._inflow.read_some(limit, deadline)
        except (ClientLeft, ServerStopped):
            self._failed = True
            raise
        kept = data[: max(0, self._limit - len(self._kept))]
        self._kept += kept
        self.cut += len(data) - len(kept)
        self._grown(len(kept))
        return data

    def close(self) -> None:
        """The handler is done: take in what it has not read, within bounds."""
        with self._guard:
            deadline = Deadline(_REST_SECONDS)
            try:
                while self._take(_CHUNK, deadline):
                    pass
            except (ClientLeft, ServerStopped, TimeoutError):
                pass  # the record has what came
            if self._inflow is not None:
                self._whole = bytes(self._kept)
                self._inflow = None
                self._kept.clear()
                del self._grown  # it has the records, of which one has this
