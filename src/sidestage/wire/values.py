"""Values on their way to the wire, checked where they enter.

A message is validated by the process that decodes it, and there an error comes too late for whoever
gave the value. So each public call checks what it sends, and raises what is wrong as its own error.
"""

from __future__ import annotations

import math
import operator
from typing import Any

from ..errors import shown

MAX_TEXT = 1 << 13  # characters of a diagnostic, a log line or another text for people
MAX_INT = (1 << 63) - 1  # of a field of a message
_INT_MIN, _INT_MAX = -(1 << 31), (1 << 31) - 1  # of an ``int`` in C


def seconds(name: str, value: Any) -> float:
    """Return ``value`` as a float; raises TypeError or ValueError unless finite and at least 0."""
    # Most are. The rest takes three times as long.
    if type(value) is float and 0 <= value < math.inf:
        return value
    number = real(name, value, "a number of seconds")
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} must be at least 0 seconds and finite, not {shown(value)}")
    return number


def real(name: str, value: Any, what: str = "a number") -> float:
    """Return ``value`` as a float, infinite if it is too large; raises TypeError for the rest."""
    kind = type(value)
    if kind is bool or not (hasattr(kind, "__float__") or hasattr(kind, "__index__")):
        raise TypeError(f"{name} must be {what}, not {shown(value)}")
    try:
        return float(value)
    except OverflowError:  # an int beyond what a float can be
        return math.inf


def count(name: str, value: Any, *, least: int = 0, most: int = MAX_INT) -> int:
    """Return ``value`` as a plain int; raises TypeError or ValueError unless it is in bounds."""
    if type(value) is int and least <= value <= most:  # as for ``seconds``
        return value
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {value!r}")
    number = integer(name, value)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {shown(number)}")
    if number > most:
        raise ValueError(f"{name} must be at most {most}, not {shown(number)}")
    return number


def integer(name: str, value: Any) -> int:
    """Return ``value`` as a plain int: what has ``__index__``; raises TypeError for the rest."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, not {shown(value)}") from None


def c_int(name: str, value: Any) -> int:
    """Return ``value`` as a plain int; raises TypeError, or OverflowError as ``socket`` does."""
    number = integer(name, value)
    if not _INT_MIN <= number <= _INT_MAX:
        raise OverflowError(f"{name} must be an int of 32 bits, not {shown(number)}")
    return number


def is_address(found: object) -> bool:
    """Whether that is a path, or a host and a port with whatever follows for IPv6."""
    match found:
        case str() | (str(), int(), *_):
            return True
        case _:
            return False


def plain(text: str) -> str:
    """The text of an instance of ``str`` or of a class derived from it."""
    return str.__str__(text)  # the class may have another ``__str__``, as an Enum has


def is_buffer(value: Any) -> bool:
    """Whether ``value`` is a bytes-like object, of whatever items."""
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


def buffer(what: str, value: Any) -> memoryview:
    """The bytes of a bytes-like object; copies only those that are not contiguous.

    Raises TypeError, which begins with ``what``, for anything else.
    """
    try:
        view = memoryview(value)
    except TypeError:
        raise TypeError(
            f"{what} must be a bytes-like object, not {type(value).__name__}: {shown(value)}"
        ) from None
    try:
        return view.cast("B")
    except (TypeError, ValueError, NotImplementedError):
        return memoryview(bytes(view))


def printable(text: str, limit: int = MAX_TEXT) -> str:
    """``text`` for people, as a message can carry it: encodable, and cut to ``limit``."""
    if len(text) > limit:
        text = f"{text[:limit]}… ({len(text) - limit} more characters)"
    return text.encode("utf-8", "backslashreplace").decode()
