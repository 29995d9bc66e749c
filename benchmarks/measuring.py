"""Rows of a comparison: one act done with several servers in turn, in random order."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

Serving = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Side:
    """A server in a row: ``serving()`` makes and starts it and gives what ``act`` needs of it."""

    name: str
    serving: Serving
    act: Callable[[Any], float] | None = None  # where it differs from the row's
    bound: float | None = None  # of a peer: how ours has to do, as a part of this one's figure
    times: int = 1  # done once in so many rounds; for a peer that takes very long


@dataclass(frozen=True)
class Row:
    """What is measured: ``act`` takes what a side serves and returns its figure in ``unit``."""

    name: str
    unit: str
    ours: Side
    peers: tuple[Side, ...]
    act: Callable[[Any], float]
    rounds: int = 7
    more_is_better: bool = False
    limit: float | None = None  # that ours has to keep, in ``unit``


@dataclass
class Figures:
    """What came of a row: the samples of each side."""

    row: Row
    samples: dict[str, list[float]] = field(default_factory=dict)

    def median(self, side: Side) -> float:
        """The median of a side."""
        return statistics.median(self.samples[side.name])

    def spread(self, side: Side) -> tuple[float, float]:
        """The least and the greatest sample of a side."""
        return min(self.samples[side.name]), max(self.samples[side.name])

    def ratio(self, peer: Side) -> float:
        """Ours as a part of the peer's, from the medians of the two."""
        return self.median(self.row.ours) / self.median(peer)

    def verdicts(self) -> Iterator[tuple[str, bool]]:
        """Each target in words, and whether it is reached."""
        sign = "≥" if self.row.more_is_better else "≤"
        if self.row.limit is not None:
            ours = self.median(self.row.ours)
            yield f"{sign} {self.row.limit:g} {self.row.unit}", self._holds(ours, self.row.limit)
        for peer in self.row.peers:
            if peer.bound is not None:
                text = f"{sign} {peer.bound:g} x {peer.name}"
                yield text, self._holds(self.ratio(peer), peer.bound)

    def _holds(self, figure: float, bound: float) -> bool:
        return figure >= bound if self.row.more_is_better else figure <= bound


def compare(row: Row, rounds: int | None = None) -> Figures:
    """Measure all sides of a row, one after another in each round, in random order."""
    sides, dice = [row.ours, *row.peers], random.Random(1)
    figures = Figures(row, {side.name: [] for side in sides})
    for number in range(rounds or row.rounds):
        dice.shuffle(sides)
        for side in sides:
            if number % side.times == 0:
                figures.samples[side.name].append(once(row, side))
    return figures


def once(row: Row, side: Side) -> float:
    """One figure of one side."""
    act = side.act or row.act
    with side.serving() as served:
        return act(served)
