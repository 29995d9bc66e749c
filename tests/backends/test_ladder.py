"""The rungs of a stop, each with a server's process that makes it necessary."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import psutil
import pytest

from kit.fake_children import host
from kit.scripts import all_gone, eventually, gone
from sidestage import ForcedStopWarning, HTTPServer, Server, ServerDied, TCPServer
from sidestage.backends.hosted import HostedBackend
from sidestage.backends.ladder import Rungs

__all__ = ["host"]  # the fixture

Host = Callable[[str], None]

DEAF = """
async def never(self, message):
    await asyncio.Event().wait()
Host._stop = never
"""
CLINGING = DEAF + "Host._end = lambda self: self.loop.remove_reader(self._commands_fd)\n"
STUBBORN = CLINGING + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
HUNG = """
async def hang_in_the_loop(self, message):
    threading.Event().wait()
Host._stop = hang_in_the_loop
"""
SOILED = """
async def leftovers(self):
    return "1 tasks and 0 descriptors are left"
Host._leftovers = leftovers
"""


Patience = Callable[[str], None]
LIMIT = 20.0  # seconds, of which the rungs below the one that is waited for get next to nothing


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> Patience:
    """Let a stop climb quickly to the named rung, by default to the last."""

    def up_to(rung: str) -> None:
        # The close has to leave a loaded machine the time for the dump of the stack.
        parts = {"ask": 0.002, "close": 0.1 if rung == "terminate" else 0.004, "terminate": 0.11}
        if rung in parts:
            parts[rung] = 0.9
        rungs = Rungs(ask=parts["ask"], close=parts["close"], terminate=max(parts.values()))
        make = staticmethod(partial(HostedBackend, rungs=rungs))
        monkeypatch.setattr(Server, "_make_backend", make)

    up_to("kill")
    return up_to


def stop_by_force(server: Any) -> Any:
    """Stop a server that does not answer; returns the report."""
    with pytest.warns(ForcedStopWarning) as caught:
        report = server.stop(LIMIT)
    assert len(caught) == 1
    assert str(report) in str(caught[0].message)
    return report


def test_ask(patience: Patience) -> None:
    patience("ask")
    server = TCPServer().start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = server.stop()
    assert report.rung == "ask"
    assert report.clean
    assert report.stack is None
    assert report.swept == ()


def test_close(host: Host, patience: Patience) -> None:
    patience("close")
    host(DEAF)
    server = TCPServer(fresh=True).start()
    pid = server.pid
    assert stop_by_force(server).rung == "close"
    assert all_gone([pid or 0])


def test_terminate(host: Host, patience: Patience) -> None:
    patience("terminate")
    host(CLINGING)
    server = TCPServer(fresh=True).start()
    pid = server.pid
    assert stop_by_force(server).rung == "terminate"
    assert all_gone([pid or 0])


def test_kill(host: Host, patience: Patience) -> None:
    patience("kill")
    host(STUBBORN)
    server = TCPServer(fresh=True).start()
    pid = server.pid
    assert stop_by_force(server).rung == "kill"
    assert all_gone([pid or 0])


def test_died() -> None:
    server = TCPServer().start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(Exception, match="SIGKILL"):
        server.stop()
    assert server.stop_report.rung == "died"


def test_died_and_there_is_no_time_to_read_that() -> None:
    server = TCPServer().start()
    assert server.pid is not None
    pidfd = os.pidfd_open(server.pid)
    os.kill(server.pid, signal.SIGKILL)
    select.select([pidfd], [], [])
    os.close(pidfd)
    with pytest.raises(ServerDied, match="SIGKILL"):
        server.stop(0)
    assert server.stop_report.rung == "died"


def test_where_a_loop_hangs_is_in_the_report(host: Host, patience: Patience) -> None:
    patience("terminate")
    host(HUNG)
    report = stop_by_force(TCPServer(fresh=True).start())
    assert report.rung == "terminate"
    assert "in hang_in_the_loop" in report.stack


def test_the_stack_is_not_that_of_an_earlier_time(host: Host, patience: Patience) -> None:
    patience("close")
    host(DEAF + "print('said long before', flush=True)")
    report = stop_by_force(TCPServer(fresh=True).start())
    assert "said long before" not in report.stack


def test_what_is_open_is_in_the_report(host: Host) -> None:
    entered, release = threading.Event(), threading.Event()

    def handler(connection: Any) -> None:
        entered.set()
        release.wait()

    host(DEAF)
    server = TCPServer(handler=handler, fresh=True).start()
    with socket.create_connection(server.server_address) as client:
        assert entered.wait(10)
        report = stop_by_force(server)
        assert [tuple(c.client_address) for c in report.connections] == [client.getsockname()]
    release.set()


def test_descendants_are_swept(host: Host) -> None:
    host(
        CLINGING
        + """
def fork_away(self):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        threading.Event().wait()
configure = Host._configure
def configure_and_fork(self, message):
    fork_away(self)
    configure(self, message)
Host._configure = configure_and_fork
"""
    )
    server = TCPServer(fresh=True).start()
    (child,) = psutil.Process(server.pid).children()
    assert stop_by_force(server).swept == (child.pid,)
    assert eventually(lambda: gone(child.pid))


def test_a_process_that_is_not_clean_is_not_reused(host: Host, patience: Patience) -> None:
    patience("ask")
    host(SOILED)
    server = TCPServer(fresh=True).start()
    pid = server.pid
    assert server.stop().rung == "ask"
    assert eventually(lambda: gone(pid or 0))
    with TCPServer() as other:
        assert other.pid != pid


def test_a_start_that_is_sooner_than_that_gets_another_process(
    host: Host, patience: Patience
) -> None:
    patience("ask")
    host(SOILED.replace("return", "threading.Event().wait(0.05); return"))
    server = TCPServer(fresh=True).start()
    pid = server.pid
    server.stop()
    host("")
    with TCPServer(fresh=False) as other:
        assert other.pid != pid
        assert eventually(lambda: gone(pid or 0))


def test_one_that_is_stuck_can_be_started_again(host: Host, patience: Patience) -> None:
    host(STUBBORN)
    server = HTTPServer(fresh=True).start()
    stop_by_force(server)
    patience("ask")
    host("")
    with server:
        assert server.stop().rung == "ask"


@pytest.mark.parametrize("seconds", [0, 0.5])
def test_it_is_in_time(host: Host, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.undo()  # with the real rungs
    host(STUBBORN)
    server = TCPServer(fresh=True).start()
    began = time.monotonic()
    with pytest.warns(ForcedStopWarning):
        assert server.stop(seconds).rung == "kill"
    assert time.monotonic() - began < seconds + 2


def test_an_interruption_ends_the_process_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interruption(BaseException):
        pass

    server = TCPServer().start()
    pid = server.pid

    def interrupt(*arguments: Any) -> None:
        raise Interruption

    monkeypatch.setattr("sidestage.dispatch.reader.Reader.wait_until", interrupt)
    with pytest.raises(Interruption):
        server.stop()
    assert gone(pid or 0)
    assert server.stop().rung in ("none", "ask")
