"""The test forks, and the copy ends in any way; the original's servers go on."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.runs import run_of
from kit.scripts import eventually, run_python, run_script
from kit.smtp import LONG
from kit.web import fetch
from sidestage import HTTPServer, StateError, TCPServer
from sidestage.dispatch import threads
from sidestage.process import fork_hooks
from sidestage.process.pool import pool


def in_fork(work: Callable[[], Any]) -> int:
    """Run ``work`` in a forked copy that then exits at once; returns its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def server() -> Any:
    with HTTPServer(handler=lambda request: f"pid {os.getpid()}") as server:
        yield server


def test_a_fork_does_not_warn_of_our_threads() -> None:
    """In a new process without pytest-timeout's thread; CPython hides the warning as an error."""
    source = """
        import os, urllib.request, warnings
        from sidestage import HTTPServer
        with HTTPServer(handler=lambda request: "answer") as server:
            urllib.request.urlopen(server.url, timeout=10).close()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                before = list(warnings.filters)
                for _ in range(100):
                    if os.fork() == 0:
                        os._exit(0)
                    os.wait()
                assert caught == [], f"{len(caught)} warnings"
                assert warnings.filters == before
            urllib.request.urlopen(server.url, timeout=10).close()
    """
    assert run_script(source) == ""


@pytest.mark.parametrize(
    "work",
    [
        lambda server: server.stop(),
        lambda server: server.__exit__(None, None, None),
        lambda server: server.__del__(),
        lambda server: server.received,
        lambda server: repr(server),
    ],
    ids=["stop", "exit", "del", "received", "repr"],
)
def test_what_a_copy_does_to_a_server_does_nothing(
    server: HTTPServer, work: Callable[[HTTPServer], Any]
) -> None:
    pid = server.pid
    assert in_fork(lambda: work(server)) == 0
    assert fetch(server.url)
    assert server.pid == pid


def test_a_copy_cannot_start_the_originals_server() -> None:
    server = TCPServer()

    def work() -> None:
        with pytest.raises(StateError, match="forked copy"):
            server.start()

    assert in_fork(work) == 0


def test_a_copy_may_use_the_server_as_a_client(server: HTTPServer) -> None:
    parent = os.getpid()

    def work() -> None:
        assert fetch(server.url) == f"pid {parent}".encode()

    assert in_fork(work) == 0
    assert len(server.received) == 1


def test_a_copy_may_have_a_server_of_its_own(server: HTTPServer) -> None:
    def work() -> None:
        with HTTPServer(handler=lambda request: f"pid {os.getpid()}") as own:
            assert fetch(own.url) == f"pid {os.getpid()}".encode()

    assert in_fork(work) == 0
    assert fetch(server.url)


def test_a_handler_may_fork() -> None:
    with HTTPServer(handler=lambda request: str(in_fork(lambda: None))) as server:
        assert fetch(server.url) == b"0"
        assert fetch(server.url) == b"0"


def test_a_fork_while_another_thread_waits(server: HTTPServer) -> None:
    recording = TCPServer().start()
    came: list[int] = []
    waiting = threading.Thread(target=lambda: came.append(len(recording.wait_for(1, timeout=30))))
    waiting.start()
    assert eventually(run_of(recording).reader._reading.locked)
    with warnings.catch_warnings():  # the thread that waits is the test's own
        warnings.simplefilter("ignore", DeprecationWarning)
        assert in_fork(lambda: None) == 0
    socket.create_connection(recording.server_address).close()
    waiting.join()
    recording.stop()
    assert came == [1]
    assert fetch(server.url)


def test_a_stop_ends_at_once_though_a_copy_lives(server: HTTPServer) -> None:
    pid = os.fork()
    if pid == 0:
        signal.pause()
    try:
        report = server.stop()
        assert report.rung == "ask"
        assert report.seconds < 1
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


EXITS = {
    "return": "pass",
    "sys.exit": "sys.exit(0)",
    "os._exit": "os._exit(0)",
    "exception": "raise RuntimeError('expected')",
}


