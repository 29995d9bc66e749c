"""URLs of a server, for clients."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlencode

from ...errors import shown

_SAFE = "/:@!$&'()*+,;=~"  # RFC 3986 3.3: what a path may have beside letters, digits, "-._"
_ESCAPE = re.compile(r"(%[0-9A-Fa-f]{2})")


def url_for(url: str, path: str, query: dict[str, Any]) -> str:
    """``url`` with a path and a query; what is escaped in ``path`` stays, the rest is escaped.

    Raises TypeError or ValueError for what is no path, or no value.
    """
    if not isinstance(path, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users
        raise TypeError(f'a path is text such as "/items", not {shown(path)}')
    if "?" in path or "#" in path or not path.startswith("/"):
        raise ValueError(
            f'a path begins with a slash and has no query, as in url_for("/items", q="a"); '
            f"write %3F for a question mark and %23 for a hash in it: {shown(path)}"
        )
    pieces = _ESCAPE.split(path)
    escaped = "".join(
        piece if at % 2 else quote(piece, safe=_SAFE) for at, piece in enumerate(pieces)
    )
    pairs = [(name, text) for name, value in query.items() for text in _texts(name, value)]
    return f"{url}{escaped}" + (f"?{urlencode(pairs)}" if pairs else "")


def _texts(name: str, value: Any) -> list[str]:
    return [_text(name, one) for one in (value if isinstance(value, (list, tuple)) else [value])]


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise TypeError(
            f"the value of {name} in a query is text or a number, or a list of these, not "
            f'{shown(value)}: write what the server is to get, such as "true"'
        )
    return str(value)
