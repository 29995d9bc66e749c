"""What the request line decides of a request, remembered as long as the expectations are the same.

The path leaves few expectations, and often one that looks at nothing else. Clients repeat their
request lines, so most requests cost a look into a dict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..matching.view import RequestView
from .direct import Direct

if TYPE_CHECKING:
    from .index import HTTPEntry, PathIndex
    from .router import Router

_KEPT = 1024  # request lines
_LONG = 256  # characters; longer targets are not kept


class Line:
    """What a method and a target leave."""

    __slots__ = ("_direct", "decides", "entries", "only")

    def __init__(self, entries: Sequence[HTTPEntry]) -> None:
        self.entries = entries  # that may be met, in the order of their numbers
        # All of them fit, and nothing else of the request is looked at.
        self.decides = all(entry.matchers.ends_with_line for entry in entries)
        self.only = entries[0] if self.decides and len(entries) == 1 else None
        self._direct: dict[int, Direct] = {}

    def direct(self, router: Router, entry: HTTPEntry) -> Direct:
        """What answers such requests that meet ``entry``."""
        direct = self._direct.get(entry.number)
        if direct is None:
            direct = self._direct[entry.number] = Direct(router, entry)
        return direct


class Lines:
    """Finds the expectations that a request may meet by its line."""

    def __init__(self, index: PathIndex) -> None:
        self._index = index
        self._known: dict[tuple[str, str], Line] = {}

    def forget(self) -> None:
        """There are other expectations now, or other answers."""
        self._known.clear()

    def find(self, method: str, target: str) -> Line:
        """What a request line leaves."""
        line = self._known.get((method, target))
        if line is None:
            line = self._look(RequestView(method, target, b""))
            if len(target) <= _LONG:
                if len(self._known) >= _KEPT:
                    self._known.clear()
                self._known[method, target] = line
        return line

    def _look(self, view: RequestView) -> Line:
        found = self._index.find(view)
        entries = tuple(entry for entry in found if entry.matchers.line_fits(view) is not False)
        return Line(entries)
