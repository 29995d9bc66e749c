"""Heads of requests, compared with h11: what differs is in a table, and why.

What both accept means the same: method, target, version, fields, the body's length, whether the
connection is kept and whether the client waits for 100 Continue. ``docs/design.md`` has the table.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import h11
import pytest
from hypothesis import given, settings

from kit.heads import heads
from sidestage.protocols.http.child.head import parse_head
from sidestage.protocols.http.fields import parse_fields
from sidestage.protocols.http.rules import Refused

DESIGN = Path(__file__).parents[3] / "docs" / "design.md"
LONG = 1000  # bytes; a longer body is not sent


class Meaning(NamedTuple):
    """What a head means."""

    method: str
    target: str
    version: str
    fields: tuple[tuple[str, str], ...]
    body: bytes | None  # what is read of BODIES, or None if it does not end there
    keep_alive: bool
    expects: bool


# What follows a head, by the length that we have found in it; None is chunked.
def following(length: int | None) -> bytes:
    return b"2\r\nab\r\n0\r\n\r\n" if length is None else b"x" * min(length, LONG)


def ours(head: bytes) -> tuple[Meaning, bytes] | str:
    """What we take ``head`` for, with a body that fits; or why we refuse it."""
    try:
        found = parse_head(head)
    except Refused as refused:
        return refused.refusal.why
    follows = following(found.length)
    body: bytes | None = b"ab" if found.length is None else follows
    if found.length is not None and found.length > LONG:
        body = None
    fields = tuple((name.lower(), value) for name, value in parse_fields(found.fields).pairs())
    version, target = found.http_version, found.target
    meaning = Meaning(found.method, target, version, fields, body, found.keep_alive, found.expects)
    return meaning, follows


def theirs(head: bytes, follows: bytes) -> Meaning | str:
    """The same of h11."""
    connection = h11.Connection(h11.SERVER)
    try:
        connection.receive_data(head)
        request: Any = connection.next_event()
        if request is h11.NEED_DATA:
            return "it is not complete"
        event: Any = connection.next_event()
        expects = connection.they_are_waiting_for_100_continue
        if follows:
            connection.receive_data(follows)
        body = b""
        while not isinstance(event, h11.EndOfMessage):
            if isinstance(event, h11.Data):
                body += bytes(event.data)
            event = connection.next_event()
            if event is h11.NEED_DATA:
                break
        whole = body if isinstance(event, h11.EndOfMessage) else None
        if connection.trailing_data[0]:
            whole = b"less than was sent"
    except h11.RemoteProtocolError as error:
        return str(error)
    connection.send(h11.Response(status_code=400, headers=[("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    return Meaning(
        request.method.decode(),
        request.target.decode(),
        request.http_version.decode(),
        tuple((name.decode(), value.decode("latin-1")) for name, value in request.headers),
        whole,
        connection.our_state is h11.DONE,
        expects,
    )


# What differs ----------------------------------------------------------------------------------


def head(line: str = "GET / HTTP/1.1", *fields: str, host: str = "Host: t") -> bytes:
    lines = [line, *([host] if host else []), *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


CHUNKED = "Transfer-Encoding: chunked"

# We refuse it with these words, h11 takes it.
STRICTER: dict[str, tuple[bytes, str]] = {
    "HTTP/2 and later, HTTP/0.9": (head("GET / HTTP/2.0"), r"HTTP/\d\.\d \(RFC 9110 15.6.6\)"),
    "no Host in HTTP/1.2 and later": (head("GET / HTTP/1.2", host=""), "0 Host fields"),
    "a Host that names no host": (head(host="Host: u@t"), "names no host"),
    "a target that does not go with the method": (head("GET * HTTP/1.1"), "does not go with"),
    "a target with a fragment": (head("GET /a#b HTTP/1.1"), "has a fragment"),
    "a coding in HTTP/1.0": (head("POST / HTTP/1.0", CHUNKED), "in HTTP/1.0"),
    "a length and a coding": (
        head("POST / HTTP/1.1", CHUNKED, "Content-Length: 1"),
        "Content-Length and Transfer-Encoding|can't be present with",
    ),
    "a length that comes twice": (
        head("POST / HTTP/1.1", "Content-Length: 1", "Content-Length: 1"),
        "Duplicate Content-Length",
    ),
    "a list of lengths": (
        head("POST / HTTP/1.1", "Content-Length: 1, 1"),
        "is no number|Invalid character in Content-Length",
    ),
    "a length beyond 63 bits": (
        head("POST / HTTP/1.1", f"Content-Length: {1 << 63}"),
        "is too large|Content-Length overflow",
    ),
    "content in a CONNECT": (
        head("CONNECT t:1 HTTP/1.1", "Content-Length: 1"),
        "content in a CONNECT",
    ),
    "a folded line": (head("GET / HTTP/1.1", "A: b", " c"), "Unexpected whitespace|value char"),
    "a control character in a value": (head("GET / HTTP/1.1", "A: \x01"), "Invalid header value"),
    "a bare line end": (
        b"GET / HTTP/1.1\r\nHost: t\nA: b\r\n\r\n",
        "Missing expected (CR|LF)|header field char|no request line",
    ),
}
# We take it, h11 refuses it with these words.
LAXER: dict[str, tuple[bytes, str]] = {
    "a length with more than 20 digits, most of them zeros": (
        head("POST / HTTP/1.1", f"Content-Length: {'0' * 20}1"),
        "bad Content-Length",
    ),
}
# Both take it, and it means something else.
OTHERWISE: dict[str, tuple[bytes, str]] = {
    "HTTP/1.2 and later is HTTP/1.1": (head("GET / HTTP/1.9"), "version"),
    "keep-alive in HTTP/1.0": (head("GET / HTTP/1.0", "Connection: keep-alive"), "keep_alive"),
    "a coding keeps its case": (head("POST / HTTP/1.1", "Transfer-Encoding: Chunked"), "fields"),
}


def differences(text: bytes) -> set[str]:
    """The rows of the tables that ``text`` differs by; raises AssertionError if it is in none."""
    our = ours(text)
    if isinstance(our, str):
        their = theirs(text, b"")
        if isinstance(their, str):
            return set()
        found = {name for name, (_, why) in STRICTER.items() if re.search(why, our)}
        assert found, f"only we refuse {text!r}: {our}"
        return found
    meaning, follows = our
    their = theirs(text, follows)
    if isinstance(their, str):
        found = {name for name, (_, why) in LAXER.items() if re.search(why, their)}
        assert found, f"only h11 refuses {text!r}: {their}"
        return found
    found = set()
    if their.version in {f"1.{minor}" for minor in range(2, 10)} and meaning.version == "1.1":
        found.add("HTTP/1.2 and later is HTTP/1.1")
        their = their._replace(version="1.1")
    if their.version == "1.0" and meaning.keep_alive and not their.keep_alive:
        found.add("keep-alive in HTTP/1.0")
        their = their._replace(keep_alive=True)
    if meaning.fields != their.fields and meaning.body == b"ab":
        found.add("a coding keeps its case")
        meaning = meaning._replace(fields=with_codings_in_lower_case(meaning.fields))
    assert meaning == their, text
    return found


def with_codings_in_lower_case(fields: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, value.lower() if name == "transfer-encoding" else value) for name, value in fields
    )


@settings(max_examples=300, deadline=None)
@given(heads())
def test_a_head_means_what_h11_takes_it_for(text: bytes) -> None:
    differences(text)


@pytest.mark.parametrize("name", [*STRICTER, *LAXER, *OTHERWISE])
def test_each_row_of_the_tables_is_a_difference(name: str) -> None:
    """And documented."""
    text, _ = {**STRICTER, **LAXER, **OTHERWISE}[name]
    assert name in differences(text)
    assert f"| {name} |" in DESIGN.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        head("POST /a?b HTTP/1.1", "content-length: 5 ", "A: \t x \t", "a:é"),
        head("x!y / HTTP/1.1", "TRANSFER-ENCODING: chunked", "Expect: x, 100-continue"),
        head("POST / HTTP/1.1", "Content-Length: 9", "Expect: 100-continue", "Connection: CLOSE"),
        head("GET / HTTP/1.0", host=""),
        head("OPTIONS * HTTP/1.1", "Upgrade: h2c", "Connection: upgrade"),
        head("CONNECT t:80 HTTP/1.1"),
        head("GET http://t/ HTTP/1.1", "Connection: close, keep-alive"),
        head("POST / HTTP/1.1", f"Content-Length: {'9' * 18}"),
    ],
)
def test_what_both_take_means_the_same(text: bytes) -> None:
    assert not differences(text)
    assert not isinstance(ours(text), str)


@pytest.mark.parametrize("text", [b"\xff / HTTP/1.1\r\n\r\n", head("GET / HTTP/1.1", "A : b")])
def test_what_both_refuse_is_no_difference(text: bytes) -> None:
    assert not differences(text)
    assert isinstance(ours(text), str)
