"""From what a user wrote to a pattern, for each place: JSON, text, names with texts, bytes.

What can never match, or cannot cross to the child, is an error here that says what to write. An
object with its own ``==`` stays in the test's process: it goes to ``asked``, and its index crosses.
"""

from __future__ import annotations

import math
import re
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ..errors import shown
from ..wire.values import plain
from .tree import (
    DEPTH,
    KINDS,
    Absent,
    Asked,
    Big,
    Exactly,
    Items,
    Keys,
    Kind,
    Numeral,
    Octets,
    OctetsPart,
    OctetsRegex,
    Once,
    Part,
    Pattern,
    Regex,
    Some,
)
from .tree import OneOf as OneOfNode
from .words import AbsentType, Containing, Matching, OneOf

# Classes whose ``==`` is not their own: their values are plain, or equal to nothing but themselves.
_PLAIN_EQ: frozenset[Any] = frozenset(
    kind.__eq__ for kind in (object, str, int, float, dict, OrderedDict, list, type(None))
)
# Of the standard library: what never equals a value that came, with what to write in its place.
_ADVICE = {
    "tuple": "a list",
    "set": "containing([...]), whose order does not count",
    "frozenset": "containing([...]), whose order does not count",
    "bytes": "text",
    "bytearray": "text",
    "memoryview": "text",
    "complex": "what the client sends for it",
    "range": "a list",
    "Pattern": "matching(...) around it",
    "date": "its text, such as value.isoformat(), or str",
    "time": "its text, such as value.isoformat(), or str",
    "timedelta": "the number or text that the client sends for it",
    "UUID": "str(value), or matching(...)",
    "PurePath": "str(value)",
    "GenericAlias": "the type without its brackets, or a list or dict with the types in it",
    "UnionType": "one_of(...)",
    "Union": "one_of(...)",  # the same since Python 3.14
}


def pattern_of(value: Any, asked: list[object], what: str = "json") -> Pattern:
    """The pattern of a JSON value; ``what`` names it in errors.

    Raises TypeError or ValueError for what can never match.
    """
    return _JSON(what, asked).of(value, "", 0)


def text_pattern_of(value: Any, asked: list[object], what: str = "text") -> Pattern:
    """The pattern of one text; raises as ``pattern_of``."""
    return TextPlace(what, asked).of(value, "", 0)


def octets_pattern_of(value: Any, asked: list[object], what: str = "body") -> Pattern:
    """The pattern of bytes; raises as ``pattern_of``."""
    return _Octets(what, asked).of(value, "", 0)


def names_pattern_of(
    value: Any,
    asked: list[object],
    what: str,
    *,
    fields: bool = False,
    check: Callable[[str, Any], None] | None = None,
) -> Pattern:
    """The pattern of names, each with a list of texts; raises as ``pattern_of``.

    If they are header ``fields``, others may be there, the case of names does not count, and
    several values are one list. ``check`` raises for a name, or a text, that can never come.
    """
    return _Names(what, asked, fields, check).of(value, "", 0)


