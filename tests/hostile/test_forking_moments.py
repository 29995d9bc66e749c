"""Forks in the middle of a handler, a request, a start, a stop, an import."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from kit.forks import (
    SlowHandler,
    assert_echo,
    assert_stopped,
    echo,
    keep_no_processes,
    lasting_copy,
    read_body,
    reap,
    run_in_copy,
    send_request,
    served,
    server_pid,
    stop_cleanly,
    use_own_server,
)
from kit.matrix import Rows
from kit.processes import raised
from kit.scripts import eventually
from kit.servers import Clock, ServerUnderTest, Sidestage, fetch

rows = Rows("Forking", __file__)


@rows.add("a fork inside a handler", "-W", "error")
def a_fork_inside_a_handler(sut: ServerUnderTest) -> None:
    def answer(path: str) -> str:
        if path == "/fork":
            run_in_copy(lambda: use_own_server(sut))
        return path

    with served(sut, answer):
        for _ in range(3):
            assert_echo(sut.port, "/fork")


@rows.add("a copy returns from the handler that forked", "-W", "error", limit=10)
def a_copy_returns_from_the_handler(sut: ServerUnderTest) -> None:
    def answer(path: str) -> str:
        if path == "/fork":
            pid = os.fork()
            if pid == 0:
                return "/copy"
            reap(pid)
        return path

    with served(sut, answer):
        assert_echo(sut.port, "/fork")


@rows.add("a fork in a thread", "-W", "error")
def a_fork_in_a_thread(sut: ServerUnderTest) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                run_in_copy(lambda: fetch(sut.port, "/copy"))
            run_in_copy(lambda: use_own_server(sut))
        except BaseException as error:  # noqa: BLE001 - raised below
            failed.append(error)

    with served(sut):
        assert_echo(sut.port, "/before")  # no import may be under way when a copy is made
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            assert_echo(sut.port, "/meanwhile")
        for thread in threads:
            thread.join()
        for error in failed:
            raise error


@rows.add("a fork during a request", "-W", "error")
def a_fork_during_a_request(sut: ServerUnderTest) -> None:
    slow = SlowHandler()
    with served(sut, slow):
        with socket.create_connection(("127.0.0.1", sut.port), timeout=10) as half:
            half.sendall(b"GET /half HTTP/1.1\r\nHost:")
            pid = os.fork()
            if pid == 0:
                sys.exit()
            reap(pid)
            half.sendall(b" x\r\nConnection: close\r\n\r\n")
            assert read_body(half) == "/half"
        client = send_request(sut.port, "/slow")
        assert slow.entered.wait(10)
        with lasting_copy():
            slow.release.set()
            assert read_body(client) == "/slow"


@rows.add("a fork during a stop", "-W", "error")
def a_fork_during_a_stop(sut: ServerUnderTest) -> None:
    keep_no_processes(sut)
    slow = SlowHandler()
    sut.start(slow)
    port = sut.port
    client = send_request(port, "/slow")
    assert slow.entered.wait(10)
    stopping = threading.Thread(target=sut.stop)
    stopping.start()
    if isinstance(sut, Sidestage):
        assert eventually(lambda: not sut.server.ready.is_set())
    with lasting_copy():
        run_in_copy(lambda: use_own_server(sut))
        pid = os.fork()
        if pid == 0:
            client.close()
            sys.exit()
        reap(pid)
        began = Clock.monotonic()
        slow.release.set()
        assert read_body(client) == "/slow"
        stopping.join()
        assert_stopped(sut, port, began)


@rows.add("a fork with processes kept ready", "-W", "error", peers=False)
def a_fork_with_a_full_pool(sut: Sidestage) -> None:
    def started() -> list[Sidestage]:
        servers = [Sidestage() for _ in range(4)]
        for server in servers:
            server.start(echo)
        return servers

    def pids(servers: list[Sidestage]) -> set[int | None]:
        return {server_pid(server) for server in servers}

    def stop(servers: list[Sidestage]) -> None:
        for server in servers:
            stop_cleanly(server)

    first = started()
    kept = pids(first)
    stop(first)
    pid = os.fork()
    if pid == 0:
        own = started()
        assert not kept & pids(own)
        stop(own)
        sys.exit()
    reap(pid)
    with lasting_copy():
        again = started()
        assert pids(again) == kept
        stop(again)


@rows.add("a fork while another thread starts a server", "-W", "error")
def a_fork_during_a_start(sut: ServerUnderTest) -> None:
    keep_no_processes(sut)
    with served(sut):
        for _ in range(5):
            other = type(sut)()
            starting = threading.Thread(target=other.start, args=[echo])
            starting.start()
            with lasting_copy():
                run_in_copy(lambda: fetch(sut.port))
                starting.join()
                assert_echo(other.port, "/other")
                stop_cleanly(other)


class _Import:
    """Blocks another thread in an import until this one has forked or must wait for that."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.reached, self.forked = threading.Event(), threading.Event()
        sys.meta_path.insert(0, self)  # type: ignore[arg-type]

    def find_spec(self, name: str, *_: object) -> None:
        """The method that every import calls."""
        if name == self.name:
            sys.meta_path.remove(self)  # type: ignore[arg-type]
            self.reached.set()
            self.forked.wait(0.3)

    @contextmanager
    def while_starting(self, sut: ServerUnderTest) -> Iterator[None]:
        """Run while another thread starts the server and waits there."""
        keep_no_processes(sut)
        starting = threading.Thread(target=sut.start, args=[echo])
        starting.start()
        assert self.reached.wait(10)
        yield
        self.forked.set()
        starting.join()
        assert_echo(sut.port, "/started")


@rows.add("a fork while another thread launches a process", "-W", "error", peers=False)
def a_fork_during_a_launch(sut: Sidestage) -> None:
    """The launch looks up the search path when its pipes are open already."""
    from sidestage import ServerDied

    with _copy_while(_Import("httptools"), sut):
        os.kill(sut.server.pid, signal.SIGKILL)  # the copy does not keep this from being seen
        raised(ServerDied, lambda: sut.wait_for(2, timeout=5))
        raised(ServerDied, sut.stop)


@rows.add("a fork while another thread's start imports", "-W", "error", peers=False)
def a_fork_during_an_import(sut: Sidestage) -> None:
    with _Import("multiprocess").while_starting(sut):
        run_in_copy(lambda: use_own_server(sut))
    stop_cleanly(sut)


@rows.add("a fork before another thread owns its process", "-W", "error", peers=False)
def a_fork_before_the_process_is_owned(sut: Sidestage) -> None:
    with _copy_while(_Import("multiprocess"), sut):
        stop_cleanly(sut)


@contextmanager
def _copy_while(point: _Import, sut: ServerUnderTest) -> Iterator[None]:
    """A copy made while another thread starts the server, which lives on."""
    with ExitStack() as stack:
        with point.while_starting(sut):
            stack.enter_context(lasting_copy())
        yield


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
