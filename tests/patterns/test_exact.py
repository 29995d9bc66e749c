"""A pattern with a key takes values of that key alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given

from kit import json_values
from sidestage import containing, one_of
from sidestage.patterns.build import octets_pattern_of, pattern_of
from sidestage.patterns.exact import key_of, key_taken
from sidestage.patterns.tree import DEPTH, MISSING, verdict


@given(json_values.written, json_values.values)
def test_what_it_takes_has_its_key(written: Any, value: Any) -> None:
    pattern = pattern_of(written, [])
    key = key_taken(pattern)
    if key is not None and verdict(pattern, value):
        assert key_of(value) == key


@given(json_values.values, json_values.values)
@example(True, 1)
@example([{"a": 0}], [{"a": False}])
@example({"a": 1}, {"a": 1.0})
@example(None, "null")
def test_plain_values_have_the_same_key_if_they_are_the_same(one: Any, other: Any) -> None:
    pattern = pattern_of(one, [])
    assert (key_taken(pattern) == key_of(other)) is verdict(pattern, other)


@pytest.mark.parametrize("written", [int, containing("a"), one_of(1, 2), {"a": str}, [1, int]])
def test_what_takes_several_values_has_none(written: Any) -> None:
    assert key_taken(pattern_of(written, [])) is None


def test_bytes_are_their_key() -> None:
    assert key_taken(octets_pattern_of(b"ab", [])) == key_of(b"ab")


def test_what_is_not_there_has_no_key_of_a_value() -> None:
    assert key_of(MISSING) not in {key_of(None), key_of(""), key_of(0)}


def test_a_value_of_any_depth_has_a_key() -> None:
    value: Any = 1
    for _ in range(100 * DEPTH):
        value = [value]
    assert key_of(value) != key_of([1])
