"""A request, as handlers get it and as ``received`` keeps it."""

from __future__ import annotations

import io
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...dispatch.connection import Connection
from ...dispatch.streams import StreamReader
from ...journal.facts import Address
from ...journal.frames import trimmed
from ...journal.record import ClientRecord, Shown
from ...pristine.imports import importing_once
from .body import Body
from .fields import Fields, Headers, parse_fields
from .forms import FormPart, MultipartForm, parse_multipart, parse_query, urlencoded_fields
from .media import UTF_8, MediaType, parse_media_type
from .messages import Request
from .responder import Responder
from .response import HeaderPairs, HeaderValue

if TYPE_CHECKING:
    from .call import HTTPCall

_CHUNK = 1 << 16  # bytes
_AUTHORITY = re.compile(r"\A[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")  # RFC 9112 3.2.2, absolute-form


_PARSED = (
    "headers",
    "cookies",
    "query",
    "params",
    "_split",
    "path",
    "form",
    "files",
    "_multipart",
    "_content_type",
)


class HTTPRequest(ClientRecord):
    """A request, and the methods to write its response by hand.

    The response is what the handler returns. A handler in the style of ``http.server`` returns
    ``None`` and calls ``send_response``, ``send_header``, ``end_headers`` and ``wfile.write``.
    """

    _plain_success = (200, 0)
    _message: Request

    _body: Body | None = None  # if it did not come with the head
    _rfile: io.BufferedIOBase | None = None
    _trailers = b""  # that came after such a body

    # A tuple of numbers, which the garbage collector need not visit.
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
        """The method, under its name in ``http.server``."""
        return self._message.method

    @property
    def target(self) -> str:
        """The request target as it came (RFC 9112 3.2): path and query, percent-encoded."""
        return self._message.target

    @property
    def _line(self) -> str:
        """Method and target, as messages name a request."""
        return f"{self._message.method} {self._message.target}"

    @cached_property
    def path(self) -> str:
        """The path without the query, percent-decoded."""
        path = self._split[0]
        if "%" not in path:
            return path
        from urllib.parse import unquote  # late, like json: a start should not wait for them

        return unquote(path)

    @property
    def query_string(self) -> str:
        """The query as it came, without the question mark."""
        return self._split[1]

    @cached_property
    def query(self) -> Fields:
        """The decoded query: ``query["q"]`` is a value, ``query.get_all("q")`` a list."""
        return parse_query(self.query_string)

    @cached_property
    def _split(self) -> tuple[str, str]:
        # Not urlsplit: it takes a path that begins with two slashes for a host, and can raise.
        rest = _AUTHORITY.sub("", self._message.target, count=1)
        path, _, query = rest.partition("#")[0].partition("?")
        return path or "/", query

    @cached_property
    def params(self) -> dict[str, object]:
        """What stands in the path for ``{name}`` of the expectation that it has met.

        ``{name:int}`` is an int. Empty for a path without parameters, and without an expectation.
        """
        if self._pattern is None:
            return {}
        with importing_once():
            from .declaring import head_of
        found: dict[str, object] = self._pattern.params(head_of(self))
        return found

    @property
    def http_version(self) -> str:
        """``1.1`` or ``1.0``."""
        return self._message.http_version

    @cached_property
    def headers(self) -> Headers:
        """The header fields, in order; names are case-insensitive and may occur repeatedly."""
        return parse_fields(self._message.fields)

    @cached_property
    def cookies(self) -> Fields:
        """The cookies that the client has sent: ``cookies["sid"]`` is a value."""
        with importing_once():
            from .matching.cookies import parse_cookies
        return Fields(parse_cookies(self.headers.get_all("Cookie")))

    @property
    def client_address(self) -> Address:
        """The client's address: ``(host, port, ...)``, or text over a Unix socket."""
        return self._message.peer

    # The body ------------------------------------------------------------------------------------

    @property
    def body(self) -> bytes:
        """The whole body; a handler waits for the rest of it here.

        In ``received`` it is what had come when the handler was done, at most a quarter of
        ``keep``; ``body_cut`` is how many bytes are missing.
        """
        return self._message.body if self._body is None else self._body.whole()

    @property
    def body_cut(self) -> int:
        """How many bytes of the body were received but not kept."""
        return self._message.cut if self._body is None else self._body.cut

    @property
    def trailers(self) -> Headers:
        """The fields that came after a chunked body (RFC 9110 6.5); most requests have none.

        They are not among ``headers``. A handler waits for the rest of the body here.
        """
        if self._body is None:
            return parse_fields(self._message.trailers)
        self._body.whole()
        return parse_fields(self._trailers)

    @property
    def rfile(self) -> io.BufferedIOBase:
        """The body as a binary file, which can be read while a large body is still coming."""
        if self._rfile is None:
            if self._body is None:
                self._rfile = io.BytesIO(self._message.body)
            else:
                self._rfile = io.BufferedReader(StreamReader(self._body.read), _CHUNK)
                self._body.buffered = _CHUNK
        return self._rfile

    @property
    @trimmed
    def text(self) -> str:
        """The body decoded with the charset of Content-Type, by default UTF-8.

        Raises ValueError if that fails (UnicodeDecodeError), or if Python knows no such charset.
        """
        return self.body.decode(self._content_type.charset or UTF_8)

    @trimmed
    def json(self) -> Any:
        """Parse the body as JSON; raises ValueError, which quotes the body, if that fails."""
        import json

        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the body is not JSON ({error}): {self.body[:200]!r}") from error

    @cached_property
    @trimmed
    def form(self) -> Fields:
        """The fields of an HTML form, URL-encoded or multipart (RFC 7578).

        They are decoded with the charset of the part, of Content-Type or of the field
        ``_charset_``, by default UTF-8. The value of an uploaded file is its content decoded so;
        ``files`` and ``parts`` have the bytes. Raises ValueError if the body is not a form, or if
        Python knows no such charset.
        """
        if self._content_type.name == "application/x-www-form-urlencoded":
            return urlencoded_fields(self.body, self._content_type.charset)
        return self._multipart.fields()

    @cached_property
    @trimmed
    def files(self) -> dict[str, tuple[str, bytes]]:
        """The uploaded files of a multipart form: ``{field name: (file name, content)}``.

        If a field has several files, this has the first, and ``parts`` has all. Raises ValueError
        if the body is not such a form.
        """
        files: dict[str, tuple[str, bytes]] = {}
        for part in self.parts:
            if part.filename:
                files.setdefault(part.name, (part.filename, part.content))
        return files

    @property
    @trimmed
    def parts(self) -> tuple[FormPart, ...]:
        """The parts of a multipart form, in order; raises ValueError if the body is not one."""
        return self._multipart.parts

    @cached_property
    def _multipart(self) -> MultipartForm:
        kind = self._content_type
        boundary = kind.parameters.get("boundary")
        if kind.name != "multipart/form-data" or not boundary:
            raise ValueError(f"the body is no form: its type is {self.headers.get('Content-Type')}")
        return parse_multipart(self.body, boundary, kind.charset)

    @cached_property
    def _content_type(self) -> MediaType:
        return parse_media_type(self.headers.get("Content-Type", ""))

    def _drop_parsed(self) -> None:
        """Drop what was parsed: it is parsed again if it is asked for again."""
        for name in _PARSED:
            self.__dict__.pop(name, None)

    # The response, written by hand ---------------------------------------------------------------

    @property
    def _open_call(self) -> HTTPCall:
        if self._call is None:
            raise ValueError("this request has been answered")
        return self._call

    @property
    def _responder(self) -> Responder:
        return self._open_call.responder

    def send_response(self, code: int, message: str | None = None) -> None:
        """Start a response; ``message`` is the reason phrase, by default the standard one.

        As in ``http.server``, but sends no Server field. Raises ValueError if the request has been
        answered.
        """
        self._responder.begin(code, message)

    def send_header(self, keyword: str, value: HeaderValue) -> None:
        """Add a header field to the response that ``send_response`` has started.

        ``value`` is text, bytes or an int; a list or tuple of these is that many fields. Raises
        TypeError or ValueError for what cannot be sent.
        """
        self._responder.header(keyword, value)

    def end_headers(self) -> None:
        """End the header fields; write the body to ``wfile`` next."""
        self._responder.end_headers()

    def send_trailer(self, keyword: str, value: HeaderValue) -> None:
        """Add a field that follows the body (RFC 9110 6.5), which is sent in chunks then.

        Call it between ``end_headers`` and the handler's return. A client of HTTP/1.0, which knows
        no chunks, gets no trailers. Raises ValueError for a field that must not be one.
        """
        self._responder.trailer(keyword, value)

    def send_informational(self, status: int, headers: HeaderPairs = ()) -> None:
        """Send an informational response before the final one, such as 103 (RFC 8297).

        ``status`` is from 100 to 199; 100 has a client send the body that it holds back. A client
        of HTTP/1.0, which knows none, gets none. Raises ValueError for 101, and once the final
        response has begun.
        """
        self._responder.inform(status, headers)

    @property
    def connection(self) -> Connection:
        """The tunnel of a CONNECT that was answered 2xx (RFC 9110 9.3.6), to use like a socket.

        Send the response by hand first: ``send_response(200)``, ``end_headers()``. Raises
        ValueError before that, and for other methods and statuses.
        """
        return self._responder.connection()

    @property
    def wfile(self) -> Responder:
        """A binary file for the response's body; ``flush`` sends what was written so far."""
        return self._responder

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Write a complete response that describes an error in plain text."""
        self._responder.error(code, message, explain)

    def reset(self) -> None:
        """Drop the client's connection with a reset (RST), now.

        What was written to ``wfile`` is sent before, so the client may get a response in part.
        The handler must return ``None`` then, and can write nothing more. Over a Unix socket, which
        knows no reset, the connection is closed. Raises ValueError if the request has been
        answered. To reset after a certain number of bytes, return ``faults.reset(reply, after=n)``.
        """
        self._open_call.end_connection(reset=True)

    def close(self) -> None:
        """Close the client's connection (FIN), now; all else is as for ``reset``."""
        self._open_call.end_connection(reset=False)

    def _shown(self) -> Shown:
        with importing_once():
            from .shown import shown
        return shown(self)

    def __repr__(self) -> str:
        return f"<HTTPRequest {self.method} {self.target} from {self.client_address}>"
