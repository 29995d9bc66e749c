"""A request as a handler has it, and the exchange that it is the beginning of."""

from __future__ import annotations

import io
import json
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from .exchange import ClientLeft, Exchange, Link
from .fields import Fields, Headers
from .pristine import Deadline
from .records import Records
from .report import Address
from .response import HTTPResponse, Responder
from .streams import Inflow, Outflow, StreamReader
from .wire import messages as wire

_CHUNK = 1 << 16
_NEVER = Deadline(None)
_RECORD_OVERHEAD = 512  # bytes that a record counts for beside its body


class HTTPRequest:
    """A request as it came, and the means to write a response by hand.

    The response is what the handler returns. A handler in the style of ``http.server`` returns
    ``None`` and calls ``send_response``, ``send_header``, ``end_headers`` and ``wfile.write``.
    """

    def __init__(self, message: wire.Request, exchange: HTTPExchange | None = None) -> None:
        self._message = message
        self._exchange = exchange
        self._rfile: io.BufferedIOBase | None = None

    # The request line and headers ----------------------------------------------------------------

    @property
    def method(self) -> str:
        """The method, such as ``GET``."""
        return self._message.method

    @property
    def command(self) -> str:
        """The method; the name that ``http.server`` has for it."""
        return self._message.method

    @property
    def target(self) -> str:
        """The request target as it came: path and query, percent-encoded."""
        return self._message.target

    @cached_property
    def path(self) -> str:
        """The path without the query, percent-decoded."""
        return unquote(str(self._split.path))

    @property
    def query_string(self) -> str:
        """The query as it came, without the question mark."""
        return str(self._split.query)

    @cached_property
    def query(self) -> Fields:
        """The query's names and values, decoded: ``query["q"]``, ``query.get_all("q")``."""
        return Fields(parse_qsl(self._split.query, keep_blank_values=True))

    @cached_property
    def _split(self) -> Any:
        target = self._message.target
        # A path that begins with two slashes is a path here, not a host.
        return urlsplit("//host" + target if target.startswith("/") else target)

    @property
    def http_version(self) -> str:
        """``1.1`` or ``1.0``."""
        return self._message.http_version

    @cached_property
    def headers(self) -> Headers:
        """The header fields: case-insensitive, multi-valued, in order."""
        return Headers(self._message.headers)

    @property
    def client_address(self) -> Address:
        """Where the request came from."""
        return self._message.peer

    # The body ------------------------------------------------------------------------------------

    @property
    def body(self) -> bytes:
        """The whole body; waits for what has not come yet.

        In ``received`` it is what had come when the handler was done, at most a quarter of
        ``keep``; ``body_cut`` says how many bytes are missing.
        """
        return self._message.body if self._exchange is None else self._exchange.whole_body()

    @property
    def body_cut(self) -> int:
        """How many bytes of the body were not kept."""
        return self._message.cut if self._exchange is None else self._exchange.cut

    @property
    def rfile(self) -> io.BufferedIOBase:
        """The body as a binary file; a large body is read as it comes."""
        if self._rfile is None:
            if self._exchange is None:
                self._rfile = io.BytesIO(self._message.body)
            else:
                self._rfile = io.BufferedReader(StreamReader(self._exchange.read), _CHUNK)
        return self._rfile

    @property
    def text(self) -> str:
        """The body decoded by the charset of Content-Type, UTF-8 by default."""
        return self.body.decode(self._content_type.get_content_charset() or "utf-8")

    def json(self) -> Any:
        """The body parsed as JSON; raises ValueError that quotes it if it is none."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise ValueError(f"the body is not JSON ({error}): {self.body[:200]!r}") from error

    @cached_property
    def form(self) -> Fields:
        """The fields of an HTML form, URL-encoded or multipart (RFC 7578).

        Of an uploaded file it is the content, decoded as UTF-8; ``files`` has the bytes. Raises
        ValueError if the body is no form.
        """
        kind = self._content_type.get_content_type()
        if kind == "application/x-www-form-urlencoded":
            return Fields(parse_qsl(self.text, keep_blank_values=True))
        return Fields(
            (name, content.decode("utf-8", "replace")) for name, _, content in self._parts()
        )

    @cached_property
    def files(self) -> dict[str, tuple[str, bytes]]:
        """The uploaded files of a multipart form: field name to (file name, content)."""
        return {name: (filename, content) for name, filename, content in self._parts() if filename}

    def _parts(self) -> list[tuple[str, str, bytes]]:
        if self._content_type.get_content_type() != "multipart/form-data":
            raise ValueError(f"the body is no form: its type is {self.headers.get('Content-Type')}")
        from email import message_from_bytes
        from email.policy import HTTP

        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode("latin-1")
        form = message_from_bytes(head + self.body, policy=HTTP)
        return [
            (
                str(part.get_param("name", "", "content-disposition")),
                part.get_filename() or "",
                part.get_payload(decode=True) or b"",  # type: ignore[misc]  # leaves have bytes
            )
            for part in form.iter_parts()
        ]

    @cached_property
    def _content_type(self) -> Any:
        from email.message import Message

        message = Message()
        message["Content-Type"] = self.headers.get("Content-Type", "application/octet-stream")
        return message

    # The response, written by hand ---------------------------------------------------------------

    @property
    def _responder(self) -> Responder:
        if self._exchange is None or self._exchange.responder is None:
            raise ValueError("this request has been answered")
        return self._exchange.responder

    def send_response(self, code: int, message: str | None = None) -> None:
        """Begin a response with a status and, if not the standard one, a reason."""
        self._responder.begin(code, message)

    def send_header(self, keyword: str, value: object) -> None:
        """Add a header field."""
        self._responder.header(keyword, str(value))

    def end_headers(self) -> None:
        """End the header fields; the body follows, through ``wfile``."""
        self._responder.end_headers()

    @property
    def wfile(self) -> Responder:
        """Where the body is written to; ``flush`` sends what was written so far."""
        return self._responder

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """A whole response that tells of an error in plain text."""
        self._responder.error(code, message, explain)

    def __repr__(self) -> str:
        return f"<HTTPRequest {self.method} {self.target} from {self.client_address}>"


class HTTPExchange(Exchange):
    """A request and its response."""

    request: HTTPRequest

    def __init__(self, link: Link, message: wire.Request, keep: int) -> None:
        super().__init__(link, message.call, message.peer)
        self.inflow = Inflow(link.send, message.call)
        self.outflow = Outflow(link.send, message.call)
        self.responder: Responder | None = Responder(link, message.call, self.outflow)
        self.request = HTTPRequest(message, self)
        self.cut = 0
        self._keep = keep
        self._kept = bytearray()  # of a streamed body, as far as it was read
        self._whole: bytes | None = None if message.more else message.body
        self._unread = memoryview(message.body)
        self._over = False
        self._in_stream = message.more

    # The request's body --------------------------------------------------------------------------

    def read(self, limit: int) -> bytes:
        """Up to ``limit`` bytes of the body; ``b""`` at its end."""
        if self._unread:
            data, self._unread = bytes(self._unread[:limit]), self._unread[limit:]
        elif self._in_stream and not self._over:
            data = self.inflow.read_some(limit, _NEVER)
        else:
            return b""
        if self._whole is None:
            self._retain(data)
        return data

    def _retain(self, data: bytes) -> None:
        room = max(0, self._keep - len(self._kept))
        self._kept += data[:room]
        self.cut += max(0, len(data) - room)

    def whole_body(self) -> bytes:
        """Everything; of a streamed body what was kept and, while it comes, the rest."""
        if self._whole is None and not self._over:
            before = bytes(self._kept)
            parts = []
            while data := self.read(_CHUNK):
                parts.append(data)
            body = before + b"".join(parts)
            if self.cut and len(body) > self._keep:
                return body
            self._whole = body
        return bytes(self._kept) if self._whole is None else self._whole

    # Events --------------------------------------------------------------------------------------

    def event(self, message: wire.Event) -> None:
        match message:
            case wire.Data():
                self.inflow.feed(message.data)
            case wire.End():
                self.inflow.end()
            case wire.Ack():
                self.outflow.acknowledged(message.size)
            case wire.Lost():
                gone = ClientLeft(f"the client {self.client_address} has closed the connection")
                self.inflow.fail(gone)
                self.outflow.fail(gone)
            case _:
                raise AssertionError(message)

    def stopping(self, error: Exception) -> None:
        self.inflow.fail(error)

    def broken(self, error: Exception) -> None:
        self.inflow.fail(error)
        self.outflow.fail(error)

    # The response --------------------------------------------------------------------------------

    def complete(self, result: object) -> None:
        responder = self.responder
        assert responder is not None
        if responder.begun:
            if result is not None:
                raise TypeError(
                    "the handler has written a response and must return None then, "
                    f"not {type(result).__name__}: {result!r:.200}"
                )
            responder.finish()
        else:
            responder.respond(HTTPResponse.of(result))
        self._close()

    def fail(self, error: BaseException) -> None:
        responder = self.responder
        if responder is not None:
            responder.fail(error)
        self._close()

    def _close(self) -> None:
        self._over = True
        self.responder = None
        if self._in_stream and self._whole is None:
            self._retain(self.inflow.left())

    def describe(self) -> str:
        return f"{self.request.method} {self.request.target}"


def open_http(
    link: Link, message: wire.Request, records: Records[HTTPRequest], keep: int
) -> Exchange | None:
    """Record a request; returns its exchange if a handler is to run."""
    exchange = HTTPExchange(link, message, keep) if message.call else None
    request = HTTPRequest(message) if exchange is None else exchange.request
    records.add(request, len(message.body) + _RECORD_OVERHEAD)
    return exchange
