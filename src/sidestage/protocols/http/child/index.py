"""Finds the expectations that a request may meet by the segments of its path.

A path without parameters is a key of a dict. A template is a way through a tree, whose edges are
segments, or any segment. What else there is, is looked at for each request. Where a path has many
expectations, a ``Sieve`` leaves few of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..matching.paths import Segments, Template
from .sieve import FEW, LINE, REST, Sieve, merged

if TYPE_CHECKING:
    from ....child.expectations import Entry
    from ..matching.matchers import Matchers
    from ..matching.view import RequestView
    from ..messages import Respond

    HTTPEntry = Entry[Matchers, Respond]


class Leaf:
    """The entries of one path, and sieves of them once they are more than a few."""

    __slots__ = ("_line", "_rest", "entries")

    def __init__(self) -> None:
        self.entries: list[HTTPEntry] = []  # in the order of their numbers
        self._line: Sieve | None = None
        self._rest: Sieve | None = None

    def add(self, entry: HTTPEntry) -> None:
        """Add an entry, which was declared after all others."""
        self.entries.append(entry)
        for sieve in (self._line, self._rest):
            if sieve is not None:
                sieve.add(entry)

    def remove(self, entry: HTTPEntry) -> None:
        """Remove an entry that is there."""
        self.entries.remove(entry)
        for sieve in (self._line, self._rest):
            if sieve is not None:
                sieve.remove(entry)

    def by_line(self, request: RequestView) -> Sequence[HTTPEntry]:
        """Those that the request may meet by its line, and others."""
        if len(self.entries) <= FEW:
            return self.entries
        if self._line is None:
            self._line = Sieve(LINE, self.entries)
        return self._line.find(request)

    @property
    def rest(self) -> Sieve:
        """They, by what follows the line of a request."""
        if self._rest is None:
            self._rest = Sieve(REST, self.entries)
        return self._rest


class _Node:
    """A place in the tree, after some segments."""

    __slots__ = ("any", "ends", "named", "rests")

    def __init__(self) -> None:
        self.named: dict[str, _Node] = {}  # by the next segment
        self.any: _Node | None = None  # whatever the next segment is
        self.ends = Leaf()  # of templates that end here
        self.rests = Leaf()  # of templates that have `{name:path}` here

    def way(self, template: Template) -> Iterator[_Node]:
        """The nodes of a template after this one, which are made where there are none."""
        node = self
        for segment in template.head:
            if isinstance(segment, str):
                node = node.named.setdefault(segment, _Node())
            else:
                node.any = node.any or _Node()
                node = node.any
            yield node

    def find(self, segments: Segments) -> Iterator[Leaf]:
        """The entries whose templates may match."""
        nodes: list[_Node] = [self]
        for segment in segments:
            following: list[_Node] = []
            for node in nodes:
                if node.rests.entries:
                    yield node.rests
                if (named := node.named.get(segment)) is not None:
                    following.append(named)
                if node.any is not None:
                    following.append(node.any)
            nodes = following
        for node in nodes:
            if node.ends.entries:
                yield node.ends

    def is_empty(self) -> bool:
        """Whether nothing is here or behind it."""
        return not (self.named or self.any or self.ends.entries or self.rests.entries)

    def prune(self, template: Template) -> None:
        """Remove the nodes of a template behind which nothing is left."""
        way = [self, *self.way(template)]
        for node, segment in zip(way[-2::-1], template.head[::-1], strict=True):
            if isinstance(segment, str):
                if node.named[segment].is_empty():
                    del node.named[segment]
            elif node.any is not None and node.any.is_empty():
                node.any = None


class PathIndex:
    """The entries of a service, by their paths."""

    def __init__(self) -> None:
        self._literal: dict[Segments, Leaf] = {}
        self._tree = _Node()
        self._others = Leaf()  # of any path, and regular expressions

    def add(self, entry: HTTPEntry) -> None:
        """Add an entry, which was declared after all others."""
        self._place(entry).add(entry)

    def remove(self, entry: HTTPEntry) -> None:
        """Remove an entry that is there."""
        self._place(entry).remove(entry)
        path = entry.matchers.path
        if isinstance(path, Template):
            if path.literal is None:
                self._tree.prune(path)
            elif not self._literal[path.literal].entries:
                del self._literal[path.literal]

    def find(self, request: RequestView) -> Sequence[HTTPEntry]:
        """Return all entries that may match and others, in the order of their numbers.

        Nothing but the line of the request is looked at.
        """
        return merged([leaf.by_line(request) for leaf in self.leaves(request)])

    def leaves(self, request: RequestView) -> list[Leaf]:
        """The entries whose paths may match."""
        segments = request.segments
        found = [*self._tree.find(segments)]
        if (literal := self._literal.get(segments)) is not None:
            found.append(literal)
        if self._others.entries:
            found.append(self._others)
        return found

    def _place(self, entry: HTTPEntry) -> Leaf:
        path = entry.matchers.path
        if not isinstance(path, Template):
            return self._others
        if path.literal is not None:
            return self._literal.setdefault(path.literal, Leaf())
        node = self._tree
        for following in node.way(path):
            node = following
        return node.rests if path.rest else node.ends
