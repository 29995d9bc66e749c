"""The timeline of a server: what came, what was answered, what is open, what went wrong.

It is made of the journal and of what is under way. It knows no protocol: each record says how it
is shown (``Record._shown``). Nothing here waits, and however much there is, little is looked at.
"""

# No ``from __future__ import annotations``: NamedTuple compiles annotations that are text.
from collections.abc import Callable
from typing import Any, NamedTuple

from ..dispatch.slot import Slot
from ..errors import ServerDied, UnexpectedRequest, leaves_of, shown
from ..journal.facts import Diagnostic, OpenNow, StopReport
from ..journal.journal import Entry, Journal
from ..journal.places import place_of_code, place_of_error
from ..journal.record import Answer, Shown
from . import text

LINES = 30
_LEAST = 6  # lines for what came, however much is open
_OPEN = 8  # connections and handlers
_STDERR = 8  # lines
_LOGGED = 3  # lines of one log record
_DIAGNOSED = 400  # characters of a diagnostic: what to do about it comes last
_BRIEF = 5  # lines of what went wrong, and of what is open, in a message
_INDENT = 17  # columns of time and connection


class Scene(NamedTuple):
    """What a timeline is made of."""

    title: str
    journal: Journal[Any]
    slot: Slot
    open_now: OpenNow
    stop: StopReport
    stderr: str


def timeline(scene: Scene, lines: int | None = LINES) -> str:
    """The timeline in at most ``lines`` lines; ``None`` shows all."""
    journal = scene.journal
    head = [scene.title, f"received: {_received(journal)}"]
    tail = [*_open_now(scene.open_now, None if lines is None else _OPEN), *_stop(scene.stop)]
    tail += _stderr(scene.stderr, None if lines is None else _STDERR)
    room = None if lines is None else max(_LEAST, lines - len(head) - len(tail))
    return "\n".join([*head, *_entries(scene, room), *tail])


def brief(scene: Scene) -> str:
    """Some lines for the end of a message, each with a line end before it: what went wrong last,
    and what is open.
    """
    latest, _ = scene.journal.latest(_BRIEF * 10)
    start = _start(scene.journal, latest)
    wrong = [entry for entry in latest if entry.kind != "received"][-_BRIEF:]
    lines = [line for entry in wrong for line in _lines(entry, start, scene.slot)]
    lines += _open_now(scene.open_now, _BRIEF)
    return "".join(f"\n{line}" for line in lines)


def _received(journal: Journal[Any]) -> str:
    dropped = f" ({journal.dropped:,} of them dropped)" if journal.dropped else ""
    return f"{journal.total:,}{dropped}"


# What came ---------------------------------------------------------------------------------------


def _entries(scene: Scene, room: int | None) -> list[str]:
    """The last entries that fit into ``room`` lines, and how many are not shown."""
    latest, earlier = scene.journal.latest(room)
    start = _start(scene.journal, latest)
    blocks: list[list[str]] = []
    left = len(latest) if room is None else room
    for entry in reversed(latest):
        block = _lines(entry, start, scene.slot)
        if room is not None:
            left -= len(block)
            others = earlier + len(latest) - len(blocks) - 1
            if left < bool(others) and blocks:
                break
        blocks.append(block)
    earlier += len(latest) - len(blocks)
    lines = [line for block in reversed(blocks) for line in block]
    return [f"  {earlier:,} earlier", *lines] if earlier else lines


def _start(journal: Journal[Any], latest: list[Entry]) -> float:
    """The time that others are relative to."""
    began = journal.began()
    first = latest[0].at if latest else 0.0
    return first if began is None else min(first, began)


def _lines(entry: Entry, start: float, slot: Slot) -> list[str]:
    number = f"#{entry.connection}" if entry.connection else ""
    try:
        what, *details = _TELL[entry.kind](entry.value, slot)
    except Exception:  # noqa: BLE001 - of a class of the test's own; the others must be shown
        what, details = text.line(shown(entry.value)), []
    if entry.connection == 0 and isinstance(entry.value, Diagnostic):
        what = text.line(str(entry.value), _DIAGNOSED)
    first = f"{entry.at - start:9.3f} s  {number:<4} {what}"
    return [first, *(f"{'':{_INDENT}}{detail}" for detail in details)]


