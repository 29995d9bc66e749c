from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.views import FORM, matchers, view
from sidestage.protocols.http.matching.distance import compare, is_slip, line_distance


@pytest.mark.parametrize(
    "line, method, path, wanted",
    [
        ("GET /a", "GET", "/a", 0),
        ("GET /a", "*", "*", 0),
        ("GET /a", "POST", "/a", 3),
        ("HEAD /a", "GET", "/a", 2),
        ("GET /a", ("PUT", "HEAD"), "/a", 2),
        ("GET /orders/8", "GET", "/orders/7", 2),
        ("GET /Orders", "GET", "/orders", 2),
        ("GET /ordres", "GET", "/orders", 2),
        ("GET /orders/x", "GET", "/orders/{id:int}", 2),
        ("GET /orders/", "GET", "/orders", 2),
        ("GET /orders", "GET", "/orders/", 2),
        ("GET //orders", "GET", "/orders", 2),
        ("GET /a%2Fb", "GET", "/a/b", 2),
        ("GET /other", "GET", "/orders", 4),
        ("GET /api/orders", "GET", "/orders", 4),
        ("GET /orders", "GET", "/v1/orders", 4),
        ("GET /orders/7", "GET", "/orders", 4),
        ("GET /", "GET", "/orders/7/items/3", 16),
        ("GET /a/b/c/d/e/f/g", "GET", "/orders", 20),
        ("GET /a", "GET", re.compile("/b"), 8),
        ("GET /f/a", "GET", "/f/{x:path}/raw", 4),
        ("GET /g/a/raw", "GET", "/files/{x:path}/raw", 4),
        ("GET /f/a/rav", "GET", "/f/{x:path}/raw", 2),
    ],
)
def test_method_and_path(line: str, method: Any, path: Any, wanted: int) -> None:
    assert line_distance(view(line), matchers(method, path)) == wanted


@pytest.mark.parametrize(
    "given, body, wanted",
    [
        ({"query": {"a": 1}}, b"", 0),
        ({"query": {"a": 2}}, b"", 1),
        ({"query": {"b": 1}}, b"", 2),
        ({"query": dict.fromkeys("bcdefg", 1)}, b"", 4),
        ({"headers": {"X-A": "2", "X-B": "1"}}, b"", 2),
        ({"cookies": {"a": 1}}, b"", 1),
        ({"auth": "x"}, b"", 1),
        ({"json": {"a": 1}}, b'{"a": 2}', 1),
        ({"json": {"a": 1}}, b"{}", 1),
        ({"json": {"a": 1}}, b"", 1),
        ({"json": {"a": 1}}, b"a=1", 3),
        ({"json": dict.fromkeys("abcdefgh", 1)}, b"{}", 6),
        ({"form": {"a": 1}}, b"a=2", 1),
        ({"form": {"a": 1}}, b"", 1),
        ({"text": "x"}, b"y", 2),
        ({"body": b"x"}, b"y", 2),
    ],
)
def test_other_parts(given: dict[str, Any], body: bytes, wanted: int) -> None:
    seen = view("POST /?a=1", "X-A: 1", f"Content-Type: {FORM}", body=body)
    found = compare(seen, matchers("POST", "/", **given))
    assert found.distance == wanted
    (part,) = given
    assert (part in found.differs) is bool(wanted)
    assert found.holds == ["method", "path", *([part] if not wanted else [])]


@pytest.mark.parametrize(
    "one, other, near",
    [
        ("orders", "orders", True),
        ("orders", "Orders", True),
        ("orders", "order", True),
        ("orders", "ordersx", True),
        ("orders", "orderz", True),
        ("orders", "ordres", True),
        ("orders", "rodsre", False),
        ("orders", "ord", False),
        ("", "a", False),
        ("7", "8", True),
        ("7", "12", False),
    ],
)
def test_a_slip(one: str, other: str, near: bool) -> None:
    assert is_slip(one, other) is is_slip(other, one) is near


@given(st.text("ab", min_size=2, max_size=6), st.text("ab", min_size=2, max_size=6))
def test_a_slip_is_one_edit(one: str, other: str) -> None:
    edits = {one}
    for at in range(len(one) + 1):
        edits.add(one[:at] + one[at + 1 :])
        edits.add(one[:at] + one[at : at + 2][::-1] + one[at + 2 :])
        for letter in "ab":
            edits.add(one[:at] + letter + one[at:])
            edits.add(one[:at] + letter + one[at + 1 :])
    assert is_slip(one, other) is (other in edits)


@given(st.sampled_from(["/a/b", "/a/{x:int}", "/{x:path}/b", "/a/"]), st.text("/ab1", max_size=6))
def test_no_distance_is_a_match(path: str, raw: str) -> None:
    seen, expected = view(f"GET /{raw}"), matchers("GET", path)
    assert (line_distance(seen, expected) == 0) is bool(expected.head_fits(seen))
