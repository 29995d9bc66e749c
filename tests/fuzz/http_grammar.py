"""Makes HTTP/1.1 requests: good ones by grammar (RFC 9112), hostile ones from a list.

A good request comes with what must be recorded of it.
"""

from __future__ import annotations

import random
import string
from typing import NamedTuple

from fuzz.mutations import mutate, mutate_parts

_TOKEN = "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters
_PATH = string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@/%?"
_VALUE = string.printable[:95] + "\xe9\xff\x80\t"
_METHODS = ("GET", "GET", "GET", "POST", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS")
_ODD_METHODS = ("M-SEARCH", "PRI", "get", "$X!", "BREW", "PROPFIND", "SOURCE", "QUERY", "A" * 30)
_NAMES = (
    "Accept", "Accept-Encoding", "Authorization", "Cache-Control", "Content-Type", "Cookie", "DNT",
    "Date", "If-None-Match", "Keep-Alive", "Origin", "Range", "Referer", "TE", "User-Agent", "Via",
    "X-Forwarded-For", "X_Under", "x", "Content-Lengths", "Transfer-Encodings", "Hosts",
)  # fmt: skip
_HOSTS = ("t", "example.org", "a.b:80", "127.0.0.1:8080", "[::1]", "[::1]:80", "%41", "x:")
_EXTENSIONS = (b"", b"", b"", b";a", b";a=b", b' ; q="x;y"', b";\xe9=\t1", b";" + b"x" * 200)
_TRAILERS = (b"", b"", b"", b"X-T: 1\r\n", b"X-T: 1\r\nDigest:\t\xe9 \r\n")


class Expected(NamedTuple):
    """A good request, as it must be recorded."""

    method: str
    target: str
    http_version: str
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    trailers: bytes
    closes: bool  # nothing after it is answered


class Message(NamedTuple):
    """A request in parts: its lines and the pieces of its body."""

    parts: tuple[bytes, ...]
    expected: Expected


def request(dice: random.Random, *, last: bool = True) -> Message:
    """A good request; one that closes the connection is made only as the ``last``."""
    old = last and dice.random() < 0.1
    method = dice.choice(_METHODS if dice.random() < 0.9 else _ODD_METHODS)
    target = _target(dice, method)
    version = "1.0" if old else dice.choice(("1.1", "1.1", "1.1", "1.1", "1.2"))
    fields = [(b"Host", dice.choice(_HOSTS).encode())]
    fields += [_field(dice) for _ in range(dice.choice((0, 0, 1, 2, 3, 12)))]
    closes = old
    if last and dice.random() < 0.2:
        closes = True
        fields.append((b"Connection", dice.choice((b"close", b"Close", b"x , close"))))
    elif old and dice.random() < 0.4:
        closes = False
        fields.append((b"Connection", b"keep-alive"))
    body = _body(dice, old=old)
    fields += body.fields
    dice.shuffle(fields)
    lines = [b"%b %b HTTP/%b\r\n" % (method.encode(), target.encode(), version.encode())]
    lines += [_line(dice, name, value) for name, value in fields]
    expected = Expected(
        method,
        target,
        "1.0" if old else "1.1",
        tuple((name, value.strip(b" \t")) for name, value in fields),
        body.content,
        body.trailers,
        closes,
    )
    return Message((*lines, b"\r\n", *body.parts), expected)


def _target(dice: random.Random, method: str) -> str:
    if method == "OPTIONS" and dice.random() < 0.3:
        return "*"
    path = "/" + "".join(dice.choices(_PATH, k=dice.choice((0, 1, 5, 20, 300))))
    if dice.random() < 0.08:
        return dice.choice(("http://t", "HTTPS://a.b:80", "x+y://[::1]")) + path
    return path


def _field(dice: random.Random) -> tuple[bytes, bytes]:
    name = dice.choice(_NAMES)
    if dice.random() < 0.1:
        name = "X-" + "".join(dice.choices(_TOKEN, k=dice.randrange(1, 20)))
    value = "".join(dice.choices(_VALUE, k=dice.choice((0, 1, 8, 40))))
    return name.encode(), value.encode("latin-1")


def _line(dice: random.Random, name: bytes, value: bytes) -> bytes:
    space = b" " if dice.random() < 0.8 else dice.choice((b"", b"\t", b"  \t"))
    after = b"" if dice.random() < 0.9 else b" \t "
    return b"%b:%b%b%b\r\n" % (name, space, value, after)


class Body(NamedTuple):
    """A body, and how it is framed."""

    content: bytes = b""
    parts: tuple[bytes, ...] = ()  # as it is sent
    fields: tuple[tuple[bytes, bytes], ...] = ()  # that it needs
    trailers: bytes = b""


def _body(dice: random.Random, *, old: bool) -> Body:
    match dice.randrange(5):
        case 0 | 1:
            return Body()
        case 2 | 3 if not old:
            return chunks(dice)
        case _:
            body = dice.randbytes(dice.choice((0, 1, 10, 100, 3000)))
            length = b"%d" % len(body) if dice.random() < 0.9 else b"%08d" % len(body)
            return Body(body, (body,), ((b"Content-Length", length),))


def chunks(dice: random.Random) -> Body:
    """A body in chunks (RFC 9112 7.1)."""
    body, parts = b"", []
    for _ in range(dice.choice((0, 1, 1, 2, 5, 40))):
        piece = dice.randbytes(dice.choice((1, 2, 15, 16, 200)))
        size = dice.choice((b"%x", b"%X", b"%05x")) % len(piece)
        parts += [size + dice.choice(_EXTENSIONS) + b"\r\n", piece, b"\r\n"]
        body += piece
    trailers = dice.choice(_TRAILERS)
    parts += [dice.choice((b"0", b"000")) + dice.choice(_EXTENSIONS) + b"\r\n", trailers, b"\r\n"]
    coding = dice.choice((b"chunked", b"Chunked"))
    return Body(body, tuple(parts), ((b"Transfer-Encoding", coding),), trailers[:-2])


def requests(dice: random.Random, most: int) -> tuple[tuple[bytes, ...], tuple[Expected, ...]]:
    """Good requests one after another."""
    count = dice.randrange(1, most + 1)
    messages = [request(dice, last=number == count - 1) for number in range(count)]
    parts = [part for message in messages for part in message.parts]
    return tuple(parts), tuple(message.expected for message in messages)


def hostile(dice: random.Random, seeds: tuple[bytes, ...], most: int = 3) -> tuple[bytes, ...]:
    """Requests that are changed: parts from good ones, known attacks, single bytes."""
    if dice.random() < 0.35:
        whole = dice.choice(seeds)
        parts = tuple(whole.splitlines(keepends=True))
    else:
        parts, _ = requests(dice, most)
    kind = dice.random()
    if kind < 0.45:
        return mutate_parts(parts, dice, LINES)
    if kind < 0.9:
        at = dice.randrange(len(parts)) if parts else 0
        return (*parts[:at], *(mutate(part, dice) for part in parts[at : at + 1]), *parts[at + 1 :])
    return (mutate(b"".join(parts), dice),)


# What may stand where a line of a head or a chunk should.
LINES = (
    b"\r\n",
    b"\n",
    b"\0",
    b" \r\n",
    b": x\r\n",
    b"Host: t\r\n",
    b"Host:\r\n",
    b"Host: u@t\r\n",
    b" folded: yes\r\n",
    b"X : space\r\n",
    b"X\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 5, 5\r\n",
    b"Content-Length: +5\r\n",
    b"Content-Length: 0x5\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length\0: 5\r\n",
    b"content_length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding: chunked, chunked\r\n",
    b"Transfer-Encoding: , chunked\r\n",
    b"Transfer-Encoding: \x0bchunked\r\n",
    b"Transfer-Encoding\t: chunked\r\n",
    b"Transfer-Encoding: xchunked\r\n",
    b"Transfer-Encoding:\r\n chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\n",
    b"Connection: keep-alive, Content-Length\r\n",
    b"Expect: 100-continue\r\n",
    b"Expect: 200-maybe\r\n",
    b"Trailer: Content-Length\r\n",
    b"GET / HTTP/1.1\r\n",
    b"GET / HTTP/1.0\r\n",
    b"GET /\r\n",
    b"GET  / HTTP/1.1\r\n",
    b"GET / HTTP/2.0\r\n",
    b"CONNECT t:80 HTTP/1.1\r\n",
    b"CONNECT / HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"0\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"5\nhello\n",
    b"5;\r\nhello\r\n",
    b"5 ;a\r\nhello\r\n",
    b"-5\r\nhello\r\n",
    b"0x5\r\nhello\r\n",
    b"5;" + b"x" * 900 + b"\r\nhello\r\n",
    b"5;" + b"x" * 70_000 + b"\r\nhello\r\n",
    b"fffffffffffffffff\r\n",
    b"ffffffffffffffff\r\n",
    b"7fffffff\r\n",
    b"hello",
    # Long runs: nothing may take more time than in proportion to their length.
    b"x" * 30_000,
    b"X: " + b"\t" * 30_000 + b"y\r\n",
    b"X: y" + b" \t" * 15_000 + b"\0\r\n",
    b"X: " + b"," * 30_000 + b"\r\n",
    b"Transfer-Encoding: " + b", " * 15_000 + b"\r\n",
    b"Connection: " + b"close, " * 8_000 + b"\r\n",
    b"5" + b" \t" * 15_000 + b";\0\r\n",
    b"a:b\r\n" * 8_000,
)

_HEAD = b"POST /%b HTTP/1.1\r\nHost: t\r\n"
_CODED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

# Known attacks and accidents: what a server must not take for two different things.
SEEDS: tuple[bytes, ...] = (
    # Request smuggling: two framings in one head (RFC 9112 6.3)
    _HEAD % b"cl.te" + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    _HEAD % b"te.cl" + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nGPOST\r\n",
    _HEAD % b"te.te" + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    _HEAD % b"cl.cl" + b"Content-Length: 8\r\nContent-Length: 7\r\n\r\n12345\r\na",
    _HEAD % b"same" + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    _HEAD % b"te.case" + b"tRANSFER-eNCODING: cHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    _HEAD % b"te.tab" + b"Transfer-Encoding:\tchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    _HEAD % b"te.fold" + b"Transfer-Encoding:\r\n chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    _HEAD % b"te.space" + b"Transfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    _HEAD % b"te.quote" + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    _HEAD % b"te.vt" + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    _HEAD % b"te.list" + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    _HEAD % b"te.empty" + b"Transfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello",
    _HEAD % b"cl.plus" + b"Content-Length: +5\r\n\r\nhello",
    _HEAD % b"cl.under" + b"Content-Length: 1_0\r\n\r\nhellohello",
    _HEAD % b"cl.arabic" + b"Content-Length: \xd9\xa5\r\n\r\nhello",
    _HEAD % b"cl.neg" + b"Content-Length: -1\r\n\r\n",
    _HEAD % b"cl.nul" + b"Content-Length: 5\0\r\n\r\nhello",
    _HEAD % b"get" + b"\r\nGET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n",
    _HEAD % b"cl" + b"Content-Length: 36\r\n\r\nGET /inside HTTP/1.1\r\nHost: t\r\n\r\n",
    b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    # Chunks: sizes, extensions, ends (RFC 9112 7.1)
    _CODED % b"ext" + b'5;a="\r\n"\r\nhello\r\n0\r\n\r\n',
    _CODED % b"ext.lf" + b"5;\nxx\r\nhello\r\n0\r\n\r\n",
    _CODED % b"ext.cr" + b"5;\rxx\r\nhello\r\n0\r\n\r\n",
    _CODED % b"size.lf" + b"5\nhello\n0\n\n",
    _CODED % b"size.over" + b"100000000000000005\r\nhello\r\n0\r\n\r\n",
    _CODED % b"size.max" + b"ffffffffffffffff\r\nhello",
    _CODED % b"size.hex" + b"0x5\r\nhello\r\n0\r\n\r\n",
    _CODED % b"size.zeros" + b"0" * 5000 + b"5\r\nhello\r\n",
    _CODED % b"end" + b"5\r\nhelloXX0\r\n\r\n",
    _CODED % b"none" + b"\r\n0\r\n\r\n",
    _CODED % b"many" + b"1\r\nx\r\n" * 300 + b"0\r\n\r\n",
    # Trailers
    _CODED % b"trail" + b"0\r\nContent-Length: 5\r\n\r\nhello",
    _CODED % b"trail.te" + b"0\r\nTransfer-Encoding: x\r\n\r\n",
    _CODED % b"trail.fold" + b"0\r\nA: b\r\n c\r\n\r\n",
    _CODED % b"trail.bad" + b"0\r\nA b\r\n\r\n",
    # Lines (RFC 9112 2.2, 5.1, 5.2)
    b"GET / HTTP/1.1\nHost: t\n\n",
    b"GET / HTTP/1.1\r\rHost: t\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\nA: b\r\n c\r\n\r\n",
    b"GET / HTTP/1.1\r\n Host: t\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\nA: b\rX: y\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\nA: b\nX: y\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\nA: \0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\n: empty\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\nA\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\n\xc3\xa9: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\nA: \xe2\x80\xa8 \xff\r\n\r\n",
    b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: t\r\n\r\n",
    b"\xef\xbb\xbfGET / HTTP/1.1\r\nHost: t\r\n\r\n",
    # Request lines (RFC 9112 3)
    b"GET /\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/1.1 HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET  / HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /\tx HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /\xc3\xa9 HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /\0 HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET / HTTP/01.1\r\nHost: t\r\n\r\n",
    b"GET / HTTP/1.10\r\nHost: t\r\n\r\n",
    b"GET / http/1.1\r\nHost: t\r\n\r\n",
    b"GET / HTTP/2.0\r\nHost: t\r\n\r\n",
    b"GET / HTTP/0.9\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET //t/x HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET http://[::1/x HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET http://u:p@t/ HTTP/1.1\r\nHost: t\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n",
    b"CONNECT t:80 HTTP/1.1\r\nHost: t\r\n\r\nopaque \0\xff",
    b"CONNECT t:80 HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello",
    # Hosts (RFC 9112 3.2)
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\nHost: t\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t/x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
    # Other protocols at the port
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    b"EHLO t\r\nMAIL FROM:<a@b>\r\n",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"RTSP/1.0 200 OK\r\n\r\n",
    b"OPTIONS rtsp://t/x RTSP/1.0\r\nCSeq: 1\r\n\r\n",
    # Expectations, upgrades, early ends
    _HEAD % b"expect" + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    _HEAD % b"expect.te" + b"Expect: 100-Continue \r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello",
    b"GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
    b"GET /1 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: t\r\n\r\n",
    # Large
    b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\n" + b"A: b\r\n" * 2000 + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\nA: " + b"b" * 66_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\n\r\n" * 70,
    _HEAD % b"large" + b"Content-Length: 70000\r\n\r\n" + b"x" * 70_000,
    _CODED % b"larger" + b"11170\r\n" + b"x" * 70_000 + b"\r\n0\r\n\r\n",
)  # fmt: skip
