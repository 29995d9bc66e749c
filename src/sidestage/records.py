"""What a server received, kept within bounds: the oldest go first, and are counted."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

R = TypeVar("R")


class Received(list[R]):
    """A snapshot of what was received, oldest first.

    ``dropped`` is how many older records are gone because more than ``keep`` bytes had come.
    """

    dropped: int = 0


class Records(Generic[R]):
    """The records of one server."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._records: deque[tuple[R, int]] = deque()
        self._size = 0  # bytes
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: R, size: int) -> None:
        """Keep ``record``, which stands for ``size`` bytes."""
        self._records.append((record, size))
        self.grow(size)

    def grow(self, size: int) -> None:
        """Records kept already have become ``size`` bytes larger."""
        self._size += size
        while self._size > self._keep and len(self._records) > 1:
            self._size -= self._records.popleft()[1]
            self.dropped += 1

    def snapshot(self) -> Received[R]:
        """All that is kept."""
        received = Received(record for record, _ in self._records.copy())
        received.dropped = self.dropped
        return received
