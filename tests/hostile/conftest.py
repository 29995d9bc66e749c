"""Options of the compatibility matrix, and the notes that it is made of."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest

_rows: list[Any] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--peers`` and ``--matrix``; known where this directory is named on the command line."""
    group = parser.getgroup("matrix")
    group.addoption("--peers", action="store_true", help="run the other servers, too")
    group.addoption("--matrix", type=Path, help="note what became of each row in this JSON file")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A case for each row of a module, and for each server if the peers run, too."""
    rows = getattr(metafunc.function, "rows", None)
    if rows is not None:
        cases = rows.cases(peers=metafunc.config.getoption("--peers", False))
        metafunc.parametrize(
            "row, subject", [case[1:] for case in cases], ids=[case[0] for case in cases]
        )


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect what the rows noted; under xdist, where the workers' reports arrive."""
    if report.when == "call":
        _rows.extend(value for name, value in report.user_properties if name == "row")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the notes."""
    file = session.config.getoption("--matrix", None)
    if file is not None and not hasattr(session.config, "workerinput"):
        notes = {"python": platform.python_version(), "rows": sorted(_rows)}
        file.write_text(json.dumps(notes, indent=1) + "\n")
