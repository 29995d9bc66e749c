"""Rules for imports that import-linter's contracts cannot express."""

from __future__ import annotations

import tomllib
from pathlib import Path

import grimp
import pytest

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"

# What both processes know; beside it, a child may import what is under a folder `child`.
SHARED = (
    "sidestage.wire",
    "sidestage.patterns",
    "sidestage.pristine.socketfile",
    "sidestage.errors",
)
# Of a protocol's or a layer's own folder.
SHARED_NAMES = ("messages", "rules", "fields", "forms", "media", "matching")
# Beside these, what both processes know may import what keeps late imports safe.
BELOW = ("sidestage.pristine.imports", "sidestage.pristine.system")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("sidestage", exclude_type_checking_imports=True)


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def child_folder(module: str) -> str | None:
    """The folder ``child`` that a module lies in, if it does."""
    parts = module.split(".")
    return ".".join(parts[: parts.index("child") + 1]) if "child" in parts else None


def child_may_import(module: str, imported: str) -> bool:
    """Whether ``module``, which runs in the server's process, may import ``imported``."""
    own = child_folder(module)
    assert own is not None
    if any(is_in(imported, package) for package in (own, "sidestage.child", *SHARED)):
        return True
    folder = own.removesuffix("child")
    return any(is_in(imported, f"{folder}{name}") for name in SHARED_NAMES)


def is_shared(module: str) -> bool:
    """Whether both processes know ``module``."""
    if any(is_in(module, package) for package in SHARED):
        return True
    parts = module.split(".")
    shared = parts[1:2] in (["protocols"], ["layers"])
    return shared and len(parts) > 3 and parts[3] in SHARED_NAMES


def test_what_both_processes_know_imports_nothing_of_one(graph: grimp.ImportGraph) -> None:
    wrong = [
        (module, imported)
        for module in sorted(graph.modules)
        if is_shared(module)
        for imported in sorted(graph.find_modules_directly_imported_by(module))
        if not is_shared(imported) and imported not in BELOW
    ]
    assert not wrong


def test_the_child_imports_only_what_both_processes_know(graph: grimp.ImportGraph) -> None:
    wrong = [
        (module, imported)
        for module in sorted(graph.modules)
        if child_folder(module)
        for imported in sorted(graph.find_modules_directly_imported_by(module))
        if not child_may_import(module, imported)
    ]
    assert not wrong


@pytest.mark.parametrize(
    "module, imported, allowed",
    [
        ("sidestage.child.host", "sidestage.wire.frames", True),
        ("sidestage.child.host", "sidestage.pristine.socketfile", True),
        ("sidestage.child.host", "sidestage.pristine.system", False),
        ("sidestage.child.host", "sidestage.dispatch.run", False),
        ("sidestage.protocols.udp.child.service", "sidestage.child.service", True),
        ("sidestage.protocols.udp.child.service", "sidestage.protocols.udp.messages", True),
        ("sidestage.protocols.udp.child.service", "sidestage.protocols.udp.datagram", False),
        ("sidestage.protocols.udp.child.service", "sidestage.protocols.tcp.messages", False),
        ("sidestage.protocols.udp.child.service", "sidestage.protocols.tcp.child.service", False),
        ("sidestage.child.service", "sidestage.protocols.udp.child.service", False),
        ("sidestage.child.service", "sidestage.patterns.tree", True),
        ("sidestage.protocols.http.child.h1", "sidestage.protocols.http.matching.view", True),
        ("sidestage.protocols.http.child.h1", "sidestage.protocols.http.request", False),
    ],
)
def test_what_the_rule_allows(module: str, imported: str, allowed: bool) -> None:
    assert child_may_import(module, imported) is allowed


def test_every_module_is_under_a_contract(graph: grimp.ImportGraph) -> None:
    """A new folder cannot be forgotten, and no module is an exception."""
    contracts = tomllib.loads(PROJECT.read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [each for each in contracts if each.get("containers") == ["sidestage"]]
    assert layers["exhaustive"]
    assert "exhaustive_ignores" not in layers
    placed = {name.strip() for layer in layers["layers"] for name in layer.split("|")}
    assert {module.split(".")[1] for module in graph.modules if "." in module} == placed
    assert not any("ignore_imports" in contract for contract in contracts)
