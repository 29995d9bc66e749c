"""What is wrong with expectations at the end: unmet ones, and held calls that nobody answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UnmetExpectation
from .entry import Entry

if TYPE_CHECKING:
    from .held import HeldCall

_SHOWN = 5  # held calls


class Verdict(NamedTuple):
    """Why an expectation fails a test."""

    entry: Entry
    what: str  # as a predicate, before the name of the server
    more: str = ""  # after it


def verdict(entry: Entry) -> Verdict | None:
    """What is wrong with an expectation, if anything, that nobody was told."""
    if entry.told:
        return None
    if entry.count < entry.least:
        return Verdict(entry, f"was met {entry.count} of {_wanted(entry)}", _why(entry))
    if left := [held for held in entry.left if held._is_missed]:
        return Verdict(entry, "holds calls", _left(left))
    return None


def _wanted(entry: Entry) -> str:
    least, times = entry.least, entry.spec.times
    return f"{least} times" if times.most in (least, None) else f"{least} to {times.most} times"


def _why(entry: Entry) -> str:
    """Why it has to be met so often, if that was not said."""
    many = entry.spec.times.least is None and entry.least > 1
    return f", as it has {entry.least} replies" if many else ""


def _left(left: list[HeldCall[Any]]) -> str:
    taken = sum(held._taken for held in left)
    untaken = len(left) - taken
    told: list[str] = []
    if untaken:
        told.append(f"{untaken} never taken: take() them")
    if taken:
        told.append(f"{taken} taken and never answered: reply() to them, or reset() them")
    lines = [f"  {held!r}" for held in left[:_SHOWN]]
    if more := len(left) - len(lines):
        lines.append(f"  and {more:,} more")
    return "\n".join([f", {'; '.join(told)}", *lines])


def errors_of(
    entries: Iterable[Entry],
    records: Callable[[], Sequence[Any]],
    server: str,
    wanted: Callable[[Entry], bool] = lambda entry: True,
) -> list[UnmetExpectation]:
    """The errors of those that are ``wanted``; they are told then. ``records`` is what came."""
    found = [one for entry in entries if wanted(entry) and (one := verdict(entry)) is not None]
    came = records() if found else ()
    return [_error(one, came, server) for one in found]


def _error(verdict: Verdict, came: Sequence[Any], server: str) -> UnmetExpectation:
    entry, spec = verdict.entry, verdict.entry.spec
    entry.told = True
    label = f"{'allow' if spec.allow else 'expect'} {spec.terms.label}"
    place = f" ({spec.place})" if spec.place else ""
    lines = [f"{label}{place} {verdict.what} at {server}{verdict.more}"]
    if spec.owner.fixture:
        hint = "" if spec.allow else ": is it to be `allow`?"
        lines.append(f"declared in {spec.owner.fixture}{hint}")
    if entry.count < entry.least:
        lines.append(entry.nearest(came))
    return UnmetExpectation(
        "\n".join(lines),
        expectation=label,
        place=spec.place,
        count=entry.count,
        expected=entry.least,
    )