class _Place:
    """What all places have in common."""

    takes = ""  # for errors

    def __init__(self, what: str, asked: list[object]) -> None:
        self.what = what
        self.asked = asked

    def of(self, value: Any, at: str, depth: int, *, some: bool = False) -> Pattern:
        """The pattern of ``value``; ``some`` is inside ``containing``."""
        if depth > DEPTH:
            raise ValueError(
                f"{self.what} is nested more than {DEPTH} deep, or holds itself; "
                "compare it in where="
            )
        match value:
            case AbsentType():
                return self.absent(at)
            case OneOf(choices=choices):
                return OneOfNode(tuple(self.of(one, at, depth + 1, some=some) for one in choices))
            case Matching(regex=regex):
                return self.matching(regex, at)
            case Containing(part=part):
                return self.containing(part, at, depth + 1)
            case type():
                return self.kind(value, at)
            case _:
                return self._value(value, at, depth, some)

    def _value(self, value: Any, at: str, depth: int, some: bool) -> Pattern:
        if type(value).__eq__ in _PLAIN_EQ or isinstance(value, bool):
            found = self.plain(value, at, depth, some)
        elif (advice := _advice(value)) is not None:
            found = self.other(value, at, advice)
        else:
            self.asked.append(value)
            return Asked(len(self.asked) - 1, shown(value)[:60])
        if found is None:
            raise self.never(value, at, self.takes)
        return found

    def plain(self, value: Any, at: str, depth: int, some: bool) -> Pattern | None:
        """The pattern of a value without its own ``==``; None if there is none."""
        raise NotImplementedError

    def other(self, value: Any, at: str, advice: str) -> Pattern | None:
        """The pattern of a value that other places never have."""
        raise self.never(value, at, advice)

    def kind(self, value: type, at: str) -> Pattern:
        """The pattern of a type."""
        raise self.never(value, at, self.takes)

    def matching(self, regex: re.Pattern[Any], at: str) -> Pattern:
        """The pattern of a regular expression."""
        if isinstance(regex.pattern, bytes):
            raise self.never(regex, at, f"matching({shown(regex.pattern)[1:]}): it is text here")
        return Regex(self.encodable(regex.pattern, at), regex.flags)

    def containing(self, part: Any, at: str, depth: int) -> Pattern:
        """The pattern of a part."""
        if isinstance(part, str):
            return Part(self.encodable(plain(part), at))
        raise self.never(Containing(part), at, self.takes)

    def absent(self, at: str) -> Pattern:
        """The pattern of nothing."""
        raise ValueError(
            f"{self._where(at)}: absent stands in the place of a value that has a name; "
            "for what has none, write what is there"
        )

    def encodable(self, text: str, at: str) -> str:
        """``text``; raises ValueError if it cannot cross."""
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{self._where(at)}: {shown(text)} has half of a surrogate pair, which is no "
                "character; compare it in where="
            ) from None
        return text

    def never(self, value: Any, at: str, instead: str) -> TypeError:
        """An error: this value can never come here."""
        return TypeError(f"{self._where(at)}: {shown(value)} never comes there; write {instead}")

    def _where(self, at: str) -> str:
        return f"{self.what} at {at}" if at else self.what


class _JSON(_Place):
    takes = (
        "a value of JSON (dict, list, str, int, float, bool, None), a type of these, "
        "containing(...), matching(...), absent, one_of(...) or where="
    )

    def plain(self, value: Any, at: str, depth: int, some: bool) -> Pattern | None:
        match value:
            case None | bool():
                return Exactly(value)
            case str():
                return Exactly(self.encodable(plain(value), at))
            case int():
                number = int(value)
                small = -(1 << 63) <= number < 1 << 63
                return Exactly(number) if small else Big(hex(number))
            case float():
                if math.isnan(value):
                    raise ValueError(f"{self._where(at)}: NaN equals nothing; write float")
                return Exactly(float(value))
            case list():
                items = tuple(
                    self.of(one, f"{at}[{index}]", depth + 1, some=some)
                    for index, one in enumerate(value)
                )
                return Some(items) if some else Items(items)
            case dict():
                return self._keys(value, at, depth, some)
            case _:
                return None

    def _keys(self, value: dict[Any, Any], at: str, depth: int, some: bool) -> Pattern:
        found: dict[str, Pattern] = {}
        for key, one in value.items():
            if not isinstance(key, str):
                instead = f'"{key}"' if type(key) in (int, float) else "text"
                raise TypeError(
                    f"{self._where(at)}: the key {shown(key)} is not text, as keys of JSON are; "
                    f"write {instead}"
                )
            name = self.encodable(plain(key), at)
            found[name] = self.of(one, f"{at}.{name}", depth + 1, some=some)
        return Keys(found, open=some)

    def kind(self, value: type, at: str) -> Pattern:
        if value is type(None):
            return Exactly(None)
        if value.__name__ in KINDS and value in KINDS[value.__name__]:
            return Kind(value.__name__)
        raise self.never(value, at, "int, float, str, bool, list, dict or None, or where=")

    def containing(self, part: Any, at: str, depth: int) -> Pattern:
        if isinstance(part, (dict, list)):
            return self.of(part, at, depth, some=True)
        return super().containing(part, at, depth)

    def absent(self, at: str) -> Pattern:
        if at.endswith("]"):
            raise ValueError(
                f"{self._where(at)}: an item of a list is never absent; leave it out of the list"
            )
        return Absent()


class TextPlace(_Place):
    takes = "text, an int, str, int or float, containing(...), matching(...) or one_of(...)"

    def plain(self, value: Any, at: str, depth: int, some: bool) -> Pattern | None:
        match value:
            case str():
                return Exactly(self.encodable(plain(value), at))
            case bool():
                raise ValueError(
                    f"{self._where(at)}: {value} has no text that all clients agree on; "
                    f'write "{str(value).lower()}", "{value}" or "{int(value)}"'
                )
            case int():
                return Exactly(_decimal(int(value), self._where(at)))
            case float():
                raise ValueError(
                    f"{self._where(at)}: {value} has several texts; write one of them, "
                    f'such as "{float(value)}", or float'
                )
            case None:
                raise ValueError(
                    f'{self._where(at)}: None has no text; write absent, or "" for an empty value'
                )
            case _:
                return None

    def kind(self, value: type, at: str) -> Pattern:
        if value is int or value is float:
            return Numeral(value.__name__)
        if value is str:
            return Kind("str")
        raise self.never(value, at, "int, float or str: it is text")

    def matching(self, regex: re.Pattern[Any], at: str) -> Pattern:
        return super().matching(regex, at)


