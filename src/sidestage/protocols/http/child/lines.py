"""What the request line decides of a request, remembered as long as the expectations are the same.

The path leaves few expectations, and often one that looks at nothing else. Clients repeat their
request lines, so most requests cost a look into a dict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..matching.view import RequestView
from .direct import Direct
from .sieve import FEW, REST, Sieve, merged

if TYPE_CHECKING:
    from .index import HTTPEntry, Leaf, PathIndex
    from .router import Router

_KEPT = 1024  # request lines
_LONG = 256  # characters; longer targets are not kept
_WITHOUT_BODY = frozenset({"HEAD", "CONNECT"})  # methods whose answers tell another size


class Line:
    """What a method and a target leave."""

    __slots__ = ("_leaf", "_sieve", "decides", "direct", "early", "entries", "only")

    def __init__(self, entries: Sequence[HTTPEntry], leaf: Leaf | None) -> None:
        self.entries = entries  # that may be met, in the order of their numbers
        # All of them fit, and nothing else of the request is looked at.
        self.decides = all(entry.matchers.ends_with_line for entry in entries)
        self.only = entries[0] if self.decides and len(entries) == 1 else None
        self.direct: Direct | None = None  # of ``only``, if that answers all, come what may
        self.early = any(entry.early for entry in entries)
        self._leaf = leaf  # of just these entries, if there is one
        self._sieve: Sieve | None = None

    def may_meet(self, view: RequestView) -> Sequence[HTTPEntry]:
        """Those of ``entries`` that a whole request with this line may meet, and others."""
        if len(self.entries) <= FEW:
            return self.entries
        if self._sieve is None:
            self._sieve = Sieve(REST, self.entries) if self._leaf is None else self._leaf.rest
        return self._sieve.find(view)


class Lines:
    """Finds the expectations that a request may meet by its line."""

    def __init__(self, index: PathIndex) -> None:
        self._index = index
        self._known: dict[tuple[str, str], Line] = {}
        self._direct: dict[tuple[int, str], Direct] = {}

    def forget(self) -> None:
        """There are other expectations now, or other answers."""
        self._known.clear()
        self._direct.clear()

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

    def direct(self, router: Router, entry: HTTPEntry, method: str) -> Direct:
        """What answers the requests with ``method`` that meet ``entry``."""
        key = entry.number, method if method in _WITHOUT_BODY else ""
        direct = self._direct.get(key)
        if direct is None:
            direct = self._direct[key] = Direct(router, entry)
        return direct

    def _look(self, view: RequestView) -> Line:
        leaves = self._index.leaves(view)
        found = merged([leaf.by_line(view) for leaf in leaves])
        entries = tuple(entry for entry in found if entry.matchers.line_fits(view) is not False)
        whole = len(leaves) == 1 and len(leaves[0].entries) == len(entries)
        return Line(entries, leaves[0] if whole else None)
