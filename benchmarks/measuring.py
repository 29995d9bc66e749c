"""Rows of a comparison: the same act with several servers, in random order."""

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
    """A server in a row: ``serving()`` starts it and yields the argument of ``act``."""

    name: str
    serving: Serving
    act: Callable[[Any], float] | None = None  # if it differs from the row's
    bound: float | None = None  # of a peer: the target for the ratio of Sidestage's figure to it
    times: int = 1  # measured in every n-th round only; for slow peers


@dataclass(frozen=True)
class Row:
    """A measurement: ``act`` takes what a side yields and returns a figure in ``unit``."""

    name: str
    unit: str
    ours: Side
    peers: tuple[Side, ...]
    act: Callable[[Any], float]
    rounds: int = 7
    more_is_better: bool = False
    limit: float | None = None  # the target for Sidestage's figure, in ``unit``


@dataclass
class Figures:
    """The samples of each side of a row."""

    row: Row
    samples: dict[str, list[float]] = field(default_factory=dict)

    def median(self, side: Side) -> float:
        """The median of a side."""
        return statistics.median(self.samples[side.name])

    def spread(self, side: Side) -> tuple[float, float]:
        """The smallest and the largest sample of a side."""
        return min(self.samples[side.name]), max(self.samples[side.name])

    def ratio(self, peer: Side) -> float:
        """Sidestage's median divided by the peer's."""
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
    """Measure one side once."""
    act = side.act or row.act
    with side.serving() as served:
        return act(served)
