"""``async with`` starts and stops servers in another thread, so that the loop goes on."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from sidestage.server.context import off_loop

WAIT = 10.0  # seconds at most for what comes at once
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class TestOffLoop:
    def test_returns_the_result(self) -> None:
        assert asyncio.run(off_loop(lambda: 42)) == 42

    @pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
    def test_raises_what_the_work_raises(self, error: BaseException) -> None:
        def work() -> None:
            raise error

        with pytest.raises(type(error)):
            asyncio.run(off_loop(work))

    def test_runs_in_another_thread_and_the_callers_context(self) -> None:
        variable.set("set by the caller")
        ident, value = asyncio.run(off_loop(lambda: (threading.get_ident(), variable.get())))
        assert ident != threading.get_ident()
        assert value == "set by the caller"

    def test_the_loop_goes_on(self) -> None:
        async def main() -> bool:
            go_on = threading.Event()
            work = asyncio.ensure_future(off_loop(lambda: go_on.wait(WAIT)))
            await asyncio.sleep(0)
            go_on.set()
            return await work

        assert asyncio.run(main())

    def test_cancelling_the_caller_lets_the_work_finish(self) -> None:
        go_on, finished = threading.Event(), threading.Event()

        def work() -> None:
            go_on.wait(WAIT)
            finished.set()

        async def main() -> None:
            task = asyncio.ensure_future(off_loop(work))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.sleep(0)
            assert not task.done()  # it waits for the work
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert finished.is_set()

        asyncio.run(main())