class _Octets(_Place):
    takes = "bytes, containing(b...), matching(rb...) or one_of(...); for text there is text="

    def plain(self, value: Any, at: str, depth: int, some: bool) -> Pattern | None:
        return None

    def other(self, value: Any, at: str, advice: str) -> Pattern | None:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return Octets(bytes(value))
        return None

    def matching(self, regex: re.Pattern[Any], at: str) -> Pattern:
        if isinstance(regex.pattern, str):
            raise self.never(regex, at, f"matching(b{shown(regex.pattern)}), or text=")
        return OctetsRegex(regex.pattern, regex.flags)

    def containing(self, part: Any, at: str, depth: int) -> Pattern:
        if isinstance(part, bytes):
            return OctetsPart(bytes(part))
        raise self.never(Containing(part), at, self.takes)

    def absent(self, at: str) -> Pattern:
        raise ValueError(f'{self.what} is never absent, but it may be empty: write {self.what}=b""')


class _Names(_Place):
    takes = "a dict of names and their values, such as {'page': 2}, or containing({...})"

    def __init__(
        self,
        what: str,
        asked: list[object],
        fields: bool,
        check: Callable[[str, Any], None] | None,
    ) -> None:
        super().__init__(what, asked)
        self._fields = fields
        self._check = check

    def plain(self, value: Any, at: str, depth: int, some: bool) -> Pattern | None:
        if not isinstance(value, dict):
            return None
        found: dict[str, Pattern] = {}
        for name, one in value.items():
            if not isinstance(name, str):
                raise TypeError(f"{self.what}: the name {shown(name)} is not text")
            text = self.encodable(plain(name), "")
            if self._fields and any(text.lower() == other.lower() for other in found):
                raise ValueError(f"{self.what}: {text} is there twice; give its values as a list")
            if self._check is not None:
                self._check(text, one)
            found[text] = _Values(self.what, self.asked, self._fields).of(one, text, depth + 1)
        return Keys(found, open=some or self._fields, folded=self._fields)

    def containing(self, part: Any, at: str, depth: int) -> Pattern:
        if isinstance(part, dict):
            return self.of(part, at, depth, some=True)
        raise self.never(Containing(part), at, self.takes)

    def matching(self, regex: re.Pattern[Any], at: str) -> Pattern:
        raise self.never(Matching(regex), at, self.takes)

    def absent(self, at: str) -> Pattern:
        if self._fields:
            raise ValueError(f"{self.what} are never absent; write {{name: absent}}")
        return Keys({})


class _Values(_Place):
    """The values of one name: a list of texts."""

    takes = TextPlace.takes + ", or a list of these if the name comes repeatedly"

    def __init__(self, what: str, asked: list[object], fields: bool) -> None:
        super().__init__(what, asked)
        self._fields = fields
        self._text = TextPlace(what, asked)
        self._text.takes = self.takes

    def of(self, value: Any, at: str, depth: int, *, some: bool = False) -> Pattern:
        match value:
            case OneOf() if depth <= DEPTH:
                return super().of(value, at, depth, some=some)
            case AbsentType():
                return Absent()
            case list():
                return self._several(value, at, depth, some=False)
            case Containing(part=list() as part):
                return self._several(part, at, depth, some=True)
            case _:
                return Once(self._text.of(value, at, depth), joined=self._fields)

    def _several(self, value: list[Any], at: str, depth: int, *, some: bool) -> Pattern:
        items = tuple(
            self._text.of(one, f"{at}[{index}]", depth + 1) for index, one in enumerate(value)
        )
        return Some(items) if some else Items(items) if items else Absent()


def _decimal(number: int, where: str) -> str:
    try:
        return str(number)
    except ValueError as error:  # more digits than Python writes
        raise ValueError(f"{where}: {error}") from None


def _advice(value: object) -> str | None:
    for kind in type(value).__mro__:
        home = kind.__module__.partition(".")[0]
        if kind.__name__ in _ADVICE and home in sys.stdlib_module_names:
            return _ADVICE[kind.__name__]
    return None
