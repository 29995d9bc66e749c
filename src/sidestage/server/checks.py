"""Arguments checked before anything starts; each error names the value and what is right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def handler_or_none(handler: Any) -> Callable[..., Any] | None:
    """``handler`` if it can be called, or ``None``."""
    if handler is not None and not callable(handler):
        raise TypeError(f"the handler must be callable with one argument, not {handler!r}")
    checked: Callable[..., Any] | None = handler
    return checked


def seconds(name: str, value: object) -> float:
    """``value`` as a finite, non-negative number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not value >= 0 or value == float("inf"):
        raise ValueError(f"{name} must be at least 0 seconds and finite, not {value!r}")
    return float(value)


def count(name: str, value: object, *, least: int = 0) -> int:
    """``value`` as a number of things, of which there are at least so many."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return value
