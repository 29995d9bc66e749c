"""What the server refuses in the head of a request: one place, rule by rule, each with its source.

The syntax of the fields is the parser's concern (``child/head.py``). It refuses whitespace before
a colon (RFC 9112 5.1) and before the first field (RFC 9112 2.2), folded lines (RFC 9112 5.2),
control characters and bare line ends (RFC 9110 5.5, RFC 9112 2.2), and a Content-Length that is no
number or comes twice (RFC 9112 6.3).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2
_LINE = re.compile(rb"([^ \t]*) ([!-~]*)(?: ([!-~]*))?\r\n")
_VERSION = re.compile(rb"HTTP/([0-9])\.([0-9])")
_AUTHORITY = re.compile(rb"(?:\[[0-9A-Fa-f:.vV~_-]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+):[0-9]{1,5}")
_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.vV~_-]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?", re.ASCII
)
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/?#@]+(?:[/?#].*)?")

_OTHERS = {  # first bytes of other protocols
    b"\x16\x03": "this is a TLS handshake (https), the server speaks plain HTTP",
    b"PRI * HTTP/2": "this is HTTP/2, the server speaks HTTP/1.1",
}


class Refusal(NamedTuple):
    """What a client is answered instead of what it has asked for; ``why`` is for the test."""

    status: int
    reason: str
    why: str = ""


class Refused(Exception):
    """A head that a rule refuses."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.why)
        self.refusal = refusal


class RequestLine(NamedTuple):
    """A request line that no rule refuses."""

    method: bytes
    target: bytes
    minor: int  # of the version: HTTP/1.minor
    size: int  # bytes, with its line end


class Facts(NamedTuple):
    """What the rules for fields look at; field names are in lower case."""

    line: RequestLine
    hosts: list[bytes]
    codings: list[bytes]  # of Transfer-Encoding, in order and in lower case
    lengths: list[bytes]  # the values of Content-Length


# The request line (RFC 9112 3) -----------------------------------------------------------------


def request_line(head: bytes) -> RequestLine:
    """Check the first line of ``head``; raises Refused."""
    found = _LINE.match(head)
    if found is None:
        raise _bad(named(head) or f"{_quoted(head)} is no request line (RFC 9112 3)")
    method, target, version = found.groups()
    if not TOKEN.fullmatch(method):
        raise _bad(named(head) or f"the method {method!r} is no token (RFC 9110 9.1)")
    minor = _minor_version(head, version)
    if not _target_fits(method, target):
        raise _bad(f"the target {target!r} does not go with {method.decode()} (RFC 9112 3.2)")
    return RequestLine(method, target, minor, found.end())


def beginning(line: bytes) -> None:
    """Check a request line that is not complete; raises Refused as soon as none can come of it."""
    method, space, rest = line.rstrip(b"\r").partition(b" ")
    if (method and not TOKEN.fullmatch(method)) or (space and not method):
        raise _bad(named(line) or f"{_quoted(line)} is no request line (RFC 9112 3)")
    if rest.count(b" ") > 1 or not rest.replace(b" ", b"").isascii() or b"\n" in line:
        raise _bad(f"{_quoted(line)} is no request line (RFC 9112 3)")


def named(start: bytes) -> str | None:
    """What else these first bytes are, if that is known."""
    return next((name for head, name in _OTHERS.items() if start.startswith(head)), None)


def _minor_version(head: bytes, version: bytes | None) -> int:
    if not version:
        raise _bad("no HTTP version: HTTP/0.9 is not spoken (RFC 9112 2.3)")
    found = _VERSION.fullmatch(version)
    if found is None:
        raise _bad(f"the version {version!r} is not one of HTTP (RFC 9112 2.3)")
    if found[1] != b"1":
        if (other := named(head)) is not None:
            raise _bad(other)
        why = f"HTTP/{found[1].decode()}.{found[2].decode()} (RFC 9110 15.6.6)"
        raise Refused(Refusal(505, "HTTP Version Not Supported", why))
    return min(int(found[2]), 1)  # RFC 9110 6.2: a later minor version is treated as 1.1


def _target_fits(method: bytes, target: bytes) -> bool:
    if method == b"CONNECT":
        return _AUTHORITY.fullmatch(target) is not None  # RFC 9112 3.2.3
    if target.startswith(b"/"):
        return True  # RFC 9112 3.2.1
    if target == b"*":
        return method == b"OPTIONS"  # RFC 9112 3.2.4
    return _ABSOLUTE.fullmatch(target) is not None  # RFC 9112 3.2.2


# The fields ------------------------------------------------------------------------------------


def _host(facts: Facts) -> Refusal | None:
    """RFC 9112 3.2: one Host field, which names a host; HTTP/1.0 needs none."""
    count = len(facts.hosts)
    if count > 1 or (not count and facts.line.minor):
        return _refusal(f"{count} Host fields, there must be one (RFC 9112 3.2)")
    if count and not _HOST.fullmatch(facts.hosts[0]):
        return _refusal(f"the Host field {facts.hosts[0]!r} names no host (RFC 9112 3.2)")
    return None


def _coding_in_1_0(facts: Facts) -> Refusal | None:
    """RFC 9112 6.1: HTTP/1.0 has no Transfer-Encoding, so nobody knows where its body ends."""
    if facts.codings and not facts.line.minor:
        return _refusal("Transfer-Encoding in HTTP/1.0 (RFC 9112 6.1)")
    return None


def _length_and_coding(facts: Facts) -> Refusal | None:
    """RFC 9112 6.3: both together may be an attempt to smuggle a request."""
    if facts.codings and facts.lengths:
        return _refusal("Content-Length and Transfer-Encoding together (RFC 9112 6.3)")
    return None


def _codings(facts: Facts) -> Refusal | None:
    """RFC 9112 6.1 and 6.3: ``chunked`` alone; others are not understood."""
    codings = facts.codings
    if not codings or codings == [b"chunked"]:
        return None
    text = b", ".join(codings).decode("latin-1")
    if b"chunked" in codings[:-1]:
        return _refusal(f"chunked is not the last Transfer-Encoding of {text!r} (RFC 9112 6.1)")
    return Refusal(501, "Not Implemented", f"the transfer coding {text!r} (RFC 9112 6.1)")


def _length(facts: Facts) -> Refusal | None:
    """RFC 9112 6.3: one number, or nobody knows where the body ends."""
    for length in facts.lengths:
        if not length.isdigit():
            return _refusal(f"Content-Length {length!r} is no number (RFC 9112 6.3)")
    return None


def _content_of_connect(facts: Facts) -> Refusal | None:
    """RFC 9110 9.3.6: CONNECT has no content, so nobody knows what follows one that has."""
    if facts.line.method == b"CONNECT" and (facts.codings or any(map(_is_content, facts.lengths))):
        return _refusal("content in a CONNECT (RFC 9110 9.3.6)")
    return None


def _is_content(length: bytes) -> bool:
    return length.strip(b"0") != b""


Rule = Callable[[Facts], Refusal | None]
FRAMING: tuple[Rule, ...] = (
    _coding_in_1_0,
    _length_and_coding,
    _length,
    _codings,
    _content_of_connect,
)
RULES: tuple[Rule, ...] = (_host, *FRAMING)


def check(facts: Facts, rules: tuple[Rule, ...] = RULES) -> None:
    """Raise Refused for the first of ``rules`` that ``facts`` break."""
    for rule in rules:
        if (refusal := rule(facts)) is not None:
            raise Refused(refusal)


def malformed(why: str) -> Refused:
    """What is raised for bytes that are not HTTP/1.1."""
    return _bad(why)


def too_large() -> Refused:
    """What is raised for a head or trailers above the limit (RFC 6585 5)."""
    return Refused(Refusal(431, "Request Header Fields Too Large"))


def _refusal(why: str) -> Refusal:
    return Refusal(400, "Bad Request", why)


def _bad(why: str) -> Refused:
    return Refused(_refusal(why))


def _quoted(line: bytes) -> str:
    return repr(bytes(line[:80].partition(b"\r\n")[0]))
