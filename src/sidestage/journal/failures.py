"""Errors that a test must not miss: kept until they are raised in the test's thread."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import NamedTuple

from ..errors import ServerDied, UnexpectedRequest, UnmetExpectation, shown
from ..pristine import system
from ..pristine.waits import Clock
from . import causes, unseen
from .causes import Cause
from .frames import Place, innermost, trim

MOST = 1000  # errors that are kept; those that were raised already go first
_WHOLE = 16  # of those not raised yet, so many keep their frames; Python prints fifteen of a group
_TEXT = 4000  # characters of the traceback of another
_NOTE_LINES = 12  # of an error in a note
_NOTE_TEXT = 1000  # characters of it
_NOTE_ERRORS = 5  # in a note
_ABOVE = ": as told above"  # of how a request differs
_EXPECTATIONS = 100  # that are over and still take what comes late


class Failure(NamedTuple):
    """An error that a handler has raised."""

    error: BaseException
    cause: Cause


def is_of_handler(failure: Failure) -> bool:
    """Whether a handler has raised it: else it is a request that nothing takes."""
    return not isinstance(failure.error, UnexpectedRequest)


class Expected:
    """Errors of some kinds that a test expects for a while."""

    __slots__ = ("began", "ended", "kinds", "taken")

    def __init__(self, kinds: tuple[type[BaseException], ...]) -> None:
        self.kinds = kinds
        self.began = Clock.monotonic()
        self.ended: float | None = None
        self.taken: list[BaseException] = []

    def takes(self, failure: Failure) -> bool:
        """Whether it is one of these: it comes while they are expected, or its request did."""
        if not isinstance(failure.error, self.kinds):
            return False
        return self.ended is None or self.began <= failure.cause.came <= self.ended


class Failures:
    """Handlers' errors, and the death of the server's process; each is raised once."""

    death: ServerDied | None = None
    _more = 0  # errors that were not kept, and not told yet

    def __init__(self) -> None:
        self._kept: list[Failure] = []
        self._new: list[Failure] = []  # of these, what was not raised yet
        self._frames: dict[int, TracebackType | None] = {}  # of errors that are kept, by their id
        self._expected: list[Expected] = []
        self._owner = system.getpid()
        self._guard = system.RLock()
        unseen.tell_at_exit()

    @property
    def errors(self) -> list[BaseException]:
        """All that are kept, oldest first; whoever reads them has seen them."""
        return self.since(0.0)

    @property
    def any_new(self) -> bool:
        """Whether there is something that was not raised yet."""
        return bool(self._new or self._more)

    def add(
        self, error: BaseException, why: str, came: float = 0.0, place: Place | None = None
    ) -> Cause | None:
        """Keep an error that a handler has raised, and note ``why``; returns ``None`` if it is not.

        ``came`` is when its request came, by default now; ``place`` is where the handler is. A
        traceback holds what the handler had, so only the first of many stay as they are.
        """
        trim(error)
        came = came or Clock.monotonic()
        failure = Failure(error, Cause(error, why, came, place))
        with self._guard:
            expected = self._is_expected(failure)
            if not self._make_room():
                self._more += not expected
                return None
            self._keep(failure)
            if not expected:
                self._new.append(failure)
                unseen.hold(self)
        for test in () if expected else failure.cause.tests:
            test.causes.append(failure.cause)
        return failure.cause

    def _make_room(self) -> bool:
        """Drop the oldest that was raised already if need be; returns whether there is room."""
        if len(self._kept) < MOST:
            return True
        new = set(map(id, self._new))
        for at, failure in enumerate(self._kept):
            if id(failure) not in new:
                del self._kept[at]
                self._frames.pop(id(failure.error), None)
                return True
        return False

    def _keep(self, failure: Failure) -> None:
        error = failure.error
        if id(error) in self._frames:  # the same object, with the frames of each time
            error.__traceback__ = self._frames[id(error)]
        else:
            if failure.cause.why:
                note(error, failure.cause.why)
            if len(self._new) >= _WHOLE:
                _take_frames(error)
            self._frames[id(error)] = error.__traceback__
        self._kept.append(failure)

    # Those that a test expects -------------------------------------------------------------------

    def expect(self, kinds: tuple[type[BaseException], ...]) -> Expected:
        """Take errors of these kinds, until ``expect_no_more``: they are not to be raised."""
        expected = Expected(kinds)
        with self._guard:
            self._expected = [*self._expected[-_EXPECTATIONS:], expected]
        return expected

    def expect_no_more(self, expected: Expected) -> None:
        """Take no errors but those of requests that came before now."""
        expected.ended = Clock.monotonic()

    def _is_expected(self, failure: Failure) -> bool:
        for expected in reversed(self._expected):
            if expected.takes(failure):
                expected.taken.append(failure.error)
                return True
        return False

    # Raising them --------------------------------------------------------------------------------

    def take(self, wanted: Callable[[Failure], bool] | None = None) -> tuple[list[Failure], int]:
        """What was not raised yet, which is then: the errors, and how many were not kept.

        With ``wanted``, only those errors; whoever takes the last of handlers is told of those not
        kept.
        """
        with self._guard:
            taken = [failure for failure in self._new if wanted is None or wanted(failure)]
            of_these = set(map(id, taken))
            self._new = [failure for failure in self._new if id(failure) not in of_these]
            last = any(map(is_of_handler, taken)) and not any(map(is_of_handler, self._new))
            more = 0
            if last or not self._new:
                more, self._more = self._more, 0
        return taken, more

    def since(self, began: float) -> list[BaseException]:
        """The errors that are kept of requests that came at ``began`` or later: now seen."""
        found = [one for one in self._kept.copy() if one.cause.came >= began]
        for one in found:
            one.cause.seen = True
        return [one.error for one in found]

    def take_since(self, began: float) -> tuple[list[Failure], int]:
        """As ``take``, of requests that came at ``began`` or later."""
        return self.take(lambda failure: failure.cause.came >= began)

    def clear(self) -> int:
        """Forget all handlers' errors; returns how many of them were never raised."""
        with self._guard:
            unseen = len(self._new) + self._more
            self._kept, self._new, self._more = [], [], 0
            self._frames.clear()
        return unseen

    def new_error(self, server: object, *, with_death: bool) -> BaseException | None:
        """What to raise for the errors that were not raised yet: see ``combined``.

        ``server`` is named in the group's message. ``with_death`` includes the ServerDied.
        """
        taken, more = self.take(is_of_handler)
        death = None
        if with_death:
            death, self.death = self.death, None
        return combined(taken, server, more=more, death=death)

    # What nobody has seen ------------------------------------------------------------------------

    def take_unseen(self, *, read: bool = False) -> tuple[list[Cause], int]:
        """As ``take``, without what was ``read``, unless that counts; in a forked copy nothing."""
        if self._owner != system.getpid():  # the original tells them, and may have had the lock
            return [], 0
        taken, more = self.take()
        return [failure.cause for failure in taken if read or not failure.cause.seen], more

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if self.any_new and not finalizing():  # before that all was told
            unseen.leave(*self.take_unseen())


