"""HTML forms, URL-encoded (WHATWG URL 5.1) or multipart (RFC 7578), and the names in them.

``multipart`` divides a multipart body. What it does not know of is here: the ways in which clients
escape a name, and the charset of a form.
"""

# No ``from __future__ import annotations``: see ``journal/record.py``.
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from ...errors import shown
from ...pristine.imports import importing_once
from .fields import Fields
from .media import UTF_8, known_charset, parse_media_type

# The body was received whole, and is bounded by what keeps it: these are for what is no form.
FIELD_LIMIT = 1 << 16  # bytes of one field of a part
FIELDS_LIMIT = 100  # of one part

_CHARSET_FIELD = b"_charset_"  # RFC 7578 4.6
_PARAMETER = (
    r'[ \t]*+;[ \t]*+(?:(?P<name>[^\s=;"]++)[ \t]*+=[ \t]*+'
    r'(?:"(?P<quoted>%s)"|(?P<plain>[^\s;"]*+))[ \t]*+)?+(?=;|\Z)'
)
# Compiled, and cached by ``re``, when a form is read: it takes milliseconds.
# aiohttp, httpx and `curl --form-escape` escape with a backslash (RFC 9110 5.6.4). Browsers,
# urllib3 and curl do not, and escape a quote with "%22" (HTML 4.10.21.8).
_BACKSLASHED = _PARAMETER % r'(?:[^"\\]|\\[\\" \t])*+'
_VERBATIM = _PARAMETER % r'[^"]*+'
_PAIR = r'\\([\\" \t])'


class FormPart(NamedTuple):
    """One part of a multipart form (RFC 7578); ``filename`` is empty if it is not a file."""

    name: str
    filename: str
    content_type: str
    content: bytes


class MultipartForm:
    """The parts of a form, and the charset of each."""

    __slots__ = ("_charsets", "parts")

    def __init__(self, parts: tuple[FormPart, ...], charsets: tuple[str, ...]) -> None:
        self.parts = parts
        self._charsets = charsets

    def fields(self) -> Fields:
        """All parts as text; raises ValueError for a charset that Python does not know."""
        found: list[tuple[str, str]] = []
        for part, charset in zip(self.parts, self._charsets, strict=True):
            known = known_charset(charset, f"the charset of {shown(part.name)}")
            found.append((part.name, part.content.decode(known, "replace")))
        return Fields(found)


def parse_query(text: str) -> Fields:
    """Decode a query (WHATWG URL 5.1); it never fails."""
    from urllib.parse import parse_qsl  # late, like json: a start should not wait for them

    return Fields(parse_qsl(text, keep_blank_values=True))


def urlencoded_fields(body: bytes, charset: str | None = None) -> Fields:
    """Decode a URL-encoded form or query; raises ValueError for an unknown charset in it."""
    from urllib.parse import parse_qsl

    # Latin-1 keeps the bytes: what is escaped and what is not are decoded as one.
    found = parse_qsl(body.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in found]
    charset = charset or _named_charset(raw) or UTF_8
    return Fields((_text(name, charset), _text(value, charset)) for name, value in raw)


def parse_multipart(body: bytes, boundary: str, charset: str | None) -> MultipartForm:
    """Divide a multipart form; ``charset`` is the one that its Content-Type names.

    Raises ValueError if the body is no such form, or is not complete.
    """
    found = [(part, *_names(part), content) for part, content in _divide(body, boundary)]
    charset = charset or _named_charset((name, content) for _, name, _, content in found) or UTF_8
    # RFC 7578 4.4
    kinds = [parse_media_type(part.header("Content-Type") or "text/plain") for part, *_ in found]
    parts = [
        FormPart(_text(name, charset), _text(filename, charset), kind.name, content)
        for kind, (_, name, filename, content) in zip(kinds, found, strict=True)
    ]
    charsets = [kind.parameters.get("charset") or charset for kind in kinds]
    return MultipartForm(tuple(parts), tuple(charsets))


def _divide(body: bytes, boundary: str) -> list[tuple[Any, bytes]]:
    """The parts of a body as ``multipart`` sees them, each with its content."""
    with importing_once():
        from multipart import MultipartError, MultipartSegment, PushMultipartParser

    found: list[tuple[Any, list[bytes]]] = []
    try:
        with PushMultipartParser(
            boundary.encode("latin-1"),
            max_header_size=FIELD_LIMIT,
            max_header_count=FIELDS_LIMIT,
            header_charset="latin-1",
        ) as parser:
            for event in parser.parse(body) if body else ():
                if isinstance(event, MultipartSegment):
                    found.append((event, []))
                elif event is not None:
                    found[-1][1].append(bytes(event))
    except MultipartError as error:
        raise ValueError(f"the multipart form is broken ({error}): {_excerpt(body)}") from error
    return [(segment, b"".join(pieces)) for segment, pieces in found]


def _excerpt(body: bytes) -> str:
    return repr(body) if len(body) <= 200 else f"{body[:100]!r} ... {body[-100:]!r}"


# Names: bytes in the charset of the form, or text if they name their own -------------------------


def _names(segment: Any) -> tuple[bytes | str, bytes | str]:
    """The name and the file name of a part, empty if there is none."""
    value: str = segment.header("Content-Disposition")
    escaped = _scan(value, _BACKSLASHED)
    found = _scan(value, _VERBATIM) if escaped is None else escaped
    if found is None:  # it has no grammar: the library's guess
        found = {"name": segment.name, "filename": segment.filename or ""}
    backslashed = escaped is not None
    return _name(found, "name", backslashed), _name(found, "filename", backslashed)


def _scan(value: str, parameter: str) -> dict[str, str] | None:
    """The parameters of a Content-Disposition by name; ``None`` if one has another form."""
    at = value.find(";")
    found: dict[str, str] = {}
    pattern = re.compile(parameter)
    while 0 <= at < len(value):
        match = pattern.match(value, at)
        if match is None:
            return None
        if match["name"]:
            text = match["plain"] if match["quoted"] is None else match["quoted"]
            found.setdefault(match["name"].lower(), text)
        at = match.end()
    return found


def _name(found: dict[str, str], name: str, backslashed: bool) -> bytes | str:
    extended = found.get(f"{name}*", "")  # aiohttp sends it, although RFC 7578 4.2 says not to
    if extended.count("'") >= 2:  # RFC 8187 3.2
        from urllib.parse import unquote

        charset, _, text = extended.split("'", 2)
        return unquote(text, known_charset(charset, f"the charset of {name}*"), "replace")
    text = found.get(name, "")
    if not (backslashed and '\\"' in text):  # else quotes are escaped that way alone
        text = text.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")
    if backslashed:
        text = re.sub(_PAIR, r"\1", text)
    return text.encode("latin-1")


def _text(name: bytes | str, charset: str) -> str:
    return name if isinstance(name, str) else name.decode(charset, "replace")


def _named_charset(fields: Iterable[tuple[bytes | str, bytes]]) -> str | None:
    """The charset that a field of the form names (RFC 7578 4.6)."""
    for name, value in fields:
        if name == _CHARSET_FIELD and value:
            text = value[:100].decode("latin-1")
            return known_charset(text, "the charset in the field _charset_")
    return None
