"""Why a client may have failed though no handler has: its server died, or nobody has answered it.

For the beginning of a report: what is told here is no error of a server, and fails no test.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import brief, text_of
from ..journal.causes import family
from ..journal.headline import status_of
from ..journal.places import place_of_code, place_of_error
from .explaining import scene_of

if TYPE_CHECKING:
    from ..reports.timeline import Scene
    from .server import Server

_LATEST = 50  # entries of a journal that are looked at
_MOST = 5  # connections and handlers
_WIDTH = 200  # characters of a line
_SENT = re.compile(r"\bsent (\d{3})\b")  # in a diagnostic: what a client was told
_TOO_LATE = " gave no answer to "  # in that of a handler, after ``handler_timeout``
_PLACE = re.compile(r" at (\S+:\d+)")


def plight(servers: Iterable[Server[Any]], error: BaseException, began: float) -> list[str]:
    """The first lines of a report of ``error``, of a client; none if no server explains it.

    ``began`` is when its test began, on the monotonic clock.
    """
    scenes = [scene_of(server) for server in servers]
    for scene in scenes:
        for entry in _since(scene, began, "died"):
            return [brief(entry.value) + _at(place_of_error(error))]
        for entry in _since(scene, began, "diagnosed"):
            sent = _SENT.search(entry.value.text)
            if sent is not None and _is_told(error, sent[1]):
                return _refused(scene, entry, error)
    if _is_timeout(error):
        for scene in scenes:
            if lines := _waiting(scene):
                return lines
    return []


def _since(scene: Scene, began: float, kind: str) -> list[Any]:
    """The entries of a kind since then, the last first."""
    latest, _ = scene.journal.latest(_LATEST)
    return [entry for entry in reversed(latest) if entry.kind == kind and entry.at >= began]


def _is_told(error: BaseException, status: str) -> bool:
    """Whether a client was answered so, as its error or its text has it."""
    if any(str(status_of(each)) == status for each in family(error)):
        return True
    return re.search(rf"\b{status}\b", text_of(error)) is not None


def _is_timeout(error: BaseException) -> bool:
    """Whether a client has waited in vain: each library has a class of its own for that."""
    for each in family(error):
        if isinstance(each, TimeoutError) or "timeout" in type(each).__name__.lower():
            return True
    text = "" if isinstance(error, AssertionError) else text_of(error).lower()
    return "timed out" in text or "timeout" in text


def _refused(scene: Scene, entry: Any, error: BaseException) -> list[str]:
    """What was wrong with a request; or that its handler took too long, and where it is."""
    text = f"{entry.value.text:.{_WIDTH}}"
    if _TOO_LATE not in text:
        return [text + _at(place_of_error(error))]
    states = [one.state for one in scene.open_now.shown if one.connection == entry.connection][:1]
    found = next(filter(None, map(_PLACE.search, states)), None)
    place = found[1] if found else place_of_code(scene.slot.code_at(entry.at))
    return [text + _at(place), *(f"    {state}" for state in states)]


def _at(place: str) -> str:
    return f", {place}" if place else ""


def _waiting(scene: Scene) -> list[str]:
    states = [one.state for one in scene.open_now.shown if not one.state.startswith("idle")]
    if not states:
        return []
    first, *others = states
    return [f"not answered: {first}", *(f"    {state}" for state in others[: _MOST - 1])]
