"""What the plugin adds to the command line and to pytest's configuration."""

from __future__ import annotations

import os

import pytest

from ..journal import causes, owners
from ..journal.frames import FULL_TRACE
from .table import EXAMPLE, MARK

LINES = {"short": 30, "full": None}  # of a server, in a failure report


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the sections of failure reports."""
    parser.getgroup("sidestage").addoption(
        "--sidestage-report",
        choices=(*LINES, "none"),
        default="short",
        help="what the report of a failure tells of its servers: the last thirty lines (short), "
        "everything (full), or nothing (none)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Show the ResourceWarning for a server that was never stopped, which Python hides.

    The filter goes first in the list, so that any other filter takes precedence.
    """
    options = f"{MARK}({EXAMPLE}): options of the servers of its fixtures"
    config.addinivalue_line("markers", options)
    config.getini("filterwarnings").insert(0, "always:.* was never stopped:ResourceWarning")
    config.add_cleanup(causes.forget_tests)
    config.add_cleanup(owners.forget)
    if config.getoption("fulltrace", default=False) and FULL_TRACE not in os.environ:
        os.environ[FULL_TRACE] = "1"
        config.add_cleanup(lambda: os.environ.__delitem__(FULL_TRACE))
