"""A real child, controlled through its channel."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from kit.children import STOP, Child, child, configure, port_of
from kit.fake_children import host
from kit.scripts import eventually
from sidestage.child.channel import capacity
from sidestage.pristine.waits import Deadline
from sidestage.process.channel import ChannelClosed
from sidestage.protocols.http.messages import Respond
from sidestage.protocols.smtp.messages import MailReply
from sidestage.protocols.tcp.messages import Opened, TranscriptIn
from sidestage.protocols.udp.messages import Packet, SendTo
from sidestage.wire.messages import (
    WIRE_VERSION,
    Ack,
    Ahead,
    Close,
    Data,
    Describe,
    Described,
    Draining,
    End,
    Failed,
    Handle,
    Hello,
    Idle,
    LogLine,
    Message,
    Ready,
    Resume,
    SetOption,
    Stop,
    Stopped,
    Sync,
    Synced,
)

__all__ = ["child", "host"]  # the fixtures


class TestHello:
    def test_it_comes_first(self, child: Child) -> None:
        hello = child.wait_for(Hello)
        pipe = capacity(child.process.launched.events_fd)
        assert hello == Hello(pid=child.process.launched.pid, version=WIRE_VERSION, pipe=pipe)
        assert pipe > 0
        assert child.events == []

    def test_what_was_asked_before_it_was_up_is_done(self, child: Child) -> None:
        child.send(configure(), Sync(token=5))
        assert child.wait_for(Ready)
        assert child.wait_for(Synced) == Synced(token=5)


@pytest.mark.parametrize("protocol", ["http", "smtp", "tcp", "udp"])
class TestEachProtocol:
    def test_is_ready_and_stops_clean_again_and_again(self, child: Child, protocol: str) -> None:
        for _ in range(3):
            assert port_of(child.ask(configure(protocol=protocol), Ready)) > 0
            assert child.ask(STOP, Stopped) == Stopped(clean=True, open=[])

    def test_a_taken_port_fails_and_the_child_lives(self, child: Child, protocol: str) -> None:
        kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
        with socket.socket(socket.AF_INET, kind) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            if kind == socket.SOCK_STREAM:
                taken.listen()
            failed = child.ask(configure(protocol=protocol, port=port), Failed)
        assert failed.errno == errno.EADDRINUSE
        assert child.ask(configure(protocol=protocol), Ready)

    def test_stray_commands_are_ignored(self, child: Child, protocol: str) -> None:
        child.send(configure(protocol=protocol), Handle(on=True))
        child.wait_for(Ready)
        child.send(*STRAYS, *OWN_STRAYS[protocol])
        assert child.ask(Sync(token=1), Synced)
        assert child.ask(STOP, Stopped).clean
        assert not [event for event in child.events if isinstance(event, LogLine)]


STRAYS: list[Message] = [
    Close(call=999, reset=True),
    Data(call=999, data=b"x"),
    Ack(call=999, size=1),
    End(call=999),
    Idle(),
]
OWN_STRAYS: dict[str, list[Message]] = {
    "http": [Respond(call=999, status=200, reason="", headers=(), body=b"", length=0, more=False)],
    "smtp": [MailReply(call=999, reply="250 OK")],
    "tcp": [SetOption(call=999, level=6, name=1, value=1)],
    "udp": [SendTo(listener=9, address="", data=b"")],
}


class TestConfigure:
    def test_a_host_that_is_not_there(self, child: Child) -> None:
        failed = child.ask(configure(host="no-such-host.invalid"), Failed)
        assert failed.text
        assert child.ask(configure(), Ready)

    @pytest.mark.parametrize("changes", [{"host": "x" * 70}, {"path": "a\0b"}])
    def test_what_no_socket_takes_is_a_failure_too(
        self, child: Child, changes: dict[str, Any]
    ) -> None:
        assert child.ask(configure(**changes), Failed).text
        assert child.ask(configure(), Ready)

    def test_a_path_is_relative_to_the_tests_directory(self, child: Child, tmp_path: Path) -> None:
        child.ask(configure(path="socket", cwd=str(tmp_path)), Ready)
        assert (tmp_path / "socket").is_socket()
        child.ask(STOP, Stopped)
        assert not (tmp_path / "socket").exists()

    def test_the_tests_directory_may_be_removed(self, child: Child, tmp_path: Path) -> None:
        child.ask(configure(path=str(tmp_path / "socket"), cwd=str(tmp_path)), Ready)
        assert psutil.Process(child.process.launched.pid).cwd() == "/"


class TestCommands:
    def test_strays_before_there_is_a_server(self, child: Child) -> None:
        child.send(*STRAYS)
        assert child.ask(Sync(token=1), Synced) == Synced(token=1)

    def test_late_ones_of_the_protocol_that_was_served_before(self, child: Child) -> None:
        """A handler of the previous server may answer late."""
        child.ask(configure(protocol="http"), Ready)
        child.ask(STOP, Stopped)
        child.send(*OWN_STRAYS["http"])
        child.ask(configure(protocol="udp"), Ready)
        child.send(*OWN_STRAYS["http"])
        assert child.ask(Sync(token=1), Synced) == Synced(token=1)

    @pytest.mark.parametrize("protocol", ["http", "smtp", "tcp"])
    def test_late_ones_of_no_call(self, child: Child, protocol: str) -> None:
        child.ask(configure(protocol="udp"), Ready)
        child.ask(STOP, Stopped)
        child.ask(configure(protocol=protocol), Ready)
        child.send(*OWN_STRAYS["udp"])
        assert child.ask(STOP, Stopped).clean
        assert not [event for event in child.events if isinstance(event, LogLine)]

    def test_a_change_of_handling_is_in_force_for_what_comes_after_it(self, child: Child) -> None:
        port = port_of(child.ask(configure(), Ready))
        for on, kind in ((True, Opened), (False, TranscriptIn)):
            child.send(Handle(on=on))
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"hello")
                client.shutdown(socket.SHUT_WR)
                child.wait_for(kind)
        assert child.ask(Sync(token=7), Synced) == Synced(token=7)
        assert not [event for event in child.events if isinstance(event, (Opened, TranscriptIn))]

    def test_a_stop_without_a_server(self, child: Child) -> None:
        assert child.ask(STOP, Stopped) == Stopped(clean=True, open=[])

    def test_many_in_one_piece(self, child: Child) -> None:
        child.send(*(Sync(token=number) for number in range(1000)))
        assert [child.wait_for(Synced).token for _ in range(1000)] == list(range(1000))

    def test_it_describes_the_connections_without_a_call(self, child: Child) -> None:
        port = port_of(child.ask(configure(), Ready))
        assert child.ask(Describe(token=1), Described) == Described(token=1, open=[], more=0)
        with contextlib.ExitStack() as clients:
            names = []
            for _ in range(22):
                client = clients.enter_context(socket.create_connection(("127.0.0.1", port)))
                names.append(client.getsockname())
            child.ask(Sync(token=2), Synced)
            described = child.ask(Describe(token=3), Described)
        assert [tuple(one.client_address) for one in described.open] == names[:20]
        assert [one.number for one in described.open] == list(range(1, 21))
        assert described.more == 2

    def test_what_is_no_frame_ends_it_with_a_word(self, child: Child) -> None:
        child.wait_for(Hello)
        child.send_raw(b"\xff" * 64)
        assert child.ended()
        assert child.process.exit_code == 1
        assert "the pipe from the owner broke" in child.process.stderr_tail()


class TestStop:
    def test_it_says_when_it_drains(self, child: Child) -> None:
        child.send(configure(protocol="udp"), Handle(on=True))
        port = port_of(child.wait_for(Ready))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"hello", ("127.0.0.1", port))
            child.wait_for(Packet)
        child.send(STOP)
        assert child.wait_for(Draining) == Draining(waits=True)
        assert not [event for event in child.events if isinstance(event, Stopped)]
        assert child.ask(Idle(), Stopped)

    def test_without_a_call_to_wait_for_it_says_only_that_it_has_stopped(
        self, child: Child
    ) -> None:
        child.ask(configure(), Ready)
        assert child.ask(STOP, Stopped).clean
        assert not [event for event in child.events if isinstance(event, Draining)]

    def test_what_clients_had_sent_is_reported_before_the_end(self, child: Child) -> None:
        port = port_of(child.ask(configure(), Ready))
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"last words")
            client.shutdown(socket.SHUT_WR)
            child.send(STOP)
            assert child.wait_for(TranscriptIn).data == b"last words"

    def test_one_that_fails_ends_the_process(self, host: Callable[[str], None]) -> None:
        host("async def fail(self, message): raise ValueError('lost')\nHost._stop = fail\n")
        failing = Child()
        try:
            failing.send(STOP)
            assert failing.ended()
            assert "ValueError: lost" in failing.process.stderr_tail()
        finally:
            failing.close()

    def test_the_port_is_closed(self, child: Child) -> None:
        port = port_of(child.ask(configure(), Ready))
        child.ask(STOP, Stopped)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))

    def test_one_that_leaves_something_open_serves_no_more(
        self, host: Callable[[str], None]
    ) -> None:
        host(
            "stop = Host._stop\n"
            "async def leak(self, message):\n"
            "    os.pipe()\n"
            "    await stop(self, message)\n"
            "Host._stop = leak\n"
            "look = Host._leftovers\n"
            "async def look_long(self):\n"
            "    for _ in range(1000):\n"
            "        await asyncio.sleep(0)\n"
            "    return await look(self)\n"
            "Host._leftovers = look_long\n"
        )
        leaking = Child()
        try:
            assert leaking.ask(STOP, Stopped)
            with contextlib.suppress(ChannelClosed):  # it has ended already
                leaking.send(configure())
            assert leaking.ended()
            assert not [event for event in leaking.events if isinstance(event, Ready)]
            assert leaking.process.exit_code == 1
            assert leaking.process.stderr_tail() == (
                "this process serves no more: 0 tasks and 2 descriptors are left"
            )
        finally:
            leaking.close()


# Binds for each server, and never ahead.
FULL = """
bind, bind_ahead = host.listener.bind, Host._bind_ahead
def refuse(*arguments):
    raise OSError(24, "Too many open files")
