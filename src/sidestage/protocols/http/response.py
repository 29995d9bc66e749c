"""HTTP responses: the values that a handler may return."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from ...errors import shown
from ...journal.frames import trim
from ...wire.values import integer, is_buffer, plain
from .fields import Fields
from .media import parse_media_type
from .messages import Headers

ALLOWED = (
    "str, bytes, a dict or list (JSON), an int (status), (body, status[, headers]), an iterator "
    "of bytes, an HTTPResponse, a fault, or None"
)

MAY_RETURN = f"the handler of an HTTP server may return {ALLOWED}"

TEXT = "text/plain; charset=utf-8"
TEXT_HEADERS: Headers = (("Content-Type", TEXT),)
_BINARY_HEADERS: Headers = (("Content-Type", "application/octet-stream"),)
_JSON_HEADERS: Headers = (("Content-Type", "application/json"),)
_WIDE = re.compile(r"[^\0-\xff]")
_REASONS: dict[int, str] = {status.value: status.phrase for status in HTTPStatus}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2

# RFC 9110 6.5.1: what is needed to frame, route or understand a message before its end.
_NO_TRAILERS = frozenset(
    {
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "host",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
    }
)

HeaderValue = str | bytes | int | Sequence[str | bytes | int]
HeaderPairs = Mapping[str, HeaderValue] | Iterable[tuple[str, HeaderValue]]


@dataclass(frozen=True)
class HTTPResponse:
    """A response.

    ``body`` is bytes-like, text (sent as UTF-8) or an iterable of bytes, which is sent chunk by
    chunk. ``status`` is from 200 to 999. ``headers`` is a mapping or pairs. A value is text, bytes
    or an int, or a list or tuple of these for a field that occurs more than once. Content-Type,
    Content-Length and Transfer-Encoding are sent as given, right or wrong; if the last two do not
    fit the body, the connection closes after it. ``reason`` is the reason phrase, by default the
    standard one. ``trailers`` are fields that follow the body, which is sent in chunks then
    (RFC 9110 6.5): a mapping, pairs, or a callable that returns them once the body was sent.
    Raises TypeError or ValueError for what cannot be sent.
    """

    body: Any = b""
    status: int = 200
    headers: HeaderPairs = field(default_factory=dict[str, str])
    reason: str | None = None
    trailers: HeaderPairs | Callable[[], HeaderPairs] | None = None

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "status", check_status(self.status))
            if self.reason is not None:
                object.__setattr__(self, "reason", checked_reason(self.reason))
            headers = _checked_headers(self.headers)
            object.__setattr__(self, "headers", headers)
            if self.trailers is not None:
                check_chunked(headers)
                if not callable(self.trailers):
                    object.__setattr__(self, "trailers", checked_trailers(self.trailers))
            object.__setattr__(self, "body", _checked_body(self.body))
        except (TypeError, ValueError) as error:
            trim(error)
            raise

    @classmethod
    def of(cls, result: object) -> HTTPResponse:
        """Convert a handler's return value to a response; raises TypeError for other types."""
        match result:
            case str():
                return cls._made(encoded(result), TEXT_HEADERS)
            case HTTPResponse():
                return result
            case None:
                return cls()
            case tuple():
                return cls._of_tuple(result)
            case bool():
                raise cls._refusal(result)
            case int():
                return cls(status=result)
            case _:
                return cls._of_body(result)

    @classmethod
    def _of_tuple(cls, result: tuple[Any, ...]) -> HTTPResponse:
        if len(result) not in (2, 3) or isinstance(result[1], bool):
            raise cls._refusal(result)
        body, status, *rest = result
        if not isinstance(status, int):
            raise TypeError(
                "a tuple is (body, status) or (body, status, headers), with an int as the "
                f"status, not {shown(result)}"
            )
        made = cls() if body is None else cls._of_body(body)
        given = cls(status=status, headers=rest[0] if rest and rest[0] is not None else {})
        names = {name.lower() for name, _ in pairs(given)}
        kept = [pair for pair in pairs(made) if pair[0].lower() not in names]
        if isinstance(body, str):
            made = cls(encoded_for(body, pairs(given)))
        return cls(made.body, status, [*kept, *pairs(given)])

    @classmethod
    def _of_body(cls, body: Any) -> HTTPResponse:
        match body:
            case str():
                return cls._made(encoded(body), TEXT_HEADERS)
            case bytes() | bytearray() | memoryview():
                return cls._made(bytes(body), _BINARY_HEADERS)
            case dict() | list():
                return cls._made(cls._json(body), _JSON_HEADERS)
            case Iterator():
                return cls._made(body, _BINARY_HEADERS)
            case _ if is_buffer(body):
                return cls._made(bytes(body), _BINARY_HEADERS)
            case _ if hasattr(body, "__anext__"):
                raise TypeError(
                    "an asynchronous generator cannot be returned; return an iterator of bytes, "
                    "such as a generator made with plain `def`"
                )
            case _:
                raise cls._refusal(body)

    @classmethod
    def _made(cls, body: Any, headers: Headers) -> HTTPResponse:
        """Create a response with status 200, without the checks of ``__post_init__``."""
        made = object.__new__(cls)
        made.__dict__.update(body=body, headers=headers)  # the rest is the class's defaults
        return made

    @classmethod
    def _json(cls, body: Any) -> bytes:
        import json  # late: few handlers return JSON, and a start should not wait for it

        try:
            return json.dumps(body).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(
                f"the {type(body).__name__} {shown(body)} cannot be sent as JSON: {error}; "
                f"{MAY_RETURN}"
            ) from error

    @staticmethod
    def _refusal(result: object) -> TypeError:
        return TypeError(
            f"no response can be made of {type(result).__name__} {shown(result)}; {MAY_RETURN}"
        )


