"""One expectation: what was declared (``Spec``), and what has become of it (``Entry``).

What is wrong with it at the end is a third thing, a ``Verdict``: see ``verdicts``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import shown
from ..journal.owners import Owner
from ..wire.values import count

if TYPE_CHECKING:
    from .held import HeldCall


class Times(NamedTuple):
    """How often an expectation has to be met, and may be; ``None`` is as many as it has answers,
    and without end.
    """

    least: int | None
    most: int | None


class Terms(NamedTuple):
    """What a protocol makes of what a user declares."""

    label: str  # without the verb: "POST /orders json={...}"
    pattern: Any  # what it looks at: plain data
    matchers: bytes  # the same, for the child
    test: Callable[[Any], object] | None  # whether a record meets what only the test can judge
    late: str  # what is given that is known only after the head; empty is nothing
    nearest: Callable[[Sequence[Any]], str]  # of records, those that came nearest, as lines, if any


class Given(NamedTuple):
    """What a protocol makes of what ``reply`` was given."""

    encoded: bytes | None = None  # for the child; ``None`` if it is called for
    call: Callable[[Any], Any] | None = None
    fault: Any = None  # what goes wrong with it on purpose


class Answer(NamedTuple):
    """One answer of an expectation."""

    given: Given
    delay: float  # seconds

    @property
    def call(self) -> Callable[[Any], Any] | None:
        """What is called for it, if the child cannot give it."""
        return self.given.call


class Spec(NamedTuple):
    """What was declared; it never changes."""

    number: int
    allow: bool
    times: Times
    group: int  # the ``in_order`` that it belongs to; 0 is none
    terms: Terms
    place: str  # "test_shop.py:12"; empty if it is not known
    owner: Owner
    began: float  # seconds on the monotonic clock, when it was declared

    def __str__(self) -> str:
        verb = "allow" if self.allow else "expect"
        return f"{verb} {self.terms.label}" + (f" at {self.place}" if self.place else "")


class Entry:
    """The state of an expectation, as the test's process knows it."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.answers: list[Answer] = []
        self.early = False
        self.holds = False
        self.before = 0  # times that it was met in earlier runs
        self.now = 0  # and in this one
        self.left: list[HeldCall[Any]] = []  # calls that were held and not answered yet
        self.told = False  # that it is unmet

    @property
    def count(self) -> int:
        """How often it was met."""
        return self.before + self.now

    @property
    def least(self) -> int:
        """How often it has to be met."""
        if self.spec.times.least is not None:
            return self.spec.times.least
        return 0 if self.spec.allow else max(1, len(self.answers))

    def is_met_by(self, record: Any) -> bool:
        """Whether a record is of a request that has met it."""
        return bool(getattr(record, "_entry", 0) == self.spec.number)

    def nearest(self, records: Sequence[Any]) -> str:
        """Of ``records``, those that came nearest and have not met it, as lines.

        What came before it was declared could not meet it: that is told if nothing else came, of
        its own test alone.
        """
        spec = self.spec
        others = [one for one in records if not self.is_met_by(one)]
        after = [one for one in others if one.received_at >= spec.began]
        test = spec.owner.test
        since = 0.0 if test is None else test.began
        before = [one for one in others if since <= one.received_at < spec.began]
        if before and not after and not self.count and (told := spec.terms.nearest(before)):
            _, _, lines = told.partition("\n")
            return f"no request came after it was declared; before that came:\n{lines}"
        what = "complete " if after else "other " if self.count else ""
        return spec.terms.nearest(after) or f"no {what}request came"


def times_of(times: object, *, allow: bool) -> Times:
    """What ``times`` says; raises TypeError or ValueError for what cannot be."""
    if times is None:
        return Times(0 if allow else None, None)
    if isinstance(times, int) and not isinstance(times, bool):
        return _of_number(times, allow=allow)
    if isinstance(times, range) and not allow:
        return _of_range(times)
    right = "an int" if allow else "an int or a range, such as times=2 or times=range(1, 4)"
    raise TypeError(f"times is {right}, not {shown(times)}")


def _of_number(times: int, *, allow: bool) -> Times:
    if times < 0:
        raise ValueError(f"times is 0 or more, not {shown(times)}")
    times = count("times", times)
    if allow and not times:
        raise ValueError(
            "allow(..., times=0) would allow nothing; for what must not come, write "
            "expect(..., times=0)"
        )
    return Times(0 if allow else times, times)


def _of_range(times: range) -> Times:
    if not times or times.step != 1 or times.start < 0:
        raise ValueError(
            "a range of times has no gap and is not empty: range(1, 4) is one to three, not "
            f"{shown(times)}"
        )
    return Times(times.start, count("the end of times", times.stop - 1))
