"""Why no expectation was chosen for a request, and what came nearest, as text.

The texts are bounded: at most 30 lines, and long values are cut, with their length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from ....patterns.text import show_pattern, show_plain
from ....patterns.tree import Objects
from .credentials import how_they_differ, how_without_secrets, without_secrets
from .distance import Compared, compare, line_distance
from .matchers import BODY_PARTS, HEAD_PARTS, Matchers
from .paste import line_to_paste
from .paths import show_path
from .slips import hints
from .view import RequestView

_REASON = 200  # bytes of a status line
_LABEL = 120  # characters
_TARGET = 120
_PATH = 80
_WIDTH = 240
_BUT = "all that it looks at holds, but "
_FACT = 100  # of the first difference, in the first line
_DIFFERENCES = 15  # lines of a text
_UNMET = 3  # requests that are named
_UNMET_LOOKED_AT = 1000  # of the last requests


class Candidate(NamedTuple):
    """An expectation that a request might have met."""

    label: str  # "expect POST /orders json={…}": its word, and ``describe``
    place: str  # "test_shop.py:12", or empty
    matchers: Matchers
    # Called for the nearest alone.
    note: Callable[[], str] = str  # why it takes no more: "it was met 1 of 1 times"
    advice: Callable[[], str] = str  # what to do about that


class Why(NamedTuple):
    """Why a request is unexpected."""

    reason: str  # of the status line: ASCII, at most 200 bytes
    text: str  # of the body, and of the exception: at most 30 lines


def describe(matchers: Matchers) -> str:
    """A short label, in one line: ``POST /orders json={"sku": 7}``."""
    parts = [f"{_methods(matchers)} {show_path(matchers.path)}"]
    for part in HEAD_PARTS + BODY_PARTS:
        if part != "auth" and (pattern := getattr(matchers, part)) is not None:
            parts.append(f"{part}={show_pattern(without_secrets(part, pattern), 40)}")
    parts += ["auth=..."] if matchers.auth is not None else []  # a secret
    parts += ["where=..."] if matchers.where else []
    return show_plain(" ".join(parts), _LABEL)


def explain_unexpected(
    view: RequestView, candidates: Sequence[Candidate], asked: Objects = None
) -> Why:
    """Say why ``view`` has met none of ``candidates``, which are in the order of declaration.

    A candidate without a note did not match; one with a note may match.
    """
    line = _request(view)
    if not candidates:
        why = "nothing is expected: no expect or allow is left"
        return Why(_reason(view, why), f"unexpected request: {line}: {why}\n{_to_expect(view)}")
    nearest, compared = _nearest(view, candidates, asked)
    note = nearest.note()
    lines = list(_differences(view, nearest.matchers, compared, note))
    place = f" ({show_plain(nearest.place, _LABEL)})" if nearest.place else ""
    many = "what is expected" if len(candidates) == 1 else f"the nearest of {len(candidates):,}"
    head = f"{many}: {show_plain(nearest.label, _LABEL)}{place}"
    short = show_plain(nearest.label, 60)
    first = lines[-1 if note else 0]
    reason = _reason(view, f"nearest: {short}{place}: {first}")
    told = [f"hint: {hint}" for hint in hints(view, nearest.matchers, compared)]
    fact = first.removeprefix(_BUT)
    # The line says already what came.
    fact = show_plain(re.sub(r"^((?:path|method): .*), \S+ came$", r"\1", fact), _FACT)
    begin = f"unexpected request: {line}: {fact}{place}"
    body = [begin, head, *_holds(compared), *_indented(lines + told)]
    if not note or compared.distance:
        body.append(_to_expect(view, nearest.matchers))
    elif advice := nearest.advice():  # another expectation of the same would not help
        body.append(advice)
    return Why(reason, "\n".join(body))


def _to_expect(view: RequestView, nearest: Matchers | None = None) -> str:
    return f"to expect this request: {line_to_paste(view, nearest)}"


def explain_unmet(
    matchers: Matchers,
    views: Sequence[RequestView],
    asked: Objects = None,
    met: Sequence[str] = (),
) -> list[str]:
    """Lines that name the requests that came nearest to an expectation that was not met.

    ``views`` are requests that have not met it, in order; the last thousand are looked at.
    ``met`` names, for each of them, the expectation that it has met instead, if any.
    """
    if not views:
        return []
    looked_at, others = views[-_UNMET_LOOKED_AT:], met[-_UNMET_LOOKED_AT:]
    found = _ranked(((view, matchers) for view in looked_at), asked, _UNMET)
    lines = ["what came nearest:" if len(views) > 1 else "what came:"]
    for index, compared in found:
        view, other = looked_at[index], others[index] if others else ""
        by = f", which has met {show_plain(other, _LABEL)}" if other else ""
        lines.append(f"  {_request(view)}{by}")
        told = list(_differences(view, matchers, compared, ""))[:4]
        told += [f"hint: {hint}" for hint in hints(view, matchers, compared)[:1]]
        lines += [f"    {one}" for one in told]
    more = len(views) - len(found)
    return [*lines, f"  and {more:,} more"] if more else lines


# Which is nearest ------------------------------------------------------------------------------


def _nearest(
    view: RequestView, candidates: Sequence[Candidate], asked: Objects
) -> tuple[Candidate, Compared]:
    ((index, compared),) = _ranked(((view, one.matchers) for one in candidates), asked, 1)
    return candidates[index], compared


def _ranked(
    pairs: Iterable[tuple[RequestView, Matchers]], asked: Objects, most: int
) -> list[tuple[int, Compared]]:
    """The nearest pairs, each as its index; the first of equal ones.

    Bodies are compared only where method and path are near enough to come first.
    """
    listed = list(pairs)
    quick = sorted((line_distance(*pair), index) for index, pair in enumerate(listed))
    best: list[tuple[int, int, Compared]] = []
    for least, index in quick:
        if len(best) == most and (least, index) > best[-1][:2]:
            break
        compared = compare(*listed[index], asked)
        best.append((compared.distance, index, compared))
        best = sorted(best, key=lambda one: one[:2])[:most]
    return [(index, compared) for _, index, compared in best]


# Texts -----------------------------------------------------------------------------------------


def _differences(
    view: RequestView, matchers: Matchers, compared: Compared, note: str
) -> Iterator[str]:
    found = [*_line_differs(view, matchers)]
    for part, differences in compared.differs.items():
        for one in differences:
            if part == "auth" and matchers.auth is not None:
                found.append(f"auth: {how_they_differ(matchers.auth, view.auth)}")
                break
            at = f" at {one.at}" if part == "json" and one.at else f" {one.at.lstrip('.')}"
            how = how_without_secrets(part, getattr(matchers, part), getattr(view, part), one)
            found.append(f"{part}{at.rstrip()}: {how}")
    shown = [show_plain(one, _WIDTH) for one in found[:_DIFFERENCES]]
    yield from shown
    if len(found) > len(shown):
        yield "and more"
    if note:
        yield f"{'' if found else _BUT}{show_plain(note, _WIDTH)}"
    elif not found and matchers.asks:
        who = "where=" if matchers.where else "an object with its own =="
        yield f"{who} has not accepted it"
    elif not found:
        yield "all that it looks at holds"


def _line_differs(view: RequestView, matchers: Matchers) -> Iterator[str]:
    if matchers.methods and view.method not in matchers.methods:
        yield f"method: {_methods(matchers)} expected, {show_plain(view.method, 40)} came"
    if matchers.path.match(view.segments) is None:
        wanted, came = _cut(show_path(matchers.path), _PATH), _cut(view.raw_path, _PATH)
        yield f"path: {wanted} expected, {came} came"


def _holds(compared: Compared) -> list[str]:
    return [f"  as expected: {', '.join(compared.holds)}"] if compared.holds else []


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _request(view: RequestView, width: int = _TARGET) -> str:
    return f"{show_plain(view.method, 40)} {_cut(view.target, width)}"


def _methods(matchers: Matchers) -> str:
    return "|".join(matchers.methods) or "*"


def _reason(view: RequestView, why: str) -> str:
    text = f"unexpected {_request(view, 50)}; {why}"
    return text.encode("ascii", "replace").decode()[:_REASON].rstrip()


def _cut(text: str, width: int) -> str:
    if len(text) <= width:
        return show_plain(text, width)
    return f"{show_plain(text[:width], width)}... ({len(text):,} characters)"
