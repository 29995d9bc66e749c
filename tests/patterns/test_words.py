from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest

from kit.child_coverage import SETTINGS
from kit.scripts import run_script
from sidestage import absent, containing, matching, one_of


@pytest.mark.parametrize(
    "word, text",
    [
        (containing({"a": 1}), "containing({'a': 1})"),
        (matching("a+"), "matching('a+')"),
        (matching(re.compile("a", re.I)), "matching(re.compile('a', re.IGNORECASE))"),
        (one_of(1, "a"), "one_of(1, 'a')"),
        (absent, "absent"),
    ],
)
def test_a_word_is_shown_as_it_is_written(word: object, text: str) -> None:
    assert repr(word) == text


def test_absent_is_one_even_as_a_copy() -> None:
    assert copy.deepcopy({"a": absent})["a"] is absent
    assert pickle.loads(pickle.dumps(absent)) is absent


WRONG: list[tuple[Any, tuple[Any, ...], type[Exception], str]] = [
    (containing, (7,), TypeError, "takes a dict .*, a list .*, or text or bytes .*, not 7"),
    (containing, (matching("a"),), TypeError, r"not matching\('a'\)"),
    (matching, (7,), TypeError, "takes a regular expression, not 7"),
    (matching, ("(",), ValueError, r"'\('\): not a regular .* write containing\(\.\.\.\)"),
    (one_of, (), ValueError, r"two choices or more; give them side by side"),
    (one_of, (1,), ValueError, "two choices or more"),
    (one_of, ([1, 2],), ValueError, r"write one_of\(\*\[1, 2\]\)"),
]


@pytest.mark.parametrize("word, given, error, text", WRONG)
def test_a_wrong_word_says_what_to_write(
    word: Any, given: tuple[Any, ...], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        word(*given)


def test_the_words_load_no_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SETTINGS, raising=False)  # coverage.py loads json itself
    source = """
        import sys
        from sidestage import absent, containing, matching, one_of
        print(sorted({"msgspec", "json"} & set(sys.modules)))
    """
    assert run_script(source) == "[]\n"


def test_a_word_stays_a_word_once_its_machinery_is_there() -> None:
    """``sidestage.matching`` is a word, so no module below ``sidestage`` has that name."""
    source = """
        import sidestage
        import sidestage.protocols.http.matching.matchers
        print(sidestage.matching("a"))
    """
    assert run_script(source) == "matching('a')\n"
