"""Which module may import which, where a contract of import-linter cannot say it."""

from __future__ import annotations

import grimp
import pytest

CHILD_MAY_IMPORT = ("sidestage.child", "sidestage.wire", "sidestage.socketfile", "sidestage.errors")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("sidestage", exclude_type_checking_imports=True)


def is_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def test_the_child_imports_only_what_both_sides_know(graph: grimp.ImportGraph) -> None:
    wrong = [
        (module, imported)
        for module in sorted(graph.modules)
        if is_in(module, ("sidestage.child",))
        for imported in sorted(graph.find_modules_directly_imported_by(module))
        if not is_in(imported, CHILD_MAY_IMPORT)
    ]
    assert not wrong


def test_nobody_else_imports_the_child(graph: grimp.ImportGraph) -> None:
    wrong = [
        (module, imported)
        for module in sorted(graph.modules)
        if not is_in(module, ("sidestage.child",))
        for imported in sorted(graph.find_modules_directly_imported_by(module))
        if is_in(imported, ("sidestage.child",))
    ]
    assert not wrong
