from __future__ import annotations

import pytest

from kit.scripts import run_script
from kit.views import FORM, JSON, view
from sidestage.patterns.tree import MISSING, Unreadable


@pytest.mark.parametrize(
    "line, path, query",
    [
        ("GET /", "/", {}),
        ("GET /a%20b?x=1&x=2&y=", "/a b", {"x": ["1", "2"], "y": [""]}),
        ("GET /?a", "/", {"a": [""]}),
        ("GET /?a=%C3%BC+b", "/", {"a": ["ü b"]}),
        ("GET //a?b=/?c", "//a", {"b": ["/?c"]}),
        ("GET http://t:1/a?b=1", "/a", {"b": ["1"]}),
        ("GET http://t", "/", {}),
        ("GET http://t?a=1", "/", {"a": ["1"]}),
        ("GET /http://t/a", "/http://t/a", {}),
        ("GET /a#b?c=1", "/a", {}),
        ("OPTIONS *", "*", {}),
        ("CONNECT t:1", "t:1", {}),
    ],
)
def test_the_target(line: str, path: str, query: dict[str, list[str]]) -> None:
    seen = view(line)
    assert (seen.path, seen.query) == (path, query)


def test_header_fields_and_cookies() -> None:
    seen = view("GET /", "X-A: 1", "x-a:2 ", "Cookie: a=1; b=2", "cookie: a=3")
    assert seen.headers == {"x-a": ["1", "2"], "cookie": ["a=1; b=2", "a=3"]}
    assert seen.cookies == {"a": ["1", "3"], "b": ["2"]}
    assert view("GET /").cookies == {}


def test_json() -> None:
    assert view("POST /", body=b' {"a": [1, null]}').json == {"a": [1, None]}
    assert view("POST /", body='"ü"'.encode("utf-16")).json == "ü"
    assert view("POST /").json is MISSING


def test_text_and_forms() -> None:
    plain = view("POST /", "Content-Type: text/plain; charset=latin-1", body=b"\xfc")
    assert plain.text == "ü"
    assert view("POST /").text == ""
    form = view("POST /", f"Content-Type: {FORM}", body=b"a=1&a=2&b=%C3%BC")
    assert form.form == {"a": ["1", "2"], "b": ["ü"]}
    assert view("POST /").form == {}
    boundary = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'
    parts = view("POST /", "Content-Type: multipart/form-data; boundary=x", body=boundary)
    assert parts.form == {"a": ["1"]}


@pytest.mark.parametrize(
    "part, fields, body, why",
    [
        ("json", [], b"a=1", "b'a=1', which is not JSON (Expecting value: line 1 column 1 (char "),
        ("json", [], b"[" * 1_000_000, "(1,000,000 bytes), which is not JSON (nested too deep),"),
        ("json", [], b"9" * 5000, "which is not JSON (Exceeds the limit"),
        ("text", [], b"\xff", "b'\\xff', which is not text ('utf-8' codec can't decode byte"),
        ("text", ["Content-Type: text/plain; charset=wtf"], b"x", "is not known to Python: 'wtf'"),
        ("form", [], b"a=1", "b'a=1', which is not a form (no Content-Type),"),
        ("form", [f"Content-Type: {JSON}"], b"{}", "(its Content-Type is application/json),"),
        ("form", ["Content-Type: multipart/form-data"], b"x", "(its Content-Type is multipart/"),
        ("form", ["Content-Type: multipart/form-data; boundary=x"], b"x", "is broken"),
    ],
)
def test_what_cannot_be_read_says_why(part: str, fields: list[str], body: bytes, why: str) -> None:
    found = getattr(view("POST /", *fields, body=body), part)
    assert isinstance(found, Unreadable)
    assert why in found.why
    assert found.why.isprintable()


@pytest.mark.parametrize("part", ["json", "text", "form", "octets"])
def test_a_body_that_is_not_all_here_cannot_be_read(part: str) -> None:
    found = getattr(view("POST /", body=b"{}", cut=1000), part)
    assert isinstance(found, Unreadable)
    assert found.why == "1,002 bytes, of which a record keeps 2 (a quarter of keep),"


def test_the_library_for_multipart_is_loaded_only_to_read_one() -> None:
    source = f"""
        import sys
        from sidestage.protocols.http.matching.view import RequestView
        from sidestage.protocols.http.matching.declared import matchers_of
        kind = b"Content-Type: {FORM}"
        matchers, _ = matchers_of("POST", "/", form={{"a": 1}})
        print(matchers.verdict(RequestView("POST", "/", kind, b"a=1")), "multipart" in sys.modules)
        kind = b"Content-Type: multipart/form-data; boundary=x"
        print(matchers.verdict(RequestView("POST", "/", kind, b"a=1")), "multipart" in sys.modules)
    """
    assert run_script(source) == "True False\nFalse True\n"