@pytest.mark.parametrize("leave", EXITS.values(), ids=EXITS)
def test_a_copy_leaves_and_the_server_stays(leave: str) -> None:
    """The copy runs its exit handlers and destructors, including multiprocess's."""
    source = f"""
        import os, sys, urllib.request
        from sidestage import HTTPServer
        def main():
            with HTTPServer(handler=lambda request: "alive") as server:
                pid = os.fork()
                if pid == 0:
                    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                    {leave}
                    return
                os.waitpid(pid, 0)
                print(urllib.request.urlopen(server.url, timeout=10).read().decode())
        main()
    """
    assert run_script(source, "-W", "error") == "alive\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("tool", ["multiprocessing", "multiprocess"])
def test_worker_processes_are_clients(tool: str, method: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
            import os, urllib.request
            import {tool} as tool
            from sidestage import HTTPServer

            def fetch(url):
                return urllib.request.urlopen(url, timeout=10).read().decode()

            if __name__ == "__main__":
                context = tool.get_context({method!r})
                with HTTPServer(handler=lambda request: str(os.getpid())) as server:
                    with context.Pool(2) as workers:
                        assert workers.map(fetch, [server.url] * 4) == [str(os.getpid())] * 4
                        workers.close()
                        workers.join()
                    assert server.stop().rung == "ask"
        """)
    )
    assert run_python("-W", "error", str(script)) == ""


class _Member:
    def park(self) -> None: ...

    def resume(self) -> None: ...

    def wait_for_threads(self) -> None: ...

    def forget_all(self) -> None: ...


def test_a_registry_can_be_iterated_while_another_thread_adds_to_it() -> None:
    registry, kept = fork_hooks.Registry(), [_Member(), _Member()]
    registry.add(kept[0])
    seen = []
    for member in registry:
        seen.append(member)
        registry.add(kept[1])
    assert seen == kept[:1]
    assert list(registry) == kept


def test_members_that_are_discarded_or_collected_are_forgotten() -> None:
    registry, kept, discarded = fork_hooks.Registry(), _Member(), _Member()
    for member in (kept, discarded, _Member()):
        registry.add(member)
    del member
    registry.discard(discarded)
    assert list(registry) == [kept]
    registry.clear()
    assert list(registry) == []


def polls(kind: str = "eventpoll") -> int:
    """How many instances of epoll this process has, or descriptors of another kind."""
    links = [str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    return sum(kind in link for link in links)


def kept_gates() -> int:
    """How many of them idle processes keep for handlers."""
    return sum(process.gate is not None for process in pool.processes())


@pytest.mark.skipif(sys.platform != "linux", reason="looks for instances of epoll")
@pytest.mark.parametrize("kind", ["gate", "loop"])
def test_a_fork_while_descriptors_are_made_has_them_all(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread makes them: the fork waits until the run knows of them."""
    making, forking = threading.Event(), threading.Event()
    module, name = (threads, "make_gate") if kind == "gate" else (asyncio, "new_event_loop")
    make = getattr(module, name)

    def slowly(*arguments: Any) -> Any:
        made = make(*arguments)
        making.set()
        forking.wait(0.2)  # the fork has begun, and cannot go on
        return made

    async def answer(request: Any) -> str:
        return "fine"

    def fork() -> None:
        making.wait(LONG)
        timer = threading.Timer(0.05, forking.set)
        timer.start()
        left.append(in_fork(lambda: os._exit(polls())))
        timer.join()

    left: list[int] = []
    with HTTPServer(fresh=True) as server:
        before = polls() - kept_gates()
        monkeypatch.setattr(module, name, slowly)
        forker = threading.Thread(target=fork)
        forker.start()
        server.handler = answer
        assert fetch(server.url) == b"fine"
        forker.join()
    assert left == [before]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for instances of epoll")
def test_a_copy_closes_what_idle_processes_keep_for_handlers() -> None:
    with HTTPServer(handler=lambda request: "fine") as server:
        assert fetch(server.url) == b"fine"
    assert kept_gates()
    for kind in ("eventpoll", "eventfd"):
        assert in_fork(lambda kind=kind: os._exit(polls(kind))) == polls(kind) - kept_gates()
