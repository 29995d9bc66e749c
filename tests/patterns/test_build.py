from __future__ import annotations

import datetime as dt
import decimal
import enum
import pathlib
import re
import uuid
from collections import OrderedDict, defaultdict
from typing import Any
from unittest import mock

import pytest

from sidestage import absent, containing, matching, one_of
from sidestage.patterns.build import (
    names_pattern_of,
    octets_pattern_of,
    pattern_of,
    text_pattern_of,
)
from sidestage.patterns.tree import Asked, Exactly, Items, verdict


class Color(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Plain:
    """An object without ``==`` of its own."""


class Loud(str):
    """A text with ``==`` of its own."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self.upper() == other.upper()

    __hash__ = str.__hash__


@pytest.mark.parametrize(
    "written, value",
    [
        (Color.RED, "red"),
        (Level.LOW, 1),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(int, a=1), {"a": 1}),
    ],
)
def test_what_derives_from_a_plain_type_is_its_plain_value(written: Any, value: Any) -> None:
    asked: list[object] = []
    assert verdict(pattern_of(written, asked), value) is True
    assert not asked


@pytest.mark.parametrize(
    "written", [mock.ANY, decimal.Decimal("1.5"), pytest.approx(1.5), Loud("x")]
)
def test_an_object_with_its_own_equality_stays_here(written: Any) -> None:
    asked: list[object] = [0]
    pattern = pattern_of([1, written], asked)
    assert pattern == Items((Exactly(1), Asked(1, repr(written)[:60])))
    assert asked == [0, written]


JSON: list[tuple[Any, type[Exception], str]] = [
    ((1, 2), TypeError, r"json: \(1, 2\) never comes there; write a list"),
    ({1}, TypeError, r"write containing\(\[\.\.\.\]\), whose order"),
    (b"x", TypeError, "json: b'x' never comes there; write text"),
    (re.compile("x"), TypeError, r"write matching\(\.\.\.\) around it"),
    (dt.date(2026, 1, 2), TypeError, "write its text, such as value.isoformat"),
    (dt.datetime(2026, 1, 2), TypeError, "write its text"),  # noqa: DTZ001 - any will do
    (uuid.UUID(int=1), TypeError, r"write str\(value\)"),
    (pathlib.Path("a"), TypeError, r"write str\(value\)"),
    (1j, TypeError, "write what the client sends"),
    (list[int], TypeError, "write the type without its brackets"),
    (int | str, TypeError, r"write one_of\(\.\.\.\)"),
    (Plain(), TypeError, "Plain object .* write a value of JSON"),
    (lambda value: True, TypeError, "lambda.* or where="),
    (iter([1]), TypeError, "write a value of JSON"),
    (..., TypeError, "json: Ellipsis never comes"),
    (bytes, TypeError, "write int, float, str, bool, list, dict or None, or where="),
    (Plain, TypeError, "or where="),
    (float("nan"), ValueError, "json: NaN equals nothing; write float"),
    ("a\ud800", ValueError, "half of a surrogate pair"),
    ({"a": {1: 2}}, TypeError, r'json at .a: the key 1 is not text.*; write "1"'),
    ({"a": [1, absent]}, ValueError, r"json at .a\[1\]: an item of a list is never absent"),
    ({"a": [0, (1,)]}, TypeError, r"json at .a\[1\]: \(1,\) never comes there"),
    (containing([b"x"]), TypeError, r"json at \[0\]: b'x'"),
    (containing(b"x"), TypeError, r"containing\(b'x'\) never comes"),
    (matching(b"x"), TypeError, r"write matching\('x'\)"),
    (one_of(1, {2}), TypeError, r"json: \{2\} never comes there"),
]


@pytest.mark.parametrize("written, error, text", JSON)
def test_what_json_never_is(written: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        pattern_of(written, [])


def test_what_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    cycle: dict[str, Any] = {}
    cycle["a"] = containing(cycle)
    for written in (loop, cycle):
        with pytest.raises(ValueError, match="nested more than 100 deep, or holds itself"):
            pattern_of(written, [])


NAMES: list[tuple[Any, type[Exception], str]] = [
    ({"a": True}, ValueError, 'query at a: True has no text .*; write "true", "True" or "1"'),
    ({"a": [1, False]}, ValueError, r'query at a\[1\]: False has .*"false", "False" or "0"'),
    ({"a": None}, ValueError, 'query at a: None has no text; write absent, or ""'),
    ({"a": 1.5}, ValueError, 'write one of them, such as "1.5", or float'),
    ({"a": bool}, TypeError, "write int, float or str: it is text"),
    ({"a": {"b": 1}}, TypeError, "query at a: .* never comes there; write text"),
    ({"a": ("1", "2")}, TypeError, "query at a: .* write a list"),
    ({"a": b"1"}, TypeError, "query at a: b'1' never comes there; write text"),
    ({"a": [absent]}, ValueError, r"query at a\[0\]: absent stands in the place"),
    ({"a": 10**5000}, ValueError, "query at a: Exceeds the limit"),
    ({1: "a"}, TypeError, "query: the name 1 is not text"),
    ("a=1", TypeError, "query: 'a=1' never comes there; write a dict of names"),
    ([("a", "1")], TypeError, "write a dict of names"),
    (matching("a"), TypeError, r"query: matching\('a'\) never comes there; write a dict"),
    (containing(["a"]), TypeError, r"query: containing\(\['a'\]\) never comes there"),
    (dict, TypeError, "query: <class 'dict'> never comes there; write a dict"),
]


@pytest.mark.parametrize("written, error, text", NAMES)
def test_what_a_query_never_is(written: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        names_pattern_of(written, [], "query")


def test_a_field_cannot_be_there_in_two_cases_or_as_a_whole_not_at_all() -> None:
    with pytest.raises(ValueError, match="headers: x-a is there twice; give its values as a list"):
        names_pattern_of({"X-A": "1", "x-a": "2"}, [], "headers", fields=True)
    with pytest.raises(ValueError, match=r"headers are never absent; write \{name: absent\}"):
        names_pattern_of(absent, [], "headers", fields=True)


@pytest.mark.parametrize(
    "written, error, text",
    [
        (b"x", TypeError, "text: b'x' never comes there; write text"),
        (absent, ValueError, "text: absent stands in the place of a value that has a name"),
        (containing(["x"]), TypeError, "never comes there"),
        (["x"], TypeError, "never comes there"),
    ],
)
def test_what_a_text_never_is(written: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        text_pattern_of(written, [])


@pytest.mark.parametrize(
    "written, error, text",
    [
        ("x", TypeError, "body: 'x' never comes there; .* for text there is text="),
        (7, TypeError, "body: 7 never comes"),
        ((b"x",), TypeError, "never comes"),
        (bytes, TypeError, "never comes"),
        (absent, ValueError, 'write body=b""'),
        (matching("x"), TypeError, r"write matching\(b'x'\), or text="),
        (containing("x"), TypeError, "never comes"),
    ],
)
def test_what_bytes_never_are(written: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        octets_pattern_of(written, [])
