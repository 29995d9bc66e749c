"""What a server explains, in a report and in messages: asks it for what a timeline is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..journal.facts import OpenNow, StopReport
from ..pristine.waits import Deadline
from ..reports.timeline import Scene, brief, timeline
from ..wire import values

if TYPE_CHECKING:
    from .server import Server

_SECONDS = 0.2  # for the server's process to tell what is open


def explain(server: Server[Any], lines: int | None) -> str:
    """As ``Server.explain``."""
    most = None if lines is None else values.count("lines", lines, least=1)
    return timeline(scene_of(server), most)


def besides(server: Server[Any]) -> tuple[str, str]:
    """For a message about what came: how it calls nothing, and some lines for its end.

    A client that has connected, or has sent a part of a request, is not nothing.
    """
    scene = scene_of(server)
    return " nothing complete" if scene.open_now.shown else " nothing", brief(scene)


def is_used(server: Server[Any], began: float) -> bool:
    """Whether something came to a server, or was declared on it, since ``began``, or is half done.

    ``began`` is a time of the monotonic clock.
    """
    scene = scene_of(server)
    latest, _ = scene.journal.latest(1)
    if latest and latest[-1].at >= began:
        return True
    declared: Any = server._slot.declared
    if any(entry.spec.began >= began for entry in declared or ()):
        return True
    return any(not one.state.startswith("idle") for one in scene.open_now.shown)


def scene_of(server: Server[Any]) -> Scene:
    """What a report of a server is made of, as it is now."""
    open_now, stop, stderr = OpenNow(), server._last_report(), ""
    if (backend := server._lifecycle.serving()) is not None:
        open_now = backend.open_now(Deadline(_SECONDS))
        stop, stderr = StopReport(rung="none"), backend.stderr_tail()
    return Scene(repr(server), server._journal, server._slot, open_now, stop, stderr)
