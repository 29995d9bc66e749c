"""A fork waits for threads that end by themselves, not for those of handlers."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from kit.runs import run_of
from kit.scripts import eventually, run_script
from sidestage import HTTPServer, TCPServer
from sidestage.dispatch import stacks
from sidestage.pristine.waits import Wakeup

NEVER = 1000.0  # seconds


@pytest.fixture
def handler_thread() -> Any:
    """The thread of a handler that blocks."""
    entered, leave = threading.Event(), threading.Event()
    threads: list[int] = []

    def handler(connection: Any) -> None:
        threads.append(threading.get_ident())
        entered.set()
        leave.wait()

    with TCPServer(handler=handler) as server:
        with socket.create_connection(server.server_address):
            assert entered.wait(10)
            yield threads[0]
            leave.set()


def test_a_thread_in_a_handler_is_the_tests(handler_thread: int) -> None:
    assert not stacks.is_ours(handler_thread)


def test_a_thread_that_waits_for_requests_is_ours() -> None:
    with HTTPServer(handler=lambda request: "hello") as server:
        threads = run_of(server).threads._threads
        assert eventually(lambda: bool(threads))
        assert all(stacks.is_ours(thread) for thread in threads)


def test_a_thread_without_a_stack_is_about_to_end() -> None:
    assert stacks.is_ours(None)
    assert stacks.is_ours(-1)


def test_a_handler_is_not_waited_for(handler_thread: int) -> None:
    stacks.let_end(lambda: [handler_thread], Wakeup(), seconds=NEVER)


def test_the_wait_for_a_thread_that_does_not_end_is_limited() -> None:
    stacks.let_end(lambda: [None], Wakeup(), seconds=0.05)


def test_a_slow_thread_is_waited_for() -> None:
    """As on a busy machine, where even a short step may take long."""
    source = """
        import functools, os, urllib.request
        from sidestage import HTTPServer
        from sidestage.dispatch import stacks
        stacks.let_end = functools.partial(stacks.let_end, moment=0.0)
        threads = []  # of this process at each fork, seen by a hook that runs after ours
        os.register_at_fork(before=lambda: threads.append(len(os.listdir("/proc/self/task"))))
        async def handler(request):
            return "answer"
        with HTTPServer(handler=handler) as server:
            for _ in range(100):
                urllib.request.urlopen(server.url, timeout=10).close()
                if os.fork() == 0:
                    os._exit(0)
                os.wait()
        print(set(threads))
    """
    assert run_script(source) == "{1}\n"
