"""A user's run of pytest on one module, in a process of its own, with no other plugin."""

from __future__ import annotations

import importlib.metadata

import pytest

from .scripts import SRC

INSTALLED = bool(importlib.metadata.entry_points(group="pytest11", name="sidestage"))
PLUGIN = () if INSTALLED else ("-p", "sidestage.pytest_plugin")
OTHERS = ("cacheprovider", "asyncio", "randomly")  # that are here to be tested beside it

HEAD = """
import urllib.error, urllib.request
import pytest
from sidestage import HTTPServer, SMTPServer, TCPServer, UDPServer
from sidestage.classic import TestHTTPServer

def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        error.close()  # Python 3.14 warns of one that is not closed
        raise

def fetch_quietly(url):
    try:
        fetch(url)
    except OSError:
        pass
"""


def run_pytest(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, source: str, *options: str
) -> pytest.RunResult:
    """Run ``source`` after ``HEAD``, with warnings as errors."""
    monkeypatch.setenv("PYTHONPATH", SRC)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makepyfile(HEAD + source)
    without = [word for name in OTHERS for word in ("-p", f"no:{name}")]
    return pytester.runpytest_subprocess(*PLUGIN, *without, "-W", "error", *options)
