from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestage.protocols.http.matching.paths import (
    PathPattern,
    path_pattern,
    show_path,
    split_path,
)

DECODER = msgspec.msgpack.Decoder(PathPattern)


def params(path: Any, raw: str) -> dict[str, object] | None:
    """The parameters in a raw path, judged by a pattern that has crossed."""
    pattern: PathPattern = DECODER.decode(msgspec.msgpack.encode(path_pattern(path)))
    return pattern.match(split_path(raw))


@pytest.mark.parametrize(
    "path, raw, wanted",
    [
        ("/", "/", {}),
        ("/a/b", "/a/b", {}),
        ("/a", "/a/", None),
        ("/a/", "/a", None),
        ("/a", "/A", None),
        ("/a/b", "/a//b", None),
        ("/a b", "/a%20b", {}),
        ("/a%20b", "/a%20b", {}),
        ("/ü", "/%C3%BC", {}),
        ("/a+b", "/a+b", {}),
        ("/a+b", "/a%2Bb", {}),
        ("/a b", "/a+b", None),
        ("/100%", "/100%25", {}),
        ("/a/b", "/a%2Fb", None),
        ("/a%2Fb", "/a%2fb", {}),
        ("/a%2Fb", "/a/b", None),
        ("/{{a}}", "/%7Ba%7D", {}),
        ("/{{a}}", "/{a}", {}),
        ("/{a}", "/x%2Fy", {"a": "x/y"}),
        ("/{a}", "/", None),
        ("/{a}/c", "/b/c", {"a": "b"}),
        ("/{a}/c", "/b/d", None),
        ("/{a}", "/b/c", None),
        ("/{a:int}", "/7", {"a": 7}),
        ("/{a:int}", "/007", {"a": 7}),
        ("/{a:int}", "/-7", None),
        ("/{a:int}", "/7.0", None),
        ("/{a:int}", "/%D9%A3", None),
        ("/{a:int}", "/" + "9" * 640, {"a": int("9" * 640)}),
        ("/{a:int}", "/" + "9" * 641, None),
        ("/{name}.{ending}", "/a.b.c", {"name": "a.b", "ending": "c"}),
        ("/v{n:int}/x", "/v2/x", {"n": 2}),
        ("/{a}", "/x%0Ay", {"a": "x\ny"}),
        ("/f/{rest:path}", "/f/a/b%2Fc/", {"rest": "a/b/c/"}),
        ("/f/{rest:path}", "/f/", {"rest": ""}),
        ("/f/{rest:path}", "/f", None),
        ("/{user}/{rest:path}/raw", "/me/a/b/raw", {"user": "me", "rest": "a/b"}),
        ("/{rest:path}/raw", "/raw", None),
        ("/{rest:path}/{n:int}", "/a/b/7", {"rest": "a/b", "n": 7}),
        ("*", "/any/thing", {}),
        ("*", "*", {}),
        ("/*", "*", None),
        ("/*", "/*", {}),
        (re.compile("/a.*"), "/abc", {}),
        (re.compile("/a"), "/abc", None),
        (re.compile("a"), "/a", None),
        (re.compile("/A", re.IGNORECASE), "/a", {}),
        (re.compile(r"/(?P<n>\d+)/(\w+)"), "/7/x", {"n": "7"}),
        (re.compile("/a b/c"), "/a%20b%2Fc", {}),
        (re.compile(r"\*"), "*", {}),
    ],
)
def test_paths(path: Any, raw: str, wanted: dict[str, object] | None) -> None:
    assert params(path, raw) == wanted


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
named = st.sampled_from(["{x}", "{y:int}"])


def escaped(segment: str) -> str:
    """A segment as a client may send it."""
    return quote(segment, safe="")


@given(st.lists(texts, min_size=1, max_size=4), st.lists(texts, min_size=1, max_size=4))
def test_a_literal_path_is_that_list_of_segments(wanted: list[str], came: list[str]) -> None:
    template = "/" + "/".join(escaped(one).replace("{", "{{") for one in wanted)
    raw = "/" + "/".join(map(escaped, came))
    assert params(template, raw) == ({} if wanted == came else None)


@given(texts, texts, texts)
def test_a_parameter_is_what_stands_at_its_place(before: str, value: str, after: str) -> None:
    template = "/".join(["", escaped(before), "{x}", escaped(after)])
    raw = "/".join(["", escaped(before), escaped(value), escaped(after)])
    assert params(template, raw) == ({"x": value} if value else None)


@given(st.lists(texts, min_size=1, max_size=3), texts)
def test_the_rest_of_a_path_is_all_that_is_there(rest: list[str], last: str) -> None:
    raw = "/".join(["/a", *map(escaped, rest), escaped(last)])
    assert params(f"/a/{{x:path}}/{escaped(last)}", raw) == {"x": "/".join(rest)}


@given(st.from_regex(r"/[!-~]*", fullmatch=True))
def test_a_raw_path_with_its_braces_doubled_matches_itself(raw: str) -> None:
    assert params(raw.replace("{", "{{").replace("}", "}}"), raw) == {}


@pytest.mark.parametrize(
    "path, error, text",
    [
        ("/{", ValueError, r"path '/\{': \{ is no parameter; write \{name\}, \{name:int\}"),
        ("/a}", ValueError, r"\} is no parameter"),
        ("/{}", ValueError, r"\{\} is no parameter"),
        ("/{a:uuid}", ValueError, r"\{a:uuid\} is no parameter"),
        ("/{a-b}", ValueError, r"\{a-b\} is no parameter"),
        ("/{a}/{a}", ValueError, "the name a is there twice; rename one"),
        ("/{a:path}/{b:path}", ValueError, r"only one \{name:path\} can be in it"),
        ("/x{a:path}", ValueError, r"\{a:path\} takes whole segments"),
        ("/\ud800", ValueError, "half of a surrogate pair"),
        (re.compile(b"/a"), TypeError, r"is of bytes; write re.compile\('/a'\)"),
        (7, TypeError, "path must be text or a compiled regular expression, not 7"),
    ],
)
def test_a_path_that_is_none_says_what_to_write(
    path: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        path_pattern(path)


@pytest.mark.parametrize(
    "path, literal",
    [("/a/b%20c", ("", "a", "b c")), ("/{a}", None), ("/{a:path}", None)],
)
def test_a_path_without_parameters_is_known_as_such(
    path: str, literal: tuple[str, ...] | None
) -> None:
    assert path_pattern(path).literal == literal  # type: ignore[union-attr] # it is a template


def test_a_path_is_shown_as_it_was_written() -> None:
    assert show_path(path_pattern("/a/{b:int}")) == "/a/{b:int}"
    assert show_path(path_pattern("*")) == "*"
    assert show_path(path_pattern(re.compile("/a", re.I))) == 're.compile(r"/a", re.IGNORECASE)'
