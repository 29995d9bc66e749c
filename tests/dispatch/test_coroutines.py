"""Coroutine handlers run on the caller's loop or on a separate one; neither is ever blocked."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Awaitable, Generator, Iterator
from typing import Any
from urllib.error import HTTPError

import pytest

from kit.scripts import eventually, run_script
from kit.web import fetch
from sidestage import HTTPServer
from sidestage.dispatch.coroutines import CoroutineRunner, running_loop
from sidestage.pristine.waits import Deadline

WAIT = 10.0  # seconds at most for what comes at once
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
def runner() -> Iterator[CoroutineRunner]:
    runner = CoroutineRunner(None)
    yield runner
    runner.close(Deadline(1.0))


class Outcome:
    """What a submitted coroutine has come to."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._task: asyncio.Future[Any] | None = None

    def __call__(self, task: asyncio.Future[Any]) -> None:
        self._task = task
        self._done.set()

    def result(self) -> Any:
        assert self._done.wait(WAIT)
        assert self._task is not None
        return self._task.result()


def submitted(
    runner: CoroutineRunner,
    awaitable: Awaitable[Any],
    context: contextvars.Context | None = None,
) -> Outcome:
    outcome = Outcome()
    runner.submit(awaitable, context or contextvars.copy_context(), outcome)
    return outcome


async def loop_now() -> asyncio.AbstractEventLoop:
    await asyncio.sleep(0)
    return asyncio.get_running_loop()


class TestRunningLoop:
    def test_none(self) -> None:
        assert running_loop() is None

    def test_the_one_that_runs(self) -> None:
        async def main() -> bool:
            return running_loop() is asyncio.get_running_loop()

        assert asyncio.run(main())

    def test_asking_imports_nothing(self) -> None:
        source = """
            import sys
            from sidestage.dispatch import coroutines
            coroutines.running_loop()
            print("asyncio" in sys.modules)
        """
        assert run_script(source) == "False\n"


class TestOnTheCallersLoop:
    def test_they_run_there(self) -> None:
        async def main() -> bool:
            loop = asyncio.get_running_loop()
            outcome = submitted(CoroutineRunner(loop), loop_now())
            return await asyncio.to_thread(outcome.result) is loop

        assert asyncio.run(main())

    def test_close_leaves_it_alone(self) -> None:
        async def main() -> bool:
            runner = CoroutineRunner(asyncio.get_running_loop())
            runner.close(Deadline(1.0))
            await asyncio.sleep(0)
            return asyncio.get_running_loop().is_running()

        assert asyncio.run(main())

    @pytest.mark.filterwarnings("error")
    def test_one_that_is_closed_is_an_error_and_nothing_else(self) -> None:
        loop = asyncio.new_event_loop()
        loop.close()
        with pytest.raises(RuntimeError, match="closed"):
            submitted(CoroutineRunner(loop), loop_now())
        gc.collect()  # no coroutine that was never awaited


