"""Real servers for tests: each runs in its own process, and its handler in the test's.

Importing this package is cheap: each name is imported on first use. The names are in the stub
beside this file, which type checkers read too. A line ``from .home import Name as Name`` in it is
all that makes ``Name`` public; ``from . import name as name`` is for a module.
"""

from __future__ import annotations

import importlib
from typing import Any

from .pristine.imports import importing_once

__version__ = "0.1.0"


def _read_stub() -> dict[str, str]:
    """The public names, each with the module that it is imported from."""
    stub = __spec__.loader.get_data(f"{__path__[0]}/__init__.pyi").decode()
    lines = [line.split() for line in stub.splitlines() if line.startswith("from ")]
    return {name: home for _, home, _, _, _, name in lines}


_HOMES = _read_stub()
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll] # it reads the stub


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with importing_once():
        if home == ".":  # a module of names that belong together
            return importlib.import_module(f".{name}", __name__)
        module = importlib.import_module(home, __name__)
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
