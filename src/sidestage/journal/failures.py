"""Errors that a test must not miss: kept until they are raised in the test's thread."""

from __future__ import annotations

import contextlib
from types import TracebackType

from ..errors import ServerDied, shown
from ..pristine import system
from ..pristine.waits import Clock

MOST = 1000  # errors that are kept; those that were raised already go first
_WHOLE = 16  # of those not raised yet, so many keep their frames; Python prints fifteen of a group
_TEXT = 4000  # characters of the traceback of another


class Failures:
    """Handlers' errors, and the death of the server's process; each is raised once."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.death: ServerDied | None = None
        self._came: list[float] = []  # when the request of each came, on the monotonic clock
        self._raised = 0  # how many of the errors were raised
        self._more = 0  # errors that were not kept, and not told yet
        self._frames: dict[int, TracebackType | None] = {}  # of errors that are kept, by their id
        self._guard = system.RLock()

    def add(self, error: BaseException, why: str, came: float = 0.0) -> bool:
        """Keep an error that a handler has raised, and note ``why``; returns whether it is kept.

        ``came`` is when its request came, in seconds on the monotonic clock; by default now.
        A traceback holds what the handler had, so only the first of many stay as they are.
        """
        with self._guard:
            if len(self.errors) >= MOST:
                if not self._raised:
                    self._more += 1
                    return False
                self._raised -= 1
                self._frames.pop(id(self.errors.pop(0)), None)
                del self._came[0]
            whole = len(self.errors) - self._raised < _WHOLE
            repeated = id(error) in self._frames
            if not repeated:
                note(error, why)
                if not whole:
                    _take_frames(error)
                self._frames[id(error)] = error.__traceback__
            else:  # the same object, with the frames of every time that it was raised
                error.__traceback__ = self._frames[id(error)]
            self.errors.append(error)
            self._came.append(came or Clock.monotonic())
        return True

    def raise_new(self, server: object, *, with_death: bool) -> None:
        """Raise the errors that were not raised yet: one as it is, several as a group.

        ``server`` is named in the group's message. ``with_death`` includes the ServerDied.
        """
        # pytest hides frames with this variable; all frames between handler and test have it.
        __tracebackhide__ = True
        with self._guard:
            new, self._raised = self.errors[self._raised :], len(self.errors)
            more, self._more = self._more, 0
            if with_death and self.death is not None:
                new.insert(0, self.death)
                self.death = None
        if new:
            raise _joined(new, more, server)

    def since(self, began: float) -> list[BaseException]:
        """The errors that are kept of requests that came at ``began`` or later."""
        with self._guard:
            return [
                error for error, came in zip(self.errors, self._came, strict=True) if came >= began
            ]

    def raise_since(self, began: float, server: object) -> None:
        """As ``raise_new``, only of requests that came at ``began`` or later, without the death."""
        __tracebackhide__ = True
        with self._guard:
            both = list(zip(self.errors, self._came, strict=True))
            seen, unseen = both[: self._raised], both[self._raised :]
            new = [one for one in unseen if one[1] >= began]
            ordered = [*seen, *new, *(one for one in unseen if one[1] < began)]
            self.errors[:] = [error for error, _ in ordered]
            self._came[:] = [came for _, came in ordered]
            self._raised += len(new)
        if new:
            raise _joined([error for error, _ in new], 0, server)

    def clear(self) -> int:
        """Forget all handlers' errors; returns how many of them were never raised."""
        with self._guard:
            unseen = len(self.errors) - self._raised + self._more
            self.errors.clear()
            self._frames.clear()
            self._came.clear()
            self._raised = self._more = 0
        return unseen

    def unseen(self) -> str:
        """The errors that were not raised yet, as the end of a sentence; empty if none."""
        unseen = self.errors[self._raised :]
        new = ", ".join(shown(error) for error in unseen[:_WHOLE])
        if more := len(unseen[_WHOLE:]) + self._more:
            new += f", and {more} more"
        return f", and nobody has seen what its handlers raised: {new}" if new else ""


def _joined(new: list[BaseException], more: int, server: object) -> BaseException:
    """What is raised of ``new``, which is not empty: one as it is, several as a group."""
    if len(new) == 1:
        return new[0]
    count = f"{len(new)} errors" + (f", and {more} more," if more else "")
    return BaseExceptionGroup(f"{count} in the handlers of {server}", new)


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
    """Report ``raised`` in a note on ``error``, which is failing the test already."""
    if raised is error:
        return
    import traceback

    _cut_context(raised, error)
    text = "".join(traceback.format_exception(raised)).rstrip()
    note(error, f"Besides, a server had this to report:\n{text}")


def note(error: BaseException, text: str) -> None:
    """Add a note to any exception; some refuse notes, which is ignored."""
    with contextlib.suppress(Exception):
        error.add_note(text)


def _cut_context(raised: BaseException, error: BaseException) -> None:
    """Remove ``error`` from the contexts of ``raised``: the note would repeat its traceback."""
    while raised.__context__ is not None:
        if raised.__context__ is error:
            raised.__context__ = None
            return
        raised = raised.__context__