class TestOnASeparateLoop:
    def test_they_all_run_on_one(self, runner: CoroutineRunner) -> None:
        outcomes = [submitted(runner, loop_now()) for _ in range(5)]
        assert len({outcome.result() for outcome in outcomes}) == 1

    def test_they_run_in_their_context(self, runner: CoroutineRunner) -> None:
        async def coroutine() -> str:
            await asyncio.sleep(0)
            return variable.get()

        context = contextvars.copy_context()
        context.run(variable.set, "its own")
        assert submitted(runner, coroutine(), context).result() == "its own"

    def test_they_run_concurrently(self, runner: CoroutineRunner) -> None:
        together = asyncio.Barrier(3)

        async def meet() -> int:
            return await together.wait()

        outcomes = [submitted(runner, meet()) for _ in range(3)]
        assert {outcome.result() for outcome in outcomes} == {0, 1, 2}

    def test_what_they_raise_is_raised_again(self, runner: CoroutineRunner) -> None:
        async def fail() -> None:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            submitted(runner, fail()).result()

    @pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
    def test_what_leaves_asyncio_s_loop_leaves_the_others_alone(
        self, runner: CoroutineRunner, kind: type[BaseException]
    ) -> None:
        """asyncio raises SystemExit and KeyboardInterrupt out of its loop, too."""

        async def fail() -> None:
            await asyncio.sleep(0)
            raise kind("wrong")

        async def work(begun: asyncio.Event, go_on: asyncio.Event) -> str:
            begun.set()
            await go_on.wait()
            return "done"

        begun, go_on = asyncio.Event(), asyncio.Event()
        waits = submitted(runner, work(begun, go_on))
        assert submitted(runner, begun.wait()).result()
        with pytest.raises(kind, match="wrong"):
            submitted(runner, fail()).result()
        runner.call(go_on.set)
        assert waits.result() == "done"

    def test_any_awaitable_is_accepted(self, runner: CoroutineRunner) -> None:
        class Patience:
            def __await__(self) -> Generator[None, None, str]:
                yield
                return "awaited"

        assert submitted(runner, Patience()).result() == "awaited"

    def test_none_starts_no_thread(self) -> None:
        before = threading.active_count()
        CoroutineRunner(None).close(Deadline(1.0))
        assert threading.active_count() == before


class TestClose:
    def test_cancels_what_still_runs(self) -> None:
        runner, cancelled = CoroutineRunner(None), threading.Event()
        started = threading.Event()

        async def forever() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        outcome = submitted(runner, forever())
        assert started.wait(WAIT)
        runner.close(Deadline(1.0))
        assert cancelled.is_set()
        with pytest.raises(asyncio.CancelledError):
            outcome.result()

    def test_twice(self, runner: CoroutineRunner) -> None:
        submitted(runner, loop_now()).result()
        runner.close(Deadline(1.0))
        runner.close(Deadline(1.0))

    def test_from_a_coroutine_of_its_own(self, runner: CoroutineRunner) -> None:
        async def close() -> str:
            runner.close(Deadline(1.0))
            return "closed"

        assert submitted(runner, close()).result() == "closed"

    def test_a_coroutine_that_blocks_the_loop_is_abandoned(self) -> None:
        runner, entered, go_on = CoroutineRunner(None), threading.Event(), threading.Event()

        async def block() -> None:
            entered.set()
            go_on.wait()

        outcome = submitted(runner, block())
        assert entered.wait(WAIT)
        runner.close(Deadline(0.05))
        go_on.set()
        outcome.result()

    @pytest.mark.filterwarnings("error")
    def test_nothing_is_submitted_afterwards(self, runner: CoroutineRunner) -> None:
        submitted(runner, loop_now()).result()
        runner.close(Deadline(1.0))
        with pytest.raises(RuntimeError):
            submitted(runner, loop_now())
        gc.collect()


def test_a_server_reports_that_its_loop_is_closed() -> None:
    async def handler(request: Any) -> str:
        return "never"

    async def start() -> HTTPServer:
        return HTTPServer(handler=handler).start()

    server = asyncio.run(start())
    with pytest.raises(Exception, match="500"):
        fetch(server.url)
    assert eventually(lambda: len(server.errors) == 1)
    with pytest.raises(RuntimeError, match="closed"):
        server.stop()
    gc.collect()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_handler_that_would_end_the_loop_is_answered(kind: type[BaseException]) -> None:
    async def fail(request: Any) -> str:
        if request.path == "/wrong":
            raise kind("wrong")
        return "right"

    with HTTPServer(handler=fail) as server:
        with pytest.raises(HTTPError, match=f"500: {kind.__name__}: wrong"):
            fetch(f"{server.url}/wrong")
        assert fetch(f"{server.url}/right") == b"right"
        (error,) = server.errors
        assert type(error) is kind
        server.clear()
