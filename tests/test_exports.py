"""The public names exist, and importing the package is cheap."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import sidestage
from kit.scripts import run_script

HEAVY = ("msgspec", "multiprocess", "psutil", "asyncio", "httptools", "aiosmtpd", "pytest")


def imported_for_checkers() -> dict[str, str]:
    """The names under TYPE_CHECKING, with the modules that they come from."""
    assert sidestage.__file__ is not None
    tree = ast.parse(Path(sidestage.__file__).read_text())
    guard = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(guard.test) == "TYPE_CHECKING"
    return {
        alias.asname or alias.name: node.module or ""
        for node in guard.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_the_three_lists_of_names_agree() -> None:
    assert imported_for_checkers() == sidestage._HOMES
    assert set(sidestage.__all__) == set(sidestage._HOMES)
    assert len(set(sidestage.__all__)) == len(sidestage.__all__)


def test_each_name_is_there_and_at_home_where_it_is_said_to_be() -> None:
    for name, home in sidestage._HOMES.items():
        value = getattr(sidestage, name)
        assert value is getattr(importlib.import_module(f"sidestage.{home}"), name)
        assert getattr(value, "__module__", None) == f"sidestage.{home}"
        assert name in dir(sidestage)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        sidestage.Nonsense  # noqa: B018
    with pytest.raises(ImportError):
        exec("from sidestage import Nonsense", {})


def test_the_import_loads_nothing_heavy_and_starts_nothing() -> None:
    source = f"""
        import sys
        before = set(sys.modules)
        import os, sidestage
        loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}}
        print(sorted(loaded & set({HEAVY})))
        print(len(os.listdir("/proc/self/task")))
        print(open(f"/proc/self/task/{{os.getpid()}}/children").read().split())
    """
    assert run_script(source) == "[]\n1\n[]\n"


def test_a_class_loads_neither_the_wire_nor_the_process_machinery() -> None:
    """They are imported while the first child boots."""
    source = """
        import sys
        from sidestage import HTTPServer, SMTPServer, TCPServer, UDPServer
        HTTPServer(), SMTPServer(), TCPServer(), UDPServer()
        print(sorted({"multiprocess", "psutil", "msgspec", "asyncio"} & set(sys.modules)))
    """
    assert run_script(source) == "[]\n"


def test_an_orderly_life_loads_neither_psutil_nor_asyncio() -> None:
    """psutil is for forced stops, asyncio for coroutine handlers."""
    source = """
        import sys, urllib.request
        from sidestage import HTTPServer
        with HTTPServer(handler=lambda request: "hello") as server:
            print(urllib.request.urlopen(server.url, timeout=10).read())
        print(sorted({"psutil", "asyncio"} & set(sys.modules)))
    """
    assert run_script(source) == "b'hello'\n[]\n"


def test_a_star_import_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from sidestage import *", names)
    assert set(sidestage.__all__) == set(names) - {"__builtins__"}


def test_the_path_of_a_form_part_from_before_keeps_working() -> None:
    home = importlib.import_module("sidestage.request")
    assert home.FormPart is sidestage.FormPart
