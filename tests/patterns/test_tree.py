from __future__ import annotations

import gc
import re
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import json_values
from sidestage import absent, containing, matching, one_of
from sidestage.patterns.build import names_pattern_of, octets_pattern_of, pattern_of
from sidestage.patterns.tree import MISSING, Pattern, Unreadable, verdict

DECODER = msgspec.msgpack.Decoder(Pattern)


def crossed(pattern: Pattern) -> Pattern:
    """The pattern as the other process has it."""
    return DECODER.decode(msgspec.msgpack.encode(pattern))


class Says:
    """An object with its own ``==``."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer
        self.seen: list[object] = []

    def __eq__(self, other: object) -> bool:
        self.seen.append(other)
        return self.answer

    __hash__ = None  # type: ignore[assignment]


@given(json_values.written, json_values.values)
def test_a_verdict_is_that_of_a_plain_model(written: Any, value: Any) -> None:
    asked: list[object] = []
    pattern = pattern_of(written, asked)
    assert not asked
    assert verdict(pattern, value) is json_values.fits(written, value)
    assert verdict(crossed(pattern), value) is json_values.fits(written, value)


@given(json_values.values)
def test_a_value_fits_itself_and_its_copy_that_has_crossed(value: Any) -> None:
    assert verdict(crossed(pattern_of(value, [])), value) is True


asking = st.recursive(
    json_values.scalars | st.booleans().map(Says),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(json_values.names, inner, max_size=3)
        | st.lists(inner, max_size=3).map(containing)
        | st.lists(inner, min_size=2, max_size=3).map(lambda some: one_of(*some))
    ),
    max_leaves=6,
)


@given(asking, json_values.values)
def test_what_only_the_test_can_say_is_neither_true_nor_false(written: Any, value: Any) -> None:
    asked: list[Any] = []
    pattern = crossed(pattern_of(written, asked))
    alone = verdict(pattern, value)
    real = verdict(pattern, value, asked)
    always = verdict(pattern, value, [Says(True)] * len(asked))
    never = verdict(pattern, value, [Says(False)] * len(asked))
    if alone is None:
        assert (always, never) == (True, False)
    else:
        assert always is never is real is alone


def test_an_object_gets_the_value_at_its_place() -> None:
    says = Says(True)
    asked: list[object] = []
    pattern = pattern_of({"a": [1, says]}, asked)
    assert asked == [says]
    says.seen.clear()
    assert verdict(pattern, {"a": [1, {"b": 2}]}) is None
    assert says.seen == []
    assert verdict(pattern, {"a": [1, {"b": 2}]}, asked) is True
    assert says.seen == [{"b": 2}]


@pytest.mark.parametrize("value", [MISSING, Unreadable("no JSON")])
def test_an_object_is_not_asked_about_what_is_not_there(value: object) -> None:
    says = Says(True)
    pattern = pattern_of(says, [])
    assert verdict(pattern, value) is False
    assert verdict(pattern, value, [says]) is False


def test_what_an_object_raises_comes_out() -> None:
    class Raises:
        def __eq__(self, other: object) -> bool:
            raise KeyError("mine")

        __hash__ = None  # type: ignore[assignment]

    raises = Raises()
    with pytest.raises(KeyError, match="mine"):
        verdict(pattern_of(raises, []), 1, [raises])


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_a_value_of_any_depth_is_judged() -> None:
    deep = nested(sys.getrecursionlimit() * 4)
    for written in [[1], containing([1]), [[containing([int])]], one_of(1, [str])]:
        assert verdict(pattern_of(written, []), deep) is False
    assert verdict(pattern_of([[list]], []), deep) is True
    unwind(deep)


def unwind(value: Any) -> None:
    """Free a deep list from its top, since to free it at once takes as deep a stack."""
    while isinstance(value, list):
        value = value.pop()
    gc.collect()


def test_a_pattern_of_the_greatest_depth_crosses_and_judges() -> None:
    pattern = crossed(pattern_of(nested(100), []))
    assert verdict(pattern, nested(100)) is True
    assert verdict(pattern, nested(99)) is False


@pytest.mark.parametrize(
    "written, value, wanted",
    [
        (1, 1.0, True),
        (1.0, 1, True),
        (True, 1, False),
        (1, True, False),
        (0, False, False),
        (None, None, True),
        (None, MISSING, False),
        (int, True, False),
        (int, 1.0, False),
        (float, 1, True),
        (float, True, False),
        (str, None, False),
        (1 << 63, 1 << 63, True),
        (-(1 << 63), -(1 << 63), True),
        (10**30, 10**30 + 1, False),
        (float("inf"), float("inf"), True),
        ("1", 1, False),
        ({"a": None}, {}, False),
        ({"a": absent}, {}, True),
        ({"a": absent}, {"a": None}, False),
        ({"a": one_of(absent, 1)}, {}, True),
        (absent, MISSING, True),
        ({}, {"a": 1}, False),
        (containing({}), {"a": 1}, True),
        (containing({}), [], False),
        (containing([{"a": 1}]), [3, {"a": 1, "b": 2}], True),
        (containing({"a": {"b": 1}}), {"a": {"b": 1, "c": 2}, "d": 3}, True),
        (containing({"a": [2]}), {"a": [1, 2]}, True),
        ([containing("b")], ["abc"], True),
        (matching("^b"), "ab", False),
        (matching("b$"), "ab", True),
        (matching(re.compile("B", re.IGNORECASE)), "ab", True),
        (matching("1"), 1, False),
    ],
)
def test_json(written: Any, value: Any, wanted: bool) -> None:
    assert verdict(crossed(pattern_of(written, [])), value) is wanted


def test_an_int_with_more_digits_than_python_writes() -> None:
    pattern = crossed(pattern_of(10**6000, []))
    assert verdict(pattern, 10**6000) is True
    assert verdict(pattern, 10**6000 + 1) is False


@pytest.mark.parametrize(
    "written, came, wanted",
    [
        ({"a": 1}, {"a": ["1"]}, True),
        ({"a": 1}, {"a": ["01"]}, False),
        ({"a": 1}, {"a": ["1", "1"]}, False),
        ({"a": ["1"]}, {"a": ["1"]}, True),
        ({"a": ["1", 2]}, {"a": ["1", "2"]}, True),
        ({"a": ["1", 2]}, {"a": ["2", "1"]}, False),
        ({"a": []}, {}, True),
        ({"a": []}, {"a": [""]}, False),
        ({"a": containing([2])}, {"a": ["1", "2"]}, True),
        ({"a": containing("2")}, {"a": ["123"]}, True),
        ({"a": int}, {"a": ["-7"]}, True),
        ({"a": int}, {"a": [" 1_000 "]}, True),
        ({"a": int}, {"a": ["7.0"]}, False),
        ({"a": int}, {"a": [""]}, False),
        ({"a": float}, {"a": ["7.5e3"]}, True),
        ({"a": str}, {"a": [""]}, True),
        ({"a": str}, {"a": ["1", "2"]}, False),
        ({"a": absent}, {}, True),
        ({"a": one_of("1", ["2", "3"])}, {"a": ["2", "3"]}, True),
        ({"a": one_of(absent, "1")}, {}, True),
        ({"a": one_of(absent, "1")}, {"a": ["2"]}, False),
        ({}, {}, True),
        (absent, {}, True),
        (absent, {"a": ["1"]}, False),
        ({"a": 1}, {"a": ["1"], "b": ["2"]}, False),
        (containing({"a": 1}), {"a": ["1"], "b": ["2"]}, True),
        (one_of({"a": 1}, {"b": 1}), {"b": ["1"]}, True),
    ],
)
def test_names(written: Any, came: Any, wanted: bool) -> None:
    assert verdict(crossed(names_pattern_of(written, [], "query")), came) is wanted


@pytest.mark.parametrize(
    "written, came, wanted",
    [
        ({"X-A": "1"}, {"x-a": ["1"], "x-b": ["2"]}, True),
        ({"x-a": "A"}, {"x-a": ["a"]}, False),
        ({"X-A": "1, 2"}, {"x-a": ["1", "2"]}, True),
        ({"X-A": ["1", "2"]}, {"x-a": ["1", "2"]}, True),
        ({"X-A": containing("2")}, {"x-a": ["1", "2"]}, True),
        ({"X-A": absent}, {"x-b": ["1"]}, True),
        ({"X-A": absent}, {"x-a": [""]}, False),
        ({"X-A": 3}, {"x-a": ["3"]}, True),
        ({}, {"x-a": ["1"]}, True),
    ],
)
def test_header_fields(written: Any, came: Any, wanted: bool) -> None:
    pattern = crossed(names_pattern_of(written, [], "headers", fields=True))
    assert verdict(pattern, came) is wanted


def test_an_object_gets_the_text_of_a_name_or_all_texts() -> None:
    says = Says(True)
    pattern = names_pattern_of({"a": says}, [], "query")
    for came in (["1"], ["1", "2"]):
        assert verdict(pattern, {"a": came}) is None
        assert verdict(pattern, {"a": came}, [says]) is True
    assert says.seen == ["1", ["1", "2"]]


@pytest.mark.parametrize(
    "written, came, wanted",
    [
        (b"abc", b"abc", True),
        (bytearray(b"abc"), b"abc", True),
        (b"", b"", True),
        (containing(b"\xff"), b"a\xffb", True),
        (matching(rb"\Aa.c\Z"), b"a\xffc", True),
        (matching(re.compile(b"B", re.IGNORECASE)), b"abc", True),
        (one_of(b"a", b"b"), b"c", False),
        (b"a", "a", False),
    ],
)
def test_octets(written: Any, came: Any, wanted: bool) -> None:
    assert verdict(crossed(octets_pattern_of(written, [])), came) is wanted


def test_a_regular_expression_that_prints_when_compiled_prints_nothing_here(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_debug = re.compile("only here", re.DEBUG)
    capsys.readouterr()
    assert verdict(pattern_of(matching(with_debug), []), "only here") is True
    assert capsys.readouterr().out == ""
