"""The mark ``sidestage``: options of the servers that are fixtures of a test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

import sidestage

from ..errors import shown
from .table import EXAMPLE, MARK, SERVERS


def marked_options(item: pytest.Item, name: str) -> dict[str, Any]:
    """What marks say of a fixture; of two that say different things, the closer one counts."""
    check_marks(item)
    options: dict[str, Any] = {}
    for mark in reversed(list(item.iter_markers(MARK))):
        options.update(mark.kwargs.get(name, {}))
    return options


def check_marks(item: pytest.Item) -> None:
    """Fail the setup for a mark that says what no server takes."""
    for mark in item.iter_markers(MARK):
        if wrong := _what_is_wrong(mark):
            pytest.fail(f"@pytest.mark.{MARK}: {wrong}", pytrace=False)


def _what_is_wrong(mark: pytest.Mark) -> str | None:
    """What a mark says that no server takes, and what to write; ``None`` if nothing."""
    if mark.args:
        return f"write {EXAMPLE}, say, in place of {shown(mark.args[0])}"
    for name, options in mark.kwargs.items():
        if name not in SERVERS:
            return f"{name!r} is none of its fixtures{_nearest(name, SERVERS)}"
        if not isinstance(options, Mapping):
            return f"{name} must be a dict of options, not {shown(options)}"
        import inspect

        taken = inspect.signature(getattr(sidestage, SERVERS[name])).parameters
        for option in options:
            if option not in taken:
                return f"{name} takes no option {option!r}{_nearest(option, taken)}"
    return None


def _nearest(name: object, known: Mapping[str, object]) -> str:
    import difflib

    near = difflib.get_close_matches(str(name), known, 1)
    return f": is it {near[0]!r}?" if near else f"; there are: {', '.join(known)}"
