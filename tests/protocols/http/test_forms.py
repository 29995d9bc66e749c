"""Forms as clients send them: names, file names, charsets, and what is broken."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.http_requests import record
from sidestage import FormPart, HTTPRequest
from sidestage.protocols.http.forms import FIELD_LIMIT, FIELDS_LIMIT

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b0"


def part(disposition: bytes, content: bytes = b"x", *fields: bytes) -> bytes:
    lines = [b"--b0", b"Content-Disposition: " + disposition, *fields, b"", content, b""]
    return b"\r\n".join(lines)


def multipart(*parts: bytes, kind: str = MULTIPART) -> HTTPRequest:
    return record("/", b"".join(parts) + b"--b0--\r\n", kind)


# Names -----------------------------------------------------------------------------------------

NAMES: dict[str, tuple[bytes, str, str]] = {
    # Each as some client sends it, and its name and file name.
    "plain": (b'form-data; name="a"', "a", ""),
    "a file": (b'form-data; name="a"; filename="b.txt"', "a", "b.txt"),
    "tokens": (b"form-data; name=a; filename=b.txt", "a", "b.txt"),
    "in another case": (b'Form-Data; NAME="a"; FileName="b"', "a", "b"),
    "no spaces": (b'form-data;name="a";filename="b"', "a", "b"),
    "a semicolon at the end": (b'form-data; name="a";', "a", ""),
    "a semicolon in a name": (b'form-data; name="a;b=c"; filename="d;e"', "a;b=c", "d;e"),
    "no file was chosen": (b'form-data; name="a"; filename=""', "a", ""),
    "another parameter": (b'form-data; size=3; name="a"', "a", ""),
    "the first of two": (b'form-data; name="a"; name="b"', "a", ""),
    "raw UTF-8": ('form-data; name="größe"; filename="☃"'.encode(), "größe", "☃"),
    # Browsers, urllib3, requests and curl (HTML 4.10.21.8).
    "a quote for HTML": (b'form-data; name="a%22b"; filename="%22"', 'a"b', '"'),
    "a line end for HTML": (b'form-data; name="a%0D%0Ab"', "a\r\nb", ""),
    "a percent sign": (b'form-data; name="100%25"; filename="a%20b"', "100%25", "a%20b"),
    "a backslash at the end": (b'form-data; name="dir\\"; filename="a.txt"', "dir\\", "a.txt"),
    "two of them": (b'form-data; name="dir\\"; filename="dir\\"', "dir\\", "dir\\"),
    "a path of Windows": (b'form-data; name="a"; filename="C:\\new\\x"', "a", "C:\\new\\x"),
    "a backslash before a quote": (b'form-data; name="x\\%22y"', 'x\\"y', ""),
    # httpx, aiohttp and `curl --form-escape` (RFC 9110 5.6.4).
    "an escaped backslash": (b'form-data; name="dir\\\\"; filename="a.txt"', "dir\\", "a.txt"),
    "an escaped quote": (b'form-data; name="a\\"b"; filename="\\""', 'a"b', '"'),
    "both escaped": (b'form-data; name="x\\\\\\"y"', 'x\\"y', ""),
    "both, as httpx does it": (b'form-data; name="x\\\\%22y"', 'x\\"y', ""),
    "escaped blanks": (b'form-data; name="a\\ b\\\tc"', "a b\tc", ""),
    "percent beside a quote": (b'form-data; name="\\"%22"', '"%22', ""),
    "an escaped quote and a semicolon": (b'form-data; name="a\\"; b=\\"c"', 'a"; b="c', ""),
    # aiohttp (RFC 8187).
    "an extended name": (b"form-data; name*=utf-8''gr%C3%B6%C3%9Fe", "größe", ""),
    "an extended name wins": (b"form-data; name=\"x\"; name*=utf-8'de'gr%C3%B6", "grö", ""),
    "an extended file name": (b"form-data; name=a; filename*=iso-8859-1''%E9", "a", "é"),
    "in quotes": (b"form-data; name=a; filename*=\"UTF-8''%E2%98%83\"", "a", "☃"),
    # Neither grammar.
    "quotes that are not escaped": (b'form-data; name="a"b"', "a", ""),
    "no name": (b"form-data", "", ""),
}


@pytest.mark.parametrize("disposition, name, filename", NAMES.values(), ids=NAMES)
def test_a_name_is_read_as_its_client_escapes_it(
    disposition: bytes, name: str, filename: str
) -> None:
    [found] = multipart(part(disposition)).parts
    assert found == FormPart(name, filename, "text/plain", b"x")


def html_escaped(name: str) -> str:
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\\%")))
def test_any_name_of_a_browser_survives(name: str) -> None:
    shown = html_escaped(name).encode()
    request = multipart(part(b'form-data; name="%b"; filename="x"' % shown))
    assert list(request.files) == [name]


@given(st.text(st.characters(codec="utf-8", exclude_characters="%\r\n")))
def test_any_name_with_backslashes_survives(name: str) -> None:
    shown = name.replace("\\", "\\\\").replace('"', '\\"').encode()
    [found] = multipart(part(b'form-data; name="%b"' % shown)).parts
    assert found.name == name


# Charsets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, body, value",
    [
        (URLENCODED, b"a=%C3%A9", "é"),
        (URLENCODED, "a=é".encode(), "é"),
        (f"{URLENCODED}; charset=iso-8859-1", b"a=%E9", "é"),
        (f'{URLENCODED};Charset="ISO-8859-1"', b"a=\xe9", "é"),
        (f"{URLENCODED}; charset=windows-1252", b"a=%80", "€"),
        (URLENCODED, b"_charset_=iso-8859-1&a=%E9", "é"),
        (URLENCODED, b"a=%E9&_charset_=windows-1252", "é"),
        (f"{URLENCODED}; charset=utf-8", b"_charset_=iso-8859-1&a=%C3%A9", "é"),
        (URLENCODED, b"a=%ff", "\ufffd"),
        (URLENCODED, b"a=\xff", "\ufffd"),
        (f"{URLENCODED}; charset=us-ascii", b"a=%E9", "\ufffd"),
    ],
)
def test_a_form_has_a_charset(kind: str, body: bytes, value: str) -> None:
    assert record("/", body, kind).form["a"] == value


@pytest.mark.parametrize(
    "kind, parts",
    [
        (f"{MULTIPART}; charset=iso-8859-1", [part(b'form-data; name="\xe9"', b"\xe9")]),
        (MULTIPART, [part("form-data; name=é".encode(), "é".encode())]),
        (
            MULTIPART,
            [
                part(b'form-data; name="_charset_"', b"iso-8859-1"),
                part(b'form-data; name="\xe9"', b"\xe9"),
            ],
        ),
        (
            MULTIPART,
            [part("form-data; name=é".encode(), b"\xe9", b"Content-Type: text/plain;charset=l1")],
        ),
    ],
)
def test_a_part_has_a_charset(kind: str, parts: list[bytes]) -> None:
    assert multipart(*parts, kind=kind).form["é"] == "é"


UNKNOWN = ["x-unknown", "rot13", "hex", "idna", "punycode", "undefined", "unicode_escape"]
UNKNOWN += ["mbcs", "\0", "utf\x008", "\xe9", "a" * 5000, "../etc"]


@pytest.mark.parametrize("charset", UNKNOWN)
def test_an_unknown_charset_is_a_value_error(charset: str) -> None:
    """Also one that Python has a codec of, which is of no text."""
    for kind in ("text/plain", URLENCODED):
        request = record("/", b"a=%E9", f'{kind}; charset="{charset}"')
        for read in (lambda: request.text, lambda: request.form):  # noqa: B023 - called here
            with pytest.raises(ValueError, match=r"charset of Content-Type|no form"):
                read()
    form = record("/", f"a=%E9&_charset_={charset}".encode("latin-1"), URLENCODED)
    with pytest.raises(ValueError, match="_charset_ is not known"):
        _ = form.form
    named = part(b'form-data; name="a"', b"x", f"Content-Type: a/b;charset={charset}".encode("l1"))
    parts = multipart(named)
    assert parts.parts[0].content == b"x"
    with pytest.raises(ValueError, match=r"charset of 'a' is not known"):
        _ = parts.form
    name = f"form-data; name*={charset}''a".encode("latin-1")
    with pytest.raises(ValueError, match=r"charset of name\* is not known"):
        _ = multipart(part(name)).parts


@pytest.mark.parametrize("charset", ["utf-8", "latin-1", "utf-16", "shift_jis", "cp1252", "utf-7"])
def test_the_text_of_a_known_charset(charset: str) -> None:
    assert record("/", "abc".encode(charset), f"text/plain; charset={charset}").text == "abc"


# What is broken --------------------------------------------------------------------------------

BROKEN: dict[str, bytes] = {
    "nothing": b"",
    "no boundary": b"nothing",
    "no end": part(b'form-data; name="a"'),
    "half an end": part(b'form-data; name="a"') + b"--b0-",
    "in a field": b"--b0\r\nContent-Disp",
    "in the fields": b'--b0\r\nContent-Disposition: form-data; name="a"\r\n',
    "no disposition": b"--b0\r\n\r\nx\r\n--b0--\r\n",
    "another disposition": part(b'attachment; name="a"') + b"--b0--",
    "no colon": b"--b0\r\nabc\r\n\r\nx\r\n--b0--\r\n",
    "bare line ends": b'--b0\nContent-Disposition: form-data; name="a"\n\nx\n--b0--\n',
    "a long field": part(b'form-data; name="%b"' % (b"a" * FIELD_LIMIT)) + b"--b0--",
    "many fields": part(b"form-data; name=a", b"x", *[b"A: b"] * FIELDS_LIMIT) + b"--b0--",
    "a wrong length": part(b"form-data; name=a", b"x", b"Content-Length: 5") + b"--b0--",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_a_broken_form_is_a_value_error(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """And nothing else: no other exception, no warning, no line in the test's log."""
    request = record("/", body, MULTIPART)
    with caplog.at_level(logging.DEBUG):
        for read in ("form", "files", "parts"):
            with pytest.raises(ValueError, match="form is broken"):
                getattr(request, read)
    assert not caplog.records


