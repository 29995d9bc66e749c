"""Processes forked from a running one are children of this process, or there are none."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kit.resources import own_descriptors
from kit.scripts import all_gone, background, eventually, gone, run_script
from sidestage import HTTPServer, ServerManager, SMTPServer, TCPServer, UDPServer
from sidestage.pristine import waits
from sidestage.pristine.waits import Deadline
from sidestage.process import fork_client
from sidestage.process.fork_client import ForkClient
from sidestage.process.handle import ServerProcess
from sidestage.process.launch import Launched
from sidestage.process.pool import Pool, end


@pytest.fixture
def client() -> Iterator[ForkClient]:
    """A client of a fork server; it must close all its descriptors."""
    before = own_descriptors()
    client = ForkClient()
    yield client
    client.close()
    assert own_descriptors() == before


def forked(client: ForkClient) -> Launched:
    """Fork a process, which must be possible here."""
    launched = client.fork()
    assert launched is not None
    return launched


def pid_of(client: ForkClient) -> int:
    assert client.process is not None
    return client.process.launched.pid


class TestWhatIsForked:
    def test_is_a_child_of_this_process_in_its_own_group(self, client: ForkClient) -> None:
        process = ServerProcess(forked(client))
        pid = process.launched.pid
        assert psutil.Process(pid).ppid() == os.getpid()
        assert process.wait(Deadline(0)) is False
        assert eventually(lambda: os.getpgid(pid) == pid)
        assert os.getsid(pid) == os.getsid(0)
        ServerProcess.end_all([process], 10)
        assert process.exit_code == 0

    def test_two_are_two(self, client: ForkClient) -> None:
        one, other = forked(client), forked(client)
        assert len({one.pid, other.pid, pid_of(client)}) == 3
        one.abandon()
        other.abandon()

    def test_it_has_nothing_of_the_others(self, client: ForkClient) -> None:
        one, other = forked(client), forked(client)
        assert os.read(other.events_fd, 4)  # it is up
        theirs = {path.readlink() for path in Path(f"/proc/{other.pid}/fd").iterdir()}
        assert client.process is not None
        others = [
            fd
            for held in (one, client.process.launched)
            for fd in (held.events_fd, held.commands_fd)
        ]
        assert not theirs & {Path(f"/proc/self/fd/{fd}").readlink() for fd in others}
        one.abandon()
        other.abandon()

    def test_its_stderr_is_its_own(self, client: ForkClient) -> None:
        one, other = forked(client), forked(client)
        processes = [ServerProcess(launched) for launched in (one, other)]
        assert all(os.read(launched.events_fd, 4) for launched in (one, other))  # they are up
        os.kill(one.pid, signal.SIGUSR1)  # it writes its stack
        assert eventually(lambda: "Current thread" in processes[0].stderr_tail())
        assert processes[1].stderr_tail() == ""
        ServerProcess.end_all(processes, 10)


class TestRefusals:
    def test_one_that_was_killed(self, client: ForkClient) -> None:
        forked(client).abandon()
        os.kill(pid_of(client), signal.SIGKILL)
        assert client.fork() is None
        forked(client).abandon()  # another has taken its place

    def test_one_that_does_not_answer(self) -> None:
        """The answer comes after the time-out, or never."""
        client = ForkClient(answer_seconds=0.1)
        before = {process.pid for process in psutil.Process().children()}
        client._boot()
        pid = pid_of(client)
        os.kill(pid, signal.SIGSTOP)
        assert client.fork() is None
        assert gone(pid)
        assert {process.pid for process in psutil.Process().children()} == before

    def test_one_whose_end_is_interrupted_too(
        self, client: ForkClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It has answered, perhaps: whoever asks next would take that for the own answer."""
        before = {process.pid for process in psutil.Process().children()}
        forked(client).abandon()

        def interrupted(*_: object) -> bool:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(waits, "poll_fd", interrupted)
            with pytest.raises(KeyboardInterrupt):
                client.fork()
        assert client.process is None
        forked(client).abandon()
        client.close()
        assert eventually(
            lambda: {process.pid for process in psutil.Process().children()} == before
        )

    @pytest.mark.parametrize("stopped", [False, True])
    def test_one_that_was_killed_between_the_fork_and_its_answer(
        self, client: ForkClient, stopped: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody is told the pid of what it has forked, which is a child of this process."""
        before = {process.pid for process in psutil.Process().children()}
        client._boot()
        server = pid_of(client)
        forked(client).abandon()  # it is up
        assert client.process is not None
        events = client.process.launched.events_fd
        held_up = _fill(events)  # so it waits with its answer
        hear = client._hear

        def killed(deadline: Deadline) -> bool:
            def orphans() -> set[int]:
                return {process.pid for process in psutil.Process().children()} - before - {server}

            assert eventually(lambda: bool(orphans()))
            (orphan,) = orphans()
            if stopped:
                os.kill(orphan, signal.SIGSTOP)
            os.kill(server, signal.SIGKILL)
            assert all_gone([server])
            assert os.read(events, held_up) == bytes(held_up)
            monkeypatch.setattr(client, "_hear", hear)
            return hear(deadline)

        monkeypatch.setattr(client, "_hear", killed)
        assert client.fork() is None
        assert {process.pid for process in psutil.Process().children()} == before

    def test_one_of_another_session_is_replaced(self) -> None:
        """What it forks could not get a group of its own."""
        run_script("""
            import os
            from sidestage.process.fork_client import ForkClient
            if pid := os.fork():
                os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            client = ForkClient()
            client.fork().abandon()
            os.setsid()
            assert client.fork() is None
            client.fork().abandon()
            client.close()
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                os._exit(0)
        """)

    def test_an_answer_that_was_not_read(self, client: ForkClient) -> None:
        forked(client).abandon()
        assert client.process is not None
        before = {process.pid for process in psutil.Process().children()}
        reader, writer = os.pipe()
        os.write(client.process.launched.commands_fd, b"tcp %d %d %d\n" % (reader, writer, writer))
        events = client.process.launched.events_fd
        assert eventually(lambda: _has_more(events))
        assert len({process.pid for process in psutil.Process().children()} - before) == 1
        client.kill()
        os.close(reader)
        os.close(writer)
        assert {process.pid for process in psutil.Process().children()} < before

    def test_where_none_can_be_forked_none_is_kept_for_it(
        self, client: ForkClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client, "_impossible", True)
        assert client.fork() is None
        assert client.process is None

    def test_a_request_that_cannot_be_met(self, client: ForkClient) -> None:
        client._boot()
        with pytest.raises(fork_client._Refusal) as caught:
            client._ask("tcp", 999999, 999999, 999999)
        assert caught.value.lasting

    def test_ctrl_c_while_it_forks(
        self, client: ForkClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The process that it forks then would have no owner."""

        def interrupted(deadline: Deadline) -> bool:
            raise KeyboardInterrupt

        before = {process.pid for process in psutil.Process().children()}
        client._boot()
        hear = client._hear
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(
                client,
                "_hear",
                lambda deadline: (hear if deadline.passed() else interrupted)(deadline),
            )
            client.fork()
        assert client.process is None
        assert {process.pid for process in psutil.Process().children()} == before


def _fill(reader: int) -> int:
    """Fill a pipe; returns the number of bytes."""
    writer = os.open(f"/proc/self/fd/{reader}", os.O_WRONLY | os.O_NONBLOCK)
    count = 0
    try:
        while True:
            count += os.write(writer, bytes(1 << 16))
    except BlockingIOError:
        return count
    finally:
        os.close(writer)


def _has_more(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


class TestInThePool:
    def test_the_first_is_an_interpreter_and_the_second_is_forked(self) -> None:
        pool = Pool()
        first = pool.acquire()
        assert pool.processes() == []
        second = pool.acquire()
        (original,) = pool.processes()
        assert second.process.launched.pid != original.launched.pid
        end([first, second])
        pool.close()
        assert gone(original.launched.pid)

    def test_where_none_can_be_forked_interpreters_boot(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ForkClient, "fork", lambda self, *_: None)
        pool = Pool()
        children = [pool.acquire() for _ in range(2)]
        assert pool.processes() == []
        assert all(child.channel.poll(Deadline(30)) for child in children)  # they are up
        end(children)

    def test_without_a_pool_nothing_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SIDESTAGE_POOL", "0")
        pool = Pool()
        children = [pool.acquire() for _ in range(2)]
        assert pool.processes() == []
        end(children)

    def test_all_four_servers_serve_from_it(self) -> None:
        servers = {
            kind.__name__: kind(fresh=True)
            for kind in (HTTPServer, SMTPServer, TCPServer, UDPServer)
        }
        with ServerManager(servers) as manager:
            assert len({server.pid for server in manager.values()}) == 4
            assert all(server.stats().threads == 2 for server in manager.values())

    def test_nothing_is_left_when_the_test_exits(self) -> None:
        source = """
            from sidestage import HTTPServer
            from sidestage.process.pool import pool
            servers = [HTTPServer(fresh=True).start() for _ in range(3)]
            print(*[server.pid for server in servers])
            print(*[process.launched.pid for process in pool.processes()])
            for server in servers:
                server.stop()
        """
        pids = [int(word) for word in run_script(source).split()]
        assert len(pids) == 4
        assert all_gone(pids)

    def test_nothing_is_left_when_the_test_is_killed(self) -> None:
        source = """
            import threading
            from sidestage import HTTPServer
            from sidestage.process.pool import pool
            servers = [HTTPServer(fresh=True).start() for _ in range(3)]
            kept = [process.launched.pid for process in pool.processes()]
            print(*[server.pid for server in servers], *kept, flush=True)
            threading.Event().wait()
        """
        with background(source) as process:
            assert process.stdout is not None
            pids = [int(word) for word in process.stdout.readline().split()]
            assert len(pids) == 4
            process.kill()
            assert all_gone(pids)

    def test_a_forked_copy_of_the_test_has_none(self) -> None:
        pool = Pool()
        children = [pool.acquire() for _ in range(2)]
        (original,) = pool.processes()
        pid = os.fork()
        if pid == 0:
            pool.forget()
            os._exit(0 if not pool.processes() and not original.descriptors() else 1)
        assert os.waitpid(pid, 0) == (pid, 0)
        assert not original.wait(Deadline(0.02))
        end(children)
        pool.close()
