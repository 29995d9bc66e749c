"""How often an expectation has to be met, and may be."""

from __future__ import annotations

from typing import Any

import pytest

from sidestage.expectations.entry import Times, times_of


@pytest.mark.parametrize(
    "times, allow, expected",
    [
        (None, False, Times(None, None)),
        (None, True, Times(0, None)),
        (2, False, Times(2, 2)),
        (0, False, Times(0, 0)),
        (3, True, Times(0, 3)),
        (range(1, 4), False, Times(1, 3)),
        (range(2), False, Times(0, 1)),
    ],
)
def test_what_times_says(times: Any, allow: bool, expected: Times) -> None:
    assert times_of(times, allow=allow) == expected


@pytest.mark.parametrize(
    "times, allow, error, text",
    [
        (-1, False, ValueError, "0 or more, not -1"),
        (-(10**400), False, ValueError, "0 or more, not -10000"),
        (10**30, False, ValueError, "times must be at most 9223372036854775807, not 10000"),
        (10**30, True, ValueError, "times must be at most 9223372036854775807, not 10000"),
        (range(1, 10**30), False, ValueError, "the end of times must be at most 922337203685"),
        (0, True, ValueError, r"expect\(..., times=0\)"),
        (True, False, TypeError, "not True"),
        (1.0, False, TypeError, r"an int or a range, such as times=2 .* not 1.0"),
        (range(1, 3), True, TypeError, r"times is an int, not range\(1, 3\)"),
        (range(1, 9, 2), False, ValueError, "has no gap"),
        (range(3, 3), False, ValueError, "is not empty"),
        (range(-1, 3), False, ValueError, "range"),
    ],
)
def test_what_it_cannot_say(times: Any, allow: bool, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        times_of(times, allow=allow)
