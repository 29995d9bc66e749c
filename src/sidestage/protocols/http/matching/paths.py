"""The path of an expectation: any, a template, or a regular expression.

A raw path is split at each ``/`` and then each segment is decoded, so a ``%2F`` never divides. The
same is done with a template, so what is escaped in it and what is not are the same.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ....errors import shown
from ....patterns.text import show_regex
from ....patterns.tree import compiled

Segments = tuple[str, ...]  # decoded; the first is what stands before the first slash
Params = dict[str, object]

_PIECE = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]|[^{}]+")
_DIGITS = "[0-9]{1,640}"  # as many as ``int`` takes under any limit that can be set
_KINDS = ("", "int", "path")
_FORMS = "{name}, {name:int} or {name:path}; {{ and }} are braces"


class AnyPath(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Each path."""

    def match(self, segments: Segments) -> Params | None:
        """It always matches."""
        return {}


class Dynamic(msgspec.Struct, frozen=True, array_like=True):
    """A segment of a template with parameters in it."""

    source: str  # a regular expression, with a group for each parameter
    names: tuple[str, ...]
    kinds: tuple[str, ...]  # "" or int

    def match(self, segment: str) -> tuple[tuple[str, object], ...] | None:
        """The parameters in a decoded segment; None if it does not match."""
        found = compiled(self.source, int(re.DOTALL)).fullmatch(segment)
        if found is None:
            return None
        values = zip(self.names, self.kinds, found.groups(), strict=True)
        return tuple((name, int(text) if kind else text) for name, kind, text in values)


Segment = str | Dynamic


class Template(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A path with parameters, or with none."""

    written: str
    head: tuple[Segment, ...]  # the first is empty, as a path begins with a slash
    rest: str = ""  # the name of a parameter for one or more segments after the head
    tail: tuple[Segment, ...] = ()  # after these

    @property
    def literal(self) -> Segments | None:
        """The segments, if there are no parameters in them."""
        if self.rest or any(type(one) is not str for one in self.head):
            return None
        return self.head  # type: ignore[return-value] # all are text

    def match(self, segments: Segments) -> Params | None:
        """The parameters in a path; None if it does not match."""
        if segments == self.head and not self.rest:  # quick, and right for most
            return {}
        least = len(self.head) + len(self.tail) + bool(self.rest)
        if len(segments) < least or (len(segments) > least and not self.rest):
            return None
        end = len(segments) - len(self.tail)
        found: Params = {}
        if not _segments(self.head, segments[: len(self.head)], found):
            return None
        if self.rest:
            found[self.rest] = "/".join(segments[len(self.head) : end])
        return found if _segments(self.tail, segments[end:], found) else None


class RegexPath(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A regular expression that matches all of the decoded path."""

    source: str
    flags: int

    def match(self, segments: Segments) -> Params | None:
        """The named groups; None if it does not match."""
        found = compiled(self.source, self.flags).fullmatch("/".join(segments))
        return None if found is None else dict(found.groupdict())


PathPattern = AnyPath | Template | RegexPath


def _segments(wanted: tuple[Segment, ...], came: Segments, found: Params) -> bool:
    for one, segment in zip(wanted, came, strict=True):
        if isinstance(one, str):
            if one != segment:
                return False
        elif (values := one.match(segment)) is None:
            return False
        else:
            found.update(values)
    return True


def split_path(raw: str) -> Segments:
    """The decoded segments of a raw path."""
    segments = raw.split("/")
    return tuple(map(decoded, segments)) if "%" in raw else tuple(segments)


def decoded(raw: str) -> str:
    """Percent-decode a path or a segment."""
    if "%" not in raw:
        return raw
    from urllib.parse import unquote  # late, like json: a start should not wait for them

    return unquote(raw)


def show_path(path: PathPattern) -> str:
    """A path as it was written."""
    match path:
        case AnyPath():
            return "*"
        case Template(written=written):
            return written
        case RegexPath(source=source, flags=flags):
            return show_regex(source, flags)


def path_pattern(path: Any) -> PathPattern:
    """Read a path that is ``"*"``, a template or compiled; raises TypeError or ValueError."""
    if isinstance(path, re.Pattern):
        if isinstance(path.pattern, bytes):
            raise TypeError(
                f"path: {shown(path)} is of bytes; write re.compile({shown(path.pattern)[1:]})"
            )
        return RegexPath(path.pattern, path.flags)
    if not isinstance(path, str):
        raise TypeError(f"path must be text or a compiled regular expression, not {shown(path)}")
    return AnyPath() if path == "*" else _template(str.__str__(path))


def _template(path: str) -> Template:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ValueError(f"path: {shown(path)} has half of a surrogate pair") from None
    head: list[Segment] = []
    tail: list[Segment] | None = None  # once there is a rest
    rest = ""
    names: list[str] = []
    for raw in path.split("/"):
        segment, of_rest = _segment(raw, path, names)
        if of_rest and tail is not None:
            raise ValueError(f"path {shown(path)}: only one {{name:path}} can be in it")
        if of_rest:
            rest, tail = of_rest, []
        else:
            (head if tail is None else tail).append(segment)
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"path {shown(path)}: the name {name} is there twice; rename one")
    return Template(path, tuple(head), rest, tuple(tail or ()))


def _segment(raw: str, path: str, names: list[str]) -> tuple[Segment, str]:
    """A segment, or the name of the parameter for the rest."""
    text, source, kinds = "", "", []
    found: list[str] = []
    for piece in _PIECE.findall(raw):
        if piece[0] in "{}" and piece not in ("{{", "}}"):
            name, kind = _parameter(piece, path)
            found.append(name)
            names.append(name)
            if kind == "path" and piece != raw:
                raise ValueError(
                    f"path {shown(path)}: {piece} takes whole segments; write it between slashes"
                )
            if kind == "path":
                return "", name
            kinds.append(kind)
            source += re.escape(decoded(text)) + (f"({_DIGITS})" if kind else "(.+)")
            text = ""
        else:
            text += piece[0] if piece in ("{{", "}}") else piece
    if not found:
        return decoded(text), ""
    return Dynamic(source + re.escape(decoded(text)), tuple(found), tuple(kinds)), ""


def _parameter(piece: str, path: str) -> tuple[str, str]:
    name, _, kind = piece[1:-1].partition(":")
    if len(piece) < 2 or not name.isidentifier() or kind not in _KINDS:
        raise ValueError(f"path {shown(path)}: {piece} is no parameter; write {_FORMS}")
    return name, kind
