"""Faults as values: what a handler returns, or a reply is, to have something go wrong on purpose.

Everything is checked where the value is made, so that an error points at the line of the test.
The server's process carries faults out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ...errors import shown
from ...journal.frames import trimmed
from ...pristine.imports import importing_once
from ...wire.frames import MAX_RECORD
from ...wire.values import buffer, count, is_buffer, real
from . import messages
from .response import HTTPResponse, encoded, pairs

_NOTHING: Any = object()  # in place of a reply: ``None`` is one
_FRAMING = ("content-length", "transfer-encoding")


@dataclass(frozen=True, repr=False)
class Fault:
    """Something that goes wrong on purpose; the functions of ``sidestage.faults`` make it.

    ``kind`` is the name of that function. ``response`` is the response that it concerns, or
    ``None`` where there is none. ``after`` is the number of bytes of its body that are sent before,
    or ``None`` for the whole response. ``data`` is the garbage. ``rate`` is in bytes a second.
    """

    kind: str
    response: HTTPResponse | None = None
    after: int | None = None
    data: bytes = b""
    rate: float = 0.0

    def __repr__(self) -> str:
        given = [repr(self.data)[:60]] if self.kind == "garbage" else []
        if self.response is not None:
            given.append(shown(self.response))
        if self.after is not None:
            given.append(f"after={self.after}")
        if self.rate:
            given.append(f"bytes_per_second={self.rate:g}")
        return f"faults.{self.kind}({', '.join(given)})"


# What users call ---------------------------------------------------------------------------------


@trimmed
def reset(reply: object = _NOTHING, *, after: int | None = None) -> Fault:
    """Reset the connection (RST): the client's next read fails with ECONNRESET.

    ``reply`` is what a handler may return; it is sent before, or only its head and ``after`` bytes
    of its body. Without ``reply`` nothing is sent before. Over a Unix socket, which knows no reset,
    the connection is closed. Raises TypeError or ValueError for what cannot be sent, and for an
    ``after`` that the body does not reach.
    """
    return _striking("reset", reply, after)


@trimmed
def close(reply: object = _NOTHING, *, after: int | None = None) -> Fault:
    """Close the connection (FIN): the client reads an end of file.

    ``reply`` and ``after`` are as for ``reset``. The client is not told before: a whole reply looks
    as if the connection were kept alive. Raises TypeError or ValueError as ``reset`` does.
    """
    return _striking("close", reply, after)


@trimmed
def stall(reply: object = _NOTHING, *, after: int | None = None) -> Fault:
    """Send nothing more, and keep the connection open: the client waits until it gives up.

    ``reply`` and ``after`` are as for ``reset``. It ends when the client closes its side, and at
    the stop of the server. Raises TypeError or ValueError as ``reset`` does.
    """
    return _striking("stall", reply, after)


@trimmed
def reset_in_record(reply: object = _NOTHING, *, after: int | None = None) -> Fault:
    """Send half of a TLS record and reset the connection (RST).

    ``reply`` and ``after`` are as for ``reset``, and sent in whole records before that one. Only
    for a server with TLS: to return it elsewhere is an error. Raises TypeError or ValueError as
    ``reset`` does.
    """
    return _striking("reset_in_record", reply, after)


@trimmed
def close_in_record(reply: object = _NOTHING, *, after: int | None = None) -> Fault:
    """Send half of a TLS record and close the connection (FIN), without TLS's close_notify.

    ``reply`` and ``after`` are as for ``reset_in_record``. Raises TypeError or ValueError as
    ``reset`` does.
    """
    return _striking("close_in_record", reply, after)


@trimmed
def close_without_notify(reply: object = _NOTHING, *, after: int | None = None) -> Fault:
    """Close the connection (FIN) without TLS's close_notify: anybody could have cut it there.

    ``reply`` and ``after`` are as for ``reset_in_record``. Raises TypeError or ValueError as
    ``reset`` does.
    """
    return _striking("close_without_notify", reply, after)


@trimmed
def garbage(data: bytes, reply: object = _NOTHING, *, after: int | None = None) -> Fault:
    """Send ``data``, bytes that need not be HTTP, as they are, and close the connection.

    ``reply`` and ``after`` are as for ``reset``. Raises TypeError or ValueError as ``reset`` does,
    and if ``data`` is no bytes-like object, or is empty.
    """
    sent = bytes(buffer("the garbage", data))
    if not sent:
        raise ValueError("there is no garbage in b'': to send nothing, return faults.close()")
    if len(sent) > MAX_RECORD:
        raise ValueError(f"garbage has at most {MAX_RECORD} bytes, not {len(sent)}")
    return _striking("garbage", reply, after, sent)


@trimmed
def slow(reply: object, bytes_per_second: float) -> Fault:
    """Send the body of ``reply`` at ``bytes_per_second``, and its head at once.

    The reply is complete in the end, and the connection is kept alive. A stop of the server does
    not wait for it: it is cut off. Raises TypeError or ValueError for what cannot be sent, for a
    reply without a body, and for a rate that is not greater than 0 and finite.
    """
    response = _response("slow", reply)
    if _size(response) == 0:
        raise ValueError(f"slow sends a body slowly, and {shown(reply)} has none")
    return Fault("slow", response, rate=_rate(bytes_per_second))


@trimmed
def chunk_error(reply: object) -> Fault:
    """Send the body of ``reply`` in chunks, then a broken chunk, and close the connection.

    A client of HTTP/1.0, which knows no chunks, gets the body and a reset. Raises TypeError or
    ValueError for what cannot be sent, and for a reply that has no body or says how it is framed.
    """
    response = _response("chunk_error", reply)
    _check_framing("chunk_error", response, reply)
    return Fault("chunk_error", response)


@trimmed
def wrong_length(reply: object) -> Fault:
    """Send ``reply`` with a Content-Length that is 1 too large, and close the connection.

    Raises TypeError or ValueError for what cannot be sent, and for a reply that has no body, whose
    body is an iterator, or that says how it is framed.
    """
    response = _response("wrong_length", reply)
    _check_framing("wrong_length", response, reply)
    if _size(response) is None or response.trailers is not None:
        raise ValueError(
            f"wrong_length needs a body whose length is known, not {shown(response.body)}: join it "
            "to bytes, or use chunk_error"
        )
    return Fault("wrong_length", response)


# For those who answer ----------------------------------------------------------------------------


def response_and_fault(value: object) -> tuple[HTTPResponse, messages.Fault | None]:
    """What a handler may return, or a reply may be, as a response and what goes wrong with it.

    The response of a fault without a reply is an empty one, of which nothing is sent. Raises
    TypeError or ValueError for what is no answer.
    """
    if not isinstance(value, Fault):
        return HTTPResponse.of(value), None
    fault = messages.Fault(
        kind=value.kind,
        after=value.after,
        data=value.data,
        rate=value.rate,
        reply=value.response is not None,
    )
    return value.response or HTTPResponse(), fault


def refuse_without_tls(fault: Fault | messages.Fault | None, *, secured: bool) -> None:
    """Raise ValueError for a fault that has no effect on a server that is not ``secured``."""
    if fault is not None and not secured and fault.kind in messages.OF_TLS:
        raise ValueError(
            f"faults.{fault.kind} is about TLS, which this server does not speak: make it by "
            "HTTPServer(tls=True), or use faults.reset or faults.close"
        )


def said(fault: messages.Fault, size: int) -> str:
    """A fault as reports say it; ``size`` is the number of bytes of the body that were sent."""
    sent = _bytes(size)
    after = f" after {sent}" if fault.reply else ""
    match fault.kind:
        case "reset":
            return f"reset{after}"
        case "close":
            return f"closed{after}"
        case "reset_in_record":
            return f"reset in a TLS record{after}"
        case "close_in_record":
            return f"closed in a TLS record{after}"
        case "close_without_notify":
            return f"closed without close_notify{after}"
        case "stall":
            return f"stalled{after}"
        case "garbage":
            return f"{_bytes(len(fault.data))} of garbage{after}"
        case "slow":
            return f"{sent} at {fault.rate:,g} bytes/s"
        case "chunk_error":
            return f"broken chunk{after}"
        case _:
            return f"Content-Length 1 too large{after}"


def _bytes(size: int) -> str:
    with importing_once():  # late: few tests have faults, and it is a report's
        from ...reports.text import count as counted
    return counted(size, "byte")


# Checks ------------------------------------------------------------------------------------------


def _striking(kind: str, reply: object, after: int | None, data: bytes = b"") -> Fault:
    if after is not None:
        after = count("after", after)
    if reply is _NOTHING:
        if after is not None:
            form = f"{kind}({'data, ' if data else ''}reply, after={after})"
            raise ValueError(f"after counts bytes of a reply's body: write {form}")
        return Fault(kind, data=data)
    response = _response(kind, reply)
    size = _size(response)
    if after is not None and size is not None and after > size:
        raise ValueError(
            f"after={after} is never reached: the body of {shown(reply)} has "
            f"{_bytes(size)}; without `after` all of it is sent"
        )
    return Fault(kind, response, after, data)


def _response(kind: str, reply: object) -> HTTPResponse:
    if isinstance(reply, Fault):
        raise TypeError(f"one fault at a time: the reply of {kind} cannot be {shown(reply)}")
    return HTTPResponse.of(reply)


def _size(response: HTTPResponse) -> int | None:
    """The bytes of the body; ``None`` if they are not known yet."""
    if response.status in messages.NO_BODY:
        return 0
    body = response.body
    if isinstance(body, str):
        return len(encoded(body))
    if is_buffer(body):
        return len(body)
    return None


def _check_framing(kind: str, response: HTTPResponse, reply: object) -> None:
    """Raise ValueError unless the body of ``response`` is framed here."""
    if response.status in messages.NO_BODY:
        raise ValueError(f"{kind} needs a response that may have a body, not {shown(reply)}")
    for name, _ in pairs(response):
        if name.lower() in _FRAMING:
            raise ValueError(f"{kind} says how the body is framed: leave {name} out of the headers")


def _rate(value: Any) -> float:
    number = real("bytes_per_second", value)
    if not 0 < number < math.inf:
        raise ValueError(
            f"bytes_per_second must be greater than 0 and finite, not {shown(value)}; "
            "to send nothing, use stall"
        )
    return number
