"""HTTP responses: what a handler may return, and how a response is sent, whole or in pieces."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

from ...dispatch.calls import Link
from ...dispatch.streams import Outflow
from ...errors import shown
from ...pristine.waits import Deadline
from ...wire import messages as wire
from ...wire.frames import CHUNK

ALLOWED = (
    "str, bytes, a dict or list (JSON), an int (status), (body, status[, headers]), an iterator "
    "of bytes, an HTTPResponse, or None"
)

_TEXT = "text/plain; charset=utf-8"
_BINARY = "application/octet-stream"
_JSON = "application/json"
_BREAK = re.compile(r"[\r\n\0]")
_UNSENDABLE = re.compile(r"[\r\n\0]|[^\0-\xff]")
_REASONS: dict[int, str] = {status.value: status.phrase for status in HTTPStatus}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2
_ENOUGH = 1 << 16  # bytes written that are sent before the handler returns
_NEVER = Deadline(None)

HeaderPairs = Mapping[str, str] | Iterable[tuple[str, str]]


@dataclass(frozen=True)
class HTTPResponse:
    """A response: body, status, headers and, where it differs from the standard one, the reason.

    ``body`` is bytes, text (sent as UTF-8) or an iterable of bytes, which is sent chunk by
    chunk. ``headers`` is a mapping, or pairs if a field occurs more than once. A Content-Type,
    Content-Length or Transfer-Encoding among them is sent as given, right or wrong. Raises
    TypeError or ValueError for what cannot be sent.
    """

    body: Any = b""
    status: int = 200
    headers: HeaderPairs = field(default_factory=dict[str, str])
    reason: str | None = None

    def __post_init__(self) -> None:
        check_status(self.status)
        if self.reason is not None:
            check_text("reason", self.reason)
        object.__setattr__(self, "headers", _checked_headers(self.headers))
        if isinstance(self.body, Mapping):
            raise TypeError(
                "the body of an HTTPResponse is sent as it is; for JSON, have the handler return "
                f"({shown(self.body)}, status, headers), or pass json.dumps(body)"
            )
        if not isinstance(self.body, (str, bytes, bytearray, memoryview, Iterable)):
            raise TypeError(f"body must be str, bytes or an iterable of bytes, not {self.body!r}")

    @classmethod
    def of(cls, result: object) -> HTTPResponse:
        """The response for a handler's return value; raises TypeError for other types."""
        match result:
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
        given = cls(status=status, headers=(rest[0] if rest else None) or {})
        names = {name.lower() for name, _ in _pairs(given)}
        kept = [pair for pair in _pairs(made) if pair[0].lower() not in names]
        return cls(made.body, status, [*kept, *_pairs(given)])

    @classmethod
    def _of_body(cls, body: Any) -> HTTPResponse:
        match body:
            case str():
                return cls._made(body.encode("utf-8", "surrogateescape"), _TEXT)
            case bytes() | bytearray() | memoryview():
                return cls._made(bytes(body), _BINARY)
            case dict() | list():
                return cls._made(cls._json(body), _JSON)
            case Iterator():
                return cls._made(body, _BINARY)
            case _ if hasattr(body, "__anext__"):
                raise TypeError(
                    "an asynchronous generator cannot be returned; return an iterator of bytes"
                )
            case _:
                raise cls._refusal(body)

    @classmethod
    def _made(cls, body: Any, content_type: str) -> HTTPResponse:
        """A response with status 200, without the checks of ``__post_init__``."""
        made = object.__new__(cls)
        headers = (("Content-Type", content_type),)
        made.__dict__.update(body=body, status=200, headers=headers, reason=None)
        return made

    @classmethod
    def _json(cls, body: Any) -> bytes:
        try:
            return json.dumps(body).encode()
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"the {type(body).__name__} {shown(body)} cannot be sent as JSON: {error}; "
                f"the handler of an HTTP server may return {ALLOWED}"
            ) from error

    @staticmethod
    def _refusal(result: object) -> TypeError:
        return TypeError(
            f"no response can be made of {type(result).__name__} {shown(result)}; "
            f"the handler of an HTTP server may return {ALLOWED}"
        )


