"""A line of Python that expects a request: right as it stands, and it matches that request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ....patterns.text import quoted, written
from ....patterns.tree import Keys, Unreadable
from ..fields import SECRET
from .declared import matchers_of
from .matchers import Matchers
from .view import RequestView

_WIDTH = 200  # characters of the line
_VALUE = 100  # of one argument
_BODY = 1 << 12  # bytes; a larger body has no short text


def line_to_paste(view: RequestView, nearest: Matchers | None = None) -> str:
    """``server.expect("GET", "/orders/8").reply(...)``, with query and body if they are short.

    And with the header fields that ``nearest`` looks at, or else it would be the weaker of the two.
    Secrets are left out, with a comment.
    """
    headers, secret = _looked_at(view, nearest)
    comment = f"  # and {', '.join(secret)}" if secret else ""
    for method, path, given in _tries(view, headers):
        arguments = [quoted(method), quoted(path)]
        texts = {name: written(value, _VALUE) for name, value in given.items()}
        if None in texts.values():
            continue
        arguments += [f"{name}={text}" for name, text in texts.items()]
        line = f"server.expect({', '.join(arguments)}).reply(...){comment}"
        if len(line) <= _WIDTH and _matches(view, method, path, given):
            return line
    return 'server.expect("*", "*").reply(...)'


def _looked_at(
    view: RequestView, nearest: Matchers | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The fields that an expectation looks at, as they came, and the secret parts."""
    if nearest is None:
        return {}, ()
    secret = [f"{part}=" for part in ("auth", "cookies") if getattr(nearest, part) is not None]
    fields: dict[str, str] = {}
    for name in nearest.headers.items if isinstance(nearest.headers, Keys) else ():
        if name.lower() in SECRET:
            secret.append(name)
        elif (came := view.headers.get(name.lower())) is not None:
            fields[name] = ", ".join(came)
    return fields, tuple(secret[:3])


def _tries(view: RequestView, headers: dict[str, str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What to write, the fullest first."""
    path = view.raw_path.replace("{", "{{").replace("}", "}}")
    query = {name: values[0] if len(values) == 1 else values for name, values in view.query.items()}
    body = _body(view)
    fields = {"headers": headers}
    fullest = ({"query": query} | fields | body, {"query": query} | fields)
    for given in (*fullest, {"query": query} | body, {"query": query}, body, {}):
        yield view.method, path, {name: value for name, value in given.items() if value != {}}
    yield view.method, "*", {}
    yield "*", path, {}


def _body(view: RequestView) -> dict[str, Any]:
    if not view.body or view.cut or len(view.body) > _BODY:
        return {}
    kind = view.content_type.name
    if "form" in kind:
        if isinstance(view.form, Unreadable):
            return {}
        return {"form": {name: v[0] if len(v) == 1 else v for name, v in view.form.items()}}
    if not isinstance(view.json, Unreadable):
        return {"json": view.json}
    text = view.text
    if isinstance(text, str) and text.isprintable():
        return {"text": text}
    return {}


def _matches(view: RequestView, method: str, path: str, given: dict[str, Any]) -> bool:
    try:
        matchers, _ = matchers_of(method, path, **given)
    except (TypeError, ValueError):  # a method in lower case, half of a surrogate pair …
        return False
    return matchers.verdict(view) is True
