"""Coroutine handlers: runs them on asyncio's loops.

asyncio is imported only once it is needed.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import functools
import sys
from collections.abc import Awaitable, Callable
from types import CoroutineType, FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import ServerStopped
from ..pristine import system
from ..pristine.waits import Deadline, Wakeup
from ..process import fork_hooks
from . import stacks
from .stacks import Tracers

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

_CANCEL_SECONDS = 0.1  # for a coroutine to end that was cancelled
_MOMENT = 0.02  # for one that has had its time already
_EXIT_SECONDS = 1.0  # for all our loops to end before the interpreter does


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread, or ``None``; does not import asyncio."""
    events = sys.modules.get("asyncio.events")
    return None if events is None else events._get_running_loop()  # public, but undocumented


class Running:
    """A coroutine handler, from before it is scheduled until its task is done."""

    def __init__(self) -> None:
        self.cancelled = False  # by us
        self.runner: CoroutineRunner | None = None  # once it is scheduled
        self._task: asyncio.Task[Any] | None = None  # once it has begun
        self._told = False  # that it is cancelled
        self._patience = Deadline(None)  # with one that is cancelled

    def cancel(self) -> None:
        """Cancel it, once; any thread may call this."""
        self.mark()
        if self.runner is not None:
            self.runner.call(self._begin_to_cancel)

    def mark(self) -> None:
        """Note that it is we who cancel it."""
        if not self.cancelled:
            self._patience = Deadline(_CANCEL_SECONDS)
            self.cancelled = True

    def begun(self, task: asyncio.Task[Any]) -> None:
        """Note its task; called on the loop."""
        self._task = task
        if self.cancelled:  # before it was scheduled
            self._begin_to_cancel()

    def _begin_to_cancel(self) -> None:
        # Later than its first step: Python warns of a coroutine that was never awaited.
        if self._task is not None:
            self._task.get_loop().call_soon(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None and not self._told:
            self._told = True  # twice would interrupt what it does about it
            self._task.cancel()

    def done(self) -> bool:
        """Whether it is done; what it has returned may still have to be sent."""
        return self._task is not None and self._task.done()

    def may_end(self) -> bool:
        """Whether it may be about to end: it was cancelled just now, or is done."""
        return self._task is None or self.done() or not self._patience.passed()

    def place(self) -> str | None:
        """Where it is: file, line and function; ``None`` if it is done, or cannot be known."""
        if self._task is None or self._task.done():
            return None
        awaited: Any = self._task.get_coro()
        frames: list[FrameType] = []
        while awaited is not None:
            if getattr(awaited, "cr_running", False) and self.runner is not None:
                return stacks.place_in_loop(self.runner.thread())
            frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
            if frame is not None:
                frames.append(frame)
            inner = getattr(awaited, "cr_await", None)
            awaited = getattr(awaited, "gi_yieldfrom", None) if inner is None else inner
        return stacks.where(frames[::-1]) if frames else None


class CoroutineRunner:
    """Runs coroutine handlers on the loop that started the server, or else on its own loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._own = False
        self._guard = system.RLock()
        self._tasks: dict[asyncio.Task[Any], Running] = {}
        self._ended = Wakeup()
        self._running = False
        self._thread: int | None = None  # that runs our own loop, once it runs
        self._closing = False
        self._parked = False
        self._tracers: Tracers | None = None  # of the thread of our own loop

    def submit(
        self,
        awaitable: Awaitable[Any],
        context: contextvars.Context,
        done: Callable[[asyncio.Future[Any]], None],
        running: Running | None = None,
    ) -> None:
        """Schedule ``awaitable`` in ``context``; ``done`` is called on the loop with its task.

        ``running`` is told of the task.

        Raises RuntimeError if the loop is closed, ServerStopped if there was none at the end.
        """

        def begin() -> None:
            if self._tracers is not None:
                self._tracers.follow()
            task = loop.create_task(_as_coroutine(awaitable), context=context)
            self._tasks[task] = told  # a loop keeps only weak references to tasks
            task.add_done_callback(self._tasks.__delitem__)
            task.add_done_callback(done)
            told.begun(task)

        told = running or Running()
        try:
            loop = self._ensure_loop()
            told.runner = self
            loop.call_soon_threadsafe(begin)
        except (RuntimeError, ServerStopped):  # the loop is closed, or will never be
            if isinstance(awaitable, CoroutineType):
                awaitable.close()  # else Python warns that it was never awaited
            raise

    def _ensure_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is not None:
            return self._loop
        with fork_hooks.launch_lock, self._guard:
            if self._loop is None:
                if self._closing:
                    raise ServerStopped("the server has stopped: no loop begins for its handlers")
                import asyncio

                self._loop, self._own = asyncio.new_event_loop(), True
                try:
                    self._begin(self._loop)
                except BaseException:  # no thread can be had: the next handler may have one
                    self._loop.close()
                    self._loop, self._own = None, False
                    raise
            return self._loop

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        _unfinished.add(self)
        _wait_at_exit()
        self._running, self._thread = True, None
        try:
            system.start_thread(self._run, (loop,))
        except BaseException:
            self._running = False
            _unfinished.discard(self)
            raise

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        self._tracers = Tracers()
        self._thread = system.thread_id()
        try:
            while not self._leaves():
                # These two leave asyncio's loop as well as the task. It has them, and goes on to
                # tell, with the others, if its loop does.
                with contextlib.suppress(SystemExit, KeyboardInterrupt):
                    loop.run_forever()
            if self._closing:
                for running in self._tasks.values():
                    running.mark()
                loop.run_until_complete(_cancel_all())
                loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            if self._closing:
                loop.close()
                self._running = False
                _unfinished.discard(self)
            self._ended.notify()

    def _leaves(self) -> bool:
        """Whether the thread of our loop has to end; if so, prepares its end."""
        with self._guard:
            if self._parked or self._closing:
                system.leave_thread()
                self._running = not self._parked
                return True
            return False

    def call(self, function: Callable[[], object]) -> None:
        """Have the loop call ``function``, if it is open."""
        with contextlib.suppress(RuntimeError):  # it is closed
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function)

    def held_up(self) -> bool:
        """Whether the loop cannot run while the caller waits: it is the caller's, or stands."""
        loop = self._loop
        return loop is not None and (running_loop() is loop or not loop.is_running())

    def thread(self) -> int | None:
        """The thread in which the loop runs, if that is known."""
        return self._thread if self._own else getattr(self._loop, "_thread_id", None)

    def close(self, deadline: Deadline) -> None:
        """End our own loop and wait for that until the deadline; leave a caller's loop alone.

        Coroutines that were cancelled before, and do not end, are not waited for.
        """
        running = list(self._tasks.values())
        if running and not any(one.may_end() for one in running):
            deadline = deadline.sooner(_MOMENT)  # they have had their time
        self._closing = True
        if self._interrupt():
            self._ended.wait_until(lambda: not self._running, deadline)

    def _interrupt(self) -> bool:
        """Have the thread of our own loop check whether to end; returns whether to wait for it."""
        if not self._own or self._loop is None or not self._running:
            return False
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        # On that loop itself, the caller is a coroutine handler that stops its server, or forks.
        return running_loop() is not self._loop

    # Forks -------------------------------------------------------------------------------------

    def park(self) -> None:
        """Before a fork: end the thread of our loop, unless a coroutine blocks it."""
        self._parked = True
        if self._interrupt():
            stacks.let_end(lambda: [self._thread] if self._running else [], self._ended)

    def resume(self) -> None:
        """After a fork, in the original: run our loop again, in a new thread."""
        with self._guard:
            self._parked = False
            if self._own and self._loop is not None and not (self._running or self._closing):
                self._begin(self._loop)

    def forget(self) -> None:
        """In a forked copy: drop our loop, which only the original goes on to run."""
        loop, self._loop = self._loop, None
        _unfinished.discard(self)
        self._guard = system.RLock()
        if self._own and loop is not None and running_loop() is not loop:
            _abandon(loop)


# Runners whose loop has not ended: the interpreter would destroy its tasks half done.
_unfinished: set[CoroutineRunner] = set()


@functools.cache  # so that it registers once
def _wait_at_exit() -> None:
    atexit.register(_wait_for_loops)


def _wait_for_loops() -> None:
    """At the exit: end the loops that had not ended when the stop of their server gave up."""
    deadline = Deadline(_EXIT_SECONDS)
    for runner in list(_unfinished):
        runner.close(deadline)
    _unfinished.clear()


def _abandon(loop: Any) -> None:
    """Close the descriptors of a loop in a forked copy.

    Not by ``loop.close``, which would remove them from the epoll instance that the copy shares with
    its original.
    """
    with contextlib.suppress(AttributeError, OSError):  # only asyncio's selector loops have them
        loop._selector.close()
        loop._ssock.close()
        loop._csock.close()
        loop._closed = True


async def _cancel_all() -> None:
    import asyncio

    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _as_coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable
