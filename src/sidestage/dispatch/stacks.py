"""Whose code a thread is in, by its stack: a fork waits for what ends by itself, no handler."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection

from ..pristine.waits import Deadline, Wakeup

_OURS = frozenset({"sidestage", "asyncio", "selectors"})  # and that of loops of ours
_HANDLER = "_handle"  # the function of ours that calls the test's
_MOMENT = 0.02  # seconds for a handler that has nothing more to do than to return
_MACHINE_SECONDS = 1.0  # for a thread in our own code, which takes microseconds, if it is run


def is_ours(thread: int | None) -> bool:
    """Whether nothing of the test's is at work in this thread; also if it has no stack."""
    frame = None if thread is None else sys._current_frames().get(thread)
    while frame is not None:
        package, _, _ = str(frame.f_globals.get("__name__", "")).partition(".")
        if package not in _OURS or frame.f_code.co_name == _HANDLER:
            return False
        frame = frame.f_back
    return True


def let_end(threads: Callable[[], Collection[int | None]], changed: Wakeup) -> None:
    """Wait for ``threads``, which are about to end; ``changed`` tells that fewer are left.

    One that is still in a handler gets a moment, since its reply may be out already. The rest end
    by themselves: on a busy machine that may take longer.
    """
    deadline = Deadline(_MACHINE_SECONDS)
    while not changed.wait_until(lambda: not threads(), Deadline(_MOMENT), brief=True):
        if deadline.passed() or not any(is_ours(thread) for thread in threads()):
            return
