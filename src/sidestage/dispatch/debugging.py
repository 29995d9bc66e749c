"""Whether somebody sits at the prompt of a debugger in this process: then time-outs stand still.

A debugger tells nobody, so its frames are looked for, and only when a time-out would come.
"""

from __future__ import annotations

import sys
from types import FrameType

from ..pristine.waits import Deadline, Wakeup

_DEBUGGERS = frozenset(
    {"bdb", "pdb", "IPython", "ipdb", "pudb", "_pytest", "pydevd", "_pydevd_bundle"}
)
_PROMPTS = frozenset({"interaction", "do_wait_suspend"})  # bdb's heirs, pydevd
_LOOK_SECONDS = 0.1

_never = Wakeup()


def at_prompt() -> bool:
    """Whether any thread is in a debugger's prompt now."""
    if "bdb" not in sys.modules and "pydevd" not in sys.modules:
        return False
    return any(_is_in_prompt(frame) for frame in sys._current_frames().values())


def _is_in_prompt(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in _PROMPTS:
            package, _, _ = str(frame.f_globals.get("__name__", "")).partition(".")
            if package in _DEBUGGERS:
                return True
        frame = frame.f_back
    return False


def wait_until_left() -> bool:
    """Block while any thread is in a prompt; returns whether one was."""
    was = False
    while at_prompt():
        was = True
        _never.wait_until(lambda: False, Deadline(_LOOK_SECONDS))
    return was
