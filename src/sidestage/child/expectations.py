"""Which expectation a request meets: the table of choice, for any protocol. No I/O here.

Three types: a ``Declare`` is what was declared and never changes, an ``Entry`` is its state in this
run, and a ``Choice`` is what is made of one request. A protocol has matchers of its own, and an
index of them; how it asks the test's process is its own as well. In which order it asks is in
``questions``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from ..wire.messages import Declare, Reply

M = TypeVar("M")  # the matchers of a protocol
A = TypeVar("A")  # its answers
R_contra = TypeVar("R_contra", contravariant=True)  # its requests


class Answer(NamedTuple, Generic[A]):
    """One answer of an expectation."""

    delay: float  # seconds
    content: A | None  # None is a callable of the test's process


class Entry(Generic[M, A]):
    """An expectation in this run: how often it was met, and what it answers."""

    __slots__ = (
        "allow", "answers", "early", "group", "held", "least", "matchers", "met", "most", "number",
        "spec",
    )  # fmt: skip

    def __init__(self, spec: Declare, matchers: M, group: Group[M, A] | None) -> None:
        self.spec = spec
        self.number = spec.entry
        self.allow = spec.allow
        self.matchers = matchers
        self.group = group
        self.least = spec.least
        self.most = spec.most
        self.met = spec.met  # times, with earlier runs
        self.held = spec.held
        self.early = spec.early
        self.answers: list[Answer[A]] = []

    @property
    def is_full(self) -> bool:
        """Whether it was met as often as it may be."""
        return self.most is not None and self.met >= self.most

    @property
    def is_unmet(self) -> bool:
        """Whether it has to be met more often."""
        return self.met < self.least

    @property
    def is_open(self) -> bool:
        """Whether it may be met now."""
        if self.most is not None and self.met >= self.most:
            return False
        return self.group is None or self.group.admits(self)

    @property
    def next_is_callable(self) -> bool:
        """Whether the test's process gives its next answer."""
        return bool(self.answers) and self.answers[self.next_answer].content is None

    @property
    def next_is_ready(self) -> bool:
        """Whether its next answer can be given now, without the test's process."""
        if self.held:
            return False
        if not self.answers:
            return True
        answer = self.answers[self.next_answer]
        return answer.content is not None and not answer.delay

    @property
    def is_always_ready(self) -> bool:
        """Whether it may be met whenever, and no answer needs the test's process, or has to wait.

        So until it is changed.
        """
        if self.held or self.most is not None or self.group is not None:
            return False
        return all(answer.content is not None and not answer.delay for answer in self.answers)

    @property
    def next_answer(self) -> int:
        """The number of its next answer, from 0; the last repeats."""
        last = len(self.answers) - 1
        if self.met < last:
            return self.met
        return last if last > 0 else 0

    def note(self) -> str:
        """Why it may not be met now; empty if it may."""
        if self.most == 0:
            return "it is never to come (times=0)"
        if self.is_full:
            return f"it was met {self.met} of {self.most} times"
        return "" if self.group is None else self.group.note(self)

    def advice(self, *, handled: bool) -> str:
        """What to do about the note; ``handled`` is that the server has a handler."""
        if self.is_full:
            more = (
                "" if not self.most else f"if it is to come once more, write times={self.most + 1}"
            )
            if not (handled and not self.allow):
                return more
            least = f"allow(..., times={self.met})" if self.met else "no expect"
            lets = f"the handler does not get what an expect matches; {least} would let it"
            return f"{more}; {lets}" if more else lets
        if self.note():
            return "have the client keep to the order, or expect it outside of in_order()"
        return ""


class Group(Generic[M, A]):
    """The entries of one ``in_order``, in the order in which they were declared.

    An entry opens when all before it have reached their minimum, and closes when a later one is
    met.
    """

    def __init__(self) -> None:
        self.entries: list[Entry[M, A]] = []
        self._latest = 0  # the number of the last that was met
        self._at = 0  # where to look for the first that has to be met

    def add(self, entry: Entry[M, A]) -> None:
        """Add an entry at the end."""
        self.entries.append(entry)
        if entry.met:
            self._latest = entry.number

    def remove(self, entry: Entry[M, A]) -> None:
        """Remove an entry: the others do not wait for it."""
        self.entries.remove(entry)
        self.changed()

    def changed(self) -> None:
        """An entry has to be met more often than before, or is removed."""
        self._at = 0

    def met(self, entry: Entry[M, A]) -> None:
        """Note that ``entry`` was met: those before it close."""
        self._latest = max(self._latest, entry.number)

    def admits(self, entry: Entry[M, A]) -> bool:
        """Whether it is the turn of ``entry``."""
        if entry.number < self._latest:
            return False
        first = self._first_unmet()
        return first is None or entry.number <= first.number

    def note(self, entry: Entry[M, A]) -> str:
        """Why it is not the turn of ``entry``; empty if it is."""
        if entry.number < self._latest:
            return "out of turn: a later one of its in_order() was met"
        first = self._first_unmet()
        if first is None or entry.number <= first.number:
            return ""
        place = f" ({first.spec.place})" if first.spec.place else ""
        return f"out of turn: waits for {first.spec.label}{place}"

    def _first_unmet(self) -> Entry[M, A] | None:
        """The first that is not closed and has to be met; counts only grow, so look from there."""
        while self._at < len(self.entries):
            entry = self.entries[self._at]
            if entry.number >= self._latest and entry.is_unmet:
                return entry
            self._at += 1
        return None


class Outcome(enum.Enum):
    """What becomes of a request."""

    MET = enum.auto()  # it meets an entry
    FULL = enum.auto()  # entries match that must be met, and none may take it: unexpected
    FREE = enum.auto()  # none matches that may take it: a handler's, or else unexpected
    OPEN = enum.auto()  # it cannot be said yet


