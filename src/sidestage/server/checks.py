"""Checks arguments before anything starts; each error quotes the value and says what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import shown


def handler_or_none(handler: Any) -> Callable[..., Any] | None:
    """Return ``handler``; raises TypeError unless it is callable or ``None``."""
    if handler is not None and not callable(handler):
        raise TypeError(f"the handler must be callable with one argument, not {shown(handler)}")
    checked: Callable[..., Any] | None = handler
    return checked
