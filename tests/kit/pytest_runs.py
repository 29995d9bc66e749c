"""A user's run of pytest, in a new process."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable

import pytest

from kit.scripts import SRC
from kit.suite import plugins_off

INSTALLED = bool(importlib.metadata.entry_points(group="pytest11", name="sidestage"))
PLUGIN = () if INSTALLED else ("-p", "sidestage.pytest_plugin")
QUIET = ("-p", "no:cacheprovider", *plugins_off("timeout"))

Run = Callable[..., pytest.RunResult]

HEAD = """
import os, smtplib, socket, unittest, urllib.request
import pytest

def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        error.close()  # Python 3.14 warns of one that is not closed
        raise
"""


def runner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, head: str = HEAD) -> Run:
    """A function that runs pytest on one module, which begins with ``head``."""
    monkeypatch.setenv("PYTHONPATH", SRC)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(
        source: str,
        *options: str,
        warnings: tuple[str, ...] = ("-W", "error"),
        others: tuple[str, ...] = QUIET,
    ) -> pytest.RunResult:
        pytester.makepyfile(head + source)
        return pytester.runpytest_subprocess(*PLUGIN, *others, *warnings, *options)

    return run