@pytest.mark.parametrize("boundary", ["", '""', '"\n"', "a" * 5000, "\xe9"])
def test_a_boundary_may_be_wrong(boundary: str) -> None:
    with pytest.raises(ValueError, match="form"):
        _ = record("/", b"--b0--", f"multipart/form-data; boundary={boundary}").form


@pytest.mark.parametrize("boundary", ["b0", '"b0"', "b0 ", "b0; charset=utf-8"])
@pytest.mark.parametrize("kind", ["multipart/form-data;", "Multipart/Form-Data ; x=y; "])
def test_a_boundary_may_be_quoted(kind: str, boundary: str) -> None:
    assert multipart(part(b"form-data; name=a"), kind=f"{kind}boundary={boundary}").form["a"] == "x"


def test_a_boundary_may_be_no_token() -> None:
    for shown in ("=_b:0", '"=_b:0"', '"=_b\\:0"'):
        body = b"--=_b:0\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--=_b:0--\r\n"
        assert record("/", body, f"multipart/form-data; boundary={shown}").form["a"] == "x"


def test_an_empty_form() -> None:
    assert multipart().form == {}
    assert record("/", b"", URLENCODED).form == {}


def test_what_is_around_the_parts_is_ignored() -> None:
    body = b"preamble\r\n" + part(b"form-data; name=a") + b"--b0--\r\nepilogue"
    assert record("/", body, MULTIPART).form == {"a": "x"}


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_a_form_or_a_value_error(junk: bytes, begun: bool) -> None:
    start = part(b"form-data; name=a") + b'--b0\r\nContent-Disposition: form-data; name="'
    request = record("/", start + junk if begun else junk, MULTIPART)
    try:
        assert len(request.form) <= len(request.parts)
    except ValueError as error:
        assert "form" in str(error)  # noqa: PT017 - it may also be no error


def test_the_parser_is_imported_when_a_form_is_read() -> None:
    script = "import sys, sidestage.protocols.http.call; assert 'multipart' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