def combined(
    failures: Iterable[Failure],
    server: object,
    *,
    more: int = 0,
    death: BaseException | None = None,
) -> BaseException | None:
    """What to raise for some errors: one as it is, several as a group, equal ones once.

    A note says how often an equal one was raised, and during which test, if another runs now.
    """
    equal: dict[object, list[Failure]] = {}
    for failure in failures:
        equal.setdefault(failure.cause.key, []).append(failure)
    told = [_first_of(same) for same in equal.values()]
    count = sum(map(len, equal.values()))
    if death is not None:
        told.insert(0, death)
        count += 1
    if not told:
        return None
    if len(told) == 1:
        if more:
            note(told[0], f"and {more:,} more errors, which were not kept")
        return told[0]
    text = f"{count} errors" + (f", and {more} more," if more else "")
    if count > len(told):
        text += f" ({len(told)} different ones)"
    _tell_once(told)
    ours = (UnexpectedRequest, UnmetExpectation)
    where = "at" if any(isinstance(error, ours) for error in told) else "in the handlers of"
    return BaseExceptionGroup(f"{text} {where} {server}", told)


def _tell_once(told: list[BaseException]) -> None:
    """Leave out of what is unmet how a request differs, where that is told of it as unexpected."""
    unexpected = (str(error) for error in told if isinstance(error, UnexpectedRequest))
    said = {line.strip() for text in unexpected for line in text.splitlines()[1:]}
    for error in told if said else ():
        if not isinstance(error, UnmetExpectation):
            continue
        lines: list[str] = []
        for line in str(error).splitlines():
            if line.startswith("    ") and line.strip() in said:
                lines[-1] = f"{lines[-1].removesuffix(_ABOVE)}{_ABOVE}"
            else:
                lines.append(line)
        error.args = ("\n".join(lines),)


def _first_of(same: list[Failure]) -> BaseException:
    """The first of equal errors, with a note on what is to be said of all."""
    error, cause = same[0]
    if len(same) > 1:
        note(error, f"raised {len(same):,} times")
    if cause.tests and causes.current() not in cause.tests:
        note(error, f"the request came during {cause.during()}")
    return error


def _take_frames(error: BaseException) -> None:
    """Replace the tracebacks of ``error``, and of what has led to it, by their text."""
    import traceback

    text = "".join(traceback.format_exception(error))
    note(error, f"Its traceback, without what the handler had:\n{text[-_TEXT:].rstrip()}")
    chain: BaseException | None = error
    seen: set[int] = set()
    while chain is not None and id(chain) not in seen:
        seen.add(id(chain))
        chain.__traceback__ = None
        chain = chain.__cause__ or chain.__context__


def attach(error: BaseException, raised: BaseException) -> None:
    """Report ``raised`` in a short note on ``error``, which is failing the test already."""
    if raised is error:
        return
    _cut_context(raised, error)
    causes.attached(error, raised)
    errors = raised.exceptions if isinstance(raised, BaseExceptionGroup) else (raised,)
    told = [_told(each) for each in errors[:_NOTE_ERRORS]]
    if more := len(errors[_NOTE_ERRORS:]):
        told.append(f"and {more} more errors")
    note(error, "A server also reported:\n" + "\n".join(told))


def _told(error: BaseException) -> str:
    """An error with its notes and its place, in some lines."""
    import traceback

    try:
        text = "".join(traceback.format_exception_only(error)).rstrip()[:_NOTE_TEXT]
    except Exception:  # noqa: BLE001 - of the error's own class
        text = shown(error)
    lines = text.splitlines()
    if len(lines) > _NOTE_LINES:  # its notes come last
        lines[_NOTE_LINES // 2 : -_NOTE_LINES // 2] = ["..."]
    if (place := innermost(error)) is not None:
        lines.append(f"at {place}")
    return "\n".join(lines)


def note(error: BaseException, text: str) -> None:
    """Add a note to any exception; some refuse notes, which is ignored."""
    with contextlib.suppress(Exception):
        error.add_note(text)


def _cut_context(raised: BaseException, error: BaseException) -> None:
    """Remove ``error`` from the contexts of ``raised``: they would refer to each other."""
    seen: set[int] = set()
    while raised.__context__ is not None and id(raised) not in seen:
        seen.add(id(raised))
        if raised.__context__ is error:
            raised.__context__ = None
            return
        raised = raised.__context__
