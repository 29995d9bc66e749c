"""A strict reader of HTTP/1.1 responses (RFC 9112), which takes nothing that is not well formed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import httptools

from fuzz.cases import Fault

_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ([\t -~\x80-\xff]*)\r\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([!-~\x80-\xff](?:[\t -~\x80-\xff]*)|)\r\n")
_SIZE = re.compile(rb"([0-9a-f]+)\r\n")
_PART_OF_SIZE = re.compile(rb"(?:[0-9a-f]{1,16}\r?)?")


class Answer(NamedTuple):
    """A final response; ``whole`` is whether its end has come."""

    status: int
    fields: dict[bytes, bytes]  # names in lower case
    body: bytes
    whole: bool


def read_answers(
    data: bytes, methods: Iterable[str | None], *, ended: bool, torn: bool = False
) -> list[Answer]:
    """The final responses in what a client got; raises Fault if it is not well formed.

    ``methods`` are those of the requests in order, ``None`` where it is not known; ``ended`` is
    whether the connection has ended, ``torn`` whether it may have ended in a head.
    """
    left = iter(methods)
    answers: list[Answer] = []
    at = 0
    while at < len(data):
        if answers and not answers[-1].whole:
            raise Fault(f"bytes after an unfinished response: {data[at : at + 60]!r}")
        if torn and b"\r\n\r\n" not in data[at:]:
            break
        status, fields, at = _head(data, at)
        if status < 200:
            if fields.keys() & {b"content-length", b"transfer-encoding"}:
                raise Fault(f"a {status} with a body")
            continue
        method = next(left, None)
        body, at, whole = _body(data, at, status, fields, method, ended=ended)
        answers.append(Answer(status, fields, body, whole))
    return answers


def _head(data: bytes, at: int) -> tuple[int, dict[bytes, bytes], int]:
    found = _STATUS.match(data, at)
    if found is None:
        raise Fault(f"no status line: {data[at : at + 60]!r}")
    start, status, at = at, int(found[1]), found.end()
    fields: dict[bytes, bytes] = {}
    while (field := _FIELD.match(data, at)) is not None:
        name = field[1].lower()
        if name in fields and name in (b"content-length", b"transfer-encoding", b"date"):
            raise Fault(f"two fields {field[1]!r}")
        fields[name] = field[2]
        at = field.end()
    if not data.startswith(b"\r\n", at):
        raise Fault(f"no field and no end of a head: {data[at : at + 60]!r}")
    at += 2
    _read_by_httptools(data[start:at], status)
    return status, fields, at


def _read_by_httptools(head: bytes, status: int) -> None:
    parser = httptools.HttpResponseParser(object())
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise Fault(f"httptools refuses the response: {error}: {head!r}") from error
    if parser.get_status_code() != status:
        raise Fault(f"httptools reads {parser.get_status_code()}, not {status}")


def _body(
    data: bytes,
    at: int,
    status: int,
    fields: dict[bytes, bytes],
    method: str | None,
    *,
    ended: bool,
) -> tuple[bytes, int, bool]:
    length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
    if method == "CONNECT" and 200 <= status < 300:
        if length is not None or coding is not None:
            raise Fault("a tunnel with a length (RFC 9110 9.3.6)")
        return data[at:], len(data), True
    if method == "HEAD" or status in (204, 304):
        if status == 204 and (length is not None or coding is not None):
            raise Fault("a 204 with a length (RFC 9110 8.6)")
        return b"", at, True
    if length is not None and coding is not None:
        raise Fault("Content-Length and Transfer-Encoding in one response")
    if coding is not None:
        return _chunks(data, at)
    if length is not None:
        end = at + int(length)
        if method is None and at == len(data) and ended:
            return b"", at, True  # refused, and it may have been a HEAD
        return data[at:end], min(end, len(data)), end <= len(data)
    return data[at:], len(data), ended


def _chunks(data: bytes, at: int) -> tuple[bytes, int, bool]:
    """A body in chunks and where it ends; whether it is whole."""
    body = b""
    while (found := _SIZE.match(data, at)) is not None:
        at, size = found.end(), int(found[1], 16)
        if not size:
            return _trailers(data, at, body)
        end = at + size
        if len(data) < end + 2:
            return body, len(data), False
        if data[end : end + 2] != b"\r\n":
            raise Fault(f"a chunk without its end: {data[end : end + 20]!r}")
        body += data[at:end]
        at = end + 2
    if not _PART_OF_SIZE.fullmatch(data, at):
        raise Fault(f"no chunk: {data[at : at + 60]!r}")
    return body, len(data), False


def _trailers(data: bytes, at: int, body: bytes) -> tuple[bytes, int, bool]:
    while (field := _FIELD.match(data, at)) is not None:
        at = field.end()
    if data.startswith(b"\r\n", at):
        return body, at + 2, True
    if b"\n" in data[at:]:
        raise Fault(f"no trailer: {data[at : at + 60]!r}")
    return body, len(data), False