def _checked_body(body: Any) -> Any:
    if isinstance(body, Mapping):
        raise TypeError(
            "the body of an HTTPResponse is sent as it is; for JSON, have the handler return "
            f"({shown(body)}, status, headers), or pass json.dumps(body)"
        )
    if isinstance(body, str):
        if not body.isascii():
            encoded(body)
        return body
    if is_buffer(body):
        return bytes(body)
    if not isinstance(body, Iterable):
        raise TypeError(
            f"body must be str, a bytes-like object or an iterable of bytes, not {shown(body)}"
        )
    return body


def encoded(text: str) -> bytes:
    """The text of a body as UTF-8; raises ValueError if it cannot be that.

    Surrogates that stand for bytes (``surrogateescape``) are sent as these.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(f"the text of a body must be sendable as UTF-8: {error}") from None


def encoded_for(text: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """The text of a body in the charset that a Content-Type in ``headers`` says, or else UTF-8.

    Raises ValueError if Python does not know that charset, or the text cannot be in it.
    """
    kind = next((value for name, value in headers if name.lower() == "content-type"), "")
    charset = parse_media_type(kind).charset if "charset" in kind.lower() else None
    if charset is None or charset.lower() in ("utf-8", "utf8"):
        return encoded(text)
    try:
        return text.encode(charset)
    except ValueError as error:
        raise ValueError(
            f"the text {shown(text)} cannot be sent as {charset}, as its Content-Type says "
            f"({error}): write charset=utf-8, or pass bytes"
        ) from None


def _checked_headers(headers: Any) -> Headers:
    try:
        given = [*_pairs_of(headers)]
        if any(isinstance(pair, (str, bytes)) for pair in given):
            raise TypeError  # two characters would be a pair
        checked = [(name, value) for name, value in given]
    except (TypeError, ValueError):
        raise TypeError(
            f"headers must be a mapping or pairs of name and value, not {shown(headers)}"
        ) from None
    return tuple(field for name, value in checked for field in header_fields(name, value))


def _pairs_of(headers: Any) -> Any:
    if isinstance(headers, Fields):
        return headers.pairs()  # as a mapping it has only the first of several values
    return headers.items() if hasattr(headers, "items") else headers


def checked_trailers(fields: Any) -> Headers:
    """Trailer fields as pairs; raises TypeError or ValueError for what must not be one."""
    checked = _checked_headers(fields)
    for name, _ in checked:
        if name.lower() in _NO_TRAILERS:
            raise ValueError(f"{name} must be in the headers, not in the trailers (RFC 9110 6.5.1)")
    return checked


def check_chunked(headers: Headers) -> None:
    """Raise ValueError if ``headers`` say how the body is framed: with trailers it is in chunks."""
    for name, _ in headers:
        if name.lower() in ("content-length", "transfer-encoding"):
            raise ValueError(
                f"trailers follow a body in chunks: leave {name.title()} out of the headers"
            )


def checked_informational(status: object, headers: Any) -> tuple[int, str, Headers]:
    """Status, reason and headers of a 1xx response; raises TypeError or ValueError."""
    number = _status(status)
    if not 100 <= number <= 199 or number == 101:
        raise ValueError(f"an informational status is 100, or from 102 to 199, not {shown(number)}")
    checked = _checked_headers(headers)
    for name, _ in checked:
        if name.lower() in ("content-length", "transfer-encoding"):
            raise ValueError(f"an informational response has no body: leave {name} out")
    return number, reason_of(number), checked


def pairs(response: HTTPResponse) -> Headers:
    """The headers as ``__post_init__`` has stored them: a tuple of pairs."""
    headers: Any = response.headers
    assert isinstance(headers, tuple)
    return headers


def check_status(status: object) -> int:
    """Return ``status`` as a plain int; raises TypeError or ValueError unless it is 200 to 999."""
    number = _status(status)
    if not 200 <= number <= 999:
        raise ValueError(f"the status must be between 200 and 999, not {shown(number)}")
    return number


def _status(status: object) -> int:
    if isinstance(status, bool):
        raise TypeError(f"the status must be an int, not {status}")
    return integer("the status", status)


def header_fields(name: object, value: object) -> Headers:
    """The header fields that a name and a value make: a list or tuple makes one for each item.

    Raises TypeError or ValueError if they cannot be sent.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a header field must be str, not {shown(name)}")
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{shown(name)} is no name for a header field")
    name, what = plain(name), f"the value of {name}"
    if isinstance(value, (list, tuple)):
        return tuple((name, _text(what, item)) for item in value)
    return ((name, _text(what, value)),)


def checked_reason(reason: object) -> str:
    """Return a reason phrase as text; raises TypeError or ValueError if it cannot be sent."""
    return _text("the reason", reason)


def _text(what: str, value: object) -> str:
    """``value`` as Latin-1 text in one line; raises TypeError or ValueError about ``what``."""
    match value:
        case str():
            text = plain(value)  # of an enumeration its value, not its name
        case bytes() | bytearray() | memoryview():
            return _checked(what, bytes(value).decode("latin-1"))
        case int() if not isinstance(value, bool):
            return str(integer(what, value))
        case _:
            raise TypeError(
                f"{what} must be str, bytes or an int, not {type(value).__name__}: {shown(value)}"
            )
    return _checked(what, text)


def _checked(what: str, text: str) -> str:
    if "\n" in text or "\r" in text or "\0" in text:  # ten times as fast as a pattern
        raise ValueError(f"{what} must not contain a line end or NUL: {shown(text)}")
    if not text.isascii() and _WIDE.search(text):
        raise ValueError(f"{what} must be Latin-1, or bytes: {shown(text)}")
    return text


def reason_of(status: int) -> str:
    """The standard reason phrase of ``status``; empty if it has none."""
    return _REASONS.get(status, "")
