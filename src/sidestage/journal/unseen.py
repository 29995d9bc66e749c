"""What handlers have raised and nobody has seen: told on stderr at the end of the process.

Seen is what was raised or noted on what was raised, read by ``errors``, expected, or cleared. What
a server that is gone has left stays here, as text, so that it is not lost with the server. Whoever
verifies something only at the end is asked then.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..pristine import system
from ..pristine.imports import importing_once

if TYPE_CHECKING:
    from .causes import Cause
    from .failures import Failures

_MOST = 1000  # errors of servers that are gone
_TITLE = "sidestage: nobody has seen these errors:"


class _Left:
    """What servers that are gone have left in this process."""

    def __init__(self) -> None:
        self.owner = system.getpid()
        self.causes: list[Cause] = []
        self.more = 0  # errors that were not kept


# Those that have had something to raise.
_holding: weakref.WeakValueDictionary[int, Failures] = weakref.WeakValueDictionary()
_left = _Left()
_registered = False
_asked: list[Callable[[], list[Cause]]] = []  # what else is wrong


def tell_at_exit() -> None:
    """Have it told at the end of the process.

    The first server calls this before a script can register its stop, which so runs first.
    """
    global _registered
    if not _registered:
        _registered = True
        atexit.register(_tell)


def hold(failures: Failures) -> None:
    """Have ``failures`` asked for what nobody has seen, as long as they are there."""
    _holding[id(failures)] = failures


def leave(causes: list[Cause], more: int) -> None:
    """Keep what nobody has seen of a server that is gone, and ``more`` by their number."""
    left = _of_this_process()
    room = max(0, _MOST - len(left.causes))
    left.causes += causes[:room]
    left.more += more + len(causes[room:])


def ask(source: Callable[[], list[Cause]]) -> None:
    """Have ``source`` say at the end what else is wrong."""
    _asked.append(source)


def take(*, read: bool = False, ended_well: bool = True) -> tuple[list[Cause], int]:
    """What nobody has seen in this process, which then counts as seen, oldest first.

    Returns the errors, and how many more were not kept; with ``read``, also what was read only.
    Other sources are asked if what ends has ``ended_well``.
    """
    global _left
    left, _left = _of_this_process(), _Left()
    causes, more = left.causes, left.more
    for ref in _holding.valuerefs():  # a list: other threads may add to it
        if (failures := ref()) is None:
            continue
        new, others = failures.take_unseen(read=read)
        causes += new
        more += others
    for source in _asked if ended_well else ():
        causes += source()
    return sorted(causes, key=lambda cause: cause.came), more


def _of_this_process() -> _Left:
    """What is left; in a forked copy nothing, since the original tells it."""
    global _left
    if _left.owner != system.getpid():
        _left = _Left()
    return _left


def _tell() -> None:
    # What is unmet after an exception is no wonder.
    causes, more = take(ended_well=getattr(sys, "last_value", None) is None)
    if not causes and not more:
        return
    with importing_once():
        from .headline import blocks
    text = "\n".join([_TITLE, *blocks(causes, more)]) + "\n"
    for stream in (sys.__stderr__, sys.stderr):  # the test may have put another in its place
        with contextlib.suppress(Exception):  # there is none, or it is closed
            stream.write(text)  # type: ignore[union-attr]  # see above
            stream.flush()  # type: ignore[union-attr]
            return
