"""The test forks, and the copies do what copies do; the servers stay the original's.

A copy may use them as any client can. Nothing else that it does, leaves undone or keeps open
reaches them: not its stop, its exit or its long life. Nor does a fork warn of threads that the
test has not started itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from kit.forks import (
    assert_echo,
    echo,
    extend_end_limit,
    keep_no_processes,
    lasting_copy,
    reap,
    run_and_exit,
    run_in_copy,
    served,
    stop_cleanly,
    use_own_server,
)
from kit.matrix import Rows
from kit.processes import raised
from kit.scripts import all_gone, eventually
from kit.servers import ServerUnderTest, Sidestage, fetch, refuses

rows = Rows("Forking", __file__)


# What a copy does --------------------------------------------------------------------------------


@rows.add("a copy is a client", "-W", "error")
def a_copy_is_a_client(sut: ServerUnderTest) -> None:
    seen: list[str] = []

    def answer(path: str) -> str:
        seen.append(path)
        return path

    with served(sut, answer):
        run_in_copy(lambda: fetch(sut.port, "/copy"))
        assert seen == ["/copy"]  # the handler ran here
        sut.wait_for(1)


@rows.add("a copy calls stop", "-W", "error")
def a_copy_calls_stop(sut: ServerUnderTest) -> None:
    with served(sut):
        run_in_copy(lambda: (sut.stop(), sut.stop()))


@rows.add("a copy calls stop after a handler has failed", "-W", "error", peers=False)
def a_copy_calls_stop_after_an_error(sut: Sidestage) -> None:
    def fail(path: str) -> str:
        raise RuntimeError("on purpose")

    sut.start(fail)
    with suppress(AssertionError):
        fetch(sut.port)
    run_in_copy(lambda: sut.stop())  # the error is the original's to raise
    raised(RuntimeError, sut.stop)


@rows.add("a copy calls start and restart", "-W", "error", peers=False)
def a_copy_calls_start(sut: Sidestage) -> None:
    from sidestage import StateError

    def refuse() -> None:
        server = sut.server
        for call in (server.start, server.restart, lambda: server.stop() and server.start()):
            assert "forked copy" in str(raised(StateError, call))

    with served(sut):
        run_in_copy(refuse)


@rows.add("a copy looks at the server", "-W", "error", peers=False)
def a_copy_looks(sut: Sidestage) -> None:
    from sidestage import WaitTimeout

    def look() -> None:
        server = sut.server
        assert [request.path for request in server.received] == ["/before"]
        assert [request.path for request in server.wait_for(1)] == ["/before"]
        assert "forked copy" in str(raised(WaitTimeout, lambda: server.wait_for(2, timeout=60)))
        assert str(server.pid) in repr(server)
        assert server.url.endswith(str(server.port))
        assert server.errors == ()

    with served(sut):
        fetch(sut.port, "/before")
        run_in_copy(look)


@rows.add("a copy has a server of its own", "-W", "error")
def a_copy_has_its_own(sut: ServerUnderTest) -> None:
    with served(sut):
        run_in_copy(lambda: (use_own_server(sut), fetch(sut.port), use_own_server(sut)))


@rows.add("a copy of a copy does all that", "-W", "error")
def a_copy_of_a_copy(sut: ServerUnderTest) -> None:
    def all_that(server: ServerUnderTest) -> None:
        assert_echo(server.port, "/copy")
        server.stop()
        use_own_server(server)

    def with_its_own() -> None:
        own = type(sut)()
        with served(own):
            run_in_copy(lambda: (all_that(sut), all_that(own)))
        all_that(sut)

    with served(sut):
        run_in_copy(with_its_own)
        pid = os.fork()
        if pid == 0:
            inner = os.fork()
            if inner:
                reap(inner)
            return
        reap(pid)


@rows.add("copies have servers before the original has one", peers=False)
def copies_before_the_first_start(sut: Sidestage) -> None:
    """The process that pytest's plugin keeps ready is for one of them at most."""
    Path("test_it.py").write_text(_WORKERS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


_WORKERS = """
import os
from urllib.request import urlopen
from sidestage import HTTPServer

def serve(writer, go_on):
    with HTTPServer(handler=lambda request: str(os.getpid())) as server:
        os.write(writer, server.pid.to_bytes(4, "big"))
        os.read(go_on, 1)
        with urlopen(server.url, timeout=5) as reply:
            assert int(reply.read()) == os.getpid()

def test_two_copies():
    reader, writer = os.pipe()
    go_on, go = os.pipe()
    copies = []
    for _ in range(2):
        copies.append(os.fork())
        if copies[-1] == 0:
            status = 1
            try:
                os.close(go)
                serve(writer, go_on)
                status = 0
            finally:
                os._exit(status)
    servers = {os.read(reader, 4) for _ in copies}
    os.close(go)
    assert [os.waitpid(copy, 0)[1] for copy in copies] == [0, 0]
    assert len(servers) == 2
    for fd in (reader, writer, go_on):
        os.close(fd)

def test_the_original(http_server):
    with urlopen(http_server.url, timeout=5):
        pass
"""


# One outlives the other --------------------------------------------------------------------------


class _Owner:
    """A process that has servers, and a copy that lives on."""

    def __init__(self, sut: ServerUnderTest, *, stops: bool = False) -> None:
        said, say = os.pipe()
        until, self._go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._go)
            self._be(sut, say, until, stops=stops)
        os.close(until)
        os.close(say)
        with os.fdopen(said) as file:
            self.port, self.copy = json.loads(file.readline())
        family = psutil.Process(self.pid).children()
        self.servers = [process.pid for process in family if process.pid != self.copy]

    def _be(self, sut: ServerUnderTest, say: int, until: int, *, stops: bool) -> None:
        extend_end_limit(sut)
        other = type(sut)()
        for server in (other, sut):
            server.start(echo)
        other.stop()  # its process waits for the next start
        copy = os.fork()
        if copy == 0:
            os.close(say)
            run_and_exit(signal.pause)
        os.write(say, json.dumps([sut.port, copy]).encode() + b"\n")
        os.read(until, 1)
        if stops:
            sut.stop()
        else:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # for the warning that nobody did
        sys.exit()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing of its servers is there a second later, and the copy still is."""
        try:
            if error[0] is None:
                assert eventually(lambda: refuses(self.port), 1.0), "the port is still open"
                assert all_gone(self.servers), "the server's process is left"
        finally:
            os.kill(self.copy, signal.SIGKILL)  # fails if it is not

    def leave(self) -> None:
        """It leaves, and does not wait for its copy."""
        os.close(self._go)
        reap(self.pid)

    def kill(self) -> None:
        """It is killed."""
        os.kill(self.pid, signal.SIGKILL)
        reap(self.pid, -signal.SIGKILL)


@rows.add("a copy outlives the test, which is killed", "-W", "error")
def a_copy_outlives_the_killed(sut: ServerUnderTest) -> None:
    with _Owner(sut) as owner:
        owner.kill()


@rows.add("a copy outlives the test, which has stopped the server", "-W", "error")
def a_copy_outlives_the_orderly(sut: ServerUnderTest) -> None:
    with _Owner(sut, stops=True) as owner:
        owner.leave()


@rows.add("a copy outlives the test, which just ends", "-W", "error")
def a_copy_outlives_the_careless(sut: ServerUnderTest) -> None:
    with _Owner(sut) as owner:
        owner.leave()


@rows.add("a copy outlives the stop", "-W", "error")
def a_copy_outlives_the_stop(sut: ServerUnderTest) -> None:
    keep_no_processes(sut)
    sut.start(echo)
    with lasting_copy():
        assert_echo(sut.port, "/after")
        stop_cleanly(sut)


@rows.add("a copy of a copy outlives the stop", "-W", "error")
def a_copy_of_a_copy_outlives_the_stop(sut: ServerUnderTest) -> None:
    keep_no_processes(sut)
    reader, writer = os.pipe()
    sut.start(echo)

    def outlive() -> None:
        os.write(writer, b"%d" % os.getpid())
        signal.pause()

    run_in_copy(lambda: os.fork() or run_and_exit(outlive))
    inner = int(os.read(reader, 20))
    try:
        assert_echo(sut.port, "/after")
        stop_cleanly(sut)
    finally:
        os.kill(inner, signal.SIGKILL)


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
