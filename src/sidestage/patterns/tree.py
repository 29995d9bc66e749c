"""A pattern: a tree of plain values, which crosses to the child and judges values there.

A verdict has three values. ``None`` is: it cannot be said without the test's process, because an
object with its own ``==`` decides. With ``asked``, the list of these objects, it is never ``None``.
A tree is at most ``DEPTH`` deep, and judging goes down the tree, so no value is too deep to judge.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

DEPTH = 100  # of nested dicts, lists and words
Verdict = bool | None
Objects = Sequence[object] | None  # those with their own ``==``


class Unreadable:
    """In the place of a value that is not there, or cannot be read: no pattern but absent fits."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why

    def __repr__(self) -> str:
        return self.why


MISSING = Unreadable("nothing")


class Node(msgspec.Struct, frozen=True, array_like=True):
    """Base of the nodes, which are compared by value."""

    def judge(self, value: Any, asked: Objects) -> Verdict:
        """Whether ``value`` is as this node says."""
        raise NotImplementedError


class Exactly(Node, frozen=True, tag=1):
    """One value: ``1 == 1.0``, but ``True != 1``."""

    value: bool | int | float | str | None

    def judge(self, value: Any, asked: Objects) -> Verdict:
        """Compare as JSON has types: a number with a number, and nothing else with another type."""
        mine, its = self.value, type(value)
        if its in _NUMBERS and type(mine) in _NUMBERS:
            return bool(value == mine)
        return its is type(mine) and bool(value == mine)


class Big(Node, frozen=True, tag=2):
    """An int that takes more than 64 bits, in hexadecimal digits, which no limit counts."""

    digits: str

    def judge(self, value: Any, asked: Objects) -> Verdict:
        """Compare as numbers."""
        return type(value) in _NUMBERS and bool(value == int(self.digits, 16))


class Kind(Node, frozen=True, tag=3):
    """Any value of a type: ``int`` takes no bool, ``float`` takes any number."""

    name: str

    def judge(self, value: Any, asked: Objects) -> Verdict:
        """Look at the type alone."""
        return type(value) in KINDS[self.name]


class Numeral(Node, frozen=True, tag=4):
    """Text that ``int()`` or ``float()`` takes."""

    name: str

    def judge(self, value: Any, asked: Objects) -> Verdict:
        """Have Python read the text."""
        if type(value) is not str:
            return False
        try:
            _READERS[self.name](value)
        except ValueError:
            return False
        return True


class Items(Node, frozen=True, tag=5):
    """A list of just these items."""

    items: tuple[Pattern, ...]

    def judge(self, value: Any, asked: Objects) -> Verdict:
        """Compare in order."""
        if type(value) is not list or len(value) != len(self.items):
            return False
        return all_of(item.judge(one, asked) for item, one in zip(self.items, value, strict=True))


class Some(Node, frozen=True, tag=6):
    """A list in which each of these is found, in any order."""

    items: tuple[Pattern, ...]

    def judge(self, value: Any, asked: Objects) -> Verdict:
        """Look for each item among all."""
        if type(value) is not list:
            return False
        return all_of(any_of(item.judge(one, asked) for one in value) for item in self.items)


class Keys(Node, frozen=True, tag=7):
    """A dict with these keys; others may be there if it is ``open``."""

    items: dict[str, Pattern]
    open: bool = False
    folded: bool = False  # the value's keys are in lower case, and case does not count

    def judge(self, value: Any, asked: Objects) -> Verdict:
        """Compare key by key."""
        if type(value) is not dict:
            return False
        if not self.open and not value.keys() <= self.items.keys():
            return False
        return all_of(
            item.judge(value.get(self.key(name), MISSING), asked)
            for name, item in self.items.items()
        )

    def key(self, name: str) -> str:
        """The key of a value that ``name`` stands for."""
        return name.lower() if self.folded else name


class Part(Node, frozen=True, tag=8):
    """Text with this in it."""

    part: str

    def judge(self, value: Any, asked: Objects) -> Verdict:
        """Look for the part."""
        return type(value) is str and self.part in value


