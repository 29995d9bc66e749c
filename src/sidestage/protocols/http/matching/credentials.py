"""What an Authorization field says (RFC 7617, RFC 6750), and how a text names it.

Reports are read by more people than tests run for, so no password and no token is in a text.
"""

from __future__ import annotations

from typing import Any

from ....patterns.differences import Difference
from ....patterns.text import show, show_pattern
from ....patterns.tree import MISSING, Absent, Asked, Items, Keys, Once, Pattern, Unreadable
from ..fields import SECRET

_HIDDEN = Asked(0, "...")


def credentials(value: str | None) -> Any:
    """``[user, password]`` of the Basic scheme, the text of a bearer token, or Unreadable."""
    if value is None:
        return MISSING
    scheme, _, rest = value.partition(" ")
    match scheme.lower():  # RFC 9110 11.1
        case "basic":
            return _basic(rest.strip(" "))
        case "bearer":
            return rest.strip(" ")
        case _:
            return Unreadable(f"the scheme {show(scheme, 40)}")


def _basic(text: str) -> Any:
    import binascii  # late: few requests have credentials

    try:
        raw = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return Unreadable("credentials that are not in Base64")
    try:
        pair = raw.decode()
    except UnicodeDecodeError:
        pair = raw.decode("latin-1")
    user, colon, password = pair.partition(":")
    return [user, password] if colon else Unreadable("credentials without a colon")


def how_they_differ(pattern: Pattern, came: Any) -> str:
    """What was expected and what came, in one line."""
    if isinstance(pattern, Items) and isinstance(came, list):
        if pattern.items[0].judge(came[0], ()):
            return f"the password of {show(came[0])} differs"
        return f"the user {show_pattern(pattern.items[0])} expected, {show(came[0])} came"
    if isinstance(came, str) and not isinstance(pattern, (Items, Absent)):
        return "another bearer token expected"
    return f"{_wanted(pattern)} expected, {_came(came)} came"


def _wanted(pattern: Pattern) -> str:
    match pattern:
        case Items(items=(user, *_)):
            return f"the user {show_pattern(user)} with a password"
        case Absent():
            return "none"
        case _:
            return "a bearer token"


def _came(came: Any) -> str:
    match came:
        case [user, password]:
            return f"the user {show(user)} with a password of {len(password):,} characters"
        case str():
            return f"a bearer token of {len(came):,} characters"
        case _:
            return show(came)


def without_secrets(part: str, pattern: Pattern) -> Pattern:
    """A pattern as it may be shown: values of cookies and of fields with credentials are dots."""
    if not isinstance(pattern, Keys) or part not in ("headers", "cookies"):
        return pattern
    items = {
        name: _HIDDEN if _is_secret(part, name) else one for name, one in pattern.items.items()
    }
    return Keys(items, pattern.open, pattern.folded)


def _is_secret(part: str, name: str) -> bool:
    return part == "cookies" or (part == "headers" and name.lower() in SECRET)


def how_without_secrets(part: str, pattern: Pattern, came: Any, one: Difference) -> str:
    """What a difference says; of a secret, only of what kind it is and how long."""
    name = one.way[0] if one.way else None
    if not isinstance(pattern, Keys) or not isinstance(came, dict) or not isinstance(name, str):
        return one.how
    if not _is_secret(part, name):
        return one.how
    return _how(pattern.items.get(name), came.get(pattern.key(name)))


def _how(wanted: Pattern | None, came: list[str] | None) -> str:
    value = _lengths(came) if came else "nothing"
    if wanted is None:
        return f"not expected, {value} came"
    if isinstance(wanted.value if isinstance(wanted, Once) else wanted, Absent):
        return f"absent expected, {value} came"
    return f"{'another' if came else 'a'} value expected, {value} came"


def _lengths(came: list[str]) -> str:
    if len(came) > 1:
        return f"{len(came)} values"
    scheme, _, secret = came[0].partition(" ")
    if scheme.lower() in ("basic", "bearer") and secret:
        return f"{scheme} ({len(secret):,} characters)"
    return f"one of {len(came[0]):,} characters"
