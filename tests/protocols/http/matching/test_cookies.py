from __future__ import annotations

from http.cookies import SimpleCookie

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestage.protocols.http.matching.cookies import parse_cookies


@pytest.mark.parametrize(
    "fields, pairs",
    [
        (["a=1"], [("a", "1")]),
        (["a=1; b=2", "c=3"], [("a", "1"), ("b", "2"), ("c", "3")]),
        (["a=1;b=2"], [("a", "1"), ("b", "2")]),
        (["a=1; a=2"], [("a", "1"), ("a", "2")]),
        (["a=b=c"], [("a", "b=c")]),
        (["a="], [("a", "")]),
        (["a"], [("a", "")]),
        (["=x"], [("", "x")]),
        (["", ";", " ; "], []),
        (['a="x y"'], [("a", "x y")]),
        ([r'a="x\"y\073z"'], [("a", 'x"y;z')]),
        (['a="'], [("a", '"')]),
        (["A=1"], [("A", "1")]),
        ([], []),
    ],
)
def test_cookies(fields: list[str], pairs: list[tuple[str, str]]) -> None:
    assert parse_cookies(fields) == pairs


@given(st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"])))
def test_what_the_standard_library_writes_is_read(value: str) -> None:
    cookie: SimpleCookie = SimpleCookie()
    cookie["name"] = value
    assert parse_cookies([cookie["name"].OutputString()]) == [("name", value)]
