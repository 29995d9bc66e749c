"""What a run has under way: the child's connections, and handlers with the line each is at."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..journal.facts import Open, OpenNow
from ..journal.places import place_of_frames
from ..pristine.waits import Clock, Deadline
from ..wire.values import printable
from .calls import Call

if TYPE_CHECKING:
    from .run import Run

_SHOWN = 20  # connections and handlers
_LINE = 120  # characters of a request line
# The frames that call a handler, and send what it returns, or ask a part of an expectation.
_HANDLE = frozenset({Call._handle.__code__, Call._judge.__code__})
_CALL = "run_handler"  # the function in it that calls the handler
_DEEP = 1000  # coroutines that await each other, at most


def under_way(run: Run, deadline: Deadline) -> OpenNow:
    """What ``run`` has under way; asks the child, until the deadline."""
    run.sync(deadline)  # what clients have sent by now
    described = run.describe(deadline)
    calls = run.calls()
    found, more = [*_handlers(run, calls[:_SHOWN])], len(calls[_SHOWN:])
    if described is not None:
        found += [Open(one.number, one.state) for one in described.open]
        more += described.more
    found.sort(key=lambda one: one.connection)
    silent = described is None and not run.reader.finished
    return OpenNow(tuple(found[:_SHOWN]), more + len(found[_SHOWN:]), silent)


def _handlers(run: Run, calls: list[Call]) -> Iterator[Open]:
    if not calls:
        return
    waiting = {id(job) for job in run.reader.jobs.copy()}
    frames = _frames(calls)
    for call in calls:
        stage = "waits for a handler"
        if id(call) not in waiting:
            seconds = max(0.0, Clock.monotonic() - call.since())
            stage = _stage(call, frames.get(id(call)), seconds)
        more = ", and its client has gone on without it" if call.owes else ""
        more += f", {far}" if (far := call.so_far()) else ""
        yield Open(call.connection, f"{printable(call.describe(), _LINE)}: {stage}{more}")


def _stage(call: Call, frames: list[FrameType] | None, seconds: float) -> str:
    if call.is_held:
        closed = "; its client has closed its side" if call.client_closed else ""
        by = f"by {call.request._by}, until the test answers it"
        return f"held for {seconds:.1f} s {by}{closed}"
    place, what = place_of_frames(frames or ()), "handler running"
    returned = frames is not None and not any(one.f_code.co_name == _CALL for one in frames)
    if returned and call.awaits is None:
        if getattr(call.request, "answer", None) is not None:
            return "answered, waiting for the rest of what the client sends"
        what = "its answer is being sent"
    return f"{what} for {seconds:.1f} s" + (f" at {place}" if place else "")


def _frames(calls: list[Call]) -> dict[int, list[FrameType]]:
    """The frames of each call's handler, the innermost first, by the identity of the call."""
    awaited = {id(call): _awaited(call.awaits) for call in calls if call.awaits is not None}
    outer = {id(frames[-1]): call for call, frames in awaited.items() if frames}
    found = {call: frames for call, frames in awaited.items() if frames}
    for top in sys._current_frames().values():
        inner: list[FrameType] = []
        frame: FrameType | None = top
        while frame is not None:
            if frame.f_code in _HANDLE:
                found[id(frame.f_locals["self"])] = inner
                break
            inner.append(frame)
            if id(frame) in outer:  # a coroutine that runs now
                found[outer[id(frame)]] = inner
                break
            frame = frame.f_back
    return found


def _awaited(awaitable: Any) -> list[FrameType]:
    """The frames of a coroutine and of what it awaits, the innermost first."""
    frames: list[FrameType] = []
    for _ in range(_DEEP):
        frame = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "gi_frame", None)
        if not isinstance(frame, FrameType):
            break
        frames.insert(0, frame)
        awaitable = getattr(awaitable, "cr_await", None) or getattr(awaitable, "gi_yieldfrom", None)
    return frames
