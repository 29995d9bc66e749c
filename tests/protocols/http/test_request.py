from __future__ import annotations

from urllib.parse import quote, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kit.http_requests import fields, record
from sidestage import FormPart, HTTPRequest

# Request line and headers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "target, path, query_string",
    [
        ("/", "/", ""),
        ("/a%20b/%C3%A9?x=%20", "/a b/é", "x=%20"),
        ("//host/path?a?b", "//host/path", "a?b"),
        ("/a#b?c", "/a", ""),
        ("/a:b[c", "/a:b[c", ""),
        ("/?next=http://other/", "/", "next=http://other/"),
        ("http://proxied:80/a?b", "/a", "b"),
        ("http://[bad?b", "/", "b"),
        ("*", "*", ""),
        ("example.org:443", "example.org:443", ""),
        ("/%ff", "/\ufffd", ""),
    ],
)
def test_path_and_query(target: str, path: str, query_string: str) -> None:
    request = record(target)
    assert (request.path, request.query_string, request.target) == (path, query_string, target)


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_any_path_is_decoded(path: str) -> None:
    assert record("/" + quote(path)).path == "/" + path


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5))))
def test_any_query_and_any_form_are_decoded(pairs: list[tuple[str, str]]) -> None:
    query = urlencode(pairs, errors="replace")
    wanted = [(name.encode(errors="replace").decode(), value.encode(errors="replace").decode())
              for name, value in pairs]  # fmt: skip
    assert list(record("/?" + query).query.pairs()) == wanted
    form = record("/", query.encode(), "application/x-www-form-urlencoded").form
    assert list(form.pairs()) == wanted


def test_names_with_several_values() -> None:
    request = record("/?a=1&b=&a=2", fields=fields(("X", "1"), ("y", "2"), ("x", "3")))
    assert request.query.get_all("a") == ["1", "2"]
    assert request.query["b"] == ""
    assert request.headers.get_all("X") == ["1", "3"]
    assert list(request.headers) == ["X", "y"]


def test_cookies() -> None:
    came = fields(("Cookie", 'sid=abc; theme="a\\"b"; sid=def'), ("cookie", "x="))
    request = record("/", fields=came)
    assert (request.cookies["sid"], request.cookies["theme"]) == ("abc", 'a"b')
    assert list(request.cookies.pairs()) == [
        ("sid", "abc"), ("theme", 'a"b'), ("sid", "def"), ("x", "")
    ]  # fmt: skip
    assert not record("/").cookies


def test_the_names_of_http_server() -> None:
    request = record("/x")
    assert (request.command, request.method, request.http_version) == ("POST", "POST", "1.1")
    assert request.client_address == ("127.0.0.1", 1)
    assert repr(request) == "<HTTPRequest POST /x from ('127.0.0.1', 1)>"


# Bodies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, body, text",
    [
        ("", "é".encode(), "é"),
        ("text/plain; charset=latin-1", b"\xe9", "é"),
        ('text/plain; charset="UTF-16"', "é".encode("utf-16"), "é"),
    ],
)
def test_text_is_decoded_by_its_charset(kind: str, body: bytes, text: str) -> None:
    assert record("/", body, kind).text == text


def test_json() -> None:
    assert record("/", b'{"a": [1, null]}').json() == {"a": [1, None]}
    with pytest.raises(ValueError, match=r"not JSON.*b'nope'"):
        record("/", b"nope").json()


NO_JSON = {
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "a number of 5000 digits": b"9" * 5_000,
    "no UTF-8": b'"\xff"',
    "half a character of UTF-16": b"\xff\xfe\x00",
    "a NUL": b"\0",
    "no end": b"[1e999999,",
    "nothing": b"",
}


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
def test_what_json_cannot_parse_is_the_documented_error(body: bytes) -> None:
    """Whatever Python's own parser raises for it."""
    with pytest.raises(ValueError, match="the body is not JSON") as caught:
        record("/", body).json()
    assert len(str(caught.value)) < 1500


def multipart(*parts: tuple[str, str, str, bytes]) -> bytes:
    lines = b""
    for name, filename, kind, content in parts:
        shown = f'; filename="{filename}"' if filename else ""
        lines += f'--b0\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n'.encode()
        lines += (
            (f"Content-Type: {kind}\r\n" if kind else "").encode() + b"\r\n" + content + b"\r\n"
        )
    return lines + b"--b0--\r\n"


MULTIPART = "multipart/form-data; boundary=b0"


