"""What a Content-Type says: a media type, its parameters (RFC 9110 8.3.1), and its charset."""

from __future__ import annotations

import codecs
import re

UTF_8 = "utf-8"

# More than the grammar allows: blanks around the equals sign, and a boundary that is no token.
# Compiled, and cached by ``re``, when a Content-Type is read: a start should not wait for it.
_PARAMETER = (
    r';[ \t]*(?P<name>[^\s=;"]++)[ \t]*=[ \t]*'
    r'(?:"(?P<quoted>(?:[^"\\]|\\.)*+)"|(?P<plain>[^;]*))'
)
# Codecs of Python that decode text to text in some way, and are no charsets that a client can mean.
_NO_CHARSETS = frozenset(
    {"idna", "punycode", "undefined", "unicode-escape", "unicode_escape"}
    | {"raw-unicode-escape", "raw_unicode_escape"}
)


class MediaType:
    """A media type such as ``text/plain``, in lower case, and its parameters by name."""

    __slots__ = ("name", "parameters")

    def __init__(self, name: str, parameters: dict[str, str]) -> None:
        self.name = name
        self.parameters = parameters

    @property
    def charset(self) -> str | None:
        """The charset, if there is one; raises ValueError if Python does not know it."""
        name = self.parameters.get("charset")
        return known_charset(name, "the charset of Content-Type") if name else None


def parse_media_type(value: str) -> MediaType:
    """Parse a Content-Type; of a parameter that occurs twice, the first counts."""
    name, _, _ = value.partition(";")
    parameters: dict[str, str] = {}
    for found in re.finditer(_PARAMETER, value):
        quoted, plain = found["quoted"], found["plain"]
        text = plain.strip(' \t"') if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        parameters.setdefault(found["name"].lower(), text)
    return MediaType(name.strip(" \t").lower(), parameters)


def known_charset(name: str, what: str) -> str:
    """Return ``name``; raises ValueError about ``what`` unless Python can decode that charset."""
    try:
        known = codecs.lookup(name).name not in _NO_CHARSETS
        b"a".decode(name, "replace")  # a codec that is not of text, such as rot13, is a LookupError
    except (LookupError, ValueError):
        known = False
    if not known:
        raise ValueError(f"{what} is not known to Python: {name[:100]!r}")
    return name