def _checked_headers(headers: Any) -> wire.Headers:
    pairs: Any = headers.items() if isinstance(headers, Mapping) else headers
    try:
        given = [(name, value) for name, value in pairs]
    except (TypeError, ValueError):
        raise TypeError(
            f"headers must be a mapping or pairs of name and value, not {headers!r:.200}"
        ) from None
    return tuple(check_header(name, value) for name, value in given)


def _pairs(response: HTTPResponse) -> wire.Headers:
    assert isinstance(response.headers, tuple)
    return response.headers


def check_status(status: object) -> int:
    """``status`` as a plain int; raises TypeError or ValueError unless it is 200 to 999."""
    if isinstance(status, bool) or not isinstance(status, int):
        raise TypeError(f"the status must be an int, not {status!r}")
    if not 200 <= status <= 999:
        raise ValueError(f"the status must be between 200 and 999, not {int(status)}")
    return int(status)


def check_header(name: object, value: object) -> tuple[str, str]:
    """Name and value of a header field as text; raises ValueError if they cannot be sent."""
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a header field")
    return name, check_text(f"the value of {name}", str(value))


def check_text(what: str, text: str) -> str:
    """``text`` if it fits in one line of a head; else raises ValueError about ``what``."""
    if _UNSENDABLE.search(text):
        if text.isascii() or _BREAK.search(text):
            raise ValueError(f"{what} must not contain a line end or NUL: {text!r}")
        raise ValueError(f"{what} must be Latin-1, encode it first: {text!r}")
    return text


def reason_of(status: int) -> str:
    """The standard reason phrase of ``status``; empty if it has none."""
    return _REASONS.get(status, "")


class Way(Protocol):
    """The call that a response answers."""

    link: Link
    call: int

    @property
    def outflow(self) -> Outflow:
        """Takes the body beyond its first piece."""
        ...


