"""The options of the compatibility matrix, and the file its page is generated from."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest

_rows: list[Any] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--peers`` and ``--matrix``, if this directory is named on the command line."""
    group = parser.getgroup("matrix")
    group.addoption("--peers", action="store_true", help="run the other servers too")
    group.addoption("--matrix", type=Path, help="write the outcome of each row to this JSON file")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize over the rows of the module, and over the servers if the peers run too."""
    rows = getattr(metafunc.function, "rows", None)
    if rows is not None:
        cases = rows.cases(peers=metafunc.config.getoption("--peers", False))
        metafunc.parametrize(
            "row, server", [case[1:] for case in cases], ids=[case[0] for case in cases]
        )


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect the outcomes; under xdist the controller gets the workers' reports."""
    if report.when == "call":
        _rows.extend(value for name, value in report.user_properties if name == "row")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the outcomes."""
    file = session.config.getoption("--matrix", None)
    if file is not None and not hasattr(session.config, "workerinput"):
        notes = {"python": platform.python_version(), "rows": sorted(_rows)}
        file.write_text(json.dumps(notes, indent=1) + "\n")
