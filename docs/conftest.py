"""Run the documents: each Python block of README.md and docs/*.md is a test.

The blocks of one document share a namespace and run from top to bottom. Test functions that a block
defines are called as pytest would call them: with the fixtures they name, coroutines awaited.
The block after a line `<!--- skip: next -->` is left out.

Run ``pytest README.md docs``: pytest loads this file because docs/ is named, also for README.md.
"""

import asyncio
import inspect
from pathlib import Path

import pytest
from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.myst import (
    CodeBlockParser,
    DocTestDirectiveParser,
    PythonCodeBlockParser,
    SkipParser,
)


def run_block(example: Example) -> None:
    before = dict(example.namespace)
    PythonEvaluator()(example)
    request = example.namespace["request"]
    for name, test in list(example.namespace.items()):
        defined_here = inspect.isfunction(test) and test is not before.get(name)
        if defined_here and name.startswith("test_"):
            names = inspect.signature(test).parameters
            outcome = test(**{name: request.getfixturevalue(name) for name in names})
            if inspect.iscoroutine(outcome):
                asyncio.run(outcome)


class BlockParser(PythonCodeBlockParser):
    def __init__(self) -> None:
        super().__init__()
        self.codeblock_parser = CodeBlockParser("python", run_block)


class Documents:
    """Collects README.md and docs/*.md."""

    pytest_collect_file = staticmethod(
        Sybil(
            parsers=[BlockParser(), DocTestDirectiveParser(), SkipParser()],
            path=str(Path(__file__).parent.parent),
            patterns=["README.md", "docs/*.md"],
            fixtures=["request"],
        ).pytest()
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register a plugin: this file's own hooks are called for docs/ only, not for README.md."""
    config.pluginmanager.register(Documents(), "documents")
