"""The published matrix has a row for each tested one, and the tested result for Sidestage."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).parent
_PAGE = _HERE.parent.parent / "docs" / "compatibility.md"
_MODULES = sorted(path for path in _HERE.glob("test_*.py") if path.name != Path(__file__).name)


def rows_of(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"matrix_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, "rows", None)


def published() -> dict[tuple[str, str], str]:
    """The published results of Sidestage, by theme and row."""
    found, theme = {}, ""
    for line in _PAGE.read_text().splitlines():
        if line.startswith("### "):
            theme = line[4:]
        elif theme and line.startswith("| "):
            row, ours, *_ = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            found[theme, row.replace("\\|", "|")] = ours
    return found


@pytest.mark.parametrize("path", _MODULES, ids=lambda path: path.stem)
def test_each_row_is_published(path: Path) -> None:
    rows = rows_of(path)
    if rows is not None:
        names = {(rows.theme, row.name) for _, row, _ in rows.cases(peers=False)}
        assert names <= set(published()), "run `make matrix`"


def test_all_that_is_published_works() -> None:
    broken = {row: ours for row, ours in published().items() if row[1] and ours != "works"}
    assert {row for row, ours in broken.items() if ours not in ("Sidestage", "---")} == set()
