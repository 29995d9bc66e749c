"""The table of choice as a plain model, written from its description: slow, and without state.

What is declared and what has happened are lists, and everything is found out anew each time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Declared:
    """An expectation, and how often it was met."""

    number: int
    allow: bool = False
    least: int = 1
    most: int | None = None
    group: int = 0
    kinds: frozenset[int] = frozenset()  # of requests that it matches
    met: int = 0
    withdrawn: bool = False


@dataclass
class Model:
    """What was declared on a server, in order."""

    entries: list[Declared] = field(default_factory=list)

    def choose(self, matches: Callable[[Declared], bool]) -> tuple[str, int]:
        """``("met", number)``, ``("unexpected", 0)`` or, for the handler, ``("free", 0)``."""
        here = [entry for entry in self.entries if not entry.withdrawn and matches(entry)]
        expects = [entry for entry in here if not entry.allow]
        takers = [entry for entry in expects if self.takes_more(entry) and self.in_turn(entry)]
        short = [entry for entry in takers if entry.met < entry.least]
        if short:
            return "met", short[0].number
        if takers:
            return "met", takers[-1].number
        if expects:
            return "unexpected", 0
        allows = [entry for entry in here if entry.allow and self.takes_more(entry)]
        return ("met", allows[-1].number) if allows else ("free", 0)

    def outcomes(self, known: Mapping[int, bool | None]) -> set[tuple[str, int]]:
        """What can become of a request of which is ``known`` which entries it matches, by number.

        ``None`` is that it may or may not.
        """
        unknown = [number for number, verdict in known.items() if verdict is None]
        found: set[tuple[str, int]] = set()
        for guesses in itertools.product((True, False), repeat=len(unknown)):
            every = {**known, **dict(zip(unknown, guesses, strict=True))}
            found.add(self.choose(lambda one, every=every: bool(every[one.number])))  # type: ignore[misc]
        return found

    @staticmethod
    def takes_more(entry: Declared) -> bool:
        return entry.most is None or entry.met < entry.most

    def in_turn(self, entry: Declared) -> bool:
        """Opened, as those before have reached their minimum; not closed by a later one."""
        if not entry.group:
            return True
        group = [one for one in self.entries if one.group == entry.group]
        closed = [one for one in group if self.after(one, group)]
        before = [one for one in group if one.number < entry.number and not one.withdrawn]
        return entry not in closed and all(
            one.met >= one.least for one in before if one not in closed
        )

    @staticmethod
    def after(entry: Declared, group: Sequence[Declared]) -> bool:
        """Whether a later one was met."""
        return any(one.number > entry.number and one.met for one in group)
