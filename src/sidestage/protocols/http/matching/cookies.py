"""The cookies that a client sends (RFC 6265 5.4)."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ESCAPED = re.compile(r"\\([0-3][0-7][0-7]|.)")


def parse_cookies(values: Iterable[str]) -> list[tuple[str, str]]:
    """The names and values in Cookie fields, in order; it never fails.

    A value in quotes is taken out of them, as ``http.cookies`` has put it in.
    """
    found: list[tuple[str, str]] = []
    for field in values:
        for piece in field.split(";"):
            name, equals, value = piece.partition("=")
            if equals or name.strip(" \t"):
                found.append((name.strip(" \t"), _unquoted(value.strip(" \t"))))
    return found


def _unquoted(value: str) -> str:
    if len(value) < 2 or not (value[0] == value[-1] == '"'):
        return value
    return _ESCAPED.sub(_character, value[1:-1])


def _character(found: re.Match[str]) -> str:
    text = found[1]
    return chr(int(text, 8)) if len(text) == 3 else text
