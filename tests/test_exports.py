"""The public names exist, and importing the package is cheap."""

from __future__ import annotations

import importlib
import importlib.resources
from types import ModuleType

import pytest

import sidestage
from kit.scripts import run_script

HEAVY = ("msgspec", "multiprocess", "psutil", "asyncio", "httptools", "aiosmtpd", "pytest")


HOMES: dict[str, str] = vars(sidestage)["_HOMES"]


def test_each_name_is_there_and_at_home_where_it_is_said_to_be() -> None:
    assert {"HTTPServer", "Server", "ServerDied", "StopReport"} <= set(HOMES)
    assert set(sidestage.__all__) == set(HOMES)
    for name, home in HOMES.items():
        value = getattr(sidestage, name)
        module = importlib.import_module(home, "sidestage")
        assert value is getattr(module, name)
        if isinstance(value, ModuleType):
            assert value.__name__ == f"sidestage.{name}"
        else:
            assert getattr(value, "__module__", None) == module.__name__
        assert name in dir(sidestage)


def test_a_public_module_is_there_without_an_import_of_its_own() -> None:
    source = """
        import sidestage
        print(sidestage.faults.reset())
        from sidestage import faults
        print(faults is sidestage.faults)
    """
    assert run_script(source) == "faults.reset()\nTrue\n"


def test_type_checkers_read_each_name_as_public() -> None:
    """PEP 484 asks for ``as``, and the line is what ``__init__`` reads."""
    stub = importlib.resources.files("sidestage").joinpath("__init__.pyi").read_text()
    lines = [line for line in stub.splitlines() if line.startswith("from ")]
    assert lines == [f"from {home} import {name} as {name}" for name, home in HOMES.items()]


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
