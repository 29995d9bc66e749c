"""Patterns and values as text: as a user writes them, in one line, and cut with their length.

A value may be as large and as deep as a client makes it, so only what is shown is looked at.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from typing import Any

from .tree import (
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
    OneOf,
    Part,
    Pattern,
    Regex,
    Some,
    Unreadable,
)

WIDTH = 60  # characters of a value
_DEEP = 12  # of nesting, below which dots are shown
_UNITS = ((str, "character"), (bytes, "byte"), (list, "item"), (dict, "key"))
_LONG = 1 << 12  # characters of one text that are looked at


def quoted(text: str) -> str:
    """A text in double quotes where it can be, as Python reads it."""
    found = repr(text)
    return f'"{found[1:-1]}"' if found[0] == "'" and '"' not in text else found


def show(value: Any, width: int = WIDTH) -> str:
    """A value that came, in at most about ``width`` characters; if cut, with its length."""
    if isinstance(value, Unreadable):
        return value.why
    return _cut(_value(value, 0), width, _length(value))


def show_plain(text: str, width: int = 100) -> str:
    """A text without quotes, in one line; what a terminal would act on is escaped."""
    short = text[:width]
    if not short.isprintable():
        short = "".join(one if one.isprintable() else repr(one)[1:-1] for one in short)[:width]
    return short if len(text) <= width else f"{short}..."


def written(value: Any, width: int) -> str | None:
    """A value as Python reads it; None if that takes more than ``width``, or it has none."""
    text = _joined(_value(value, 0), width + 1)
    try:
        same = len(text) <= width and ast.literal_eval(text) == value
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # inf, or dots
        return None
    return text if same else None


def show_pattern(pattern: Pattern, width: int = WIDTH) -> str:
    """A pattern as it is written, in at most about ``width`` characters."""
    return _cut(_pattern(pattern), width, "")


def _cut(pieces: Iterable[str], width: int, length: str) -> str:
    text = _joined(pieces, width + 1)
    if len(text) <= width:
        return text
    return f"{text[:width]}...{f' ({length})' if length else ''}"


def _joined(pieces: Iterable[str], enough: int) -> str:
    found, size = [], 0
    for piece in pieces:
        found.append(piece)
        size += len(piece)
        if size >= enough:
            break
    return "".join(found)


def _length(value: Any) -> str:
    unit = next((unit for kind, unit in _UNITS if isinstance(value, kind)), "")
    return f"{len(value):,} {unit}{'' if len(value) == 1 else 's'}" if unit else ""


def _value(value: Any, depth: int) -> Iterator[str]:
    match value:
        case str():
            yield quoted(value[:_LONG])
        case bytes():
            yield repr(value[:_LONG])
        case list() if depth < _DEEP:
            yield "["
            for index, one in enumerate(value):
                yield ", " if index else ""
                yield from _value(one, depth + 1)
            yield "]"
        case dict() if depth < _DEEP:
            yield "{"
            for index, (name, one) in enumerate(value.items()):
                yield f"{', ' if index else ''}{quoted(name[:_LONG])}: "
                yield from _value(one, depth + 1)
            yield "}"
        case list() | dict():
            yield "..."
        case int() if not isinstance(value, bool) and value.bit_length() > 256:
            yield hex(value)  # no limit counts its digits
        case _:
            yield repr(value)


def _pattern(pattern: Pattern) -> Iterator[str]:
    match pattern:
        case Once(value=inner):
            yield from _pattern(inner)
        case OneOf(choices=choices):
            yield from _listed("one_of(", choices, ")")
        case Items(items=items):
            yield from _listed("[", items, "]")
        case Some(items=items):
            yield from _listed("containing([", items, "])")
        case Keys(open=some, folded=folded):
            yield from _keys(pattern, "containing({" if some and not folded else "{")
        case _:
            yield from _leaf(pattern)


def _leaf(pattern: Pattern) -> Iterator[str]:
    match pattern:
        case Exactly(value=value) | Octets(value=value):
            yield from _value(value, 0)
        case Big(digits=digits):
            yield from _value(int(digits, 16), 0)
        case Kind(name=name) | Numeral(name=name) | Asked(label=name):
            yield name
        case Part(part=part) | OctetsPart(part=part):
            yield f"containing({''.join(_value(part, 0))})"
        case Regex(source=source, flags=flags) | OctetsRegex(source=source, flags=flags):
            yield f"matching({show_regex(source[:_LONG], flags, alone=False)})"
        case _:
            yield "absent"


def _listed(begin: str, items: tuple[Pattern, ...], end: str) -> Iterator[str]:
    yield begin
    for index, one in enumerate(items):
        yield ", " if index else ""
        yield from _pattern(one)
    yield end


def _keys(pattern: Keys, begin: str) -> Iterator[str]:
    yield begin
    for index, (name, one) in enumerate(pattern.items.items()):
        yield f"{', ' if index else ''}{quoted(name)}: "
        yield from _pattern(one)
    yield "})" if len(begin) > 1 else "}"


def show_regex(source: str | bytes, flags: int, *, alone: bool = True) -> str:
    """A compiled regular expression as it is written; just its source if that says all."""
    usual = re.UNICODE if isinstance(source, str) else 0
    text = f'r"{source}"' if isinstance(source, str) and _raw(source) else repr(source)
    if flags & ~usual:
        return f"re.compile({text}, {re.RegexFlag(flags & ~usual)!r})"
    return f"re.compile({text})" if alone else text


def _raw(source: str) -> bool:
    return source.isprintable() and '"' not in source and not source.endswith("\\")