def ahead(self, config):
    host.listener.bind = refuse
    bind_ahead(self, config)
    host.listener.bind = bind
Host._bind_ahead = ahead
"""


class TestAhead:
    """After a stop it may bind for the next server of the same kind."""

    AHEAD = Stop(drain=1.0, caller=0, ahead=True)

    def bind_ahead(self, child: Child, **changes: Any) -> int:
        child.ask(configure(**changes), Ready)
        assert child.ask(self.AHEAD, Stopped).clean
        return int(child.wait_for(Ahead).addresses[0][1])

    def answers(self, child: Child, port: int) -> bool:
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            return bool(child.wait_for(TranscriptIn).data == b"hello")

    def test_resume_serves_there_and_is_not_answered(self, child: Child) -> None:
        port = self.bind_ahead(child)
        child.send(Resume())
        assert self.answers(child, port)
        child.ask(Sync(token=1), Synced)
        assert not [event for event in child.events if isinstance(event, Ready)]

    def test_a_stop_right_behind_it_serves_who_waits_at_the_door(self, child: Child) -> None:
        port = self.bind_ahead(child)
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            child.send(Resume(), STOP)
            assert child.wait_for(TranscriptIn).data == b"hello"
            assert child.wait_for(Stopped).clean

    def test_so_does_the_same_configuration(self, child: Child) -> None:
        port = self.bind_ahead(child)
        assert port_of(child.ask(configure(), Ready)) == port
        assert self.answers(child, port)

    def test_another_configuration_gives_up_what_was_bound(self, child: Child) -> None:
        port = self.bind_ahead(child)
        assert port_of(child.ask(configure(backlog=17), Ready)) != port
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 10)
        assert child.ask(STOP, Stopped) == Stopped(clean=True, open=[])

    def test_again_and_again(self, child: Child) -> None:
        port = self.bind_ahead(child)
        for _ in range(3):
            child.send(Resume())
            assert self.answers(child, port)
            assert child.ask(self.AHEAD, Stopped) == Stopped(clean=True, open=[], ahead=True)
            port = int(child.wait_for(Ahead).addresses[0][1])

    @pytest.mark.parametrize("changes", [{"protocol": "udp"}, {"port": 1}, {"path": "socket"}])
    def test_not_where_the_next_could_not_be_bound_now(
        self, child: Child, tmp_path: Path, changes: dict[str, Any]
    ) -> None:
        if "port" in changes:
            with socket.create_server(("127.0.0.1", 0)) as free:
                changes = {"port": free.getsockname()[1]}
        child.ask(configure(cwd=str(tmp_path), **changes), Ready)
        assert child.ask(self.AHEAD, Stopped).clean
        child.ask(Sync(token=1), Synced)
        assert not [event for event in child.events if isinstance(event, Ahead)]

    def test_it_says_so_if_it_could_not_bind(self, host: Callable[[str], None]) -> None:
        host(FULL)
        child = Child()
        try:
            child.ask(configure(), Ready)
            assert child.ask(self.AHEAD, Stopped).ahead
            assert child.wait_for(Ahead).addresses == []
            assert child.ask(configure(), Ready)
        finally:
            child.close()

    def test_nothing_is_bound_where_nobody_asked_for_it(self, child: Child) -> None:
        child.ask(configure(), Ready)
        assert child.ask(STOP, Stopped).clean
        child.ask(Sync(token=1), Synced)
        assert not [event for event in child.events if isinstance(event, Ahead)]


class TestTheEnd:
    @pytest.mark.parametrize("serving", [False, True])
    def test_of_the_pipe_ends_it(self, child: Child, serving: bool) -> None:
        if serving:
            child.ask(configure(), Ready)
        child.process.close_commands()
        assert child.ended()
        assert child.process.exit_code == 0
        assert child.process.stderr_tail() == ""

    def test_it_removes_its_socket_file(self, child: Child, tmp_path: Path) -> None:
        child.ask(configure(path=str(tmp_path / "socket")), Ready)
        child.process.close_commands()
        assert child.ended()
        assert not (tmp_path / "socket").exists()

    def test_nothing_comes_after_it(self, child: Child) -> None:
        child.process.close_commands()
        with pytest.raises((ChannelClosed, AssertionError)):
            while child.wait_for(Hello):
                pass


class TestIdling:
    """It polls for a moment before it sleeps."""

    def test_takes_no_processor(self, child: Child) -> None:
        child.ask(configure(), Ready)
        process = psutil.Process(child.process.launched.pid)
        before = sum(process.cpu_times()[:2])
        assert child.is_silent(0.5)
        assert sum(process.cpu_times()[:2]) - before < 0.25


class TestSurroundings:
    def test_descriptors_that_the_test_left_open_are_closed(self) -> None:
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        child = Child()
        try:
            child.wait_for(Hello)
            os.close(writer)
            assert os.read(reader, 1) == b""
        finally:
            child.close()
            os.close(reader)

    def test_a_signal_makes_it_print_its_stack(self, child: Child) -> None:
        child.ask(configure(), Ready)
        child.process.signal(signal.SIGUSR1)
        assert eventually(lambda: "most recent call first" in child.process.stderr_tail())
        assert child.ask(Sync(token=1), Synced)

    def test_it_uses_no_time_when_idle(self, child: Child) -> None:
        child.ask(configure(), Ready)
        child.ask(Sync(token=1), Synced)
        process = psutil.Process(child.process.launched.pid)
        before, began = process.cpu_times().user, time.monotonic()
        assert not child.process.wait(Deadline(0.2))
        assert process.cpu_times().user - before < (time.monotonic() - began) / 2


def test_a_configuration_that_fails_is_told_without_the_keys_in_it(child: Child) -> None:
    """It is logged in the test's process, and the logs of a test are read by many."""
    child.send(configure(layers=(("tls", b"a secret key"),)))
    said = child.wait_for(LogLine).text
    assert "the configuration Configure(protocol='tcp'" in said
    assert "layers=('tls',)" in said
    assert "secret" not in said
    assert child.wait_for(Failed)
