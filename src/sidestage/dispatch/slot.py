"""Where a server's handler is; it may be replaced at any time, also while it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Slot:
    """Holds a handler. A run calls it and knows no server; a server puts handlers into it."""

    def __init__(self, handler: Callable[..., Any] | None) -> None:
        self.handler = handler

    def run_handler(self, request: Any) -> Any:
        """Call the handler.

        A thread in a handler is known by a frame of this name, whatever the handler is.
        """
        __tracebackhide__ = True
        handler = self.handler
        return None if handler is None else handler(request)
