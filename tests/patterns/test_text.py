from __future__ import annotations

import ast
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sidestage
from kit import json_values
from sidestage import absent, containing, matching, one_of
from sidestage.patterns.build import names_pattern_of, octets_pattern_of, pattern_of
from sidestage.patterns.text import quoted, show, show_pattern, show_plain, written

NAMES = {name: getattr(sidestage, name) for name in ("containing", "matching", "absent", "one_of")}


@given(json_values.written)
def test_a_pattern_is_shown_as_it_may_be_written(wanted: Any) -> None:
    pattern = pattern_of(wanted, [])
    shown = show_pattern(pattern, 10_000)
    assert pattern_of(eval(shown, {**NAMES, "re": re}), []) == pattern


@given(st.text())
def test_a_quoted_text_is_that_text_in_python(text: str) -> None:
    assert ast.literal_eval(quoted(text)) == text
    assert quoted(text).isprintable()


def test_double_quotes_are_preferred() -> None:
    assert [quoted(text) for text in ("a", "a'b", 'a"b', "'\"")] == [
        '"a"',
        '"a\'b"',
        "'a\"b'",
        "'\\'\"'",
    ]


@given(json_values.values, st.integers(1, 80))
def test_what_is_written_is_right_or_nothing(value: Any, width: int) -> None:
    text = written(value, width)
    if text is None:
        assert len(show(value, 10_000)) > width
    else:
        assert len(text) <= width
        assert ast.literal_eval(text) == value


@pytest.mark.parametrize("value", [float("inf"), [float("nan")], [[[]]] * 1000])
def test_what_python_cannot_read_is_not_written(value: Any) -> None:
    assert written(value, 100) is None


@pytest.mark.parametrize(
    "value, text",
    [
        ("x" * 100, '"xxxxxxxxx... (100 characters)'),
        (b"x" * 1000, "b'xxxxxxxx... (1,000 bytes)"),
        ([1] * 5000, "[1, 1, 1, ... (5,000 items)"),
        ({str(n): n for n in range(20)}, '{"0": 0, "... (20 keys)'),
        ({"a": None}, '{"a": None... (1 key)'),
        ([True], "[True]"),
    ],
)
def test_a_long_value_is_cut_with_its_length(value: Any, text: str) -> None:
    assert show(value, 10) == text


def test_a_deep_value_is_shown_with_dots() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    assert show(value) == "[" * 12 + "..." + "]" * 12
    while isinstance(value, list):
        value = value.pop()


def test_a_huge_value_is_looked_at_only_where_it_is_shown() -> None:
    class Counting(dict[str, int]):
        seen = 0

        def items(self) -> Any:
            for index in range(1 << 60):
                type(self).seen = index
                yield str(index), index

    assert show(Counting(), 30).startswith('{"0": 0, "1": 1')
    assert Counting.seen < 10


@pytest.mark.parametrize(
    "wanted, text",
    [
        (matching(r"\d+"), r'matching(r"\d+")'),
        (matching(re.compile("a", re.I | re.M)), 'matching(re.compile(r"a", re.'),
        (containing({"a": [1]}), 'containing({"a": containing([1])})'),
        (one_of(None, [int, {"a": absent}]), "one_of(None, [int, {"),
    ],
)
def test_patterns(wanted: Any, text: str) -> None:
    assert show_pattern(pattern_of(wanted, [])).startswith(text)


def test_names_and_octets() -> None:
    names = names_pattern_of({"a": ["1", 2], "b": int, "c": containing(["x"])}, [], "query")
    assert show_pattern(names, 100) == '{"a": ["1", "2"], "b": int, "c": containing(["x"])}'
    fields = names_pattern_of({"X-A": containing("x")}, [], "headers", fields=True)
    assert show_pattern(fields) == '{"X-A": containing("x")}'
    octets = octets_pattern_of(one_of(b"a", containing(b"b"), matching(rb"c")), [])
    assert show_pattern(octets) == "one_of(b'a', containing(b'b'), matching(b'c'))"


def test_a_plain_text_is_one_line_that_no_terminal_acts_on() -> None:
    assert show_plain("a\n\x1b[31mb\ud800") == "a\\n\\x1b[31mb\\ud800"
    assert show_plain("a" * 20, 10) == "a" * 10 + "..."
