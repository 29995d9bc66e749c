"""Run the documents: each Python block of README.md and docs/*.md is a test.

The blocks of one document share a namespace and run from top to bottom. The fixtures that a block
defines are there for it and for those below. Test functions that it defines are called as pytest
would call them: with the fixtures they name, coroutines awaited.
The block after a line `<!--- skip: next -->` is left out.

Run ``pytest README.md docs``: pytest loads this file because docs/ is named, also for README.md.
"""

import asyncio
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

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
    new = {name: it for name, it in example.namespace.items() if it is not before.get(name)}
    request = example.namespace["request"]
    if "@pytest.fixture" in example.parsed:
        register_fixtures(new, request.config)
    for name, test in new.items():
        if name.startswith("test_") and inspect.isfunction(test):
            names = inspect.signature(test).parameters
            outcome = test(**{name: request.getfixturevalue(name) for name in names})
            if inspect.iscoroutine(outcome):
                asyncio.run(outcome)


def register_fixtures(names: dict[str, Any], config: pytest.Config) -> None:
    """Register the fixtures among ``names`` as a plugin's; one hides an earlier of its name."""
    module = ModuleType("fixtures")
    vars(module).update(names)
    config.pluginmanager.register(module, f"fixtures of a block, {id(module)}")


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
