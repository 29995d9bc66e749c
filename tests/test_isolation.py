"""Neither process can harm the other by a crash, a hang or a sudden death."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
import urllib.request
from typing import Any

import psutil
import pytest

from kit.runs import run_of
from kit.scripts import all_gone, background, eventually, run_python, run_script
from sidestage import (
    ForcedStopWarning,
    HTTPServer,
    Server,
    ServerDied,
    SMTPServer,
    State,
    TCPServer,
    UDPServer,
)
from sidestage.process.pool import pool

KINDS: list[type[Server[Any]]] = [HTTPServer, SMTPServer, TCPServer, UDPServer]


def kill(server: Server[Any], number: int = signal.SIGKILL) -> int:
    assert server.pid is not None
    os.kill(server.pid, number)
    return server.pid


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


class TestTheServerDies:
    def test_in_the_middle_of_a_request(self) -> None:
        entered, release = threading.Event(), threading.Event()

        def handler(request: Any) -> None:
            entered.set()
            release.wait()

        server = HTTPServer(handler=handler).start()
        with socket.create_connection(server.server_address) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            entered.wait()
            pid = kill(server)
            with pytest.raises(ConnectionResetError):  # unread data was there, or
                if client.recv(1) == b"":  # nothing was
                    raise ConnectionResetError
        release.set()
        with pytest.raises(ServerDied) as caught:
            server.stop()
        assert (caught.value.signal, caught.value.exit_code, caught.value.pid) == (
            "SIGKILL",
            -9,
            pid,
        )
        assert server.stop_report.rung == "died"

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("handler", [None, lambda request: None])
    def test_the_next_call_raises(self, kind: type[Server[Any]], handler: Any) -> None:
        server = kind(handler=handler).start()
        kill(server)
        with pytest.raises(ServerDied, match="SIGKILL"):
            server.wait_for(1, timeout=10)
        assert server.state is State.FAILED
        with pytest.raises(ServerDied):
            server.stop()

    def test_its_stderr_is_reported(self) -> None:
        server = TCPServer().start()
        kill(server, signal.SIGABRT)
        with pytest.raises(ServerDied, match="Fatal Python error: Aborted") as caught:
            server.stop()
        assert caught.value.signal == "SIGABRT"
        assert "Aborted" in caught.value.stderr

    def test_what_it_had_received_remains(self) -> None:
        server = HTTPServer(handler=lambda request: None).start()
        urllib.request.urlopen(server.url + "/before", timeout=10).close()
        kill(server)
        with pytest.raises(ServerDied):
            server.stop()
        assert [request.path for request in server.received] == ["/before"]

    def test_a_restart_replaces_it(self) -> None:
        with HTTPServer() as server:
            port = server.port
            kill(server)
            with pytest.raises(ServerDied):
                server.restart()
            assert server.port == port
            urllib.request.urlopen(server.url, timeout=10).close()

    def test_and_a_start_replaces_it_without_hiding_the_death(self) -> None:
        server = TCPServer().start()
        kill(server)
        assert eventually(lambda: server.state is State.FAILED)
        server.start()
        assert server.state is State.READY
        with pytest.raises(ServerDied):
            server.stop()

    def test_one_in_the_pool_is_replaced(self) -> None:
        server = TCPServer().start()
        pid = server.pid
        server.stop()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert all_gone([pid])
        with server:
            assert server.pid != pid

    def test_reaped_by_other_code(self) -> None:
        server = TCPServer().start()
        os.waitpid(kill(server), 0)
        with pytest.raises(ServerDied, match="taken by another waiter"):
            server.stop()


class TestTheServerHangs:
    def test_a_stopped_process_is_killed_in_time(self) -> None:
        server = HTTPServer(handler=lambda request: None).start()
        pid = kill(server, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.warns(ForcedStopWarning, match="kill"):
            report = server.stop(1.0)
        assert time.monotonic() - began < 5  # of 1.0
        assert report.rung == "kill"
        assert all_gone([pid])

    def test_its_port_is_free_afterwards(self) -> None:
        server = TCPServer().start()
        kill(server, signal.SIGSTOP)
        with pytest.warns(ForcedStopWarning):
            server.stop(0.2)
        with TCPServer(("127.0.0.1", server.port)):
            pass

    def test_its_socket_file_is_removed(self, tmp_path: Any) -> None:
        path = tmp_path / "socket"
        server = TCPServer(path).start()
        kill(server, signal.SIGSTOP)
        with pytest.warns(ForcedStopWarning):
            server.stop(0.2)
        assert not path.exists()

    def test_what_it_is_asked_while_a_handler_sends_ends_in_time(self) -> None:
        entered, go = threading.Event(), threading.Event()

        def handler(connection: Any) -> None:
            entered.set()
            go.wait()
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"x" * (1 << 20))

        server = TCPServer(handler=handler).start()
        server._sync_seconds = 0.2
        with socket.create_connection(server.server_address):
            entered.wait()
            kill(server, signal.SIGSTOP)
            go.set()
            assert eventually(run_of(server).child.channel._writing.locked)  # the pipe is full
            looks = threading.Thread(target=lambda: server.diagnostics)
            looks.start()
            looks.join(10)
            assert not looks.is_alive()
            with pytest.warns(ForcedStopWarning):
                server.stop(0.5)

    def test_a_handler_that_is_sending_is_released(self) -> None:
        outcome: list[BaseException] = []
        entered = threading.Event()

        def handler(connection: Any) -> None:
            entered.set()
            try:
                while True:
                    connection.sendall(b"x" * 65536)
            except ConnectionError as error:
                outcome.append(error)

        server = TCPServer(handler=handler).start()
        with socket.create_connection(server.server_address):
            entered.wait()
            kill(server, signal.SIGSTOP)
            with pytest.warns(ForcedStopWarning):
                server.stop(0.5)
        assert eventually(lambda: len(outcome) == 1)


HOLDER = """
    import os, threading
    from sidestage import HTTPServer, TCPServer, UDPServer, SMTPServer
    from sidestage.process.pool import pool
    servers = [HTTPServer(), SMTPServer(handler=print), TCPServer(handler=print), UDPServer()]
    for server in servers:
        server.start()
    pool.warm()
    pids = [s.pid for s in servers] + [c.process.launched.pid for c in pool]
    {extra}
    print(*pids, *(s.port for s in servers), flush=True)
    threading.Event().wait()
