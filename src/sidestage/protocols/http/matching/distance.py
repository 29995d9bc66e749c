"""How far a request is from an expectation: what holds, what differs, and a number to compare.

The number orders candidates, and means nothing else. docs/expectations.md has the table of what
adds to it; the constants below are its rows.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple, TypeVar

from ....patterns.differences import Difference, differing
from ....patterns.tree import MISSING, Objects, Unreadable
from .matchers import BODY_PARTS, HEAD_PARTS, Matchers, viewed
from .paths import AnyPath, Dynamic, RegexPath, Segment, Segments, Template
from .view import RequestView

_T = TypeVar("_T")
_SLIP, _SEGMENT, _MOST_OF_PATH, _REGEX = 2, 4, 20, 8
_METHOD = 3
_WEIGHTS = {"auth": (1, 1), "json": (1, 6), "text": (2, 2), "body": (2, 2)}  # each, and at most
_NAMES = (1, 4)
_UNREADABLE = 3
_SHOWN = 6  # differences of one part that are looked for


class Compared(NamedTuple):
    """A request beside an expectation."""

    distance: int
    holds: list[str]  # parts: method, path, query …
    differs: dict[str, list[Difference]]  # parts, each with its first differences


def compare(view: RequestView, matchers: Matchers, asked: Objects = None) -> Compared:
    """Compare part by part; ``where`` does not count."""
    distance = line_distance(view, matchers)
    holds: list[str] = []
    differs: dict[str, list[Difference]] = {}
    fits = not matchers.methods or view.method in matchers.methods
    if matchers.methods:
        holds += ["method"] if fits else []
    if matchers.path.match(view.segments) is not None:
        holds += [] if isinstance(matchers.path, AnyPath) else ["path"]
    for part in HEAD_PARTS + BODY_PARTS:
        pattern = getattr(matchers, part)
        if pattern is None:
            continue
        came = viewed(view, part)
        found = list(itertools.islice(differing(pattern, came, asked), _SHOWN))
        if found:
            differs[part] = found
            distance += _distance(part, came, found)
        else:
            holds.append(part)
    return Compared(distance, holds, differs)


def _distance(part: str, came: object, found: list[Difference]) -> int:
    if isinstance(came, Unreadable) and came is not MISSING and part in BODY_PARTS:
        return _UNREADABLE
    each, most = _WEIGHTS.get(part, _NAMES)
    return min(each * len(found), most)


def line_distance(view: RequestView, matchers: Matchers) -> int:
    """The part of the distance that is of the method and the path, which is quick to tell."""
    distance = 0
    if matchers.methods and view.method not in matchers.methods:
        near = {"GET", "HEAD"} & set(matchers.methods) and view.method in ("GET", "HEAD")
        distance = _METHOD - bool(near)
    return distance + path_distance(view, matchers)


def path_distance(view: RequestView, matchers: Matchers) -> int:
    """The part of the distance that is of the path."""
    path = matchers.path
    if type(path) is Template and not path.rest:  # most are: nothing differs if it matches
        return min(_of_segments(path.head, view), _MOST_OF_PATH)
    if path.match(view.segments) is not None:
        return 0
    match path:
        case Template(head=head, tail=tail):
            return min(_of_rest(head, tail, view.segments), _MOST_OF_PATH)
        case RegexPath():
            return _REGEX
        case AnyPath():
            return 0


def _of_segments(head: tuple[Segment, ...], view: RequestView) -> int:
    came = view.segments
    if len(head) == len(came):
        return sum(map(_of_segment, head, came))
    slashes = "" in came or "" in head[1:]
    if slashes and len(head) - head.count("") == len(came) - came.count(""):  # a slash too many
        return _SLIP + sum(map(_of_segment, trimmed(head), trimmed(came)))
    if "%2" in view.raw_path and len(whole := tuple(view.path.split("/"))) == len(head):
        return _SLIP + sum(map(_of_segment, head, whole))  # a %2F
    least = min(len(head), len(came))
    more = abs(len(head) - len(came)) * _SEGMENT
    nearer = sum(map(_of_segment, head[:least], came[:least]))
    # The first of a path is empty: a path behind a prefix is compared without it.
    if nearer and least > 1:
        nearer = min(nearer, sum(map(_of_segment, head[1 - least :], came[1 - least :])))
    elif nearer:
        nearer = 0
    return more + nearer


def _of_rest(head: tuple[Segment, ...], tail: tuple[Segment, ...], came: Segments) -> int:
    begun = sum(_of_segment(one, segment) for one, segment in zip(head, came, strict=False))
    if lacking := max(0, len(head) + 1 + len(tail) - len(came)):
        return begun + lacking * _SEGMENT
    return begun + sum(map(_of_segment, tail, came[len(came) - len(tail) :]))


def trimmed(segments: tuple[_T, ...]) -> tuple[_T, ...]:
    """Segments without the empty ones: of a slash at the end, and of two beside each other."""
    return tuple(one for one in segments if one != "")


def _of_segment(wanted: Segment, came: str) -> int:
    if isinstance(wanted, Dynamic):
        return _SLIP if wanted.match(came) is None else 0
    if wanted == came:
        return 0
    return _SLIP if is_slip(wanted, came) else _SEGMENT


def is_slip(wanted: str, came: str) -> bool:
    """Whether two texts differ in their case alone, or in one character at one place."""
    more = abs(len(wanted) - len(came))
    # Other alphabets may need more characters in another case.
    alike = not more or not (wanted.isascii() and came.isascii())
    if alike and wanted.casefold() == came.casefold():
        return True
    if more > 1 or not wanted or not came:
        return False
    if wanted[0] != came[0] and wanted[-1] != came[-1] and len(wanted) > 2 < len(came):
        return False  # at two places at least
    return _is_one_slip(wanted, came)


def _is_one_slip(wanted: str, came: str) -> bool:
    begin = 0
    for a, b in zip(wanted, came, strict=False):
        if a != b:
            break
        begin += 1
    if wanted[begin + 1 :] == came[begin + 1 :]:
        return True
    swapped = wanted[begin : begin + 2] == came[begin : begin + 2][::-1]
    return (
        wanted[begin:] == came[begin + 1 :]
        or wanted[begin + 1 :] == came[begin:]
        or (swapped and wanted[begin + 2 :] == came[begin + 2 :])
    )
