"""A request as a handler has it, and as it is kept in ``received``."""

from __future__ import annotations

import io
import json
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, unquote

from ...dispatch.streams import StreamReader
from ...journal.facts import Address, Answer
from .body import Body
from .fields import Fields, Headers
from .messages import Request
from .responder import Responder

if TYPE_CHECKING:
    from .call import HTTPCall

_CHUNK = 1 << 16  # bytes
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
    # Plain numbers: the collector does not have to visit them.
    _answered: tuple[float, int, int] | None = None  # when, status, bytes of the body

    def __init__(self, message: Request, call: HTTPCall | None = None) -> None:
        self._message = message
        self._call = call  # until it is answered

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

    # For the record ------------------------------------------------------------------------------

    @property
    def received_at(self) -> float:
        """When it came, in seconds on the monotonic clock."""
        return self._message.at

    @property
    def connection_number(self) -> int:
        """The number of its connection among those of this run of the server, from 1."""
        return self._message.connection

    @property
    def answer(self) -> Answer | None:
        """How it was answered: status, size of the body, time; ``None`` if it was not (yet)."""
        came = self._message.at
        if self._answered is not None:
            at, status, size = self._answered
            return Answer(at=at, status=status, size=size, seconds=at - came)
        if not self._message.call:  # by the server's process, with plain success
            return Answer(at=came, status=200, size=0, seconds=0.0)
        return None

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
        if self._call is None:
            raise ValueError("this request has been answered")
        return self._call.responder

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
