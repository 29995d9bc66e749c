"""The end of a run's handlers: those whose clients are gone, and those that run on after the stop.

No handler can be made to return. One whose client is gone gets a moment, since it may just have
learned that; a coroutine is cancelled. What runs on then is named, so that nobody has to search.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..pristine.waits import Deadline
from . import stacks
from .calls import Call

if TYPE_CHECKING:
    from .run import Run

SECONDS = 0.1  # for a handler to notice that its client, or its server, is gone
_MOMENT = 0.02  # for one that has had its time, and only has to return
_SHOWN = 10  # places where handlers run


def settle(run: Run, deadline: Deadline) -> None:
    """Let the handlers finish that the child does not wait for, as their clients are gone.

    They raise an error now or return; one that does neither is not waited for.
    """
    if not run._calls:
        return
    while not run.reader.changed.wait_until(
        lambda: not _others(run), deadline.sooner(run.patience.left())
    ):
        if not stacks.wait_while_at_prompt():
            return
        run.patience, deadline = run.patience.again(), deadline.again()


def settle_all(run: Run, deadline: Deadline) -> tuple[str, ...]:
    """Let the handlers finish that have learned just now that their server has stopped.

    Returns a description of those that run on.
    """
    if not run._calls:
        return ()
    deadline = Deadline(max(_MOMENT, deadline.sooner(SECONDS).left()))
    while not run.reader.changed.wait_until(
        lambda: not _others(run), deadline.sooner(_MOMENT), brief=True
    ):
        if deadline.passed() or not any(_may_end(run, call) for call in _others(run)):
            break
    return described(run, _others(run))


def _others(run: Run) -> list[Call]:
    """The calls whose handlers can end while the caller waits."""
    mine = run.current_call()
    blocked = run._coroutines is not None and run._coroutines.held_up()
    return [
        call
        for call in list(run._calls.values())
        if call.id != mine
        and not (blocked and call.coroutine is not None and not call.coroutine.done())
    ]


def _may_end(run: Run, call: Call) -> bool:
    """Whether a handler may be about to return; it has had its time if its client is gone."""
    if call.coroutine is not None and not call.coroutine.done():
        return call.coroutine.may_end()
    thread = run.threads.at_work().get(call)
    if thread is None:  # it has not begun, or is at its very end
        return call.coroutine is not None
    return not call.gone or stacks.waits_in_ours(thread)


def described(run: Run, calls: Iterable[Call]) -> tuple[str, ...]:
    """What the handlers of these calls are at: one text for each place."""
    at_work = run.threads.at_work()
    places: dict[str, list[str]] = {}
    for call in calls:
        if call.coroutine is not None and not call.coroutine.done():
            place = call.coroutine.place()
        elif call in at_work:
            place = stacks.place_of(at_work[call])
        else:  # it has not begun, or has just ended
            continue
        if place is not None:
            places.setdefault(place, []).append(call.describe())
    texts = [_at(place, names) for place, names in places.items()]
    if len(texts) > _SHOWN:
        texts[_SHOWN:] = [f"{len(texts) - _SHOWN} more places"]
    return tuple(texts)


def _at(place: str, names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more} {place}"
