"""A request as a handler has it, and the exchange that it is the beginning of."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

from ...dispatch.calls import ClientLeft, Exchange, Link
from ...dispatch.streams import Inflow, Outflow, StreamReader
from ...errors import ServerStopped, shown
from ...journal.facts import Address
from ...journal.journal import OVERHEAD, Records
from ...pristine.system import Lock
from ...pristine.waits import Deadline
from ...wire import messages as wire
from .fields import Fields, Headers
from .response import HTTPResponse, Responder

_CHUNK = 1 << 16
_NEVER = Deadline(None)
_REST_SECONDS = 1.0  # after the answer, for the rest of a body that nobody has read
_AUTHORITY = re.compile(r"\A[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")  # RFC 9112 3.2.2, absolute-form


class FormPart(NamedTuple):
    """One part of a multipart form (RFC 7578); ``filename`` is empty if it is no file."""

    name: str
    filename: str
    content_type: str
    content: bytes


class HTTPRequest:
    """A request as it came, and the means to write a response by hand.

    The response is what the handler returns. A handler in the style of ``http.server`` returns
    ``None`` and calls ``send_response``, ``send_header``, ``end_headers`` and ``wfile.write``.
    """

    _body: Body | None = None  # of a body that did not come with the head
    _rfile: io.BufferedIOBase | None = None

    def __init__(self, message: wire.Request, exchange: HTTPExchange | None = None) -> None:
        self._message = message
        self._exchange = exchange  # until it is answered

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
        return unquote(self._split[0])

    @property
    def query_string(self) -> str:
        """The query as it came, without the question mark."""
        return self._split[1]

    @cached_property
    def query(self) -> Fields:
        """The query's names and values, decoded: ``query["q"]``, ``query.get_all("q")``."""
        return Fields(parse_qsl(self.query_string, keep_blank_values=True))

    @cached_property
    def _split(self) -> tuple[str, str]:
        # Not urlsplit: a path that begins with two slashes is no host here, and nothing raises.
        rest = _AUTHORITY.sub("", self._message.target, count=1)
        path, _, query = rest.partition("#")[0].partition("?")
        return path or "/", query

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
        return self._message.body if self._body is None else self._body.whole()

    @property
    def body_cut(self) -> int:
        """How many bytes of the body were not kept."""
        return self._message.cut if self._body is None else self._body.cut

    @property
    def rfile(self) -> io.BufferedIOBase:
        """The body as a binary file; a large body is read as it comes."""
        if self._rfile is None:
            if self._body is None:
                self._rfile = io.BytesIO(self._message.body)
            else:
                self._rfile = io.BufferedReader(StreamReader(self._body.read), _CHUNK)
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

        Of an uploaded file it is the content, decoded as UTF-8; ``files`` and ``parts`` have the
        bytes. Raises ValueError if the body is no form.
        """
        if self._content_type.get_content_type() == "application/x-www-form-urlencoded":
            return Fields(parse_qsl(self.text, keep_blank_values=True))
        return Fields((part.name, part.content.decode("utf-8", "replace")) for part in self.parts)

    @cached_property
    def files(self) -> dict[str, tuple[str, bytes]]:
        """The uploaded files of a multipart form: field name to (file name, content).

        Of several files in one field it is the first; ``parts`` has them all.
        """
        files: dict[str, tuple[str, bytes]] = {}
        for part in self.parts:
            if part.filename:
                files.setdefault(part.name, (part.filename, part.content))
        return files

    @cached_property
    def parts(self) -> tuple[FormPart, ...]:
        """The parts of a multipart form, in order; raises ValueError if the body is none."""
        boundary = self._content_type.get_boundary()
        if self._content_type.get_content_type() != "multipart/form-data" or not boundary:
            raise ValueError(f"the body is no form: its type is {self.headers.get('Content-Type')}")
        return _split_form(self.body, boundary.encode("latin-1"))

    @cached_property
    def _content_type(self) -> Any:
        from email.message import Message

        message = Message()
        message["Content-Type"] = self.headers.get("Content-Type", "application/octet-stream")
        return message

    # The response, written by hand ---------------------------------------------------------------

    @property
    def _responder(self) -> Responder:
        if self._exchange is None:
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


class Body:
    """A request's body that is still coming; when the handler is done, what was kept of it.

    The first ``limit`` bytes are; ``grown`` is told of each that comes to them. The test may look
    at a record while the handler reads, so one thread at a time takes from it.
    """

    def __init__(self, inflow: Inflow, limit: int, grown: Callable[[int], None]) -> None:
        self.cut = 0  # bytes that were not kept
        self._inflow: Inflow | None = inflow
        self._whole: bytes | None = None
        self._kept = bytearray()  # of what was taken from the inflow
        self._at = 0  # bytes that were read
        self._failed = False
        self._guard = Lock()
        self._limit = limit
        self._grown = grown

    def read(self, limit: int) -> bytes:
        """Up to ``limit`` bytes; ``b""`` at the end."""
        with self._guard:
            if self._whole is None:
                data = self._take(limit, _NEVER)
            else:
                data = self._whole[self._at : self._at + limit]
            self._at += len(data)
            return data

    def whole(self) -> bytes:
        """Everything, while the handler runs; if it had read more than is kept, what is."""
        with self._guard:
            if self._whole is not None:
                return self._whole
            if self._failed:
                return bytes(self._kept)
            before, missing = bytes(self._kept), self.cut
            rest = b"".join(iter(lambda: self._take(_CHUNK, _NEVER), b""))
            self._whole = bytes(self._kept) if missing else before + rest
            return self._whole

    def _take(self, limit: int, deadline: Deadline) -> bytes:
        if self._inflow is None:
            return b""
        try:
            data = self._inflow.read_some(limit, deadline)
        except (ClientLeft, ServerStopped):
            self._failed = True
            raise
        kept = data[: max(0, self._limit - len(self._kept))]
        self._kept += kept
        self.cut += len(data) - len(kept)
        self._grown(len(kept))
        return data

    def close(self) -> None:
        """The handler is done: take in what it has not read, within bounds."""
        with self._guard:
            deadline = Deadline(_REST_SECONDS)
            try:
                while self._take(_CHUNK, deadline):
                    pass
            except (ClientLeft, ServerStopped, TimeoutError):
                pass  # the record has what came
            if self._inflow is not None:
                self._whole = bytes(self._kept)
                self._inflow = None
                self._kept.clear()
                del self._grown  # it has the records, of which one has this


class HTTPExchange(Exchange):
    """A request and its response."""

    request: HTTPRequest

    # Most requests come whole and are answered at once: what they don't need is not made.
    _inflow: Inflow | None = None
    _outflow: Outflow | None = None
    _responder: Responder | None = None
    _body: Body | None = None
    _error: Exception | None = None  # why nothing can be sent any more

    def __init__(self, link: Link, message: wire.Request) -> None:
        self.link = link
        self.call = message.call
        self.client_address = message.peer
        self.request = HTTPRequest(message, self)

    def stream(self, first: bytes, limit: int, grown: Callable[[int], None]) -> Body:
        """The body of a request that comes in pieces, of which ``first`` is here already."""
        self._inflow = Inflow(self.link.send, self.call)
        if first:
            self._inflow.feed(first)
        self._body = Body(self._inflow, limit, grown)
        return self._body

    @property
    def responder(self) -> Responder:
        """What sends the response."""
        if self._responder is None:
            self._responder = Responder(self)
        return self._responder

    @property
    def outflow(self) -> Outflow:
        """The response's body beyond its first piece."""
        if self._outflow is None:
            self._outflow = Outflow(self.link.send, self.call)
            if self._error is not None:
                self._outflow.fail(self._error)
        return self._outflow

    # Events --------------------------------------------------------------------------------------

    def event(self, message: wire.Event) -> None:
        match message:
            case wire.Data():
                if self._inflow is not None:
                    self._inflow.feed(message.data)
            case wire.End():
                if self._inflow is not None:
                    self._inflow.end()
            case wire.Ack():
                self.outflow.acknowledged(message.size)
            case wire.Lost():
                self.broken(
                    ClientLeft(f"the client {self.client_address} has closed the connection")
                )
            case _:
                raise AssertionError(message)

    def stopping(self, error: Exception) -> None:
        if self._inflow is not None:
            self._inflow.fail(error)

    def broken(self, error: Exception) -> None:
        self.stopping(error)
        self._error = self._error or error
        if self._outflow is not None:  # looked at last: who makes one looks at the error last
            self._outflow.fail(error)

    # The response --------------------------------------------------------------------------------

    def complete(self, result: object) -> None:
        try:
            self._answer(result)
        except (ClientLeft, ServerStopped):
            self._close()
            raise
        self._close()

    def _answer(self, result: object) -> None:
        responder = self.responder
        if not responder.begun:
            responder.respond(HTTPResponse.of(result))
        elif result is None:
            responder.finish()
        else:
            raise TypeError(
                "the handler has written a response and must return None then, "
                f"not {type(result).__name__}: {shown(result)}"
            )

    def fail(self, error: BaseException) -> None:
        try:
            if self.request._exchange is self:
                self.responder.fail(error)
        finally:
            self._close()

    def _close(self) -> None:
        self.request._exchange = None  # a record is to keep nothing of this alive
        self._responder = None  # the two would keep each other, until a collection
        if self._body is not None:
            self._body.close()

    def describe(self) -> str:
        return f"{self.request.method} {self.request.target}"


