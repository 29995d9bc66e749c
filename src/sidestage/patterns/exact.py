"""Patterns that take one value alone, as keys of a dict: so they are found without judging each.

Where a pattern has a key, every value that it takes has the same one. A value with that key may
still not fit.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from .tree import DEPTH, Big, Exactly, Items, Keys, Octets, Pattern

_NULL = ("null",)  # as None says that there is no key


def key_of(value: Any, depth: int = 0) -> Hashable:
    """The key of a value of JSON, of text or of bytes; another value has one of its own."""
    kind = type(value)
    if kind is str or kind is int or kind is float:
        return value  # type: ignore[no-any-return]  # numbers are equal as they are
    if value is None:
        return _NULL
    if kind is bool:
        return bool, value  # True == 1
    if depth > DEPTH:
        return object()  # no pattern is as deep
    if kind is list:
        return list, tuple([key_of(one, depth + 1) for one in value])
    if kind is dict:
        return dict, frozenset([(name, key_of(one, depth + 1)) for name, one in value.items()])
    return value  # type: ignore[no-any-return]  # bytes, or what cannot be read


def key_taken(pattern: Pattern) -> Hashable | None:
    """The key of the only value that ``pattern`` takes; ``None`` if there may be others."""
    match pattern:
        case Exactly(value):
            return key_of(value)
        case Big(digits):
            return int(digits, 16)
        case Octets(octets):
            return octets
        case Items(items):
            keys = [key_taken(item) for item in items]
            return None if None in keys else (list, tuple(keys))
        case Keys(items, open=False, folded=False):
            named = [(name, key_taken(item)) for name, item in items.items()]
            return None if any(key is None for _, key in named) else (dict, frozenset(named))
        case _:
            return None