def test_a_multipart_form() -> None:
    mail = b"Subject: x\r\n\r\nbody"
    body = multipart(
        ("a", "", "", "é".encode()),
        ("up", "été.bin", "image/png", b"\0\r\n\xff"),
        ("up", "two.eml", "message/rfc822", mail),
    )
    request = record("/", body, MULTIPART)
    assert request.form["a"] == "é"
    assert request.files == {"up": ("été.bin", b"\0\r\n\xff")}
    assert request.parts[2] == FormPart("up", "two.eml", "message/rfc822", mail)


@given(st.lists(st.binary(max_size=30), max_size=3))
def test_any_content_survives_a_multipart_form(contents: list[bytes]) -> None:
    contents = [content for content in contents if b"--b0" not in content]
    body = multipart(*(("f", "x", "", content) for content in contents))
    assert [part.content for part in record("/", body, MULTIPART).parts] == contents


@pytest.mark.parametrize(
    "kind, body",
    [
        ("", b""),
        ("text/plain", b"a=b"),
        ("multipart/form-data", b"--b0--"),
        (MULTIPART, b"--b0\r\n\r\nunfinished"),
        (MULTIPART, b"nothing"),
    ],
)
def test_what_is_no_form_says_so(kind: str, body: bytes) -> None:
    with pytest.raises(ValueError, match="form"):
        _ = record("/", body, kind).form


def test_a_record_cannot_be_answered() -> None:
    with pytest.raises(ValueError, match="has been answered"):
        record("/").wfile.write(b"x")


# Any request -----------------------------------------------------------------------------------

MAY_RAISE = {"text", "json", "form", "files", "parts"}  # ValueError, for what the body is not
ANSWERED = {
    "wfile",
    "connection",
    "end_headers",
    "reset",
    "close",
}  # ValueError, because there is nothing left to answer

kinds = st.sampled_from(
    [
        "text/plain",
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=b0",
        "multipart/form-data",
    ]
)
charsets = st.sampled_from(
    ["utf-8", "latin-1", "utf-16", "utf-7", "rot13", "idna", "hex", "undefined", "x\0y", "cp65001"]
)
latin = st.characters(codec="latin-1", exclude_characters="\0\r\n")
types = st.one_of(
    kinds,
    st.text(latin, max_size=30),
    st.builds("{}; charset={}".format, kinds, charsets),
    st.builds("{};charset*={}''{}".format, kinds, charsets, st.text(latin, max_size=9)),
    st.builds('{}; boundary="{}'.format, kinds, st.text(latin, max_size=9)),
)
targets = st.one_of(
    st.sampled_from(["//[", "/?[", "http://[::1]:x/", "/%", "/%ff?%ff=%", "*", "a:1", "/?&&=&;"]),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20).map("/{}".format),
)
contents = st.one_of(
    st.binary(max_size=50),
    st.sampled_from([b"[" * 100_000, b"9" * 5_000, b"_charset_=rot13&a=%ff", b"--b0--", b"a=b&c"]),
    st.builds(
        b"--b0\r\nContent-Disposition: form-data; %b\r\n%b\r\nx\r\n--b0--".__mod__,
        st.tuples(
            st.one_of(st.binary(max_size=30), st.just(b"name*=rot13''a; filename*=x'")),
            st.sampled_from([b"", b"Content-Type: a/b; charset=idna\r\n", b"A\r\n"]),
        ),
    ),
)
others = st.text(latin, max_size=20)


@given(targets, types, contents, others)
@example("//[", "text/plain; charset=rot13", b"x", "")
@example("/", "text/plain; charset=idna", b"xn--a-\xff", "")
@example("/", 'text/plain; charset="a\0b"', b"x", "")
@example("/", "application/json", b"[" * 100_000, "")
def test_every_attribute_has_a_value_or_the_documented_error(
    target: str, kind: str, body: bytes, other: str
) -> None:
    given_fields = fields(("Host", other), ("Content-Type", kind), ("Cookie", other))
    request = record(target, body, fields=given_fields, trailers=fields(("Date", other)))
    names = [name for name in dir(HTTPRequest) if not name.startswith(("_", "send_"))]
    assert {*MAY_RAISE, *ANSWERED, "query", "path", "headers", "trailers", "answer"} <= {*names}
    for name in names:
        try:
            value = getattr(request, name)
            if callable(value):
                value()
        except ValueError:
            assert name in MAY_RAISE | ANSWERED
    assert target in repr(request)
