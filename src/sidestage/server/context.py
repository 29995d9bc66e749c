"""``with`` and ``async with`` for servers and managers: start on entry, stop on exit."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..dispatch.coroutines import running_loop
from ..errors import StateError
from ..journal.failures import attach
from ..journal.frames import trim, trimmed
from ..pristine import system
from ..pristine.imports import importing_once

if TYPE_CHECKING:
    import asyncio

    from .server import Server

T = TypeVar("T")


class StartedInContext:
    """A context manager that calls ``start`` and ``stop``.

    If the body has raised, the errors of ``stop`` become notes on that exception.
    """

    def start(self) -> Self:
        """Start; returns this object."""
        return self._start_on(running_loop())

    def stop(self) -> Any:
        """Stop; raises the errors that were not raised yet."""
        raise AssertionError("each has its own")

    def _start_on(self, loop: asyncio.AbstractEventLoop | None) -> Self:
        """Start; coroutine handlers run on ``loop``, or on a separate loop if it is ``None``."""
        raise AssertionError("each has its own")

    def _leave(self) -> None:
        """Stop at the end of a ``with``, and raise what else there is to tell."""
        __tracebackhide__ = True
        self.stop()

    def _break_off(self) -> None:
        """Stop at the end of a ``with`` that Ctrl-C has left: nothing is said of the rest."""
        self.stop()

    def _stop_quietly(self) -> None:
        """Stop without raising the errors of handlers."""
        raise AssertionError("each has its own")

    @trimmed
    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        try:
            if error is None or isinstance(error, Exception):
                self._leave()
            else:  # Ctrl-C, say
                self._break_off()
        except BaseException as raised:
            if error is None:
                trim(raised)
                raise
            attach(error, raised)

    @trimmed
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
        try:
            await off_loop(lambda: self.__exit__(kind, error, trace))
        except BaseException as raised:
            trim(raised)
            raise


_ADVICE = "`async with` needs asyncio's loop, and none runs here; the plain `with` works anywhere"


async def off_loop(
    work: Callable[[], T],
    *,
    undo: Callable[[], None] | None = None,
    interrupt: Callable[[], None] | None = None,
    advice: str = _ADVICE,
) -> T:
    """Run ``work`` in a new thread, in a copy of the caller's context; returns its result.

    Cancelling the caller does not cancel the work: this calls ``interrupt``, waits until the work
    ends and, if it succeeded, runs ``undo`` in the same way. Raises StateError with ``advice`` if
    no asyncio loop runs in this thread.
    """
    import asyncio

    __tracebackhide__ = True
    loop = running_loop()
    if loop is None:
        raise StateError(advice)
    future = _in_thread(loop, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if interrupt is not None:
            interrupt()
        await asyncio.wait([future])
        # Asked in any case: asyncio logs an exception that nobody has seen.
        if future.exception() is None and undo is not None:
            await off_loop(undo)
        raise


def _in_thread(loop: asyncio.AbstractEventLoop, work: Callable[[], T]) -> asyncio.Future[T]:
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def finish(result: Any, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def run() -> None:
        __tracebackhide__ = True
        result, error = None, None
        try:
            result = context.run(work)
        except BaseException as raised:  # noqa: BLE001 - raised again by the await
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(finish, result, error)

    system.start_thread(run, ())
    return future


def leave_all(stop: Callable[[], object], servers: list[Server[Any]]) -> None:
    """Stop at the end of a ``with``; verify what is declared on ``servers``, if anything is."""
    __tracebackhide__ = True
    if all(server._slot.declared is None for server in servers):
        stop()
        return
    with importing_once():
        from . import verifying
    verifying.leave(stop, servers)


def settle_all(servers: list[Server[Any]]) -> None:
    """Verify nothing any more of what is declared on ``servers``, if anything is."""
    if any(server._slot.declared is not None for server in servers):
        with importing_once():
            from . import verifying
        verifying.settle_servers(servers)
