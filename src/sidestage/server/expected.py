"""Errors of handlers that a test expects."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from ..errors import UnmetExpectation, shown

if TYPE_CHECKING:
    from ..journal.failures import Failures


class ExpectedErrors:
    """A context in which errors of some kinds are taken; gives the list of those that were."""

    def __init__(
        self,
        failures: Failures,
        kinds: tuple[type[BaseException], ...],
        catch_up: Callable[[], None],
    ) -> None:
        if not kinds or not all(map(_is_exception, kinds)):
            raise TypeError(
                "expected_errors takes the classes of the errors, such as "
                f"`with server.expected_errors(KeyError):`, not {shown(kinds)}"
            )
        if any(issubclass(kind, UnmetExpectation) for kind in kinds):
            raise TypeError(
                "an UnmetExpectation is raised when expectations are verified, and by no handler: "
                "write `with pytest.raises(UnmetExpectation): server.verify()`"
            )
        self._failures = failures
        self._kinds = kinds
        self._catch_up = catch_up

    def __enter__(self) -> list[BaseException]:
        self._expected = self._failures.expect(self._kinds)
        return self._expected.taken

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._catch_up()
        finally:
            self._failures.expect_no_more(self._expected)


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)
