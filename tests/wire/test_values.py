"""Values are checked where they enter, and come out as the plain types that messages have."""

from __future__ import annotations

import array
import ctypes
import enum
import math
import mmap
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.values import Index, Text, anything
from sidestage.wire import values


class Name(str, enum.Enum):  # noqa: UP042 - a StrEnum is shown as its text
    A = "value"


@pytest.mark.parametrize("value", [0, 1.5, Index(3), Fraction(1, 2), Decimal("0.1"), 1e308])
def test_seconds_may_be_any_number(value: Any) -> None:
    assert values.seconds("timeout", value) == float(value)


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, -math.inf, 10**400, -(10**400)])
def test_seconds_are_finite_and_not_negative(value: Any) -> None:
    with pytest.raises(ValueError, match="timeout must be at least 0 seconds and finite, not "):
        values.seconds("timeout", value)


@pytest.mark.parametrize("value", [True, "1", b"1", None, [], 1j])
def test_seconds_are_a_number(value: Any) -> None:
    with pytest.raises(TypeError, match="timeout must be a number of seconds, not "):
        values.seconds("timeout", value)


@pytest.mark.parametrize("value", [Index(5), enum.IntEnum("E", {"A": 5}).A, 5])
def test_an_int_of_any_class_becomes_a_plain_one(value: Any) -> None:
    for made in (values.count("keep", value), values.integer("x", value), values.c_int("x", value)):
        assert type(made) is int
        assert made == 5


@pytest.mark.parametrize("value", [1.0, "5", None, True, b"5"])
def test_a_count_is_an_int(value: Any) -> None:
    with pytest.raises(TypeError, match="keep must be an int, not "):
        values.count("keep", value)


@pytest.mark.parametrize("value", [-1, 1 << 63, 10**4000])
def test_a_count_has_bounds(value: Any) -> None:
    with pytest.raises(ValueError, match="keep must be at"):
        values.count("keep", value)


@pytest.mark.parametrize("value", [1 << 31, -(1 << 31) - 1, 10**4000])
def test_an_int_of_c_has_32_bits(value: Any) -> None:
    with pytest.raises(OverflowError, match="level must be an int of 32 bits"):
        values.c_int("level", value)
    assert values.c_int("level", True) == 1


@pytest.mark.parametrize("value, text", [(Text("x"), "x"), (Name.A, "value"), ("x", "x")])
def test_text_of_any_class_becomes_plain(value: str, text: str) -> None:
    assert type(values.plain(value)) is str
    assert values.plain(value) == text


BUFFERS: dict[str, tuple[Any, bytes]] = {
    "bytes": (b"ab", b"ab"),
    "bytearray": (bytearray(b"ab"), b"ab"),
    "memoryview": (memoryview(b"ab"), b"ab"),
    "not contiguous": (memoryview(b"axbx")[::2], b"ab"),
    "backwards": (memoryview(b"ba")[::-1], b"ab"),
    "wider items": (memoryview(array.array("H", [1])), array.array("H", [1]).tobytes()),
    "wider items, not contiguous": (
        memoryview(array.array("H", [1, 2, 3]))[::2],
        array.array("H", [1, 3]).tobytes(),
    ),
    "array": (array.array("d", [1.0]), array.array("d", [1.0]).tobytes()),
    "ctypes": (ctypes.c_uint16(1), bytes(ctypes.c_uint16(1))),
    "a structure": ((ctypes.c_uint16 * 2)(1, 2), bytes((ctypes.c_uint16 * 2)(1, 2))),
    "two dimensions": (memoryview(b"abcd").cast("B", (2, 2)), b"abcd"),
    "nothing": (memoryview(b""), b""),
}


@pytest.mark.parametrize("name", BUFFERS)
def test_any_bytes_like_object_gives_its_bytes(name: str) -> None:
    value, data = BUFFERS[name]
    view = values.buffer("it", value)
    assert bytes(view) == data
    assert len(view) == len(data)
    assert values.is_buffer(value)


def test_a_map_of_memory_is_a_buffer() -> None:
    with mmap.mmap(-1, 4) as memory:
        memory[:] = b"abcd"
        assert bytes(values.buffer("it", memory)) == b"abcd"


@pytest.mark.parametrize("value", ["text", 5, None, [1, 2], Index(3)])
def test_what_is_not_bytes_like_is_refused(value: Any) -> None:
    """Also what ``bytes`` would take, such as a number of zero bytes."""
    assert not values.is_buffer(value)
    with pytest.raises(TypeError, match="it must be a bytes-like object, not "):
        values.buffer("it", value)


@given(st.text(max_size=30) | st.text(st.characters(categories=["Cs"]), max_size=30))
def test_a_text_for_people_can_always_be_sent(text: str) -> None:
    made = values.printable(text, 20)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(made)) == made
    assert made.startswith(text[:20].encode("utf-8", "backslashreplace").decode())
    assert len(text) <= 20 or made.endswith(f"({len(text) - 20} more characters)")


@given(anything)
def test_a_check_gives_a_value_or_a_type_or_value_error(value: Any) -> None:
    checks = [values.seconds, values.count, values.integer, values.c_int, values.buffer]
    for check in checks:
        try:
            made = check("it", value)
        except (TypeError, ValueError, OverflowError) as error:
            made = len(str(error))
            assert made < 400
        assert type(made) in (int, float, memoryview)