"""


class TestTheTestDies:
    @pytest.mark.parametrize(
        "extra",
        ["pass", "os.fork() or threading.Event().wait(20)", "os.kill(servers[0].pid, 19)"],
        ids=["alone", "a forked copy lives on", "a server is stopped"],
    )
    def test_nothing_is_left(self, extra: str) -> None:
        with background(HOLDER.format(extra=extra)) as process:
            assert process.stdout is not None
            numbers = [int(number) for number in process.stdout.readline().split()]
            pids, ports = numbers[:5], numbers[5:]
            copies = psutil.Process(process.pid).children()
            process.kill()
            try:
                assert all_gone([pid for pid in pids if "19" not in extra or pid != pids[0]])
                assert all(refused(port) for port in ports[1:3])
            finally:
                for copy in copies:
                    if copy.is_running():
                        copy.kill()

    def test_at_once_in_the_middle_of_a_start(self) -> None:
        source = """
            import os, signal
            from sidestage.process.launch import launch
            print(launch().pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """
        with background(source) as process:
            assert process.stdout is not None
            assert all_gone([int(process.stdout.readline())])


class TestTheServersProcess:
    def test_runs_none_of_the_users_code(self) -> None:
        """A script without a main guard, and whose directory shadows what the child imports."""
        source = """
            import os, sys
            from pathlib import Path
            from sidestage import TCPServer
            print("main runs", flush=True)
            with TCPServer(fresh=True) as server:
                print(len(server.received))
        """
        assert run_script(source) == "main runs\n0\n"

    @pytest.mark.parametrize("shadow", ["asyncio", "msgspec", "logging", "socket"])
    def test_ignores_the_users_modules(self, shadow: str, tmp_path: Any) -> None:
        (tmp_path / "shadowing").mkdir()
        (tmp_path / "shadowing" / f"{shadow}.py").write_text("raise SystemExit('shadowed')")
        script = tmp_path / "script.py"
        script.write_text(
            "import sys\n"
            "import asyncio, logging, msgspec, multiprocess, psutil, socket\n"
            "import sidestage.dispatch.run\n"
            f"sys.path.insert(0, {str(tmp_path / 'shadowing')!r})\n"
            "with sidestage.TCPServer() as server: print(server.port > 0)\n"
        )
        assert run_python(str(script)) == "True\n"

    def test_starts_no_resource_tracker(self) -> None:
        source = """
            import psutil
            from sidestage import HTTPServer
            from multiprocess import resource_tracker
            with HTTPServer(handler=print) as server:
                print(len(psutil.Process().children(recursive=True)))
            print(resource_tracker._resource_tracker._fd)
        """
        assert run_script(source) == "1\nNone\n"

    def test_is_no_child_that_multiprocess_would_end(self) -> None:
        source = """
            from multiprocess import active_children
            from sidestage import TCPServer
            with TCPServer():
                print(active_children())
        """
        assert run_script(source) == "[]\n"

    def test_has_a_process_group_of_its_own(self) -> None:
        with TCPServer() as server:
            assert server.pid is not None
            assert os.getpgid(server.pid) == server.pid

    def test_inherits_no_listening_socket(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.set_inheritable(True)
            port = listener.getsockname()[1]
            server = TCPServer(fresh=True).start()
        assert refused(port)
        server.stop()

    @pytest.mark.parametrize("arguments", [["-c"], ["-"]])
    def test_however_python_was_started(self, arguments: list[str]) -> None:
        source = "from sidestage import TCPServer\nwith TCPServer() as s: print(s.port > 0)\n"
        if arguments == ["-"]:
            assert run_python("-", stdin=source) == "True\n"
        else:
            assert run_python("-c", source) == "True\n"

    def test_survives_closed_standard_streams(self, tmp_path: Any) -> None:
        result = tmp_path / "result"
        source = f"""
            import os
            for fd in (0, 1, 2):
                os.close(fd)
            from sidestage import TCPServer
            with TCPServer() as server, open({str(result)!r}, "w") as file:
                file.write(str(server.port > 0))
        """
        run_script(source)
        assert result.read_text() == "True"

    def test_survives_a_cleared_environment_and_a_deleted_directory(self, tmp_path: Any) -> None:
        doomed = tmp_path / "doomed"
        doomed.mkdir()
        source = f"""
            import os, sidestage
            with sidestage.TCPServer():
                pass
            os.chdir({str(doomed)!r}); os.rmdir({str(doomed)!r}); os.environ.clear()
            with sidestage.TCPServer(fresh=True) as server:
                print(server.port > 0)
        """
        assert run_script(source) == "True\n"

    def test_is_silent_under_errors_for_warnings(self) -> None:
        source = """
            import socket
            from sidestage import TCPServer, UDPServer
            for kind in (TCPServer, UDPServer):
                with kind(handler=lambda request: None) as server:
                    pass
        """
        assert run_script(source, "-W", "error", "-X", "dev") == ""

    def test_is_reused_and_carries_nothing_over(self) -> None:
        pids = set()
        pool.close()  # so that there is only one to choose
        for kind in KINDS * 2:
            with kind(handler=lambda request: None) as server:
                pids.add(server.pid)
                assert server.received == []
                assert server.diagnostics == ()
        assert len(pids) == 1

    def test_is_fresh_if_wanted(self) -> None:
        with TCPServer() as server:
            first = server.pid
        with TCPServer(fresh=True) as server:
            assert server.pid != first

    def test_is_not_kept_without_a_pool(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SIDESTAGE_POOL", "0")
        with TCPServer() as server:
            pid = server.pid
        assert pid is not None
        assert all_gone([pid])
