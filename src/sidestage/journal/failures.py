"""Errors that a test must not miss: kept from where they happened to where they are raised."""

from __future__ import annotations

import contextlib

from ..errors import ServerDied, shown
from ..pristine import system


class Failures:
    """What handlers raised, and the death of the server's process; each is raised once."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.death: ServerDied | None = None
        self._raised = 0  # how many of the errors
        self._guard = system.Lock()

    def add(self, error: BaseException) -> None:
        """A handler has raised."""
        self.errors.append(error)

    def raise_new(self, who: object, *, with_death: bool) -> None:
        """Raise what was not raised before: one as itself, several as a group."""
        # As in all that is between a handler and the test: pytest leaves such frames out.
        __tracebackhide__ = True
        with self._guard:
            new, self._raised = self.errors[self._raised :], len(self.errors)
            if with_death and self.death is not None:
                new.insert(0, self.death)
                self.death = None
        if len(new) == 1:
            raise new[0]
        if new:
            raise BaseExceptionGroup(f"{len(new)} errors in the handlers of {who}", new)

    def unseen(self) -> str:
        """What was not raised yet, as the end of a sentence; empty if there is nothing."""
        new = ", ".join(shown(error) for error in self.errors[self._raised :])
        return f", and nobody has seen what its handlers raised: {new}" if new else ""


def attach(error: BaseException, raised: BaseException) -> None:
    """Tell of ``raised`` in a note on ``error``, which is failing the test already."""
    if raised is error:
        return
    import traceback

    _cut_context(raised, error)
    text = "".join(traceback.format_exception(raised)).rstrip()
    note(error, f"Besides, a server had this to report:\n{text}")


def note(error: BaseException, text: str) -> None:
    """Add a note to somebody else's exception, which may be of a kind that takes none."""
    with contextlib.suppress(Exception):
        error.add_note(text)


def _cut_context(raised: BaseException, error: BaseException) -> None:
    """Python notes that ``raised`` came while ``error`` was handled; the note would repeat it."""
    while raised.__context__ is not None:
        if raised.__context__ is error:
            raised.__context__ = None
            return
        raised = raised.__context__
