"""Checks arguments before anything starts; each error quotes the value and says what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def handler_or_none(handler: Any) -> Callable[..., Any] | None:
    """Return ``handler``; raises TypeError unless it is callable or ``None``."""
    if handler is not None and not callable(handler):
        raise TypeError(f"the handler must be callable with one argument, not {handler!r}")
    checked: Callable[..., Any] | None = handler
    return checked


def seconds(name: str, value: object) -> float:
    """Return ``value`` as a float; raises TypeError or ValueError unless finite and at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not value >= 0 or value == float("inf"):
        raise ValueError(f"{name} must be at least 0 seconds and finite, not {value!r}")
    return float(value)


def count(name: str, value: object, *, least: int = 0) -> int:
    """Return ``value``; raises TypeError or ValueError unless it is an int >= ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return value
