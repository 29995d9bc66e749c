"""Values that a careless test may pass in place of what is meant."""

from __future__ import annotations

import array
import enum
import math
from pathlib import Path
from typing import Any

from hypothesis import strategies as st


class Index:
    """A number that is no int, as those of numpy are."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value

    def __int__(self) -> int:
        return self._value

    def __repr__(self) -> str:
        return f"Index({self._value})"


class Text(str):
    """Text of another class, which is shown in another way."""

    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Bytes(bytes):
    """Bytes of another class."""


class Number(enum.IntEnum):
    """An int of another class."""

    ONE = 1
    LARGE = 299


_BYTES = st.binary(max_size=20)
_NUMBERS = st.integers() | st.integers(-5, 1000) | st.sampled_from([1 << 70, -(1 << 70), 10**4000])

numbers: st.SearchStrategy[Any] = st.one_of(
    _NUMBERS,
    _NUMBERS.map(Index),
    st.floats(),
    st.sampled_from([math.nan, math.inf, -math.inf, True, False, *Number]),
)
texts: st.SearchStrategy[Any] = st.one_of(
    st.text(max_size=20),
    st.text(max_size=20).map(Text),
    st.text(st.characters(categories=["Cs", "Cc", "Ll"]), max_size=10),
    st.sampled_from(["\ud800", "\udcff", "a\r\nb", "\0", "é", "250 OK", "x" * 100_000]),
)
buffers: st.SearchStrategy[Any] = st.one_of(
    _BYTES,
    _BYTES.map(Bytes),
    _BYTES.map(bytearray),
    _BYTES.map(lambda data: memoryview(data)),
    _BYTES.map(lambda data: memoryview(data)[::2]),
    _BYTES.map(lambda data: array.array("B", data)),
    st.builds(array.array, st.just("d"), st.just([1.5, 2.5])),
    st.builds(lambda: memoryview(array.array("i", range(9)))[::-3]),
)
others: st.SearchStrategy[Any] = st.sampled_from(
    [None, object(), Path("x"), [], {}, (), set(), ..., print, int, 1j, [1, 2], {"a": b"b"}]
)
anything: st.SearchStrategy[Any] = st.one_of(
    numbers,
    texts,
    buffers,
    others,
    st.lists(numbers | texts | buffers, max_size=3),
    st.lists(st.tuples(texts, texts | numbers | buffers), max_size=3),
    st.dictionaries(texts, texts | numbers, max_size=3),
)
