"""What touches asyncio: coroutine handlers, and waiting without blocking the caller's loop.

asyncio is imported only where somebody uses it.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar

from . import pristine
from .pristine import Deadline, Signal

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread, if any; imports nothing."""
    events = sys.modules.get("asyncio.events")
    return None if events is None else events._get_running_loop()  # public, but undocumented


async def off_loop(work: Callable[[], T], *, undo: Callable[[], None] | None = None) -> T:
    """Run ``work`` in a thread of its own, in the caller's context, and await its result.

    Cancelling the caller does not cancel the work, so that nothing is left half done; it is
    awaited to its end, and then undone by ``undo``.
    """
    import asyncio

    loop = asyncio.get_running_loop()
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
        result, error = None, None
        try:
            result = context.run(work)
        except BaseException as raised:  # noqa: BLE001 - raised again where it is awaited
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(finish, result, error)

    pristine.start_thread(run, ())
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        if undo is not None and future.exception() is None:
            await off_loop(undo)
        raise


class CoroutineRunner:
    """Runs coroutine handlers on the loop that the server was started on, or on one of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._own = False
        self._guard = pristine.Lock()
        self._ended = Signal()
        self._running = False

    def submit(
        self,
        awaitable: Awaitable[Any],
        context: contextvars.Context,
        done: Callable[[asyncio.Future[Any]], None],
    ) -> None:
        """Have ``awaitable`` run in ``context``; ``done`` gets the finished task on the loop."""
        loop = self._ensure_loop()

        def begin() -> None:
            task = loop.create_task(_as_coroutine(awaitable), context=context)
            task.add_done_callback(done)

        try:
            loop.call_soon_threadsafe(begin)
        except RuntimeError:  # the loop is closed
            if isinstance(awaitable, CoroutineType):
                awaitable.close()  # else Python warns that it was never awaited
            raise

    def _ensure_loop(self) -> asyncio.AbstractEventLoop:
        with self._guard:
            if self._loop is None:
                import asyncio

                self._loop, self._own, self._running = asyncio.new_event_loop(), True, True
                pristine.start_thread(self._run, (self._loop,))
            return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
            loop.run_until_complete(_cancel_all())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()
            self._running = False
            self._ended.notify()

    def close(self, deadline: Deadline) -> None:
        """End a loop of our own, waiting until the deadline; that of the caller is left alone."""
        if self._own and self._loop is not None and self._running:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._loop.stop)
            if running_loop() is self._loop:  # a coroutine handler is what stops the server
                return
            self._ended.wait_until(lambda: not self._running, deadline)


async def _cancel_all() -> None:
    import asyncio

    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _as_coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable
