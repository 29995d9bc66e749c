"""What the server refuses in the head of a request: one place, rule by rule, each with its source.

The syntax of the fields is the parser's concern (``child/head.py``). It refuses whitespace before
a colon (RFC 9112 5.1) and before the first field (RFC 9112 2.2), folded lines (RFC 9112 5.2),
control characters and bare line ends (RFC 9110 5.5, RFC 9112 2.2), and a Content-Length that comes
twice (RFC 9112 6.3).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import NamedTuple

TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2
_LINE = re.compile(rb"([^ \t]*) ([!-~]*)(?: ([!-~]*))?\r\n")
_VERSION = re.compile(rb"HTTP/([0-9])\.([0-9])")
# RFC 9110 7.2, RFC 3986 3.2.2. No comma: it would be two Host fields that somebody has joined.
_HOST = re.compile(
    rb"(?:\[(?:([0-9A-Fa-f:.]+)|[vV][0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+;=:-]+)\]"
    rb"|(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})+)(:[0-9]*)?"
)
_PORT = re.compile(rb":[0-9]{1,5}")
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)(?:[/?#].*)?")
_MAX_LENGTH = 1 << 63  # bytes; what a client says of a body that it can never send

_OTHERS = {  # first bytes of other protocols
    b"\x16\x03": (
        "this is a TLS handshake (https), the server speaks plain HTTP: tls=True has it speak TLS"
    ),
    b"PRI * HTTP/2": "this is HTTP/2, the server speaks HTTP/1.1",
}


class Refusal(NamedTuple):
    """What a client is answered instead of what it has asked for; ``why`` is for the test."""

    status: int
    reason: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.status} {self.reason}" + (f": {self.why}" if self.why else "")


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
        raise _no_line(head)
    method, target, version = found.groups()
    if not TOKEN.fullmatch(method):
        raise _bad(named(head) or f"the method {method!r} is no token (RFC 9110 9.1)")
    minor = _minor_version(head, version)
    if b"#" in target:
        raise _bad(
            f"the target {target!r} has a fragment, which a client must leave out (RFC 9110 7.1)"
        )
    if not _target_fits(method, target):
        raise _bad(f"the target {target!r} does not go with {method.decode()} (RFC 9112 3.2)")
    return RequestLine(method, target, minor, found.end())


def beginning(line: bytes) -> None:
    """Check a request line that is not complete; raises Refused as soon as none can come of it."""
    method, space, rest = line.rstrip(b"\r").partition(b" ")
    if (method and not TOKEN.fullmatch(method)) or (space and not method):
        raise _no_line(line)
    if rest.count(b" ") > 1 or not rest.replace(b" ", b"").isascii() or b"\n" in line:
        raise _no_line(line)


def _no_line(head: bytes) -> Refused:
    """What is raised for a line that is no request line, with what a client has to change."""
    if (other := named(head)) is not None:
        return _bad(other)
    why = f"{_quoted(head)} is no request line (RFC 9112 3)"
    method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
    target, version, _ = rest.rpartition(b" HTTP/")
    target = target if version else rest
    beyond, space = not target.isascii(), bool(version) and b" " in target.strip(b" ")
    if TOKEN.fullmatch(method) and (beyond or space):
        escaped = "".join(chr(byte) if b"!" <= bytes([byte]) <= b"~" else f"%{byte:02X}"
                          for byte in target[:80])  # fmt: skip
        has = "characters beyond ASCII" if beyond else "a space"
        why += (
            f": the target has {has}, which a client must percent-encode: {escaped} (RFC 3986 2.1)"
        )
    return _bad(why)


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
    if method == b"CONNECT":  # RFC 9112 3.2.3
        port = _port_of(target)  # RFC 9110 9.3.6: an empty or invalid one is refused
        if port is None or not _PORT.fullmatch(port):
            return False
        return 0 < int(port[1:]) < 1 << 16
    if target.startswith(b"/"):
        return True  # RFC 9112 3.2.1
    if target == b"*":
        return method == b"OPTIONS"  # RFC 9112 3.2.4
    absolute = _ABSOLUTE.fullmatch(target)  # RFC 9112 3.2.2; RFC 9110 4.2.4: no user in it
    return absolute is not None and _port_of(absolute[1]) is not None


def _port_of(authority: bytes) -> bytes | None:
    """The port of a host, with its colon, or empty; ``None`` if this names no host."""
    found = _HOST.fullmatch(authority)
    if found is None or (found[1] and not _is_ipv6(found[1])):
        return None
    return found[2] or b""


def _is_ipv6(address: bytes) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, address.decode("ascii"))
    except OSError:
        return False
    return True


# The fields ------------------------------------------------------------------------------------


def _host(facts: Facts) -> Refusal | None:
    """RFC 9112 3.2: one Host field, which names a host or is empty; HTTP/1.0 needs none.

    Of a target with a host, that one counts, whatever the field says (RFC 9112 3.2.2).
    """
    count = len(facts.hosts)
    if count > 1 or (not count and facts.line.minor):
        return _refusal(f"{count} Host fields, there must be one (RFC 9112 3.2)")
    if count and facts.hosts[0] and _port_of(facts.hosts[0]) is None:
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
    if b"" in codings:  # a recipient may ignore it (RFC 9110 5.6.1.2), and another may not
        return _refusal(f"an empty coding in Transfer-Encoding {text!r} (RFC 9112 6.1)")
    if b"chunked" in codings[:-1]:
        return _refusal(f"chunked is not the last Transfer-Encoding of {text!r} (RFC 9112 6.1)")
    return Refusal(501, "Not Implemented", f"the transfer coding {text!r} (RFC 9112 6.1)")


def _length(facts: Facts) -> Refusal | None:
    """RFC 9112 6.3: one number, or nobody knows where the body ends."""
    for length in facts.lengths:
        if not length.isdigit():
            return _refusal(f"Content-Length {length[:40]!r} is no number (RFC 9112 6.3)")
        if body_length(length) is None:
            return _refusal(f"Content-Length {length[:40]!r} is too large (RFC 9110 8.6)")
    return None


def body_length(digits: bytes) -> int | None:
    """The value of a Content-Length, in bytes; ``None`` if no body can be that long."""
    digits = digits.lstrip(b"0")
    length = int(digits or b"0") if len(digits) < 20 else _MAX_LENGTH
    return length if length < _MAX_LENGTH else None


def _content_of_connect(facts: Facts) -> Refusal | None:
    """RFC 9110 9.3.6: CONNECT has no content, so nobody knows what follows one that has."""
    if facts.line.method == b"CONNECT" and (facts.codings or any(map(_is_content, facts.lengths))):
        return _refusal("content in a CONNECT (RFC 9110 9.3.6)")
    return None


def _is_content(length: bytes) -> bool:
    return length.strip(b"0") != b""


def trailer(name: bytes) -> None:
    """Raise Refused for a trailer field that says how its message is framed (RFC 9110 6.5.1)."""
    if name.lower() in (b"content-length", b"transfer-encoding"):
        raise _bad(f"{name.decode()} in the trailers (RFC 9110 6.5.1)")


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
