"""Errors that a test must not miss: kept until they are raised in the test's thread."""

from __future__ import annotations

import contextlib

from ..errors import ServerDied, shown
from ..pristine import system


class Failures:
    """Handlers' errors, and the death of the server's process; each is raised once."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.death: ServerDied | None = None
        self._raised = 0  # how many of the errors were raised
        self._guard = system.Lock()

    def add(self, error: BaseException) -> None:
        """Keep an error that a handler has raised."""
        self.errors.append(error)

    def raise_new(self, server: object, *, with_death: bool) -> None:
        """Raise the errors that were not raised yet: one as it is, several as a group.

        ``server`` is named in the group's message. ``with_death`` includes the ServerDied.
        """
        # pytest hides frames with this variable; all frames between handler and test have it.
        __tracebackhide__ = True
        with self._guard:
            new, self._raised = self.errors[self._raised :], len(self.errors)
            if with_death and self.death is not None:
                new.insert(0, self.death)
                self.death = None
        if len(new) == 1:
            raise new[0]
        if new:
            raise BaseExceptionGroup(f"{len(new)} errors in the handlers of {server}", new)

    def unseen(self) -> str:
        """The errors that were not raised yet, as the end of a sentence; empty if none."""
        new = ", ".join(shown(error) for error in self.errors[self._raised :])
        return f", and nobody has seen what its handlers raised: {new}" if new else ""


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
