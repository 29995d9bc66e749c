"""From the arguments of ``expect`` and ``allow`` to matchers; what can never match is an error.

Each error shows the right form. This runs in the test's process.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

from ....errors import shown
from ....patterns.build import (
    TextPlace,
    names_pattern_of,
    octets_pattern_of,
    pattern_of,
    text_pattern_of,
)
from ....patterns.tree import Absent, Items, Pattern
from ....patterns.words import not_given
from ....wire.values import plain
from ..fields import METHODS, check_case
from .foreign import right_form
from .matchers import Matchers
from .paths import PathPattern, path_pattern

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_UNSENT = re.compile(r"[\0\r\n]|\A[ \t]|[ \t]\Z|[^\0-\xff]")  # RFC 9110 5.5


def matchers_of(
    method: Any,
    path: Any,
    *,
    query: Any = not_given,
    form: Any = not_given,
    cookies: Any = not_given,
    headers: Any = not_given,
    json: Any = not_given,
    text: Any = not_given,
    body: Any = not_given,
    auth: Any = not_given,
    where_given: bool = False,
) -> tuple[Matchers, list[object]]:
    """The matchers, and the objects with their own ``==``, which stay in the test's process.

    Raises TypeError or ValueError for what can never match.
    """
    asked: list[object] = []
    methods, found = _line(method, path)
    given: dict[str, Pattern] = {}
    if query is not not_given:
        given["query"] = names_pattern_of(query, asked, "query")
    if headers is not not_given:
        given["headers"] = names_pattern_of(
            headers, asked, "headers", fields=True, check=_check_field
        )
    if cookies is not not_given:
        given["cookies"] = names_pattern_of(cookies, asked, "cookies", check=_check_cookie)
    if auth is not not_given:
        given["auth"] = _Auth("auth", asked).of(auth, "", 0)
    if json is not not_given:
        given["json"] = pattern_of(json, asked)
    if form is not not_given:
        given["form"] = names_pattern_of(form, asked, "form")
    if text is not not_given:
        given["text"] = text_pattern_of(text, asked)
    if body is not not_given:
        given["body"] = octets_pattern_of(body, asked)
    asks = where_given or bool(asked)
    return Matchers(methods, found, asks=asks, where=where_given, **given), asked


def check_early(matchers: Matchers) -> None:
    """Raise ValueError if ``early=True`` cannot go with them."""
    if matchers.needs_body:
        parts = [name for name in ("json", "form", "text", "body") if getattr(matchers, name)]
        raise ValueError(
            f"early=True answers when the head has come, so it does not go with {parts[0]}=; "
            "leave one of them out"
        )


# Method and path -----------------------------------------------------------------------------


def _line(method: Any, path: Any) -> tuple[tuple[str, ...], PathPattern]:
    if isinstance(method, str) and method.startswith("/"):
        other = path if _is_method(path) else "GET"
        raise ValueError(
            f"the method comes first: write ({_quoted(other)}, {_quoted(method)}), "
            f"not ({shown(method)}, {shown(path)})"
        )
    methods = _methods(method, path)
    if isinstance(path, str) and path != "*":
        _check_path(path, method, methods)
    return methods, path_pattern(path)


def _is_method(value: Any) -> bool:
    return isinstance(value, str) and (value.upper() in METHODS or value == "*")


def _methods(method: Any, path: Any) -> tuple[str, ...]:
    if isinstance(method, str):
        return () if method == "*" else (_method(method),)
    if isinstance(method, (tuple, list, set, frozenset)):
        if not method:
            raise ValueError('method: there is none in it; write "*" for any')
        if any(one == "*" for one in method):
            raise ValueError(f'method: "*" is any method; write "*", not {shown(method)}')
        found = [_method(one) for one in method]
        return tuple(
            dict.fromkeys(sorted(found) if isinstance(method, (set, frozenset)) else found)
        )
    raise TypeError(f'method must be a name, a tuple of names or "*", not {shown(method)}')


def _method(method: object) -> str:
    if not isinstance(method, str):
        raise TypeError(f'method must be a name, such as "GET", not {shown(method)}')
    method = plain(method)
    names = [one for one in re.split(r"[|,;/\s]+", method) if one]
    if len(names) > 1 and all(one.upper() in METHODS for one in names):
        right = ", ".join(_quoted(one.upper()) for one in names)
        raise ValueError(f"method {shown(method)} is one name; write several as ({right})")
    check_case(method)
    if (found := re.fullmatch(r"(\S+)\s+(/\S*)", method)) is not None:
        raise ValueError(f"write method and path apart: ({_quoted(found[1])}, {_quoted(found[2])})")
    if not _TOKEN.fullmatch(method):
        raise ValueError(f'method {shown(method)} is no name of a method; write one such as "GET"')
    return method


def _check_path(path: str, method: Any, methods: tuple[str, ...]) -> None:
    if (scheme := _URL.match(path)) is not None:
        rest = path[scheme.end() :] or "/"
        rest = rest if rest.startswith("/") else f"/{rest}"
        host = scheme[0].partition("://")[2]
        raise ValueError(
            f"path {shown(path)} is a URL; write the path alone: {_call(method, rest)} "
            f'(the host that a client asks of a proxy is headers={{"Host": {_quoted(host)}}})'
        )
    if right := right_form(path):
        raise ValueError(
            f"path {shown(path)} never comes as it stands; write {right} "
            "(and %3C, %5B or %5C for the characters)"
        )
    if "#" in path:
        right = path.partition("#")[0]
        raise ValueError(
            f"path {shown(path)}: clients send no fragment; write {_quoted(right)}, "
            "or %23 for the character"
        )
    if "?" in path:
        raise ValueError(
            f"path {shown(path)}: the query is an argument of its own; "
            f"write {_call(method, path)} (and %3F for the character)"
        )
    if not path.startswith("/") and methods != ("CONNECT",):  # RFC 9112 3.2.3
        raise ValueError(f"path {shown(path)} begins with no slash; write {_quoted('/' + path)}")


def _call(method: Any, path: str) -> str:
    """The arguments for a path that may have a query."""
    from urllib.parse import parse_qsl

    path, mark, query = path.partition("#")[0].partition("?")
    named: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        named.setdefault(name, []).append(value)
    shown_query = {name: all_[0] if len(all_) == 1 else all_ for name, all_ in named.items()}
    first = (
        f"{shown(method)}, {_quoted(path)}"
        if not isinstance(method, str)
        else (f"{_quoted(method)}, {_quoted(path)}")
    )
    return f"({first}, query={shown_query!r})" if mark else f"({first})"


def _quoted(text: object) -> str:
    found = shown(text)
    return f'"{found[1:-1]}"' if found[:1] == "'" and '"' not in found else found


# Names and credentials -----------------------------------------------------------------------


def _check_field(name: str, value: Any) -> None:
    if not _TOKEN.fullmatch(name):
        right = name.strip().rstrip(":").strip()
        hint = f"; write {_quoted(right)}" if _TOKEN.fullmatch(right) else ""
        raise ValueError(f"headers: {shown(name)} is no name of a field (RFC 9110 5.1){hint}")
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str) and (found := _UNSENT.search(one)) is not None:
            _refuse_value(name, one, found[0])


def _refuse_value(name: str, value: str, character: str) -> NoReturn:
    if character in " \t":
        raise ValueError(
            f"headers: blanks around a value do not count, and are cut off: write "
            f"{_quoted(value.strip())} for {name}, not {shown(value)}"
        )
    raise ValueError(
        f"headers: {shown(value)} of {name} never comes: {character!r} cannot be in a value; "
        "its bytes are Latin-1 here (RFC 9110 5.5)"
    )


def _check_cookie(name: str, value: Any) -> None:
    if not name or any(one in name for one in "=;") or name != name.strip():
        raise ValueError(f"cookies: {shown(name)} is no name of a cookie (RFC 6265 4.1.1)")


class _Auth(TextPlace):
    """``(user, password)``, or the text of a bearer token."""

    takes = '("user", "password") or the text of a bearer token, or absent for none'

    def of(self, value: Any, at: str, depth: int, *, some: bool = False) -> Pattern:
        if not isinstance(value, (tuple, list)):
            return super().of(value, at, depth, some=some)
        if len(value) != 2:
            raise ValueError(f"auth: {len(value)} values; write {self.takes}")
        user, password = value
        if isinstance(user, str) and ":" in user:
            raise ValueError(
                f"auth: no colon can be in the user {shown(user)} (RFC 7617 2); "
                'write ("user", "password")'
            )
        return Items(tuple(text_pattern_of(one, self.asked, "auth") for one in (user, password)))

    def plain(self, value: Any, at: str, depth: int, some: bool) -> Pattern | None:
        if isinstance(value, str) and value[:7].lower() in ("bearer ", "basic "):
            raise ValueError(
                f"auth: write the token alone, without its scheme: {_quoted(value[7:].strip())}"
            )
        return super().plain(value, at, depth, some)

    def absent(self, at: str) -> Pattern:
        return Absent()
