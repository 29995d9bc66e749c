from __future__ import annotations

from typing import Any

import pytest

from kit.views import matchers, view
from sidestage import absent, matching
from sidestage.protocols.http.matching.declared import check_early, matchers_of

LINES: list[tuple[Any, Any, type[Exception], str]] = [
    ("/a", "GET", ValueError, r'the method comes first: write \("GET", "/a"\)'),
    ("/a", "/b", ValueError, r'the method comes first: write \("GET", "/a"\)'),
    ("get", "/a", ValueError, 'case counts in methods; write "GET"'),
    ("GET /a", "/b", ValueError, r'write method and path apart: \("GET", "/a"\)'),
    ("GET|POST", "/", ValueError, r'write several as \("GET", "POST"\)'),
    ("get, post", "/", ValueError, r'write several as \("GET", "POST"\)'),
    ("", "/", ValueError, "'' is no name of a method"),
    ("GÉT", "/", ValueError, "no name of a method"),
    ((), "/", ValueError, r'there is none in it; write "\*" for any'),
    (("GET", "*"), "/", ValueError, r'"\*" is any method'),
    (7, "/", TypeError, r'a name, a tuple of names or "\*", not 7'),
    (("GET", 7), "/", TypeError, 'must be a name, such as "GET", not 7'),
    ("GET", "a/b", ValueError, 'begins with no slash; write "/a/b"'),
    ("GET", "", ValueError, 'begins with no slash; write "/"'),
    ("GET", "/a?x=1", ValueError, r'write \("GET", "/a", query=\{\'x\': \'1\'\}\)'),
    ("GET", "/a?x=1&x=2", ValueError, r"query=\{'x': \['1', '2'\]\}"),
    ("GET", "/a?", ValueError, r'write \("GET", "/a", query=\{\}\)'),
    (("GET", "PUT"), "/a?x=1", ValueError, r"write \(\('GET', 'PUT'\), \"/a\", query="),
    ("GET", "http://t:1/a", ValueError, r'is a URL; write the path alone: \("GET", "/a"\)'),
    ("GET", "http://t/a", ValueError, r'asks of a proxy is headers=\{"Host": "t"\}'),
    ("GET", "https://t", ValueError, r'write the path alone: \("GET", "/"\)'),
    ("GET", "http://t?x=1", ValueError, r'\("GET", "/", query=\{\'x\': \'1\'\}\)'),
    ("GET", "/a#b", ValueError, 'clients send no fragment; write "/a", or %23'),
    ("GET", b"/a", TypeError, "path must be text or a compiled regular expression, not b'/a'"),
]


@pytest.mark.parametrize("method, path, error, text", LINES)
def test_a_wrong_line_shows_the_right_one(
    method: Any, path: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        matchers_of(method, path)


@pytest.mark.parametrize(
    "method, path, line",
    [
        ("CONNECT", "db.example:5432", "CONNECT db.example:5432"),
        ("PURGE", "/a", "PURGE /a"),
        ("*", "/a%3Fb", "GET /a%3Fb"),
        ("*", "/a%23b", "GET /a%23b"),
        (["GET", "PUT"], "/a", "PUT /a"),
        ({"GET", "PUT"}, "/a", "GET /a"),
    ],
)
def test_a_right_line(method: Any, path: Any, line: str) -> None:
    assert matchers(method, path).verdict(view(line)) is True


PARTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"query": {"a": True}}, ValueError, "query at a: True has no text"),
    ({"form": {"a": None}}, ValueError, "form at a: None has no text; write absent"),
    ({"cookies": {"a=b": "1"}}, ValueError, "cookies: 'a=b' is no name of a cookie"),
    ({"cookies": "a=1"}, TypeError, "cookies: 'a=1' never comes there; write a dict"),
    ({"headers": {"X-A:": "1"}}, ValueError, 'is no name of a field .*; write "X-A"'),
    ({"headers": {"X A": "1"}}, ValueError, "'X A' is no name of a field"),
    ({"headers": {"X-A": " 1"}}, ValueError, "write \"1\" for X-A, not ' 1'"),
    ({"headers": {"X-A": ["1", "2\n"]}}, ValueError, r"'2\\n' of X-A never comes"),
    ({"headers": {"X-A": "€"}}, ValueError, "'€' cannot be in a value"),
    ({"headers": absent}, ValueError, "headers are never absent"),
    ({"auth": ("a", "b", "c")}, ValueError, r'auth: 3 values; write \("user", "password"\)'),
    ({"auth": ("a:b", "c")}, ValueError, "no colon can be in the user 'a:b'"),
    ({"auth": "Bearer x"}, ValueError, 'write the token alone, without its scheme: "x"'),
    ({"auth": None}, ValueError, "auth: None has no text; write absent"),
    ({"auth": {"user": "a"}}, TypeError, r'write \("user", "password"\) or the text of a bearer'),
    ({"text": b"a"}, TypeError, "text: b'a' never comes there; write text"),
    ({"body": "a"}, TypeError, "for text there is text="),
    ({"json": {"a": (1,)}}, TypeError, "json at .a: .*; write a list"),
]


@pytest.mark.parametrize("given, error, text", PARTS)
def test_a_part_that_never_matches_says_what_to_write(
    given: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        matchers_of("POST", "/", **given)


@pytest.mark.parametrize("part", [{"json": 1}, {"form": {}}, {"text": ""}, {"body": b""}])
def test_early_does_not_go_with_a_body(part: dict[str, Any]) -> None:
    (name,) = part
    with pytest.raises(ValueError, match=f"so it does not go with {name}=; leave one of them out"):
        check_early(matchers("POST", "/", **part))


def test_early_goes_with_all_of_the_head() -> None:
    check_early(matchers("*", "*", query={}, headers={}, cookies={}, auth=matching("x")))
