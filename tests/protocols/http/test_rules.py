"""What is refused in the head of a request, and what is not."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestage.protocols.http.child.head import Head, Incomplete, parse_head, parse_trailers
from sidestage.protocols.http.rules import Refusal, Refused


def head(line: str = "GET / HTTP/1.1", *fields: str, host: str = "Host: t") -> bytes:
    """The head of a request, with a Host field unless ``host`` is empty."""
    lines = [line, *([host] if host else []), *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def post(*fields: str) -> bytes:
    return head("POST / HTTP/1.1", *fields)


def refusal_of(text: bytes) -> Refusal:
    with pytest.raises(Refused) as caught:
        parse_head(text)
    return caught.value.refusal


CHUNKED = "Transfer-Encoding: chunked"

REFUSED: dict[str, tuple[bytes, int, str]] = {
    # The syntax of fields.
    "a space before the colon": (head("GET / HTTP/1.1", "A : b"), 400, "header"),
    "a tab before the colon": (head("GET / HTTP/1.1", "A\t: b"), 400, "header"),
    "a space in a name": (head("GET / HTTP/1.1", "A b: c"), 400, "header"),
    "a space before the first field": (b"GET / HTTP/1.1\r\n Host: t\r\n\r\n", 400, ""),
    "a tab before the first field": (b"GET / HTTP/1.1\r\n\tHost: t\r\n\r\n", 400, ""),
    "no name": (head("GET / HTTP/1.1", ": c"), 400, "header"),
    "no colon": (head("GET / HTTP/1.1", "abc"), 400, "header"),
    "a name that is no token": (head("GET / HTTP/1.1", "A(b): c"), 400, "header"),
    "a name beyond ASCII": (head("GET / HTTP/1.1", "\xe9: c"), 400, "header"),
    "a folded line": (head("GET / HTTP/1.1", "A: b", " c"), 400, ""),
    "a line folded with a tab": (head("GET / HTTP/1.1", "A: b", "\tc"), 400, ""),
    "a folded Transfer-Encoding": (post("Transfer-Encoding:", " chunked"), 400, ""),
    "a bare LF after a field": (b"GET / HTTP/1.1\r\nHost: t\nA: b\r\n\r\n", 400, ""),
    "a bare LF at the end": (b"GET / HTTP/1.1\r\nHost: t\r\n\nA: b\r\n\r\n", 400, ""),
    "a bare LF after the line": (b"GET / HTTP/1.1\nHost: t\r\n\r\n", 400, "no request line"),
    "a bare CR in a value": (head("GET / HTTP/1.1", "A: b\rc: d"), 400, ""),
    "a bare CR in a name": (head("GET / HTTP/1.1", "A\r: b"), 400, "header"),
    "a bare CR in the line": (head("GET /\rx HTTP/1.1"), 400, "no request line"),
    "a NUL in a value": (head("GET / HTTP/1.1", "A: b\0c"), 400, "header"),
    "a control character in a value": (head("GET / HTTP/1.1", "A: b\x01c"), 400, "header"),
    "a DEL in a value": (head("GET / HTTP/1.1", "A: b\x7fc"), 400, "header"),
    # Host.
    "no Host": (head(host=""), 400, "0 Host fields"),
    "two Hosts": (head("GET / HTTP/1.1", "host: t"), 400, "2 Host fields"),
    "two Hosts in HTTP/1.0": (head("GET / HTTP/1.0", "Host: t"), 400, "2 Host fields"),
    "a Host with a path": (head(host="Host: t/x"), 400, "names no host"),
    "a Host with a user": (head(host="Host: me@t"), 400, "names no host"),
    "a Host with a space": (head(host="Host: a b"), 400, "names no host"),
    "a list of Hosts": (head(host="Host: a, b"), 400, "names no host"),
    "a port that is no number": (head(host="Host: t:http"), 400, "names no host"),
    "a bracket that is open": (head(host="Host: [::1"), 400, "names no host"),
    "a Host beyond ASCII": (head(host="Host: t\xe9"), 400, "names no host"),
    "a bad Host in HTTP/1.0": (head("GET / HTTP/1.0", host="Host: t/x"), 400, "names no host"),
    "a list of Hosts without a space": (head(host="Host: a,b"), 400, "names no host"),
    "a port alone": (head(host="Host: :80"), 400, "names no host"),
    "a query in a Host": (head(host="Host: t?x"), 400, "names no host"),
    "a percent sign in a Host": (head(host="Host: t%zz"), 400, "names no host"),
    "a backslash in a Host": (head(host="Host: t\\x"), 400, "names no host"),
    "brackets around a name": (head(host="Host: [t]"), 400, "names no host"),
    "brackets around IPv4": (head(host="Host: [127.0.0.1]"), 400, "names no host"),
    "brackets around no address": (head(host="Host: [::::]"), 400, "names no host"),
    "IPv6 without brackets": (head(host="Host: ::1"), 400, "names no host"),
    "a zone": (head(host="Host: [fe80::1%25eth0]"), 400, "names no host"),
    # The version.
    "RTSP": (head("OPTIONS / RTSP/1.0"), 400, "not one of HTTP"),
    "ICE": (head("SOURCE /x ICE/1.0"), 400, "not one of HTTP"),
    "a version in lower case": (head("GET / http/1.1"), 400, "not one of HTTP"),
    "a version of two digits": (head("GET / HTTP/1.10"), 400, "not one of HTTP"),
    "a version without a minor one": (head("GET / HTTP/1"), 400, "not one of HTTP"),
    "HTTP/2.0": (head("GET / HTTP/2.0"), 505, "HTTP/2.0"),
    "HTTP/3.0": (head("GET / HTTP/3.0"), 505, "HTTP/3.0"),
    "HTTP/0.9": (head("GET / HTTP/0.9"), 505, "HTTP/0.9"),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\n", 400, "this is HTTP/2"),
    "no version": (head("GET /"), 400, "no HTTP version"),
    "no version and a space": (head("GET / "), 400, "no HTTP version"),
    # The request line.
    "TLS": (b"\x16\x03\x01\x02\0\x01\0\r\n\r\n", 400, "TLS handshake"),
    "one word": (b"hello\r\n\r\n", 400, "no request line"),
    "two spaces": (head("GET  / HTTP/1.1"), 400, ""),
    "a space at its end": (head("GET / HTTP/1.1 "), 400, "no request line"),
    "a space at its beginning": (head(" GET / HTTP/1.1"), 400, ""),
    "a tab": (head("GET\t/ HTTP/1.1"), 400, "no request line"),
    "a method that is no token": (head("GE(T / HTTP/1.1"), 400, "no token"),
    "a method beyond ASCII": (head("G\xc9T / HTTP/1.1"), 400, "no token"),
    "no method": (head("/ HTTP/1.1"), 400, ""),
    # Targets.
    "no slash": (head("GET x HTTP/1.1"), 400, "does not go with GET"),
    "an asterisk for GET": (head("GET * HTTP/1.1"), 400, "does not go with GET"),
    "an authority for GET": (head("GET t:80 HTTP/1.1"), 400, "does not go with GET"),
    "an asterisk and more": (head("OPTIONS *x HTTP/1.1"), 400, "does not go with OPTIONS"),
    "a path for CONNECT": (head("CONNECT / HTTP/1.1"), 400, "does not go with CONNECT"),
    "a URL for CONNECT": (head("CONNECT http://t:80 HTTP/1.1"), 400, "does not go with CONNECT"),
    "no port for CONNECT": (head("CONNECT t HTTP/1.1"), 400, "does not go with CONNECT"),
    "a length for CONNECT": (
        head("CONNECT t:1 HTTP/1.1", "Content-Length: 12"),
        400,
        "content in a CONNECT",
    ),
    "chunks for CONNECT": (head("CONNECT t:1 HTTP/1.1", CHUNKED), 400, "content in a CONNECT"),
    "a length of 5000 digits": (
        head("POST / HTTP/1.1", "Content-Length: " + "9" * 5000),
        400,
        "",
    ),
    "an empty port for CONNECT": (head("CONNECT t: HTTP/1.1"), 400, "does not go with CONNECT"),
    "a URL without a host": (head("GET http:///x HTTP/1.1"), 400, "does not go with GET"),
    "a URL with a user": (head("GET http://me@t/ HTTP/1.1"), 400, "does not go with GET"),
    "a URL with a port that is no number": (head("GET http://t:x/ HTTP/1.1"), 400, "does not go"),
    "a URL with a bracket that is open": (head("GET http://[::1/ HTTP/1.1"), 400, "does not go"),
    "a URL with a port alone": (head("GET http://:80/ HTTP/1.1"), 400, "does not go with GET"),
    "a URL with two hosts": (head("GET http://a,b/ HTTP/1.1"), 400, "does not go with GET"),
    "a list for CONNECT": (head("CONNECT a,b:1 HTTP/1.1"), 400, "does not go with CONNECT"),
    "a user for CONNECT": (head("CONNECT me@t:1 HTTP/1.1"), 400, "does not go with CONNECT"),
    "a target in Latin-1": (
        head("GET /\xe9 HTTP/1.1"),
        400,
        "the target has characters beyond ASCII, which a client must percent-encode: /%E9 (",
    ),
    "a target in UTF-8": (
        "GET /café?q=☃ HTTP/1.1\r\nHost: t\r\n\r\n".encode(),
        400,
        "must percent-encode: /caf%C3%A9?q=%E2%98%83 (RFC 3986 2.1)",
    ),
    "a target in UTF-8, of HTTP/0.9": ("GET /é\r\n\r\n".encode(), 400, "encode: /%C3%A9 ("),
    "a URL in UTF-8": (
        "GET http://tür/ HTTP/1.1\r\nHost: t\r\n\r\n".encode(),
        400,
        "must percent-encode: http://t%C3%BCr/",
    ),
    "a fragment": (
        head("GET /a?b#c HTTP/1.1"),
        400,
        "the target b'/a?b#c' has a fragment, which a client must leave out (RFC 9110 7.1)",
    ),
    "a fragment in a URL": (head("GET http://t#c HTTP/1.1"), 400, "has a fragment"),
    "port 0 in CONNECT": (head("CONNECT t:0 HTTP/1.1"), 400, "b't:0' does not go with CONNECT"),
    "a port beyond all": (head("CONNECT t:65536 HTTP/1.1"), 400, "b't:65536' does not go with"),
    "a space in a target": (
        head("GET /a b/c d HTTP/1.1"),
        400,
        "the target has a space, which a client must percent-encode: /a%20b/c%20d (",
    ),
    # How the body is framed.
    "a coding in HTTP/1.0": (head("POST / HTTP/1.0", CHUNKED), 400, "in HTTP/1.0"),
    "gzip": (post("Transfer-Encoding: gzip"), 501, "'gzip'"),
    "identity": (post("Transfer-Encoding: identity"), 501, "'identity'"),
    "gzip and chunked": (
        post("Transfer-Encoding: gzip, chunked"),
        501,
        "'gzip, chunked'",
    ),
    "gzip and chunked in two fields": (
        post("Transfer-Encoding: gzip", CHUNKED),
        501,
        "'gzip, chunked'",
    ),
    "chunked before gzip": (
        post("Transfer-Encoding: chunked, gzip"),
        400,
        "Transfer-Encoding",
    ),
    "chunked twice": (
        post("Transfer-Encoding: chunked, Chunked"),
        400,
        "Transfer-Encoding",
    ),
    "chunked twice in two fields": (post(CHUNKED, CHUNKED), 400, "Transfer-Encoding"),
    "a coding like chunked": (post("Transfer-Encoding: xchunked"), 501, ""),
    "an empty coding": (post("Transfer-Encoding:"), 400, ""),
    "an empty coding beside chunked": (post("Transfer-Encoding: ,", CHUNKED), 400, "empty coding"),
    "a length, then chunks": (post("Content-Length: 1", CHUNKED), 400, "Transfer-Encoding"),
    "chunks, then a length": (post(CHUNKED, "Content-Length: 1"), 400, "Transfer-Encoding"),
    "chunks and a length of 0": (
        post(CHUNKED, "Content-Length: 0"),
        400,
        "Transfer-Encoding",
    ),
    "a length that is no number": (post("Content-Length: x"), 400, ""),
    "an empty length": (post("Content-Length:"), 400, ""),
    "a length with a sign": (post("Content-Length: +1"), 400, ""),
    "a negative length": (post("Content-Length: -1"), 400, ""),
    "a hexadecimal length": (post("Content-Length: 0x1"), 400, ""),
    "a length with a space": (post("Content-Length: 1 2"), 400, ""),
    "a list of lengths": (post("Content-Length: 1, 1"), 400, ""),
    "two lengths": (post("Content-Length: 1", "Content-Length: 2"), 400, ""),
    "a length that is too large": (post(f"Content-Length: {1 << 64}"), 400, ""),
    "a length of 64 bits": (post(f"Content-Length: {(1 << 64) - 1}"), 400, "is too large"),
    "a length of 63 bits": (post(f"Content-Length: {1 << 63}"), 400, "is too large"),
    "a list of codings": (post("Transfer-Encoding: gzip,chunked"), 501, "'gzip, chunked'"),
    "a coding in quotes": (post('Transfer-Encoding: "chunked"'), 501, ""),
    "a coding with a parameter": (post("Transfer-Encoding: chunked;q=1"), 501, ""),
    "a vertical tab after a coding": (post("Transfer-Encoding: chunked\x0b"), 400, ""),
}


@pytest.mark.parametrize("text, status, why", REFUSED.values(), ids=REFUSED)
def test_a_head_that_breaks_a_rule_is_refused(text: bytes, status: int, why: str) -> None:
    refusal = refusal_of(text)
    assert refusal.status == status
    assert why in refusal.why
    assert refusal.why


ACCEPTED: dict[str, tuple[bytes, dict[str, object]]] = {
    "the least": (head(), {"method": "GET", "target": "/", "http_version": "1.1", "length": 0}),
    "the fields as they came": (
        head("GET / HTTP/1.1", "a:b", "C:  d "),
        {"fields": b"Host: t\r\na:b\r\nC:  d "},
    ),
    "no fields": (head("GET / HTTP/1.0", host=""), {"fields": b"", "http_version": "1.0"}),
    "a value beyond ASCII": (head("GET / HTTP/1.1", "A: \xe9"), {"fields": b"Host: t\r\nA: \xe9"}),
    "a tab in a value": (head("GET / HTTP/1.1", "A: b\tc"), {"length": 0}),
    "an empty value": (head("GET / HTTP/1.1", "A:"), {"length": 0}),
    # Versions, and what they mean for the connection.
    "HTTP/1.0": (head("GET / HTTP/1.0"), {"http_version": "1.0", "keep_alive": False}),
    "HTTP/1.0 kept": (head("GET / HTTP/1.0", "Connection: Keep-Alive"), {"keep_alive": True}),
    "HTTP/1.1 kept": (head(), {"keep_alive": True}),
    "HTTP/1.1 closed": (head("GET / HTTP/1.1", "Connection: x, CLOSE"), {"keep_alive": False}),
    "both of them": (
        head("GET / HTTP/1.1", "Connection: keep-alive, close"),
        {"keep_alive": False},
    ),
    "HTTP/1.2": (head("GET / HTTP/1.2", CHUNKED), {"http_version": "1.1", "length": None}),
    "HTTP/1.9 kept": (head("GET / HTTP/1.9"), {"http_version": "1.1", "keep_alive": True}),
    # Host.
    "an empty Host": (head(host="Host:"), {"method": "GET"}),
    "a Host with a port": (head(host="HOST: a.example:80"), {"method": "GET"}),
    "a Host of the future": (head(host="Host: [v1.x:y]:80"), {"method": "GET"}),
    "a Host of IPv6 and IPv4": (head(host="Host: [::ffff:1.2.3.4]"), {"method": "GET"}),
    "an escaped Host": (head(host="Host: %41b_c-d.e~"), {"method": "GET"}),
    "an empty port": (head(host="Host: t:"), {"method": "GET"}),
    "another Host than in the URL": (
        head("GET http://u/x HTTP/1.1"),
        {"target": "http://u/x", "fields": b"Host: t"},
    ),
    "a Host of IPv6": (head(host="Host: [::1]:80"), {"method": "GET"}),
    # Whitespace around a value (RFC 9112 5.1).
    "blanks around a value": (head("GET / HTTP/1.1", "A: \t x \t"), {"length": 0}),
    # Methods.
    "any token": (head("!#$%&'*+-.^_`|~09azAZ / HTTP/1.1"), {"method": "!#$%&'*+-.^_`|~09azAZ"}),
    "one of WebDAV": (head("PROPFIND /x HTTP/1.1"), {"method": "PROPFIND"}),
    "one in lower case": (head("get /x HTTP/1.1"), {"method": "get"}),
    "PRI": (head("PRI / HTTP/1.1"), {"method": "PRI", "length": 0}),
    # Targets.
    "a path and a query": (head("GET /a%20b?c=d&e HTTP/1.1"), {"target": "/a%20b?c=d&e"}),
    "two slashes": (head("GET //a HTTP/1.1"), {"target": "//a"}),
    "a URL": (head("GET http://t/x?y HTTP/1.1"), {"target": "http://t/x?y"}),
    "a URL without a path": (head("PUT https://t:8 HTTP/1.1"), {"target": "https://t:8"}),
    "a URL without a path, with a query": (
        head("GET http://t?x HTTP/1.1"),
        {"target": "http://t?x"},
    ),
    "an asterisk": (head("OPTIONS * HTTP/1.1"), {"target": "*"}),
    "an authority": (head("CONNECT t:443 HTTP/1.1"), {"target": "t:443", "length": 0}),
    "an authority of IPv6": (head("CONNECT [::1]:443 HTTP/1.1"), {"target": "[::1]:443"}),
    "a path for OPTIONS": (head("OPTIONS /x HTTP/1.1"), {"target": "/x"}),
    # Bodies.
    "a length": (post("Content-Length: 12"), {"length": 12}),
    "a length with zeros": (post("Content-Length: 0012"), {"length": 12}),
    "a length with many zeros": (post(f"Content-Length: {'0' * 5000}12"), {"length": 12}),
    "the largest length": (post(f"Content-Length: {(1 << 63) - 1}"), {"length": (1 << 63) - 1}),
    "a length for GET": (head("GET / HTTP/1.1", "Content-Length: 12"), {"length": 12}),
    "a length for another method": (head("x!y / HTTP/1.1", "Content-Length: 12"), {"length": 12}),
    "chunks": (post(CHUNKED), {"length": None}),
    "chunks in another case": (post("transfer-encoding: CHUNKED"), {"length": None}),
    "no length for CONNECT": (head("CONNECT t:1 HTTP/1.1", "Content-Length: 0"), {"length": 0}),
    "space after a length": (head("POST / HTTP/1.1", "Content-Length: 31 "), {"length": 31}),
    "a tab after a length": (head("POST / HTTP/1.1", "Content-Length:\t31\t"), {"length": 31}),
    "space after Expect": (
        head("POST / HTTP/1.1", "Content-Length: 1", "Expect: 100-continue "),
        {"expects": True},
    ),
    # What is asked for.
    "an expectation": (post("Content-Length: 1", "Expect: 100-Continue"), {"expects": True}),
    "an expectation for chunks": (post(CHUNKED, "Expect: 100-continue"), {"expects": True}),
    "an expectation among others": (
        post("Content-Length: 1", "Expect: x=1, 100-Continue\t, y"),
        {"expects": True},
    ),
    "an expectation before another": (
        post("Content-Length: 1", "Expect: 100-continue", "Expect: x"),
        {"expects": True},
    ),
    "an expectation without a body": (post("Expect: 100-continue"), {"expects": False}),
    "an expectation of HTTP/1.0": (
        head("POST / HTTP/1.0", "Content-Length: 1", "Expect: 100-continue"),
        {"expects": False},
    ),
    "another expectation": (post("Content-Length: 1", "Expect: x"), {"expects": False}),
    "an upgrade": (
        head("GET / HTTP/1.1", "Upgrade: h2c", "Connection: Upgrade"),
        {"keep_alive": True, "length": 0},
    ),
    "an upgrade with a body": (
        post("Upgrade: websocket", "Connection: upgrade", "Content-Length: 3"),
        {"length": 3},
    ),
}


@pytest.mark.parametrize("text, facts", ACCEPTED.values(), ids=ACCEPTED)
def test_a_head_that_breaks_no_rule_is_understood(text: bytes, facts: dict[str, object]) -> None:
    found = parse_head(text)
    assert {name: getattr(found, name) for name in facts} == facts


TOKENS = "!#$%&'*+-.^_`|~0123456789abcXYZ"


@given(st.text(TOKENS, min_size=1, max_size=12))
def test_a_method_is_any_token(method: str) -> None:
    target = "t:1" if method == "CONNECT" else "/"
    found = parse_head(head(f"{method} {target} HTTP/1.1", CHUNKED))
    assert (found.method, found.fields) == (method, b"Host: t\r\nTransfer-Encoding: chunked")


# Byte by byte ----------------------------------------------------------------------------------


def in_pieces(text: bytes, *cuts: int) -> tuple[Head | Refusal, int]:
    """What a head that comes in pieces becomes, as in the reader, and how much of it was needed."""
    incomplete = Incomplete()
    for start, end in zip((0, *cuts), (*cuts, len(text)), strict=True):
        try:
            if b"\r\n\r\n" in text[:end]:
                return parse_head(text), end
            incomplete.feed(text[start:end])
        except Refused as refused:
            return refused.refusal, end
    raise AssertionError("this is not the head of a request")


def byte_by_byte(text: bytes) -> tuple[Head | Refusal, int]:
    return in_pieces(text, *range(1, len(text)))


@pytest.mark.parametrize("text, status", [case[:2] for case in REFUSED.values()], ids=REFUSED)
def test_a_head_is_refused_byte_by_byte_as_at_once(text: bytes, status: int) -> None:
    refusal, _ = byte_by_byte(text)
    assert isinstance(refusal, Refusal)
    assert refusal.status == status


@pytest.mark.parametrize("text", [text for text, _ in ACCEPTED.values()], ids=ACCEPTED)
def test_a_head_is_accepted_byte_by_byte_as_at_once(text: bytes) -> None:
    found, size = byte_by_byte(text)
    assert isinstance(found, Head)
    assert size == len(text)


EARLIEST: dict[str, tuple[bytes, bytes]] = {
    # What has come when it is refused, and what would have followed.
    "TLS": (b"\x16", b"\x03\x01\x02"),
    "a method that is no token": (b"GE(", b"T / HTTP/1.1\r\n"),
    "no method": (b" ", b"GET / HTTP/1.1\r\n"),
    "a bare LF in the line": (b"GET / HTTP/1.1\n", b"Host: t\r\n"),
    "a target beyond ASCII": (b"GET /\xe9", b" HTTP/1.1\r\n"),
    "a fourth word": (b"GET / HTTP/1.1 ", b"x\r\n"),
    "no version": (b"GET /\r\n", b"Host: t\r\n"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n", b"\r\nSM\r\n\r\n"),
    "another version": (b"GET / HTTP/2.0\r\n", b"Host: t\r\n"),
    "an asterisk for GET": (b"GET * HTTP/1.1\r\n", b"Host: t\r\n"),
    "a space before the colon": (b"GET / HTTP/1.1\r\nA ", b": b\r\n"),
    "a folded line": (b"GET / HTTP/1.1\r\nA: b\r\n ", b"c\r\n"),
    "a NUL in a value": (b"GET / HTTP/1.1\r\nA: b\0", b"c\r\n"),
    "a length that is no number": (b"GET / HTTP/1.1\r\nContent-Length: 1x", b"\r\n"),
}


@pytest.mark.parametrize("start, rest", EARLIEST.values(), ids=EARLIEST)
def test_a_head_is_refused_as_soon_as_nothing_can_come_of_it(start: bytes, rest: bytes) -> None:
    refusal, size = byte_by_byte(start + rest + b"\r\n")
    assert isinstance(refusal, Refusal)
    assert size == len(start)


VALID = st.builds(
    head,
    st.sampled_from(
        ["GET / HTTP/1.1", "x!y /a HTTP/1.2", "OPTIONS * HTTP/1.0", "CONNECT t:1 HTTP/1.1"]
    ),
    st.sampled_from(
        [
            "A: b",
            "A:",
            "Content-Length: 12",
            CHUNKED,
            "Transfer-Encoding: gzip",
            "Connection: close",
        ]
    ),
    st.sampled_from(["B: c", CHUNKED, "Upgrade: x", "Expect: 100-continue"]),
)


@given(VALID, st.data())
def test_a_head_with_a_changed_byte_is_the_same_however_it_is_split(
    text: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(text) - 5))
    byte = data.draw(st.sampled_from([*b"\0\t\n\r :,/*x1\x7f\xe9"]))
    text = text[:at] + bytes([byte]) + text[at + 1 :]
    text = text[: text.index(b"\r\n\r\n") + 4]
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=6).map(sorted))
    try:
        found: Head | Refusal = parse_head(text)
    except Refused as refused:
        found = refused.refusal
    for split, _ in (in_pieces(text, *cuts), byte_by_byte(text)):
        if isinstance(found, Refusal):
            assert isinstance(split, Refusal)
            assert split.status == found.status
        else:
            assert isinstance(split, Head)


@given(st.sampled_from([*REFUSED.values()]), st.data())
def test_a_beginning_is_refused_only_if_the_whole_is(
    case: tuple[bytes, int, str], data: st.DataObject
) -> None:
    """In whatever pieces it comes, the status is the same."""
    text, status, _ = case
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=6).map(sorted))
    refusal, _ = in_pieces(text, *cuts)
    assert isinstance(refusal, Refusal)
    assert refusal.status == status


# Trailers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Content-Length", "content-length", "TRANSFER-ENCODING"])
@pytest.mark.parametrize("before", ["", "A: b\r\n"])
def test_a_trailer_that_frames_its_message_is_refused(name: str, before: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_trailers(f"{before}{name}: 5\r\n\r\n".encode())
    assert caught.value.refusal.why == f"{name} in the trailers (RFC 9110 6.5.1)"


@pytest.mark.parametrize("fields", [b"", b"A: b\r\n\r\n", b"A: b\r\nC:\r\n\r\n", b"A: b", b"A"])
def test_trailers_that_are_fields_are_accepted(fields: bytes) -> None:
    parse_trailers(fields)


@pytest.mark.parametrize(
    "fields", [b"A : b\r\n\r\n", b"A b: c", b"A: b\r\n c\r\n\r\n", b"A: b\nC: d\r\n\r\n", b"A: \0"]
)
def test_trailers_that_are_no_fields_are_refused(fields: bytes) -> None:
    with pytest.raises(Refused) as caught:
        parse_trailers(fields)
    assert caught.value.refusal.status == 400
    assert "trailers" in caught.value.refusal.why


def test_a_long_value_that_ends_wrong_is_refused_in_a_moment() -> None:
    """Not in time that grows with the square of its length."""
    began = time.monotonic()
    with pytest.raises(Refused):
        parse_head(b"GET / HTTP/1.1\r\nHost: t\r\nX:" + b" " * 60_000 + b"\n\r\n\r\n")
    assert time.monotonic() - began < 5