def _came(record: Any, slot: Slot) -> list[str]:
    show: Callable[[], Shown] | None = getattr(record, "_shown", None)
    told = Shown(text.line(shown(record))) if show is None else show()
    return [told.line + _answered(record, told, slot), *told.details]


def _answered(record: Any, told: Shown, slot: Slot) -> str:
    answer: Answer | None = record.answer
    if told.answered is not None:
        what = told.answered
    elif answer is None:
        if told.handled is False and not getattr(record, "_entry", 0):
            return ""
        by = getattr(record, "_by", "")
        return f" -> not answered by {by}" if by else " -> not answered"
    elif answer.fault:
        status = "" if answer.status is None else f"{answer.status}, "
        what = f"{status}{answer.fault} ({text.took(answer.seconds)})"
    else:
        what = "sent" if answer.status is None else f"{answer.status},"
        what = f"{what} {text.count(answer.size, 'byte')}"
        if told.handled is not False:
            what += f" after {text.took(answer.seconds)}"
    return f" -> {what}{_by(record, told, slot)}"


def _by(record: Any, told: Shown, slot: Slot) -> str:
    if getattr(record, "_without_handler", False):
        return ", not by the handler"
    if getattr(record, "_unexpected", False):
        return ", unexpected"
    if by := getattr(record, "_by", ""):
        return f" by {by}"
    if told.handled is False:
        return ", no handler"
    place = place_of_code(slot.code_at(record.received_at))
    return f" by {place}" if place else ""


def _failed(error: BaseException, slot: Slot) -> list[str]:
    if isinstance(error, UnexpectedRequest):
        return [text.line(f"unexpected: {str(error).partition(chr(10))[0]}")]
    place = place_of_error(leaves_of(error)[0]) or place_of_error(error)
    return [f"handler raised {text.of_error(error)}" + (f", at {place}" if place else "")]


def _diagnosed(diagnostic: Diagnostic, slot: Slot) -> list[str]:
    return [text.line(diagnostic.text, _DIAGNOSED)]


def _logged(logged: str, slot: Slot) -> list[str]:
    first, *others = [text.line(line) for line in logged.strip().split("\n")]
    if others[_LOGGED:]:
        others = [*others[: _LOGGED - 1], f"{len(others) - _LOGGED:,} lines", others[-1]]
    return [f"logged {first}", *others]


def _died(death: ServerDied, slot: Slot) -> list[str]:
    lines = [text.line(line) for line in death.stderr.splitlines()[-_STDERR:]]
    ended = f"the server's process {text.line(death.how)}"
    return [ended, *(["its stderr ends with:"] if lines else []), *(f"| {line}" for line in lines)]


_TELL: dict[str, Callable[[Any, Slot], list[str]]] = {
    "received": _came,
    "failed": _failed,
    "diagnosed": _diagnosed,
    "logged": _logged,
    "died": _died,
}


# What is open, and the end -----------------------------------------------------------------------


def _open_now(now: OpenNow, most: int | None) -> list[str]:
    lines = [
        f"  {f'#{one.connection}' if one.connection else '-':<4} {text.line(one.state, 300)}"
        for one in now.shown[:most]
    ]
    if more := now.more + len(now.shown) - len(lines):
        lines.append(f"  {more:,} more")
    if now.silent:
        lines.append("  the server's process has not told in time what else is open")
    return ["open now:", *lines] if lines else []


def _stop(report: StopReport) -> list[str]:
    if report.rung not in ("close", "terminate", "kill"):
        return []
    return [text.line(line) for line in str(report).splitlines()[:_STDERR]]


def _stderr(stderr: str, most: int | None) -> list[str]:
    lines = stderr.splitlines()
    if not lines:
        return []
    kept = lines if most is None else lines[-most:]
    return ["stderr of the server's process:", *(f"  | {text.line(line)}" for line in kept)]
