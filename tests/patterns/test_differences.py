from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from hypothesis import given

from kit import json_values
from sidestage import absent, containing, matching, one_of
from sidestage.patterns.build import names_pattern_of, octets_pattern_of, pattern_of
from sidestage.patterns.differences import differences
from sidestage.patterns.tree import MISSING, Unreadable

JSON: list[tuple[Any, Any, list[str]]] = [
    (
        {"items": [1, 2, {"sku": 7}]},
        {"items": [1, 2, {"sku": "7"}]},
        ['at .items[2].sku: 7 expected, "7" came: a str, not an int'],
    ),
    (1, True, ["1 expected, True came: a bool, not an int"]),
    (True, 1, ["True expected, 1 came: an int, not a bool"]),
    (1, 1.5, ["1 expected, 1.5 came"]),
    (None, {}, ["None expected, {} came: a dict, not null"]),
    (str, 7, ["str expected, 7 came: an int"]),
    ({"a": 1}, {"b": 1}, ["at .a: 1 expected, nothing came", "at .b: not expected, 1 came"]),
    ({"x y": 1}, {"x y": 2}, ['at ["x y"]: 1 expected, 2 came']),
    ({"a": 1}, [], ['{"a": 1} expected, [] came']),
    ({"a": absent}, {"a": 1}, ["at .a: absent expected, 1 came"]),
    ({"a": one_of(1, 2)}, {"a": 3}, ["at .a: one_of(1, 2) expected, 3 came"]),
    ([1, 2], [1], ["2 items expected, 1 came", "at [1]: 2 expected, nothing came"]),
    ([1], [1, 2], ["1 item expected, 2 came", "at [1]: not expected, 2 came"]),
    ("Abc", "aBC", ['"Abc" expected, "aBC" came: the case differs']),
    ("abc", " abc", ['"abc" expected, " abc" came: blanks around it differ']),
    (
        containing({"a": [1, 2]}),
        {"a": [1, 3], "b": 0},
        ["at .a: an item 2 expected, none of [1, 3] is one"],
    ),
    (containing([1]), [], ["an item 1 expected, the list is empty"]),
    (matching("^a"), "b", ['matching("^a") expected, "b" came']),
    (
        "x" * 100 + "yes",
        "x" * 100 + "no",
        ['from character 100 on: "xxxxxxxxxxxxyes" expected, "xxxxxxxxxxxxno" came'],
    ),
    (1, MISSING, ["1 expected, nothing came"]),
    (1, Unreadable("no JSON"), ["1 expected, no JSON came"]),
    (mock.ANY, MISSING, ["<ANY> expected, nothing came"]),
    ({"a": mock.ANY, "b": 1}, {"a": 7, "b": 1}, ["at .a: only the test can compare 7 with <ANY>"]),
]


@pytest.mark.parametrize("written, came, lines", JSON)
def test_json(written: Any, came: Any, lines: list[str]) -> None:
    found = differences(pattern_of(written, []), came)
    assert [line.replace('matching(r"', 'matching("') for line in found] == lines


def test_an_object_that_says_no_is_named() -> None:
    never = mock.MagicMock()
    never.__eq__.return_value = False
    asked: list[object] = []
    (line,) = differences(pattern_of({"a": never}, asked), {"a": 7}, asked)
    assert line.startswith("at .a: <MagicMock id=")
    assert line.endswith(" expected, 7 came")


@pytest.mark.parametrize(
    "written, came, lines",
    [
        ({"page": 2}, {"page": ["3"]}, ['at .page: "2" expected, "3" came']),
        ({"page": 2}, {}, ['at .page: "2" expected, nothing came']),
        (
            {"page": 2},
            {"page": ["2", "2"]},
            ['at .page: "2" expected, it came 2 times: ["2", "2"]'],
        ),
        ({"t": ["a", "b"]}, {"t": ["b"]}, ["at .t: 2 items expected, 1 came"]),
        ({}, {"a": ["1"]}, ['at .a: not expected, ["1"] came']),
    ],
)
def test_names(written: Any, came: Any, lines: list[str]) -> None:
    assert differences(names_pattern_of(written, [], "query"), came)[: len(lines)] == lines


def test_bytes() -> None:
    pattern = octets_pattern_of(b"a" * 70, [])
    assert differences(pattern, b"a" * 69 + b"b\x00") == [
        "from byte 69 on: b'aaaaaaaaaaaaa' expected, b'aaaaaaaaaaaab\\x00' came"
    ]
    assert differences(pattern, b"") == [
        "b'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa... expected, b'' came"
    ]


def test_the_lines_are_bounded() -> None:
    pattern = pattern_of({str(key): key for key in range(100)}, [])
    found = differences(pattern, {})
    assert len(found) == 9
    assert found[-1] == "and more"


@given(json_values.written, json_values.values)
def test_there_are_lines_where_a_value_does_not_fit_and_only_there(
    written: Any, value: Any
) -> None:
    pattern = pattern_of(written, [])
    found = differences(pattern, value)
    assert bool(found) is not pattern.judge(value, None)
    assert all(line.isprintable() for line in found)
