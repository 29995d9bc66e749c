"""How a report shows a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...journal.record import Shown
from ...reports.text import line, over, quoted
from .fields import SECRET, parse_fields

if TYPE_CHECKING:
    from .request import HTTPRequest

_LINE = 120  # characters of method and target
_HEAD = 1 << 13  # bytes of the header fields that are looked at
_FIELDS = 6  # header fields
_VALUE = 60  # characters of one

# What clients send of themselves, or what is shown elsewhere.
_USUAL = frozenset(
    {
        "accept-encoding",
        "accept-language",
        "connection",
        "content-length",
        "content-type",
        "date",
        "host",
        "priority",
        "transfer-encoding",
        "upgrade-insecure-requests",
        "user-agent",
    }
)


def shown(request: HTTPRequest) -> Shown:
    """The request line, the header fields that not every client sends, and the body's beginning."""
    message = request._message
    fields = parse_fields(message.fields[:_HEAD]).pairs()
    details = [text] if (text := _unusual(fields)) else []
    if body := _body(request, {name.lower(): value for name, value in fields}):
        details.append(body)
    broken_off = bool(message.call) and request._call is None and request.answer is None
    return Shown(
        line(f"{message.method} {message.target}", _LINE) + over(request.tls),
        tuple(details),
        answered="no complete answer" if broken_off else None,
        handled=bool(message.call),
    )


def _unusual(fields: tuple[tuple[str, str], ...] | list[tuple[str, str]]) -> str:
    found = [_field(name, value) for name, value in fields if _matters(name.lower(), value)]
    more = f"; {len(found) - _FIELDS} more" if found[_FIELDS:] else ""
    return "; ".join(found[:_FIELDS]) + more


def _matters(name: str, value: str) -> bool:
    return not (name in _USUAL or name.startswith("sec-") or (name == "accept" and value == "*/*"))


def _field(name: str, value: str) -> str:
    if name.lower() in SECRET:
        scheme, _, secret = (value, "", "") if name.lower() == "cookie" else value.partition(" ")
        value = f"{scheme} ({len(secret)} characters)" if secret else f"({len(scheme)} characters)"
    return f"{line(name, _VALUE)}: {line(value, _VALUE)}"


def _body(request: HTTPRequest, fields: dict[str, str]) -> str:
    """The body as far as it is there: nothing is waited for."""
    message, body = request._message, request._body
    if body is None:
        data, size, whole = message.body, len(message.body) + message.cut, True
    else:
        data, size, whole = body.seen()
    if not size and whole:
        return ""
    kind = f" ({line(fields['content-type'], _VALUE)})" if "content-type" in fields else ""
    text = f"body{kind}: {quoted(data, size)}"
    length = fields.get("content-length", "")
    announced = f", of {line(length)} announced" if length not in ("", str(size)) else ""
    return f"{text}{'' if whole else ' so far'}{announced}"
