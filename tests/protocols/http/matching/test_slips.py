from __future__ import annotations

from typing import Any

import pytest

from kit.views import FORM, JSON, matchers, view
from sidestage.protocols.http.matching.distance import compare
from sidestage.protocols.http.matching.slips import hints


def hinted(seen: Any, *args: Any, **given: Any) -> list[str]:
    expected = matchers(*args, **given)
    return hints(seen, expected, compare(seen, expected))


@pytest.mark.parametrize(
    "line, method, path, hint",
    [
        ("OPTIONS /a", "POST", "/a", "this may be a CORS preflight, which is never answered by "),
        ("HEAD /a", "GET", "/a", 'HEAD is not GET; ("GET", "HEAD") takes both'),
        ("GET /a", "HEAD", "/a", 'GET is not HEAD; ("GET", "HEAD") takes both'),
        ("GET /a/", "GET", "/a", "a slash at the end counts: with it and without it"),
        ("GET /a", "GET", "/a/", "a slash at the end counts: with it and without it"),
        ("GET /7/", "GET", "/{id}", "a slash at the end counts: with it and without it"),
        ("GET //a", "GET", "/a", "two slashes stand side by side, as where a base URL ends"),
        ("GET /Orders", "GET", "/orders", "case counts in paths"),
        ("GET /ordres", "GET", "/orders", 'one character differs: "orders", "ordres"'),
        ("GET /a%2Fb", "GET", "/a/b", "a %2F is a part of its segment, and divides nothing"),
        ("GET /a/b", "GET", "/a%2Fb", "a %2F is a part of its segment, and divides nothing"),
        ("GET /a%2520b", "GET", "/a b", "the client has escaped the path twice"),
        ("GET /api/v1/a", "GET", "/a", '"/api/v1" stands before the expected path'),
        ("GET /a", "GET", "/api/v1/a", '"/api/v1" is missing before the path'),
        ("GET /x", "GET", "/{id:int}", '"x" does not fit {id}, which is an int of decimal'),
        ("GET /a/", "GET", "/a/{id}", '"" does not fit {id}, which is not empty'),
    ],
)
def test_method_and_path(line: str, method: Any, path: Any, hint: str) -> None:
    (found,) = hinted(view(line), method, path)
    assert found.startswith(hint)


def test_a_preflight_is_known_by_its_header() -> None:
    seen = view("OPTIONS /a", "Access-Control-Request-Method: POST")
    (hint,) = hinted(seen, "POST", "/a")
    assert hint.startswith("this is a CORS preflight")
    assert hint.endswith('allow("OPTIONS", "/a")')


@pytest.mark.parametrize(
    "fields, body, given, hint",
    [
        (["X_Token: 1"], b"", {"headers": {"X-Token": "1"}}, '"X-Token" is missing, and "x_token"'),
        (["Cookie: ID=1"], b"", {"cookies": {"id": 1}}, 'cookies: "id" is missing, and "ID" came'),
        ([], b'{"Sku": 7}', {"json": {"sku": 7}}, 'json: "sku" is missing, and "Sku" came'),
        ([], b"a=1", {"form": {"a": 1}}, "the request has no Content-Type, and that of a form is"),
        ([f"Content-Type: {JSON}"], b"{}", {"form": {"a": 1}}, "the body is JSON: expect json="),
        ([f"Content-Type: {FORM}"], b"a=1", {"json": {"a": 1}}, "the body is a form: expect form="),
        (
            [],
            b'"{\\"a\\": 1}"',
            {"json": {"a": 1}},
            "the body is text in JSON that looks like JSON",
        ),
        (
            ["Content-Type: text/plain; charset=utf-8"],
            b"",
            {"headers": {"Content-Type": "text/plain"}},
            'the Content-Type has "charset=utf-8" after it: containing("text/plain") takes both',
        ),
        (
            ["Content-Type: text/plain; charset=latin-1"],
            "ü".encode(),
            {"text": "ü"},
            'the text was decoded as "latin-1", as the Content-Type says',
        ),
    ],
)
def test_other_parts(fields: list[str], body: bytes, given: dict[str, Any], hint: str) -> None:
    found = hinted(view("POST /", *fields, body=body), "POST", "/", **given)
    assert any(hint in one for one in found)


@pytest.mark.parametrize(
    "line, method, path",
    [
        ("GET /a", "GET", "/a"),
        ("GET /a", "POST", "/a"),
        ("GET /users", "GET", "/orders"),
        ("GET /users/1", "GET", "/orders/2"),
        ("GET /users/1", "GET", "/f/{x:path}"),
        ("GET /", "GET", "/orders"),
    ],
)
def test_there_is_none_where_nothing_is_likely(line: str, method: Any, path: Any) -> None:
    assert hinted(view(line), method, path) == []


def test_there_are_three_at_most() -> None:
    body = b'{"A": 1, "B": 2, "C": 3, "D": 4}'
    assert len(hinted(view("POST /", body=body), "POST", "/", json=dict.fromkeys("abcd", 1))) == 3