def open_http(
    link: Link, message: wire.Request, records: Records[HTTPRequest], keep: int
) -> Exchange | None:
    """Record a request; returns its exchange if a handler is to run."""
    exchange = HTTPExchange(link, message) if message.call else None
    request = HTTPRequest(message) if exchange is None else exchange.request
    if exchange is not None and message.more:

        def grown(size: int) -> None:
            records.grow(request, size)

        request._body = exchange.stream(message.body, keep, grown)
        records.add(request, OVERHEAD)  # what comes of the body is counted as it is kept
    else:
        records.add(request, OVERHEAD + len(message.body))
    return exchange


def _split_form(body: bytes, boundary: bytes) -> tuple[FormPart, ...]:
    """The parts between the delimiters (RFC 2046 5.1.1)."""
    _, *pieces = (b"\r\n" + body).split(b"\r\n--" + boundary)
    parts: list[FormPart] = []
    for piece in pieces:
        if piece.startswith(b"--"):
            return tuple(parts)
        parts.append(_form_part(piece))
    raise ValueError(f"the form does not end with its boundary: {body[-200:]!r}")


def _form_part(piece: bytes) -> FormPart:
    from email.message import Message
    from email.parser import HeaderParser

    head, _, content = piece.partition(b"\r\n\r\n")
    # What follows the boundary on its line is padding.
    fields: Message = HeaderParser().parsestr(head.partition(b"\r\n")[2].decode("utf-8", "replace"))
    name = fields.get_param("name", "", "content-disposition")
    kind = fields.get_content_type()
    return FormPart(str(name), fields.get_filename() or "", kind, content)
