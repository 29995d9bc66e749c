"""The pages "From ..." of the documentation: pairs of tests, and ours is in no case the longer one.

That all of them run and pass is for the tests of the documentation to say.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

_DOCS = Path(__file__).parent.parent / "docs"
_PAGES = sorted(_DOCS.glob("moving-*.md"))


class Pair(NamedTuple):
    """Two blocks that follow each other: the test as it was, and as it is with Sidestage."""

    name: str
    before: str
    after: str


def lines(block: str) -> int:
    """The number of lines that are not blank."""
    return sum(bool(line.strip()) for line in block.splitlines())


def pairs(page: Path) -> list[Pair]:
    """The pairs of a page, whose first block has what all of them share."""
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    before, after = blocks[1::2], blocks[2::2]
    assert len(before) == len(after)
    return [Pair(_test(one), one, other) for one, other in zip(before, after, strict=True)]


def _test(block: str) -> str:
    found = re.search(r"def (test_\w+)", block)
    assert found is not None, block
    return found[1]


def test_there_is_a_page_for_each_tool() -> None:
    assert [page.stem.removeprefix("moving-") for page in _PAGES] == [
        "http-server",
        "pytest-httpserver",
        "requests-mock",
        "responses",
        "respx",
    ]


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.stem)
def test_a_page_shows_the_same_test_with_both(page: Path) -> None:
    for name, before, after in pairs(page):
        assert "http_server" not in before, name
        assert "http_server" in after, name
        assert _test(after) == name


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.stem)
def test_a_page_has_each_of_the_common_tests(page: Path) -> None:
    common = "reply status json query headers replies order once callback timeout calls missing"
    names = {name for name, _, _ in pairs(page)}
    assert {f"test_{name}" for name in f"{common} unexpected shop".split()} <= names


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.stem)
def test_no_test_of_ours_is_longer(page: Path) -> None:
    longer = {n: (lines(after), lines(b)) for n, b, after in pairs(page) if lines(after) > lines(b)}
    assert longer == {}


def test_the_overview_tells_how_many_lines_there_are() -> None:
    told = (_DOCS / "moving.md").read_text()
    for page in _PAGES:
        title = page.read_text().splitlines()[0].removeprefix("# ")
        before = sum(lines(pair.before) for pair in pairs(page))
        after = sum(lines(pair.after) for pair in pairs(page))
        assert f"| {title} | {before} | {after} |" in told
