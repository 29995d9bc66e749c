"""Paths as other tools write them, which would never match here, and the right forms."""

from __future__ import annotations

import re

from .paths import Segment, Template

_ANGLES = re.compile(r"<(?:([A-Za-z_]+):)?([A-Za-z_]\w*)>")
_KINDS = {"int": ":int", "path": ":path"}
# No client sends these as they stand: a backslash, ``<``, ``[`` and ``^`` are escaped in a path.
_REGEX = re.compile(r"\\[dwsDWS](?=[+*?{)/\]]|\Z)|\\\.|\(\?P<|\[\^?[^\]/]*\][+*]|\[\^/\]")
_COLON = re.compile(r":([A-Za-z_]\w*)")


def right_form(path: str) -> str:
    """What to write instead of a path that no client can send as it stands; empty if it is one."""
    if _REGEX.search(path):
        text = path.replace('"', '\\"')
        return f're.compile(r"{text}"), or with a parameter such as "/orders/{{id:int}}"'
    if _ANGLES.search(path):
        return f'"{_ANGLES.sub(_parameter, path)}"'
    return ""


def _parameter(found: re.Match[str]) -> str:
    return f"{{{found[2]}{_KINDS.get(found[1] or '', '')}}}"


def hint_of(path: Template) -> str:
    """What may be meant by segments that a client could send, but rarely does."""
    for one in path.head + path.tail:
        if isinstance(one, str) and (found := _COLON.fullmatch(one)) is not None:
            return (
                f'":{found[1][:40]}" is only itself in a path: a parameter is {{{found[1][:40]}}}'
            )
        if _is_star(one):
            return '"*" is only itself in a path: {name} is any segment, {name:path} any rest'
    return ""


def _is_star(segment: Segment) -> bool:
    return segment in ("*", "**", ".*", ".+", "(.*)", "(.+)")
