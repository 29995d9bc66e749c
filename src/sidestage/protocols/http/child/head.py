"""The head of a request: parsed once as a whole, and checked by the rules.

No I/O here. httptools parses the fields. The request line is parsed by ``rules``, because httptools
knows only some methods and does not say which protocol a version is of.
"""

from __future__ import annotations

import copy
import functools
import re

import httptools

from ..rules import (
    FRAMING,
    TOKEN,
    Facts,
    RequestLine,
    beginning,
    body_length,
    check,
    malformed,
    request_line,
    trailer,
)

_CACHED = 32  # heads
LONG = 1 << 12  # bytes; longer ones are not cached
_FIELD = re.compile(rb"(%b):([\t -~\x80-\xff]*)\r\n" % TOKEN.pattern)
# Blanks after a field's value (RFC 9110 5.5): after `chunked` the parser takes no tabs.
_BLANKS = re.compile(rb"(?<=[!-~\x80-\xff])[ \t]++(?=\r\n)")
_FIELDS = re.compile(rb"(?:%b)*\r\n" % _FIELD.pattern)


class Head:
    """A request's head that no rule refuses."""

    __slots__ = (
        "expects", "fields", "http_version", "keep_alive", "length", "method", "size", "target",
    )  # fmt: skip

    def without_fields(self) -> Head:
        """What the response needs to know."""
        short = copy.copy(self)
        short.fields = b""
        return short

    def __init__(self, line: RequestLine, fields: bytes, found: _Fields) -> None:
        self.method = line.method.decode("ascii")
        self.target = line.target.decode("ascii")
        self.http_version = f"1.{line.minor}"
        self.fields = fields  # as they came, without the empty line
        self.size = len(self.target) + len(fields)  # bytes that the parent holds of it
        # RFC 9112 9.3
        self.keep_alive = b"close" not in found.connection and (
            line.minor == 1 or b"keep-alive" in found.connection
        )
        self.length = found.length  # bytes of the body; None is chunked
        # RFC 9110 10.1.1: no 100 Continue for HTTP/1.0.
        self.expects = found.expects and line.minor == 1 and self.length != 0


def parse_head(head: bytes) -> Head:
    """Parse a head that ends with an empty line; raises Refused."""
    line = request_line(head)
    found = _Fields()
    error: httptools.HttpParserError | None = None
    parser = httptools.HttpRequestParser(found)
    fields = head[line.size :]
    if b"\t" in fields:
        fields = _BLANKS.sub(b"", fields)
    try:
        # Every method and target looks the same to the parser: some change how it goes on.
        parser.feed_data(b"POST / HTTP/1.%d\r\n%b" % (line.minor, fields))
    except httptools.HttpParserUpgrade:  # RFC 9110 7.8: an offer, which is ignored
        pass
    except httptools.HttpParserError as raised:
        error = raised
    if error is not None:
        _refuse_framing(line, head)
        raise malformed(str(error)) from error
    check(found.facts(line))
    return Head(line, head[line.size : -4] if len(head) > line.size + 2 else b"", found)


# Most clients send few different heads.
parse_short_head = functools.lru_cache(maxsize=_CACHED)(parse_head)


class _Fields:
    """What httptools calls: notes what decides about framing and connection."""

    def __init__(self) -> None:
        self.hosts: list[bytes] = []
        self.codings: list[bytes] = []
        self.length: int | None = 0
        self.lengths: list[bytes] = []
        self.expects = False
        self.connection: list[bytes] = []

    def facts(self, line: RequestLine) -> Facts:
        """What the rules look at."""
        return Facts(line, self.hosts, self.codings, self.lengths)

    def on_header(self, name: bytes, value: bytes | None) -> None:
        value = (value or b"").strip(b" \t")  # the parser leaves what follows the value
        match name.lower():
            case b"host":
                self.hosts.append(value)
            case b"content-length":
                self.lengths.append(value)
                if value.isdigit():
                    self.length = body_length(value)
            case b"transfer-encoding":
                self.codings += [coding.strip(b" \t").lower() for coding in value.split(b",")]
                self.length = None
            case b"connection":
                self.connection += _listed(value)
            case b"expect":
                self.expects |= b"100-continue" in _listed(value)
            case _:
                pass


def _refuse_framing(line: RequestLine, head: bytes) -> None:
    """Raise Refused if a rule says better than the parser what is wrong with the framing."""
    fields = head[line.size :]
    if not _FIELDS.fullmatch(fields):
        return
    found = _Fields()
    for name, value in _FIELD.findall(fields):
        found.on_header(name, value)
    check(found.facts(line), FRAMING)


def _listed(value: bytes) -> list[bytes]:
    """The members of a list in a field (RFC 9110 5.6.1), in lower case."""
    members = [member.strip(b" \t").lower() for member in value.split(b",")]
    return [member for member in members if member]


class Incomplete:
    """Checks a head while it comes in pieces, so that a client need not end it to be refused."""

    def __init__(self) -> None:
        self._line = b""
        self._parser: httptools.HttpRequestParser | None = None

    def feed(self, data: bytes) -> None:
        """Check the next piece of the head; raises Refused."""
        if self._parser is None:
            self._line += data
            if b"\r\n" not in self._line:
                beginning(self._line)
                return
            line = request_line(self._line)
            self._parser = httptools.HttpRequestParser(object())
            data = b"POST / HTTP/1.%d\r\n%b" % (line.minor, self._line[line.size :])
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise malformed(str(error)) from error


def parse_trailers(fields: bytes) -> None:
    """Check the syntax of trailer fields (RFC 9112 7.1.2); raises Refused."""
    if fields:
        for line in fields.split(b"\r\n")[:-1]:  # the last is not complete
            trailer(line.partition(b":")[0])
        try:
            parser = httptools.HttpRequestParser(object())
            parser.feed_data(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + fields)
        except httptools.HttpParserError as error:
            raise malformed(f"{error} in the trailers") from error
