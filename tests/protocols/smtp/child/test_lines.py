"""Command lines, however they come."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from sidestage.protocols.smtp.child.lines import Lines
from sidestage.protocols.smtp.rules import COMMAND_LIMIT


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_lines_are_the_same_however_the_stream_is_cut(stream: bytes, cuts: list[int]) -> None:
    stream = stream.replace(b"\x16", b"")
    lines, got = Lines(), []
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        lines.feed(stream[start:end])
        while (line := lines.next()) is not None:
            got.append(line)
    *whole, rest = stream.split(b"\n")
    assert got == [line + b"\n" for line in whole]
    assert (lines.beginning(), len(lines), lines.take()) == (rest, len(rest), rest)


def test_a_line_without_an_end_is_not_kept_whole() -> None:
    lines = Lines()
    for _ in range(1000):
        lines.feed(b"x" * 1000)
        assert lines.next() is None
    assert len(lines) < 10 * COMMAND_LIMIT
    lines.feed(b"\r\nNOOP\r\n")
    line = lines.next()
    assert line is not None
    assert len(line) > COMMAND_LIMIT
    assert lines.next() == b"NOOP\r\n"


def test_tls_is_not_waited_for() -> None:
    lines = Lines()
    lines.feed(b"\x16")
    assert lines.next() is None
    lines.feed(b"\x03\x01")
    assert lines.next() == b"\x16\x03\x01"
