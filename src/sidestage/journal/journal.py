"""What a server received, kept within bounds: the oldest go first, and are counted."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from ..pristine.system import Lock

R = TypeVar("R")

OVERHEAD = 512  # bytes that any record counts for beside what came, so that no number is free


class Received(list[R]):
    """A snapshot of what was received, oldest first.

    ``dropped`` is how many older records are gone because more than ``keep`` bytes had come.
    """

    dropped: int = 0


class Records(Generic[R]):
    """The records of one server."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._records: deque[R] = deque()
        self._sizes: deque[int] = deque()  # bytes, of each
        self._size = 0  # of all
        self._guard = Lock()  # handlers' threads let records grow while others are added
        self.dropped = 0

    @property
    def total(self) -> int:
        """How many there were, those that are dropped included."""
        return len(self._records) + self.dropped

    def add(self, record: R, size: int) -> None:
        """Keep ``record``, which stands for ``size`` bytes."""
        with self._guard:
            self._records.append(record)
            self._sizes.append(size)
            self._size += size
            self._trim()

    def grow(self, record: R, size: int) -> None:
        """``record``, if it is kept still, has become ``size`` bytes larger."""
        with self._guard:
            for at in reversed(range(len(self._records))):
                if self._records[at] is record:
                    self._sizes[at] += size
                    self._size += size
                    break
            self._trim()

    def _trim(self) -> None:
        while self._size > self._keep and len(self._records) > 1:
            self._records.popleft()
            self._size -= self._sizes.popleft()
            self.dropped += 1

    def snapshot(self) -> Received[R]:
        """All that is kept."""
        received = Received(self._records.copy())
        received.dropped = self.dropped
        return received
