"""Where a value is not as a pattern says, and how: short lines."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from .text import WIDTH, quoted, show, show_pattern
from .tree import (
    MISSING,
    Asked,
    Exactly,
    Items,
    Keys,
    Kind,
    Objects,
    Octets,
    Once,
    Pattern,
    Some,
    Unreadable,
)

LINES = 8
_NAMES = {
    dict: "a dict",
    list: "a list",
    str: "a str",
    int: "an int",
    float: "a float",
    bool: "a bool",
    type(None): "null",
}
_AROUND = 12  # characters shown before a difference in a long text


Way = tuple[str | int, ...]  # keys and indexes, from the value inwards


class Difference(NamedTuple):
    """One place at which a value is not as it was expected.

    Many are only counted, so its texts are made when they are read.
    """

    way: Way
    tell: Callable[[], str]

    @property
    def at(self) -> str:
        """Where: ``.items[2].sku``; empty is the value itself."""
        return "".join(
            f"[{one}]" if isinstance(one, int) else place_of_key(one) for one in self.way
        )

    @property
    def how(self) -> str:
        """How: ``7 expected, "7" came: a str, not an int``."""
        return self.tell()


def differences(
    pattern: Pattern, value: Any, asked: Objects = None, *, most: int = LINES
) -> list[str]:
    """Lines that say where ``value`` differs and how; empty if it fits. At most ``most`` and one.

    Without ``asked``, what only the test's process can compare is named as that.
    """
    found = list(itertools.islice(differing(pattern, value, asked), most + 1))
    lines = [f"at {one.at}: {one.how}" if one.at else one.how for one in found]
    return [*lines[:most], "and more"] if lines[most:] else lines


def differing(
    pattern: Pattern, value: Any, asked: Objects = None, at: Way = ()
) -> Iterator[Difference]:
    """The differences, found one after the other."""
    if pattern.judge(value, asked):
        return
    match pattern:
        case Once():
            yield from _once(pattern, value, asked, at)
        case Keys() if type(value) is dict:
            yield from _keys(pattern, value, asked, at)
        case Items(items=items) if type(value) is list:
            yield from _items(items, value, asked, at)
        case Some(items=items) if type(value) is list:
            for one in items:
                if not any(one.judge(item, asked) for item in value):
                    yield Difference(at, partial(_no_item, one, value))
        case Asked(label=label) if asked is None and not isinstance(value, Unreadable):
            yield Difference(at, partial(_only_the_test, value, label))
        case _:
            yield Difference(at, partial(_how, pattern, value))


def _keys(pattern: Keys, value: dict[str, Any], asked: Objects, at: Way) -> Iterator[Difference]:
    for name, one in pattern.items.items():
        came = value.get(pattern.key(name), MISSING)
        yield from differing(one, came, asked, (*at, name))
    if not pattern.open:
        for name, came in value.items():
            if name not in pattern.items:
                yield Difference((*at, name), partial(_not_expected, came))


def place_of_key(name: str) -> str:
    """Where the value of a key is, as ``Difference.at`` names it."""
    if name and all(character.isalnum() or character in "_-" for character in name[:40]):
        return f".{name[:40]}"
    return f"[{quoted(name[:40])}]"


def _items(
    items: tuple[Pattern, ...], value: list[Any], asked: Objects, at: Way
) -> Iterator[Difference]:
    if len(items) != len(value):
        yield Difference(at, partial(_lengths, items, value))
    for index, (item, one) in enumerate(zip(items, value, strict=False)):
        yield from differing(item, one, asked, (*at, index))
    for index in range(len(value), len(items)):
        yield Difference((*at, index), partial(_nothing, items[index]))
    for index in range(len(items), len(value)):
        yield Difference((*at, index), partial(_not_expected, value[index]))


def _once(pattern: Once, value: Any, asked: Objects, at: Way) -> Iterator[Difference]:
    only = pattern.only(value)
    if type(only) is list:
        yield Difference(at, partial(_repeatedly, pattern, only))
    else:
        yield from differing(pattern.value, only, asked, at)


# How they differ -------------------------------------------------------------------------------


def _repeatedly(pattern: Once, came: list[Any]) -> str:
    wanted = show_pattern(pattern.value)
    return f"{wanted} expected, it came {len(came)} times: {show(came)}"


def _lengths(items: tuple[Pattern, ...], value: list[Any]) -> str:
    return f"{_count(len(items))} expected, {len(value):,} came"


def _nothing(pattern: Pattern) -> str:
    return f"{show_pattern(pattern)} expected, nothing came"


def _not_expected(came: Any) -> str:
    return f"not expected, {show(came)} came"


def _only_the_test(value: Any, label: str) -> str:
    return f"only the test can compare {show(value)} with {label}"


def _no_item(pattern: Pattern, value: list[Any]) -> str:
    return f"an item {show_pattern(pattern)} expected, {_none(value)}"


def _count(number: int) -> str:
    return "1 item" if number == 1 else f"{number:,} items"


def _none(value: list[Any]) -> str:
    return f"none of {show(value)} is one" if value else "the list is empty"


def _how(pattern: Pattern, value: Any) -> str:
    mine = pattern.value if isinstance(pattern, (Exactly, Octets)) else None
    if isinstance(mine, (str, bytes)) and type(value) is type(mine) and _long(mine, value):
        return _in_long(mine, value)
    text = f"{show_pattern(pattern)} expected, {show(value)} came"
    return f"{text}{_remark(pattern, mine, value)}"


def _remark(pattern: Pattern, mine: Any, value: Any) -> str:
    its = _NAMES.get(type(value))
    if isinstance(mine, str) and isinstance(value, str):
        if mine.casefold() == value.casefold():
            return ": the case differs"
        return ": blanks around it differ" if mine.strip() == value.strip() else ""
    if isinstance(pattern, Exactly) and its is not None and type(value) is not type(mine):
        numbers = {type(value), type(mine)} == {int, float}
        return "" if numbers else f": {its}, not {_NAMES[type(mine)]}"
    if isinstance(pattern, Kind) and its is not None:
        return f": {its}"
    return ""


def _long(mine: Any, its: Any) -> bool:
    return len(mine) > WIDTH and len(its) > WIDTH


def _in_long(mine: Any, its: Any) -> str:
    """Two long texts: where they begin to differ."""
    first = next(
        (index for index, (a, b) in enumerate(zip(mine, its, strict=False)) if a != b),
        min(len(mine), len(its)),
    )
    begin = max(0, first - _AROUND)
    unit = "byte" if isinstance(mine, bytes) else "character"
    wanted, came = (show(text[begin : begin + WIDTH // 2]) for text in (mine, its))
    return f"from {unit} {first:,} on: {wanted} expected, {came} came"