class Regex(Node, frozen=True, tag=9):
    """Text in which this is found."""

    source: str
    flags: int

    def judge(self, value: Any, asked: Objects) -> Verdict:
        """Search."""
        return type(value) is str and compiled(self.source, self.flags).search(value) is not None


class Octets(Node, frozen=True, tag=14):
    """Just these bytes."""

    value: bytes

    def judge(self, value: Any, asked: Objects) -> Verdict:
        """Compare."""
        return type(value) is bytes and value == self.value


class OctetsPart(Node, frozen=True, tag=15):
    """Bytes with these in them."""

    part: bytes

    def judge(self, value: Any, asked: Objects) -> Verdict:
        """Look for the part."""
        return type(value) is bytes and self.part in value


class OctetsRegex(Node, frozen=True, tag=16):
    """Bytes in which this is found."""

    source: bytes
    flags: int

    def judge(self, value: Any, asked: Objects) -> Verdict:
        """Search."""
        return type(value) is bytes and compiled(self.source, self.flags).search(value) is not None


class Absent(Node, frozen=True, tag=10):
    """Nothing is there."""

    def judge(self, value: Any, asked: Objects) -> Verdict:
        """Only what is missing fits."""
        return value is MISSING


class OneOf(Node, frozen=True, tag=11):
    """What one of these fits."""

    choices: tuple[Pattern, ...]

    def judge(self, value: Any, asked: Objects) -> Verdict:
        """Try each."""
        return any_of(choice.judge(value, asked) for choice in self.choices)


class Asked(Node, frozen=True, tag=12):
    """An object with its own ``==``, in the test's process."""

    index: int
    label: str  # how texts name it

    def judge(self, value: Any, asked: Objects) -> Verdict:
        """Ask the object; what its ``==`` raises comes out."""
        if isinstance(value, Unreadable):
            return False
        return None if asked is None else bool(asked[self.index] == value)


class Once(Node, frozen=True, tag=13):
    """A name that comes once, with a value that fits. Its value here is a list of all its values.

    If they are ``joined``, as those of a header field, several are one list (RFC 9110 5.3).
    """

    value: Pattern
    joined: bool = False

    def judge(self, value: Any, asked: Objects) -> Verdict:
        """Look at the one value."""
        return self.value.judge(self.only(value), asked)

    def only(self, value: Any) -> Any:
        """The one value; all of them if there are several."""
        if type(value) is not list:
            return value
        if self.joined:
            return ", ".join(value)
        return value[0] if len(value) == 1 else value


Pattern = (
    Exactly
    | Big
    | Kind
    | Numeral
    | Items
    | Some
    | Keys
    | Part
    | Regex
    | Octets
    | OctetsPart
    | OctetsRegex
    | Absent
    | OneOf
    | Asked
    | Once
)

_NUMBERS = frozenset({int, float})
KINDS: dict[str, frozenset[type]] = {
    "int": frozenset({int}),
    "float": _NUMBERS,
    "str": frozenset({str}),
    "bool": frozenset({bool}),
    "list": frozenset({list}),
    "dict": frozenset({dict}),
}
_READERS: dict[str, Callable[[str], object]] = {"int": int, "float": float}


def verdict(pattern: Pattern, value: Any, asked: Objects = None) -> Verdict:
    """Whether ``value`` fits; None if only the test's process can say and ``asked`` is not here."""
    return pattern.judge(value, asked)


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """False if one is False, else None if one is None."""
    found: Verdict = True
    for one in verdicts:
        if one is False:
            return False
        if one is None:
            found = None
    return found


def any_of(verdicts: Iterable[Verdict]) -> Verdict:
    """True if one is True, else None if one is None."""
    found: Verdict = False
    for one in verdicts:
        if one:
            return True
        if one is None:
            found = None
    return found


@functools.lru_cache(maxsize=1024)  # the cache of ``re`` is small, and others use it too
def compiled(source: str | bytes, flags: int) -> re.Pattern[Any]:
    """The regular expression, compiled once in each process."""
    return re.compile(source, flags & ~re.DEBUG)  # which prints
