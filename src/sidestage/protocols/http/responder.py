"""Sends responses: whole, or piece by piece as a handler writes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ...dispatch.refused import Refused, yielded
from ...errors import brief, shown, text_of
from ...pristine.waits import Deadline
from ...wire.frames import CHUNK
from ...wire.messages import Close
from ...wire.values import buffer, is_buffer
from .messages import Fault, Headers
from .response import (
    TEXT,
    HeaderPairs,
    HeaderValue,
    HTTPResponse,
    check_chunked,
    check_status,
    checked_informational,
    checked_reason,
    checked_trailers,
    encoded,
    header_fields,
    pairs,
    reason_of,
)

if TYPE_CHECKING:
    from ...dispatch.connection import Connection
    from .call import HTTPCall

_ENOUGH = 1 << 16  # unsent bytes above which a response is sent before the handler returns
_MAX_REASON = 200  # bytes
_NEVER = Deadline(None)


def respond(call: HTTPCall, response: HTTPResponse, fault: Fault | None = None) -> None:
    """Send ``response``: whole, or chunk by chunk if its body is an iterator.

    With ``fault``, which the child carries out, only what is sent before that.
    """
    status, body = response.status, response.body
    reason = reason_of(status) if response.reason is None else response.reason
    headers, trailers = pairs(response), response.trailers
    # As most are:
    if type(body) is bytes and fault is None and trailers is None and len(body) <= CHUNK:
        call.send_head(status, reason, headers, body, length=len(body), more=False)
        return
    if isinstance(body, str):
        body = encoded(body)
    if isinstance(body, (bytes, bytearray, memoryview)):
        if trailers is None:
            _send_bytes(call, status, reason, headers, bytes(body), fault)
            return
        body = iter((bytes(body),))
    chunks = iter(body)
    if fault is not None and fault.after is not None:
        chunks, trailers = _beginning(chunks, fault.after), None
    try:
        _send_iterable(call, status, reason, headers, chunks, trailers, fault)
    finally:  # close a generator now, even if something else refers to it
        if close := getattr(body, "close", None):
            close()


def _send_bytes(
    call: HTTPCall,
    status: int,
    reason: str,
    headers: Headers,
    body: bytes,
    fault: Fault | None = None,
) -> None:
    length = len(body)
    if fault is not None and fault.after is not None:
        body = body[: fault.after]
    if len(body) <= CHUNK:
        call.send_head(status, reason, headers, body, length=length, more=False, fault=fault)
        return
    first = body[:CHUNK]
    call.send_head(status, reason, headers, first, length=length, more=True, fault=fault)
    call.write(memoryview(body)[CHUNK:], _NEVER)
    call.send_end()


def _send_iterable(
    call: HTTPCall,
    status: int,
    reason: str,
    headers: Headers,
    chunks: Iterator[Any],
    trailers: Any = None,
    fault: Fault | None = None,
) -> None:
    # Get the first chunk before sending the head: an error there becomes a 500.
    first = _checked_chunk(next(chunks, b""), chunks)
    call.send_head(status, reason, headers, first[:CHUNK], length=None, more=True, fault=fault)
    call.write(memoryview(first)[CHUNK:], _NEVER)
    for chunk in chunks:
        call.write(
            _checked_chunk(chunk, chunks), _NEVER
        )  # an empty one too: the client may have left
    given = trailers() if callable(trailers) else trailers or ()
    try:
        fields = checked_trailers(given)
    except (TypeError, ValueError) as error:
        raise Refused(error) from None
    call.send_end(fields)


def _beginning(chunks: Iterator[Any], size: int) -> Iterator[bytes]:
    """The first ``size`` bytes of ``chunks``; raises ValueError if they have fewer."""
    left = size
    while left:
        chunk = next(chunks, None)
        if chunk is None:
            text = f"after={size} is never reached: the body has {size - left} bytes"
            raise Refused(ValueError(text))
        piece = _checked_chunk(chunk, chunks)[:left]
        yield piece
        left -= len(piece)


def respond_failure(call: HTTPCall, error: BaseException) -> None:
    """Send a 500 for ``error``; if the head has been sent already, close the connection."""
    if call.head_sent:
        call.run.send(Close(call=call.id, reset=False))
        return
    text = f"the handler raised {type(error).__name__}: {text_of(error)}"[:1000] + "\n"
    body = text.encode("utf-8", "backslashreplace")
    # Clients show the reason, and few of them the body.
    reason = brief(error, _MAX_REASON).encode("ascii", "backslashreplace")[:_MAX_REASON]
    respond(call, HTTPResponse(body, 500, {"Content-Type": TEXT}, reason=reason.decode()))


class Responder:
    """Sends one response piece by piece; it is the ``wfile`` of a request.

    The body is buffered until the handler returns, so that Content-Length can be sent. ``flush``,
    or more than 64 KiB, sends it earlier; the rest then follows in chunks.
    """

    begun = False
    closed = False
    abandoned = False  # the handler has ended the connection
    _status = 0
    _reason = ""
    _in_body = False

    def __init__(self, call: HTTPCall) -> None:
        self._call = call
        self._headers: Headers = ()
        self._waiting = bytearray()
        self._trailers: Headers = ()

    def begin(self, status: int, reason: str | None) -> None:
        """Set status and reason; raises ValueError if the headers have ended."""
        if self._in_body:
            raise ValueError("the headers of this response have ended already")
        self._status = check_status(status)
        self._reason = reason_of(status) if reason is None else checked_reason(reason)
        self.begun = True

    def header(self, name: str, value: HeaderValue) -> None:
        """Add header fields; raises ValueError unless called between the other two."""
        if not self.begun or self._in_body:
            raise ValueError("send_header goes between send_response and end_headers")
        self._headers += header_fields(name, value)

    def end_headers(self) -> None:
        """End the header fields; raises ValueError before ``begin``.

        A 2xx response to CONNECT is sent now: its client waits for it.
        """
        if not self.begun:
            raise ValueError("call send_response first")
        self._in_body = True
        if self._call.request.method == "CONNECT" and 200 <= self._status < 300:
            self._call.tunnel()  # first: bytes may come as soon as the client has the response
            self.flush()

    def trailer(self, name: str, value: HeaderValue) -> None:
        """Add trailer fields; raises ValueError before ``end_headers`` and after the end."""
        if not self._in_body or self.closed:
            raise ValueError("send_trailer goes between end_headers and the end of the handler")
        check_chunked(self._headers)
        self._trailers += checked_trailers(((name, value),))

    def inform(self, status: int, headers: HeaderPairs) -> None:
        """Send an informational response; raises ValueError once the final one has begun."""
        if self._call.head_sent or self.begun:
            raise ValueError("an informational response goes before the final one")
        self._call.inform(*checked_informational(status, headers))

    def connection(self) -> Connection:
        """The tunnel of a CONNECT that was answered 2xx."""
        call = self._call
        if call.request.method != "CONNECT":
            raise ValueError(f"only a CONNECT has a connection, this is a {call.request.method}")
        if not self._in_body or not 200 <= self._status < 300:
            raise ValueError(
                "a CONNECT has a connection once it is answered 2xx: call send_response(200) and "
                "end_headers() first"
            )
        return call.tunnel()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Add to the body; returns the number of bytes.

        Raises ValueError out of order, and what tells that the client or the server is gone.
        """
        if not self._in_body:
            raise ValueError("call send_response and end_headers before writing the body")
        if self.closed:
            raise ValueError("this response is complete")
        self._call.check()
        view = buffer("what is written", data)
        self._waiting += view
        if len(self._waiting) > _ENOUGH:
            self.flush()
        return len(view)

    def writelines(self, lines: Iterable[bytes | bytearray | memoryview]) -> None:
        """Add each of ``lines`` to the body, as a file does."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Send the head and what was written so far, if the headers have ended."""
        if not self._in_body or self.closed:
            return
        call = self._call
        call.check()
        waiting, self._waiting = memoryview(self._waiting), bytearray()
        if not call.head_sent:  # in one message with what there is of the body
            first, waiting = bytes(waiting[:CHUNK]), waiting[CHUNK:]
            call.send_head(self._status, self._reason, self._headers, first, length=None, more=True)
        if waiting:
            call.write(waiting, _NEVER)

    def writable(self) -> bool:
        """Return ``True``, as a file for writing does."""
        return True

    def readable(self) -> bool:
        """Return ``False``, as a file for writing does."""
        return False

    def seekable(self) -> bool:
        """Return ``False``, as a pipe does."""
        return False

    def close(self) -> None:
        """Do nothing: what wraps a file closes it, but the response ends with the handler."""

    def abandon(self) -> None:
        """Send what was written: the connection ends here.

        Raises ValueError if the response is complete.
        """
        if self.closed:
            raise ValueError("this response is complete")
        if self.begun:
            self.flush()
        self.begun = self._in_body = self.closed = self.abandoned = True

    def finish(self) -> None:
        """Send what is left and end the response, unless the connection has ended."""
        if self.abandoned:
            return
        if self._trailers:
            self.flush()
        self._in_body = self.closed = True
        call, body = self._call, bytes(self._waiting)
        if call.head_sent:
            if body:
                call.write(body, _NEVER)
            call.send_end(self._trailers)
        else:
            _send_bytes(call, self._status, self._reason, self._headers, body)

    def error(self, status: int, message: str | None, explain: object) -> None:
        """Write a complete response that describes an error in plain text."""
        if not isinstance(explain, str | None):
            raise TypeError(f"explain must be str, not {shown(explain)}")
        self.begin(status, message)
        self.header("Content-Type", TEXT)
        self.header("Connection", "close")
        self.end_headers()
        self.write(encoded(f"{self._status} {self._reason}\n{explain or ''}".rstrip()) + b"\n")


def _checked_chunk(chunk: Any, chunks: Iterator[Any]) -> bytes:
    if not is_buffer(chunk):
        error = TypeError(
            f"an iterator that is a response must give bytes, not {type(chunk).__name__}: "
            f"{shown(chunk)}"
        )
        raise Refused(error, place=yielded(chunks))
    return bytes(chunk)
