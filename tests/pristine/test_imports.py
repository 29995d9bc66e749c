"""Late imports, while the test's process does something else."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sidestage.pristine import imports
from sidestage.pristine.imports import importing_once


def test_another_thread_may_import_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"sidestage.one": ModuleType("one")}

    class Modules(dict[str, Any]):
        def setdefault(self, name: str, module: Any = None) -> Any:
            kept.setdefault("sidestage.two", ModuleType("two"))
            return super().setdefault(name, module)

    modules = Modules()
    monkeypatch.setattr(imports, "_kept", kept)
    monkeypatch.setattr(imports, "sys", SimpleNamespace(modules=modules, path=sys.path))
    with importing_once():
        pass
    assert "sidestage.one" in modules
