"""Forks by other means: pty, subprocess, and the workers of multiprocessing."""

from __future__ import annotations

import atexit
import importlib
import os
import pty
import signal
import socket
import subprocess
import sys
import warnings
from functools import partial

from kit.forks import (
    SlowHandler,
    assert_echo,
    echo,
    keep_no_processes,
    reap,
    run_and_exit,
    run_in_copy,
    served,
    stop_cleanly,
    use_own_server,
)
from kit.matrix import Rows
from kit.servers import ServerUnderTest, fetch, refuses

rows = Rows("Forking", __file__)


# Other kinds of forks ----------------------------------------------------------------------------


@rows.add("os.forkpty and pty.fork", "-W", "error")
def forkpty(sut: ServerUnderTest) -> None:
    with served(sut), warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", ".*multi-threaded")
        for fork in (os.forkpty, pty.fork):
            pid, terminal = fork()
            if pid == 0:
                run_and_exit(lambda: fetch(sut.port, "/copy"))
            reap(pid)
            os.close(terminal)
        assert not caught, f"{len(caught)} of 2 forks warn"


@rows.add("a subprocess outlives the stop", "-W", "error")
def a_subprocess_outlives_the_stop(sut: ServerUnderTest) -> None:
    keep_no_processes(sut)
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    command = ["/bin/sh", "-c", f"read line <&{read_end}"]
    try:
        with served(sut):
            processes = [
                subprocess.Popen(command, close_fds=False, preexec_fn=work)  # noqa: PLW1509 - meant
                for work in (None, lambda: None)
            ]
            spawned = os.posix_spawn(command[0], command, dict(os.environ))
            spawned_by_number = os.spawnv(os.P_NOWAIT, command[0], command)
    finally:
        os.close(write_end)
    for process in processes:
        process.wait()
    for pid in (spawned, spawned_by_number):
        os.waitpid(pid, 0)


@rows.add("an inheritable listener of the test's closes", "-W", "error")
def an_inheritable_listener(sut: ServerUnderTest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        port = listener.getsockname()[1]
        sut.start(echo)
    assert refuses(port)
    stop_cleanly(sut)


# Workers -----------------------------------------------------------------------------------------


def _workers(tool: str, method: str, sut: ServerUnderTest) -> None:
    """Some workers start before the server, and all outlive it."""
    keep_no_processes(sut)
    context = importlib.import_module(tool).get_context(method)
    with context.Pool(1) as early:
        early.apply(int)  # is up
        sut.start(echo)
        with context.Pool(1) as late:
            for pool in (early, late):
                pool.starmap(assert_echo, [(sut.port, f"/{number}") for number in range(4)])
            assert_echo(sut.port, "/after")
            stop_cleanly(sut)
            for pool in (late, early):
                pool.close()
                pool.join()


def _executor(method: str, sut: ServerUnderTest) -> None:
    keep_no_processes(sut)
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, context) as early, ProcessPoolExecutor(1, context) as late:
        early.submit(int).result()  # is up; the other one is not before it gets work
        with served(sut):
            done = [
                executor.submit(assert_echo, sut.port, f"/{number}")
                for executor in (early, late)
                for number in range(4)
            ]
            for future in done:
                future.result()


for _method in ("fork", "forkserver", "spawn"):
    for _tool in ("multiprocessing", "multiprocess"):
        rows.add(f"{_tool} workers, by {_method}", "-W", "error")(partial(_workers, _tool, _method))
    rows.add(f"ProcessPoolExecutor, by {_method}", "-W", "error")(partial(_executor, _method))


@rows.add("a worker is terminated during its request", "-W", "error")
def a_terminated_worker(sut: ServerUnderTest) -> None:
    from multiprocessing import get_context

    slow = SlowHandler()
    with served(sut, slow):
        worker = get_context("fork").Process(target=fetch, args=(sut.port, "/slow"))
        worker.start()
        assert slow.entered.wait(10)
        worker.terminate()
        worker.join()
        slow.release.set()


@rows.add("a daemon worker is left at the end", "-W", "error")
def a_daemon_worker(sut: ServerUnderTest) -> None:
    from multiprocessing import get_context

    keep_no_processes(sut)
    with served(sut):
        get_context("fork").Process(target=signal.pause, daemon=True).start()


@rows.add("a worker is left at the end", "-W", "error")
def a_left_worker(sut: ServerUnderTest) -> None:
    """The interpreter's exit waits for it, and handlers answer it until then."""

    def stop() -> None:
        assert worker.exitcode == 0
        stop_cleanly(sut)

    assert "multiprocessing.util" not in sys.modules
    atexit.register(stop)  # so that it runs after multiprocessing has waited for the worker
    from multiprocessing import get_context

    sut.start(echo)
    ended, end = os.pipe()
    worker = get_context("fork").Process(target=_ask_at_the_end, args=(sut.port, ended, end))
    worker.start()
    atexit.register(os.close, end)  # so that it runs first


def _ask_at_the_end(port: int, ended: int, end: int) -> None:
    os.close(end)
    os.read(ended, 1)
    assert_echo(port, "/at-the-end")


@rows.add("no resource tracker", "-W", "error")
def no_resource_tracker(sut: ServerUnderTest) -> None:
    with served(sut):
        run_in_copy(lambda: use_own_server(sut))
    for tool in ("multiprocessing", "multiprocess"):
        tracker = importlib.import_module(f"{tool}.resource_tracker")
        assert tracker._resource_tracker._pid is None


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
