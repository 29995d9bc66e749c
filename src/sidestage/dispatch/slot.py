"""Where a server's handler is; it may be replaced at any time, also while it is called."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING, Any

from ..journal.places import code_of
from ..pristine.waits import Clock

if TYPE_CHECKING:
    from .declared import Declared

_NOTED = 100  # handlers, the last that were set


class Slot:
    """Holds a handler, and what is declared: expectations, which go before it.

    A run calls it and knows no server; a server puts handlers into it.
    """

    declared: Declared | None = None  # until the first expectation

    def __init__(self, handler: Callable[..., Any] | None) -> None:
        self.handler = handler
        first = () if handler is None else ((0.0, code_of(handler)),)  # nothing comes before it
        self._codes: deque[tuple[float, CodeType | None]] = deque(first, maxlen=_NOTED)

    def note(self, handler: Callable[..., Any] | None) -> None:
        """Note from when on ``handler`` is called, without a reference to it or what it holds."""
        self._codes.append((Clock.monotonic(), code_of(handler)))

    def code_at(self, at: float) -> CodeType | None:
        """The code of the handler that was set ``at`` a time on the monotonic clock, if known."""
        for since, code in reversed(self._codes.copy()):
            if since <= at:
                return code
        return None

    @property
    def position(self) -> int:
        """The number of changes of what is declared."""
        return 0 if self.declared is None else self.declared.position

    def run_handler(self, request: Any, instead: Callable[..., Any] | None = None) -> Any:
        """Call the handler, or what an expectation has in its place.

        A thread in a handler is known by a frame of this name, whatever the handler is.
        """
        __tracebackhide__ = True
        handler = self.handler if instead is None else instead
        return None if handler is None else handler(request)

    def source(self, handler: Callable[..., Any] | None) -> Callable[..., Any] | None:
        """What has made the result of a call that ``handler``, the handler then, was meant for."""
        return handler
