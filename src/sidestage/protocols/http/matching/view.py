"""A request as matchers see it: what came, and its parts, each read when it is first looked at.

What cannot be read is ``Unreadable`` and says why; looking never raises.
"""

from __future__ import annotations

import functools
import re
from functools import cached_property
from typing import Any

from ....patterns.text import show, show_plain
from ....patterns.tree import MISSING, Unreadable
from ..fields import parse_fields
from ..forms import parse_multipart, parse_query, urlencoded_fields
from ..media import UTF_8, MediaType, parse_media_type
from .cookies import parse_cookies
from .credentials import credentials
from .paths import Segments, split_path

_AUTHORITY = re.compile(r"\A[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")  # RFC 9112 3.2.2, absolute-form

_LONG = 1 << 12  # bytes; longer heads are not kept

Names = dict[str, list[str]]


class RequestView:
    """A request: its head as it came, and its body, of which ``cut`` bytes are not here.

    ``body`` may be set when it has come; nothing that depends on it may be looked at before.
    """

    def __init__(
        self, method: str, target: str, fields: bytes, body: bytes = b"", cut: int = 0
    ) -> None:
        self.method = method
        self.target = target
        self.fields = fields  # as they came, without the empty line
        self.body = body
        self.cut = cut  # bytes

    # The head ------------------------------------------------------------------------------------

    @cached_property
    def _split(self) -> tuple[str, str]:
        target = self.target
        if not target.startswith("/"):
            target = _AUTHORITY.sub("", target, count=1)
        path, _, query = target.partition("#")[0].partition("?")
        return path or "/", query

    @property
    def raw_path(self) -> str:
        """The path as it came."""
        return self._split[0]

    @property
    def query_string(self) -> str:
        """The query as it came, without the question mark."""
        return self._split[1]

    @cached_property
    def segments(self) -> Segments:
        """The path, split at ``/`` and then decoded; the first segment is empty."""
        return split_path(self.raw_path)

    @property
    def path(self) -> str:
        """The path, decoded."""
        return "/".join(self.segments)

    @cached_property
    def query(self) -> Names:
        """The values of each name of the query."""
        return _named(parse_query(self.query_string).pairs()) if self.query_string else {}

    @cached_property
    def headers(self) -> Names:
        """The values of each header field, by its name in lower case."""
        return (_names_of_short if len(self.fields) <= _LONG else _names_of)(self.fields)

    @cached_property
    def cookies(self) -> Names:
        """The values of each cookie."""
        return _named(parse_cookies(self.headers.get("cookie", ())))

    @cached_property
    def auth(self) -> Any:
        """``[user, password]`` of the Basic scheme, the text of a bearer token, or Unreadable."""
        return credentials(self.headers.get("authorization", (None,))[0])

    @cached_property
    def content_type(self) -> MediaType:
        """The Content-Type; its name is empty if there is none."""
        return parse_media_type(self.headers.get("content-type", [""])[0])

    # The body ------------------------------------------------------------------------------------

    @property
    def octets(self) -> bytes | Unreadable:
        """The body, if all of it is here."""
        if self.cut:
            size = len(self.body) + self.cut
            return Unreadable(
                f"{size:,} bytes, of which a record keeps {len(self.body):,} (a quarter of keep),"
            )
        return self.body

    @cached_property
    def text(self) -> Any:
        """The body, decoded with the charset of Content-Type, by default UTF-8."""
        body = self.octets
        if isinstance(body, Unreadable):
            return body
        try:
            return body.decode(self.content_type.charset or UTF_8)
        except ValueError as error:
            return _unreadable(body, "text", error)

    @cached_property
    def json(self) -> Any:
        """The value that the body is in JSON."""
        import json

        body = self.octets
        if isinstance(body, Unreadable):
            return body
        if not body:
            return MISSING
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            return _unreadable(body, "JSON", error)

    @cached_property
    def form(self) -> Any:
        """The values of each name of the form that the body is; an empty body has none."""
        body = self.octets
        if isinstance(body, Unreadable):
            return body
        if not body:
            return {}
        try:
            return _named(self._form(body))
        except ValueError as error:
            return _unreadable(body, "a form", error)

    def _form(self, body: bytes) -> tuple[tuple[str, str], ...]:
        kind = self.content_type
        if kind.name == "application/x-www-form-urlencoded":
            return urlencoded_fields(body, kind.charset).pairs()
        if kind.name == "multipart/form-data" and (boundary := kind.parameters.get("boundary")):
            return parse_multipart(body, boundary, kind.charset).fields().pairs()
        raise ValueError(f"its Content-Type is {kind.name}" if kind.name else "no Content-Type")


def _unreadable(body: bytes, what: str, error: Exception) -> Unreadable:
    deep = isinstance(error, RecursionError)
    why = "nested too deep" if deep else str(error).partition("\n")[0]
    return Unreadable(f"{show(body, 40)}, which is not {what} ({show_plain(why)}),")


def _names_of(fields: bytes) -> Names:
    return _named((name.lower(), value) for name, value in parse_fields(fields).pairs())


# A client's requests are alike. Nobody changes what is found.
_names_of_short = functools.lru_cache(maxsize=32)(_names_of)


def _named(pairs: Any) -> Names:
    found: Names = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found