# Names of their own, which are quicker to look up on 3.11.
MET, FULL, FREE, OPEN = Outcome.MET, Outcome.FULL, Outcome.FREE, Outcome.OPEN


class Choice(NamedTuple, Generic[M, A]):
    """The verdict on one request."""

    outcome: Outcome
    entry: Entry[M, A] | None = None  # that is met


_OPEN: Choice[Any, Any] = Choice(OPEN)
_FULL: Choice[Any, Any] = Choice(FULL)
_FREE: Choice[Any, Any] = Choice(FREE)


def choose(
    candidates: Sequence[Entry[M, A]], matches: Callable[[Entry[M, A]], bool | None]
) -> Choice[M, A]:
    """Choose among ``candidates``, which are in the order in which they were declared.

    ``matches`` is called for those that can decide, until the choice is clear, and once for each;
    ``None`` is that it cannot be said yet.
    """
    musts = [entry for entry in candidates if not entry.allow]
    choice = _among_musts(musts, matches) if musts else None
    if choice is None:
        allowed = (entry for entry in reversed(candidates) if entry.allow and entry.is_open)
        choice = _first(allowed, matches)
    return _FREE if choice is None else choice


def to_ask(
    candidates: Sequence[Entry[M, A]], matches: Callable[[Entry[M, A]], bool | None]
) -> list[Entry[M, A]]:
    """Of an open choice, the entries on which it depends, in the order in which to ask.

    Each counts only if those before it do not match: the first that does is the last to ask.
    """
    undecided: list[Entry[M, A]] = []

    def does_so_far(entry: Entry[M, A]) -> bool:
        verdict = matches(entry)
        if verdict is None:
            undecided.append(entry)
        return verdict is True

    outcome, _ = choose(candidates, does_so_far)
    if outcome is not FULL:
        return undecided
    # Of those that are closed, one that matches for sure is enough.
    return [entry for entry in undecided if entry.is_open]


def _among_musts(
    musts: list[Entry[M, A]], matches: Callable[[Entry[M, A]], bool | None]
) -> Choice[M, A] | None:
    takers: list[Entry[M, A]] = []  # that have been met as often as they have to be
    closed: list[Entry[M, A]] = []
    for entry in musts:
        if not entry.is_open:
            closed.append(entry)
        elif not entry.is_unmet:
            takers.append(entry)
        elif (verdict := matches(entry)) is not False:
            return _OPEN if verdict is None else Choice(MET, entry)
    if (choice := _first(reversed(takers), matches)) is not None:
        return choice
    verdicts = {matches(entry) for entry in closed}
    if True in verdicts:
        return _FULL
    return _OPEN if None in verdicts else None


def _first(
    entries: Iterable[Entry[M, A]], matches: Callable[[Entry[M, A]], bool | None]
) -> Choice[M, A] | None:
    """The first that matches, if none before it is undecided."""
    for entry in entries:
        if (verdict := matches(entry)) is not False:
            return _OPEN if verdict is None else Choice(MET, entry)
    return None


class Index(Protocol[R_contra]):
    """Finds the entries that a request may meet, without a look at the others."""

    def add(self, entry: Entry[Any, Any]) -> None:
        """Add an entry, which was declared after all others."""

    def remove(self, entry: Entry[Any, Any]) -> None:
        """Remove an entry that is there."""

    def find(self, request: R_contra) -> Sequence[Entry[Any, Any]]:
        """Return all entries that may match and others, in the order of their numbers."""
        ...


class Expectations(Generic[M, A]):
    """The entries of one service."""

    def __init__(self, index: Index[Any]) -> None:
        self.index = index
        self.entries: dict[int, Entry[M, A]] = {}  # in the order in which they were declared
        self._groups: dict[int, Group[M, A]] = {}

    def declare(self, spec: Declare, matchers: M) -> None:
        """Add an entry."""
        group = self._groups.setdefault(spec.group, Group()) if spec.group else None
        entry = Entry[M, A](spec, matchers, group)
        self.entries[entry.number] = entry
        self.index.add(entry)
        if group is not None:
            group.add(entry)

    def answer(self, reply: Reply, content: A | None) -> None:
        """Add an answer to an entry, which has to be met as often as ``reply`` says now."""
        entry = self.entries.get(reply.entry)
        if entry is None:
            return
        entry.answers.append(Answer(reply.delay, content))
        entry.least = reply.least
        entry.early |= reply.early
        if entry.group is not None:
            entry.group.changed()

    def hold(self, number: int) -> None:
        """Have what meets an entry wait for the test."""
        if (entry := self.entries.get(number)) is not None:
            entry.held = True

    def withdraw(self, numbers: Iterable[int]) -> None:
        """Remove entries; what has met them goes on."""
        for number in numbers:
            entry = self.entries.pop(number, None)
            if entry is None:
                continue
            self.index.remove(entry)
            if (group := entry.group) is not None:
                group.remove(entry)
                if not group.entries:
                    del self._groups[entry.spec.group]

    def meet(self, entry: Entry[M, A]) -> tuple[int, Answer[A] | None]:
        """Count that ``entry`` was met; returns the number of its answer, and the answer if any."""
        number = entry.next_answer
        entry.met += 1
        if entry.group is not None:
            entry.group.met(entry)
        return number, entry.answers[number] if entry.answers else None

    def counts(self) -> list[tuple[int, int]]:
        """The numbers of the entries that were met in this run, and how often."""
        every = ((entry.number, entry.met - entry.spec.met) for entry in self.entries.values())
        return [(number, times) for number, times in every if times]
