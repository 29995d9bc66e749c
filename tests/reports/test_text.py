"""Values in a report are short, in one line, and harmless to a terminal."""

from __future__ import annotations

import pytest

from sidestage.reports.text import count, line, of_error, quoted, took


@pytest.mark.parametrize(
    "data, shown",
    [
        (b"", "0 bytes"),
        (b"x", "1 byte 'x'"),
        (b"one\r\ntwo", "8 bytes 'one\\r\\ntwo'"),
        ("größe".encode(), "7 bytes 'größe'"),
        (b"\x89PNG\r\n\x1a\n", "8 bytes b'\\x89PNG\\r\\n\\x1a\\n'"),
        (b"\x1b[2J", "4 bytes b'\\x1b[2J'"),
        (b"a" * 81, f"81 bytes '{'a' * 80}'..."),
        (b"a" + "ü".encode() * 50, f"101 bytes 'a{'ü' * 39}'..."),  # the cut is in a character
        (b"\xff" * 25, "25 bytes " + repr(b"\xff" * 24) + "..."),
    ],
)
def test_bytes_are_quoted_as_text_where_they_are_text(data: bytes, shown: str) -> None:
    assert quoted(data) == shown


def test_the_size_may_be_larger_than_what_is_at_hand() -> None:
    assert quoted(b"abc", 1 << 20) == "1,048,576 bytes 'abc'..."


def test_a_line_is_one_line_of_printable_characters() -> None:
    assert line("a\nb\x1b[2Jc\u202ed") == "a\\nb\\x1b[2Jc\\u202ed"
    assert line("x" * 11, 10) == "xxxxxxxxxx..."
    assert line("\n" * 10, 10) == "\\n\\n\\n\\n\\n..."


def test_numbers_and_times() -> None:
    assert [count(number, "byte") for number in (0, 1, 2000)] == [
        "0 bytes",
        "1 byte",
        "2,000 bytes",
    ]
    assert [took(seconds) for seconds in (0.0004, 0.25, 1.04)] == ["0.4 ms", "250.0 ms", "1.0 s"]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    "error, shown",
    [
        (KeyError("x"), "KeyError: 'x'"),
        (AssertionError(), "AssertionError"),
        (AssertionError("first\nsecond"), "AssertionError: first"),
        (Unprintable(), "Unprintable: (its text cannot be had: RuntimeError)"),
    ],
)
def test_an_error_is_its_type_and_the_first_line_of_its_text(error: Exception, shown: str) -> None:
    assert of_error(error) == shown
