"""Finds the expectations that a request may meet by what they compare with one value.

Many expectations of one path differ in a value of the query, of a header field or of the body. The
parts that name just one value make a key, and a request's own key leaves those that have it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from ....patterns.exact import key_of, key_taken
from ....patterns.tree import MISSING, Keys, Once, Pattern
from ..matching.matchers import viewed

if TYPE_CHECKING:
    from ..matching.matchers import Matchers
    from ..matching.view import RequestView
    from .index import HTTPEntry

LINE = ("query",)  # the parts beside the path that the request line has
REST = ("headers", "cookies", "json", "form", "text", "body")

FEW = 4  # entries, which are judged one by one

_number = attrgetter("number")

# A name in a dict, and whether its value is one of a list, or a list that is joined, as in `Once`.
Name = tuple[str, bool, bool]
Place = tuple[tuple[str, tuple[Name, ...] | None], ...]  # parts, and the names in each; None is all
Key = tuple[Hashable, ...]


class Sieve:
    """Where the entries are that take one value alone in ``parts``."""

    def __init__(self, parts: tuple[str, ...], entries: Iterable[HTTPEntry] = ()) -> None:
        self._parts = parts
        self._places: dict[Place, dict[Key, list[HTTPEntry]]] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: HTTPEntry) -> None:
        """Add an entry, which was declared after all others."""
        place, key = _place_of(entry.matchers, self._parts)
        self._places.setdefault(place, {}).setdefault(key, []).append(entry)

    def remove(self, entry: HTTPEntry) -> None:
        """Remove an entry that is there."""
        place, key = _place_of(entry.matchers, self._parts)
        found = self._places[place]
        found[key].remove(entry)
        if not found[key]:
            del found[key]
        if not found:
            del self._places[place]

    def find(self, view: RequestView) -> Sequence[HTTPEntry]:
        """All entries that the request may meet, and others, in the order of their numbers."""
        found: list[list[HTTPEntry]] = []
        for place, by_key in self._places.items():
            key = tuple([_key_of(viewed(view, part), names) for part, names in place])
            if (entries := by_key.get(key)) is not None:
                found.append(entries)
        return merged(found)


def merged(found: Sequence[Sequence[HTTPEntry]]) -> Sequence[HTTPEntry]:
    """Sequences of entries as one, in the order of their numbers."""
    if len(found) == 1:
        return found[0]
    return sorted((entry for entries in found for entry in entries), key=_number)


def _place_of(matchers: Matchers, parts: tuple[str, ...]) -> tuple[Place, Key]:
    """The parts that take one value alone, and these values; both are empty if there is none."""
    place: list[tuple[str, tuple[Name, ...] | None]] = []
    keys: list[Hashable] = []
    for part in parts:
        pattern: Pattern | None = getattr(matchers, part)
        if isinstance(pattern, Keys):
            names, taken = _named(pattern)
            if names:
                place.append((part, names))
                keys.append(taken)
        elif pattern is not None and (key := key_taken(pattern)) is not None:
            place.append((part, None))
            keys.append(key)
    return tuple(place), tuple(keys)


def _named(pattern: Keys) -> tuple[tuple[Name, ...], Key]:
    """The names in a dict that take one value alone, and these values."""
    names: list[Name] = []
    keys: list[Hashable] = []
    for name, item in sorted(pattern.items.items()):
        once = item if isinstance(item, Once) else None
        key = key_taken(item if once is None else once.value)
        if key is not None:
            joined = once is not None and once.joined
            names.append((pattern.key(name), once is not None, joined))
            keys.append(key)
    return tuple(names), tuple(keys)


def _key_of(value: Any, names: tuple[Name, ...] | None) -> Hashable:
    """The key of a part of a request, to compare with those of the entries in one place."""
    if names is None:
        return key_of(value)
    if type(value) is not dict:
        return None
    keys: list[Hashable] = []
    for name, once, joined in names:
        one = value.get(name, MISSING)
        if once and type(one) is list:
            if joined:
                one = ", ".join(one)
            elif len(one) == 1:
                one = one[0]
        keys.append(key_of(one))
    return tuple(keys)
