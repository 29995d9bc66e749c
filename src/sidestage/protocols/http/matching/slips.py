"""The usual slips: why a request that was meant for an expectation does not meet it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ....patterns.text import quoted, show
from ....patterns.tree import Exactly, Keys, Once, Pattern, Unreadable
from .distance import Compared, is_slip, trimmed
from .foreign import hint_of
from .matchers import Matchers
from .paths import Dynamic, PathPattern, Segment, Template, decoded
from .view import RequestView

_MOST = 3  # hints
_NO_SLASH = "a %2F is a part of its segment, and divides nothing"
_NAMED = ("query", "headers", "cookies", "form")


def hints(view: RequestView, matchers: Matchers, compared: Compared) -> list[str]:
    """What the user may have overlooked, at most three, the likeliest first."""
    found: list[str] = []
    for looks in (_method, _path, _media, _charset, _names, _json_names):
        for hint in looks(view, matchers, compared):
            if len(found) < _MOST:
                found.append(hint)
    return found


def _method(view: RequestView, matchers: Matchers, compared: Compared) -> Iterator[str]:
    if not matchers.methods or view.method in matchers.methods:
        return
    if view.method == "OPTIONS":
        asked = view.headers.get("access-control-request-method")
        what = "is a CORS preflight" if asked else "may be a CORS preflight"
        path = quoted(view.raw_path[:60])
        yield f'this {what}, which is never answered by itself: allow("OPTIONS", {path})'
    elif view.method == "HEAD" and "GET" in matchers.methods:
        yield 'HEAD is not GET; ("GET", "HEAD") takes both'
    elif view.method == "GET" and "HEAD" in matchers.methods:
        yield 'GET is not HEAD; ("GET", "HEAD") takes both'


# The path --------------------------------------------------------------------------------------


def _path(view: RequestView, matchers: Matchers, _: Compared) -> Iterator[str]:
    path = matchers.path
    if path.match(view.segments) is not None:
        return
    twice = decoded(view.path)
    if twice != view.path and path.match(tuple(twice.split("/"))) is not None:
        yield "the client has escaped the path twice"
    elif _divided(view, path):
        yield _NO_SLASH
    elif isinstance(path, Template):
        yield from _template(view, path)


def _divided(view: RequestView, path: PathPattern) -> bool:
    """Whether the path would match if each %2F were a slash."""
    if "%2f" not in view.raw_path.lower():
        return False
    return path.match(tuple(view.path.split("/"))) is not None


def _template(view: RequestView, path: Template) -> Iterator[str]:
    came, wanted = view.segments, path.head
    if hint := hint_of(path):
        yield hint
        return
    if path.rest:
        return
    if "%2F" in path.written.upper() and len(came) > len(wanted):
        yield _NO_SLASH
        return
    if _same(trimmed(wanted), trimmed(came)):
        if "" in came[1:-1]:
            yield "two slashes stand side by side, as where a base URL ends with one"
        else:
            yield "a slash at the end counts: with it and without it are two paths"
    elif (extra := len(came) - len(wanted)) > 0 and _same(wanted[1:], came[1 + extra :]):
        yield f"{quoted('/'.join(came[: 1 + extra])[:60])} stands before the expected path"
    elif extra < 0 and _same(wanted[1 - extra :], came[1:]):
        front = "/".join(one for one in wanted[: 1 - extra] if isinstance(one, str))
        yield f"{quoted(front[:60])} is missing before the path"
    elif not extra:
        yield from _segments(wanted, came)


def _same(wanted: tuple[Segment, ...], came: tuple[str, ...]) -> bool:
    return len(wanted) == len(came) > 0 and all(map(_is, wanted, came))


def _is(wanted: Segment, came: str) -> bool:
    return wanted == came if isinstance(wanted, str) else wanted.match(came) is not None


def _segments(wanted: tuple[Segment, ...], came: tuple[str, ...]) -> Iterator[str]:
    wrong = [
        (one, segment) for one, segment in zip(wanted, came, strict=True) if not _is(one, segment)
    ]
    if len(wrong) != 1:
        return
    one, segment = wrong[0]
    if isinstance(one, Dynamic):
        what = "an int of decimal digits" if "int" in one.kinds else "not empty"
        yield f"{show(segment)} does not fit {{{one.names[0]}}}, which is {what}"
    elif one.casefold() == segment.casefold():
        yield "case counts in paths"
    elif is_slip(one, segment) and not (one.isdecimal() and segment.isdecimal()):  # two ids
        yield f"one character differs: {quoted(one[:40])}, {quoted(segment[:40])}"


# Names and values ------------------------------------------------------------------------------


def _names(view: RequestView, matchers: Matchers, compared: Compared) -> Iterator[str]:
    for part in _NAMED:
        pattern = getattr(matchers, part)
        came = getattr(view, part) if part in compared.differs else None
        if isinstance(pattern, Keys) and isinstance(came, dict):
            yield from _near(part, pattern, came)


def _json_names(view: RequestView, matchers: Matchers, compared: Compared) -> Iterator[str]:
    came = view.json if "json" in compared.differs else None
    if isinstance(matchers.json, Keys) and isinstance(came, dict):
        yield from _near("json", matchers.json, came)


def _near(part: str, pattern: Keys, came: dict[str, object]) -> Iterator[str]:
    known = {pattern.key(name) for name in pattern.items}
    others = [name for name in list(came)[:100] if name not in known]
    for name, one in pattern.items.items():
        if pattern.key(name) in came or one.judge(None, None):
            continue
        for other in others:
            if _alike(pattern.key(name), other):
                yield f"{part}: {quoted(name[:40])} is missing, and {quoted(other[:40])} came"


def _alike(name: str, other: str) -> bool:
    plain, its = (re.sub(r"[-_]", "", one).casefold() for one in (name[:100], other[:100]))
    return bool(plain) and (plain == its or (len(plain) > 2 and is_slip(plain, its)))


def _media(view: RequestView, matchers: Matchers, compared: Compared) -> Iterator[str]:
    kind = view.content_type.name
    if "form" in compared.differs and isinstance(view.form, Unreadable):
        if not kind:
            yield (
                "the request has no Content-Type, and that of a form is "
                "application/x-www-form-urlencoded or multipart/form-data"
            )
        elif kind.endswith("json"):
            yield "the body is JSON: expect json=, or have the client send a form"
    if "json" not in compared.differs:
        return
    if isinstance(view.json, Unreadable) and "form" in kind:
        yield "the body is a form: expect form=, or have the client send JSON"
    elif isinstance(view.json, str) and view.json[:1] in ("{", "["):
        yield "the body is text in JSON that looks like JSON: the client may encode it twice"


def _charset(view: RequestView, matchers: Matchers, compared: Compared) -> Iterator[str]:
    wanted = _exact(matchers.headers, "content-type") if "headers" in compared.differs else None
    kind, _, rest = view.headers.get("content-type", [""])[0].partition(";")
    if wanted and rest and kind.strip(" \t").lower() == wanted.lower():
        yield (
            f"the Content-Type has {show(rest.strip(), 30)} after it: "
            f"containing({quoted(kind.strip())}) takes both"
        )
    charset = view.content_type.parameters.get("charset", "")
    if "text" in compared.differs and charset.lower() not in ("", "utf-8", "utf8"):
        yield f"the text was decoded as {show(charset, 30)}, as the Content-Type says"


def _exact(pattern: Pattern | None, name: str) -> str | None:
    """The one text that is expected of a header field."""
    for key, one in _items(pattern):
        match one:
            case Once(value=Exactly(value=str() as value)) if key.lower() == name:
                return value
            case _:
                pass
    return None


def _items(pattern: Pattern | None) -> Iterable[tuple[str, Pattern]]:
    return pattern.items.items() if isinstance(pattern, Keys) else ()