class Responder:
    """Sends one response, whole or piece by piece; it is the ``wfile`` of a request.

    What is written waits here until the handler returns, so that a Content-Length can be sent.
    After ``flush``, or once it exceeds 64 KiB, it is sent, and the rest follows in chunks.
    """

    begun = False  # whether there is a status
    closed = False  # whether the response is complete
    _status = 0
    _reason = ""
    _in_body = False
    _sent = False  # whether the head has been sent

    def __init__(self, way: Way) -> None:
        self._way = way
        self._headers: wire.Headers = ()
        self._waiting = bytearray()

    # Piece by piece ----------------------------------------------------------------------------

    def begin(self, status: int, reason: str | None) -> None:
        """Set status and reason; raises ValueError after ``end_headers``."""
        if self._in_body:
            raise ValueError("the headers of this response have ended already")
        self._status = check_status(status)
        self._reason = reason_of(status) if reason is None else check_text("reason", reason)
        self.begun = True

    def header(self, name: str, value: str) -> None:
        """Add a header field; raises ValueError before ``begin`` or after ``end_headers``."""
        if not self.begun or self._in_body:
            raise ValueError("send_header goes between send_response and end_headers")
        self._headers += (check_header(name, value),)

    def end_headers(self) -> None:
        """End the header fields: the body comes next; raises ValueError before ``begin``."""
        if not self.begun:
            raise ValueError("call send_response first")
        self._in_body = True

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Add ``data`` to the body; returns its number of bytes.

        Raises ValueError before ``end_headers`` or once the response is complete.
        """
        if not self._in_body:
            raise ValueError("call send_response and end_headers before writing the body")
        if self.closed:
            raise ValueError("this response is complete")
        view = memoryview(data).cast("B")
        self._waiting += view
        if len(self._waiting) > _ENOUGH:
            self.flush()
        return len(view)

    def flush(self) -> None:
        """Send the head and the body so far; does nothing outside the body."""
        if not self._in_body or self.closed:
            return
        waiting, self._waiting = self._waiting, bytearray()
        if not self._sent:
            self._send_head(b"", length=None, more=True)
        if waiting:
            self._way.outflow.write(waiting, _NEVER)

    def writable(self) -> bool:
        """Always true; part of the interface of a file."""
        return True

    def finish(self) -> None:
        """Complete the response: send what has not been sent and its end."""
        self._in_body = True
        self.closed = True
        body = bytes(self._waiting)
        if self._sent:
            if body:
                self._way.outflow.write(body, _NEVER)
            self._way.link.send(wire.End(call=self._way.call))
        else:
            self._send_bytes(body)

    # Whole -------------------------------------------------------------------------------------

    def respond(self, response: HTTPResponse) -> None:
        """Send a whole response; raises TypeError if its iterable gives anything but bytes."""
        self.begun = self._in_body = self.closed = True
        self._status = response.status
        self._reason = reason_of(response.status) if response.reason is None else response.reason
        self._headers = _pairs(response)
        body = response.body
        if isinstance(body, str):
            body = body.encode("utf-8", "surrogateescape")
        if isinstance(body, (bytes, bytearray, memoryview)):
            self._send_bytes(bytes(body))
        else:
            try:
                self._send_iterable(iter(body))
            finally:  # a generator closes now what it has opened, even if something refers to it
                if close := getattr(body, "close", None):
                    close()

    def _send_bytes(self, body: bytes) -> None:
        more = len(body) > CHUNK
        self._send_head(body[:CHUNK], length=len(body), more=more)
        if more:
            self._way.outflow.write(memoryview(body)[CHUNK:], _NEVER)
            self._way.link.send(wire.End(call=self._way.call))

    def _send_iterable(self, chunks: Iterator[Any]) -> None:
        # The first chunk is made before the head is sent, so that an error in making it is a 500.
        first = _checked_chunk(next(chunks, b""))
        self._send_head(first[:CHUNK], length=None, more=True)
        self._way.outflow.write(memoryview(first)[CHUNK:], _NEVER)
        for chunk in chunks:
            if checked := _checked_chunk(chunk):
                self._way.outflow.write(checked, _NEVER)
        self._way.link.send(wire.End(call=self._way.call))

    def _send_head(self, body: bytes, *, length: int | None, more: bool) -> None:
        self._sent = True
        if more:
            self._way.outflow.count(len(body))
        self._way.link.send(
            wire.Respond(
                call=self._way.call,
                status=self._status,
                reason=self._reason,
                headers=self._headers,
                body=body,
                length=length,
                more=more,
            )
        )

    # Failure -----------------------------------------------------------------------------------

    def error(self, status: int, message: str | None, explain: str | None) -> None:
        """Write a whole response that explains an error in plain text."""
        self.begin(status, message)
        self.header("Content-Type", _TEXT)
        self.header("Connection", "close")
        self.end_headers()
        self.write(f"{status} {self._reason}\n{explain or ''}".rstrip().encode() + b"\n")

    def fail(self, error: BaseException) -> None:
        """Send a 500 for a handler that raised; once the head is sent, close the connection."""
        if self._sent:
            self._way.link.send(wire.Close(call=self._way.call, reset=False))
            return
        text = f"the handler raised {type(error).__name__}: {_text_of(error)}"[:1000] + "\n"
        body = text.encode("utf-8", "backslashreplace")
        self.respond(HTTPResponse(body, 500, {"Content-Type": _TEXT}))


def _text_of(error: BaseException) -> str:
    """The text of ``error``; if that raises, the client must get an answer all the same."""
    try:
        return str(error)
    except Exception as other:  # noqa: BLE001 - whatever its __str__ raises
        return f"(its text cannot be had: {type(other).__name__})"


def _checked_chunk(chunk: Any) -> bytes:
    if not isinstance(chunk, (bytes, bytearray, memoryview)):
        raise TypeError(
            f"an iterator that is a response must give bytes, not {type(chunk).__name__}: "
            f"{chunk!r:.200}"
        )
    return bytes(chunk)
