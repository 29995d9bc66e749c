"""What starts on entry and stops on exit, plainly or without blocking a loop."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..dispatch.coroutines import off_loop, running_loop
from ..journal.failures import attach

if TYPE_CHECKING:
    import asyncio


class StartedInContext:
    """A context manager over ``start`` and ``stop``; the exit hides no failure of the body."""

    def start(self) -> Self:
        """Start, and return this object."""
        return self._start_on(running_loop())

    def stop(self) -> Any:
        """Stop, and raise what went wrong meanwhile."""
        raise AssertionError("each has its own")

    def _start_on(self, loop: asyncio.AbstractEventLoop | None) -> Self:
        """Start; coroutine handlers are to run on ``loop``."""
        raise AssertionError("each has its own")

    def _stop_quietly(self) -> None:
        """Stop, and raise nothing that handlers raised."""
        raise AssertionError("each has its own")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        if error is None:
            self.stop()
            return
        try:
            self.stop()
        except BaseException as raised:  # noqa: BLE001 - told in a note
            attach(error, raised)

    async def __aenter__(self) -> Self:
        loop = running_loop()
        return await off_loop(lambda: self._start_on(loop), undo=self._stop_quietly)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        await off_loop(lambda: self.__exit__(kind, error, trace))
