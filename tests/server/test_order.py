"""Order in place of round trips: what was done first counts first, and nobody waits for it.

Commands come before clients: a handler is in force for what is sent after it was set. Records come
before answers: what a client has been answered is known. The next server is bound ahead of its
start.
"""

from __future__ import annotations

import http.client
import os
import signal
import smtplib
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from kit.clients import connect, port_of_nobody, read_all
from kit.fake_children import host
from kit.runs import pid_of
from kit.scripts import all_gone, eventually, run_script
from kit.servers import refuses
from sidestage import HTTPServer, Server, ServerDied, SMTPServer, State, TCPServer, UDPServer
from sidestage.pristine.waits import Deadline
from sidestage.process.channel import Channel
from sidestage.process.pool import pool

__all__ = ["host"]  # the fixture

LONG = 20.0  # seconds; a bound for what ends at once unless it is broken
AT_ONCE = 3.0  # seconds; whoever asks a child that does not run waits for longer
ROUNDS = 300


@contextmanager
def suspended(pid: int) -> Iterator[None]:
    """Let a process do nothing meanwhile."""
    process = psutil.Process(pid)
    process.suspend()
    try:
        assert eventually(lambda: process.status() == psutil.STATUS_STOPPED)
        yield
    finally:
        with suppress(psutil.NoSuchProcess):  # a start that fails ends it
            process.resume()


@contextmanager
def at_once() -> Iterator[None]:
    """Assert that the block does not wait for a process that is suspended."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < AT_ONCE


class Talk(ABC):
    """A client of one protocol, and handlers for it: each answers with a number.

    ``plain`` is what the server answers without a handler; ``None`` is nothing.
    """

    kind: type[Server[Any]]
    plain: str | None = ""

    def __init__(self, server: Server[Any]) -> None:
        self.address: Any = server.server_address
        self.begin()

    @staticmethod
    def handler(number: int) -> Callable[[Any], object]:
        """A handler that answers with ``number``."""
        return lambda request: f"{number}".encode()

    def begin(self) -> None:  # noqa: B027 - not all have to
        """Connect, where connections are kept."""

    @abstractmethod
    def send(self) -> None:
        """Send a request."""

    @abstractmethod
    def answer(self) -> str | None:
        """The answer to the request that was sent."""

    def ask(self) -> str | None:
        self.send()
        return self.answer()

    def close(self) -> None:  # noqa: B027 - not all have to
        """Disconnect."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class HTTPTalk(Talk):
    kind = HTTPServer

    def begin(self) -> None:
        self.connection = http.client.HTTPConnection(*self.address, timeout=LONG)

    def send(self) -> None:
        self.connection.request("POST", "/", b"body")

    def answer(self) -> str | None:
        return self.connection.getresponse().read().decode()

    def close(self) -> None:
        self.connection.close()


class SMTPTalk(Talk):
    kind = SMTPServer
    plain = "OK"

    @staticmethod
    def handler(number: int) -> Callable[[Any], object]:
        return lambda mail: f"250 {number}"

    def begin(self) -> None:
        self.client = smtplib.SMTP(*self.address, timeout=LONG)
        self.client.helo("x")
        self.prepare()

    def prepare(self) -> None:
        """Do everything but the end of the mail, which the handler is called for."""
        assert self.client.mail("me@x")[0] == 250
        assert self.client.rcpt("you@x")[0] == 250
        assert self.client.docmd("DATA")[0] == 354

    def send(self) -> None:
        self.client.send(b"Subject: hello\r\n\r\nhello\r\n.\r\n")

    def answer(self) -> str | None:
        code, text = self.client.getreply()
        assert code == 250
        return text.decode()

    def ask(self) -> str | None:
        answer = super().ask()
        self.prepare()
        return answer

    def close(self) -> None:
        self.client.close()


class TCPTalk(Talk):
    kind = TCPServer

    @staticmethod
    def handler(number: int) -> Callable[[Any], object]:
        def answer(connection: Any) -> bytes:
            connection.recv_exactly(5)  # else a reset may come before the client has sent it
            return f"{number}".encode()

        return answer

    def send(self) -> None:
        self.client = connect(self.address[1])
        try:
            self.client.sendall(b"hello")
            self.client.shutdown(socket.SHUT_WR)
        except OSError as error:  # of one that was reset in between, this says: not connected
            self.client.close()
            raise ConnectionResetError from error

    def answer(self) -> str | None:
        with self.client as client:
            return read_all(client).decode()


class UDPTalk(Talk):
    kind = UDPServer
    plain = None

    def begin(self) -> None:
        self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.client.settimeout(LONG)
        self.client.connect(self.address)

    def send(self) -> None:
        self.client.send(b"hello")

    def answer(self) -> str | None:
        return self.client.recv(100).decode()

    def close(self) -> None:
        self.client.close()


TALKS = [HTTPTalk, SMTPTalk, TCPTalk, UDPTalk]
TELLING = [HTTPTalk, SMTPTalk]  # the records of the others come with no answer


@contextmanager
def busy(talk: type[Talk], server: Server[Any]) -> Iterator[None]:
    """Keep the server busy with another client."""
    over = threading.Event()

    def work() -> None:
        with talk(server) as client:
            while not over.is_set():
                # A TCP connection that is open while the handler is removed is closed at once. That
                # may reset a client that has not sent yet.
                with suppress(ConnectionResetError):
                    client.send()
                    if server.handler is not None or talk.plain is not None:
                        client.answer()
                if isinstance(client, SMTPTalk):
                    client.prepare()

    def send_only() -> None:
        with talk(server) as client:
            while not over.wait(0.001):
                client.send()

    thread = threading.Thread(target=send_only if talk is UDPTalk else work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(LONG)


class TestCommandsBeforeClients:
    @pytest.mark.parametrize("talk", TALKS)
    def test_setting_a_handler_waits_for_nothing_and_is_in_force(self, talk: type[Talk]) -> None:
        with talk.kind() as server, talk(server) as kept:
            with suspended(pid_of(server)):
                with at_once():
                    server.handler = talk.handler(1)
                kept.send()
            assert kept.answer() == "1"

    @pytest.mark.parametrize("talk", [HTTPTalk, TCPTalk, UDPTalk])
    def test_so_it_is_for_a_client_that_connects_after_it(self, talk: type[Talk]) -> None:
        with talk.kind() as server, suspended(pid_of(server)):
            with at_once():
                server.handler = talk.handler(1)
            client = talk(server)
            client.send()
            psutil.Process(pid_of(server)).resume()
            assert client.answer() == "1"
            client.close()

    @pytest.mark.parametrize("talk", [HTTPTalk, SMTPTalk, TCPTalk])
    def test_removing_it_waits_for_nothing_and_is_in_force(self, talk: type[Talk]) -> None:
        with talk.kind(handler=talk.handler(1)) as server, talk(server) as kept:
            assert kept.ask() == "1"
            with suspended(pid_of(server)):
                with at_once():
                    server.handler = None
                kept.send()
            assert kept.answer() == talk.plain

    @pytest.mark.parametrize("talk", TALKS)
    def test_the_last_of_many_is_in_force(self, talk: type[Talk]) -> None:
        with talk.kind() as server, talk(server) as kept:
            with suspended(pid_of(server)):
                with at_once():
                    for number in range(1000):
                        server.handler = None
                        server.handler = talk.handler(number)
                kept.send()
            assert kept.answer() == "999"

    @pytest.mark.parametrize("talk", TALKS)
    @pytest.mark.parametrize("other", [False, True], ids=["alone", "with another client"])
    def test_again_and_again(self, talk: type[Talk], other: bool) -> None:
        with talk.kind() as server, talk(server) as kept:
            if other:
                with busy(talk, server):
                    self.set_and_ask(talk, server, kept)
            else:
                self.set_and_ask(talk, server, kept)

    def set_and_ask(self, talk: type[Talk], server: Server[Any], kept: Talk) -> None:
        for number in range(ROUNDS):
            server.handler = talk.handler(number)
            if number % 4 or (talk is SMTPTalk and number % 16):
                assert kept.ask() == str(number)
            else:
                with talk(server) as client:
                    assert client.ask() == str(number)
            if not number % 3 and talk.plain is not None:
                server.handler = None
                assert kept.ask() == talk.plain

    def test_a_datagram_sent_without_a_handler_is_only_recorded(self) -> None:
        with UDPServer() as server, UDPTalk(server) as client:
            for number in range(ROUNDS):
                server.handler = None
                client.send()
                server.wait_for(2 * number + 1)
                server.handler = UDPTalk.handler(number)
                assert client.ask() == str(number)


class TestDataBeforeAReset:
    def test_what_a_handler_sends_before_it_resets_the_connection_is_sent(self) -> None:
        connected = threading.Event()  # a reset that comes first is what connect() raises

        def handler(connection: Any) -> None:
            assert connected.wait(LONG)
            os.kill(pid, signal.SIGSTOP)  # so that both commands are read together
            connection.sendall(b"half")
            connection.reset()
            os.kill(pid, signal.SIGCONT)

        with TCPServer(handler=handler) as server:
            pid = pid_of(server)  # before the client comes, and with it the handler
            with connect(server.port) as client:
                connected.set()
                assert client.recv(100) == b"half"
                with pytest.raises(ConnectionResetError):
                    client.recv(100)


class TestRecordsBeforeAnswers:
    @pytest.mark.parametrize("talk", TELLING)
    @pytest.mark.parametrize("handled", [False, True])
    def test_what_was_answered_is_known_without_asking(
        self, talk: type[Talk], handled: bool
    ) -> None:
        handler = talk.handler(1) if handled else None
        with talk.kind(handler=handler) as server, talk(server) as client:
            for number in range(1, 4):
                client.ask()
                with suspended(pid_of(server)), at_once():
                    assert len(server.received) == number
                    assert server.errors == server.diagnostics == ()
                    server.raise_errors()

    @pytest.mark.parametrize("handled", [False, True])
    def test_it_is_told_before_the_answer_goes_out(
        self, host: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, handled: bool
    ) -> None:
        """The process stops itself right after each answer."""
        monkeypatch.setenv("SIDESTAGE_POOL", "0")  # no other server is to get it
        host(
            "import signal\n"
            "from sidestage.child.net.stream import Stream\n"
            "send = Stream._send\n"
            "def send_and_stop(self, data):\n"
            "    send(self, data)\n"
            "    os.kill(os.getpid(), signal.SIGSTOP)\n"
            "Stream._send = send_and_stop\n"
        )
        handler = HTTPTalk.handler(1) if handled else None
        server = HTTPServer(handler=handler, fresh=True).start()
        process = psutil.Process(pid_of(server))
        with HTTPTalk(server) as client:
            for number in range(1, 4):
                assert client.ask() == ("1" if handled else "")
                assert eventually(lambda: process.status() == psutil.STATUS_STOPPED)
                with at_once():
                    assert len(server.received) == number
                process.resume()
            client.connection.sock.sendall(b"nonsense\r\n\r\n")
            assert client.connection.sock.recv(1 << 16).startswith(b"HTTP/1.1 400 ")
            assert eventually(lambda: process.status() == psutil.STATUS_STOPPED)
            with at_once():
                assert len(server.diagnostics) == 1
            process.resume()
        server.stop()

    @pytest.mark.parametrize("talk", TELLING)
    @pytest.mark.parametrize("handled", [False, True])
    @pytest.mark.parametrize("before", [0, 5])
    def test_also_if_the_process_is_killed_right_after_the_answer(
        self, host: Callable[[str], None], talk: type[Talk], handled: bool, before: int
    ) -> None:
        """The process kills itself as soon as it has sent the answer."""
        host(
            "from sidestage.child.channel import Outbox\n"
            "from sidestage.child.net.stream import Stream\n"
            "told = 0\n"
            "def noting(send):\n"
            "    def note(self, message):\n"
            "        global told\n"
            "        told += type(message).__name__ in ('Request', 'MailIn')\n"
            "        send(self, message)\n"
            "    return note\n"
            "Outbox.send, Outbox.record = noting(Outbox.send), noting(Outbox.record)\n"
            "send = Stream._send\n"
            "def send_and_die(self, data):\n"
            "    send(self, data)\n"
            f"    if told > {before}:\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "Stream._send = send_and_die\n"
        )
        handler = talk.handler(1) if handled else None
        server = talk.kind(handler=handler, fresh=True).start()
        with talk(server) as client:
            for _ in range(before):
                client.ask()
            client.send()
            assert client.answer() == ("1" if handled else talk.plain)
        with pytest.raises(ServerDied, match="SIGKILL"):
            server.stop()
        assert len(server.received) == before + 1

    def test_so_are_errors_and_diagnostics(self) -> None:
        def fail(request: Any) -> None:
            raise LookupError("expected")

        with HTTPServer(handler=fail) as server:
            with HTTPTalk(server) as client:
                client.send()
                assert client.connection.getresponse().status == 500
            with connect(server.port) as nonsense:
                nonsense.sendall(b"nonsense\r\n\r\n")
                assert read_all(nonsense).startswith(b"HTTP/1.1 400 ")
            with suspended(pid_of(server)), at_once():
                assert [str(error) for error in server.errors] == ["expected"]
                assert len(server.diagnostics) == 1
                with pytest.raises(LookupError, match="expected"):
                    server.raise_errors()

    @pytest.mark.parametrize("talk", TELLING)
    @pytest.mark.parametrize("handled", [False, True])
    def test_again_and_again(self, talk: type[Talk], handled: bool) -> None:
        handler = talk.handler(1) if handled else None
        with talk.kind(handler=handler) as server, talk(server) as client:
            for number in range(1, ROUNDS):
                client.ask()
                assert len(server.received) == number

    @pytest.mark.parametrize("handled", [False, True])
    def test_from_many_clients_at_once(self, handled: bool) -> None:
        handler = HTTPTalk.handler(1) if handled else None

        def work(own: int) -> None:
            connection = http.client.HTTPConnection(*server.server_address, timeout=LONG)
            for number in range(1, 60):
                connection.request("POST", f"/{own}", b"x" * (number % 7) * 1000)
                connection.getresponse().read()
                assert len([r for r in server.received if r.target == f"/{own}"]) == number
            connection.close()

        with HTTPServer(handler=handler) as server, ThreadPoolExecutor(8) as threads:
            for done in [threads.submit(work, own) for own in range(8)]:
                done.result(60)
            assert len(server.received) == 8 * 59

    def test_nothing_is_missing_where_the_pipe_was_full(self) -> None:
        """Then the records are on their way when the client has its answer: it is asked for."""
        size, count = 20_000, 300  # more than the largest pipe holds
        with HTTPServer() as server:
            connection = http.client.HTTPConnection(*server.server_address, timeout=LONG)
            for number in range(1, 4):
                for _ in range(count):
                    connection.request("POST", "/", os.urandom(8) + bytes(size))
                    connection.getresponse().read()
                assert len(server.received) == number * count
            connection.close()
            assert {len(request.body) for request in server.received} == {size + 8}

    @pytest.mark.parametrize("size", [10, 4000, 4096, 20_000, 70_000])
    def test_nor_is_a_single_one_of_any_size(self, size: int) -> None:
        with HTTPServer() as server:
            connection = http.client.HTTPConnection(*server.server_address, timeout=LONG)
            for number in range(1, 50):
                connection.request("POST", "/", bytes(size))
                connection.getresponse().read()
                assert len(server.received) == number
            connection.close()


def is_ahead(pid: int) -> bool:
    """Whether the idle process with this pid has said where it is bound."""
    return any(
        child.events or child.channel.poll(Deadline(0.0))
        for child in pool
        if child.process.launched.pid == pid
    )


def listening(pid: int) -> set[int]:
    """The ports that a process listens on."""
    found = psutil.Process(pid).net_connections("inet")
    return {
        connection.laddr.port for connection in found if connection.status == psutil.CONN_LISTEN
    }


def served(kind: type[Server[Any]], **options: Any) -> tuple[int, int]:
    """Serve once, and stop; returns the pid, which is bound ahead now, and the port it had.

    No other process waits in the pool, so that the next server gets this one.
    """
    pool.close()
    for _ in range(50):  # until it has said so
        with kind(**options) as server:
            pid, port = pid_of(server), server.port
        if eventually(partial(is_ahead, pid), 0.2):
            return pid, port
    raise AssertionError("none is bound ahead")


AHEAD = [HTTPTalk, TCPTalk]  # SMTP's clients cannot send before they are greeted


class TestTheNextServer:
    @pytest.mark.parametrize("talk", AHEAD)
    @pytest.mark.parametrize("handled", ["not", "before", "after", "before and after"])
    def test_starts_without_waiting(self, talk: type[Talk], handled: str) -> None:
        pid, port = served(talk.kind)
        server = talk.kind(handler=talk.handler(1) if "before" in handled else None)
        with suspended(pid):
            with at_once():
                server.start()
                if "after" in handled:
                    server.handler = talk.handler(2)
            assert pid_of(server) == pid
            assert server.port not in (port, 0)
            client = talk(server)
            client.send()
        expected = "2" if "after" in handled else "1" if "before" in handled else talk.plain
        assert client.answer() == expected
        client.close()
        assert server.stop().clean

    def test_so_does_one_for_mail(self) -> None:
        pid, _ = served(SMTPServer)
        server = SMTPServer(handler=SMTPTalk.handler(1))
        with suspended(pid), at_once():
            server.start()
        with SMTPTalk(server) as client:
            assert (pid_of(server), client.ask()) == (pid, "1")
        server.stop()

    @pytest.mark.parametrize("address", [("127.0.0.1", 0), ("localhost", 0), ("0.0.0.0", 0)])
    def test_has_the_host_that_was_asked_for(self, address: tuple[str, int]) -> None:
        pid, _ = served(HTTPServer, address=address)
        with HTTPServer(address) as server:
            assert pid_of(server) == pid
            assert listening(pid) == {server.port}
            with connect(server.port) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert read_all(client).startswith(b"HTTP/1.1 200 ")

    def test_again_and_again_with_the_ports_that_the_kernel_gives(self) -> None:
        pid, port = served(HTTPServer)
        ports = {port}
        for number in range(50):
            with HTTPServer(handler=HTTPTalk.handler(number)) as server:
                assert pid_of(server) == pid
                port = server.port
                ports.add(port)
                with HTTPTalk(server) as client:
                    assert client.ask() == str(number)
                assert len(server.received) == 1
            assert refuses(port)
        assert len(ports) > 25  # it may give one again, by chance

    def test_two_servers_alternately(self) -> None:
        pid, _ = served(HTTPServer)
        first, second = HTTPServer(handler=HTTPTalk.handler(1)), HTTPServer()
        ports = set()
        for _ in range(20):
            for server, answer in ((first, "1"), (second, "")):
                with server, HTTPTalk(server) as client:
                    assert client.ask() == answer
                    assert pid_of(server) == pid
                    ports.add(server.port)
        assert len(ports) > 2
        assert (len(first.received), len(second.received)) == (20, 20)

    def test_two_servers_at_once(self) -> None:
        served(HTTPServer)
        for _ in range(10):
            with HTTPServer() as first, HTTPServer(handler=HTTPTalk.handler(2)) as second:
                assert pid_of(first) != pid_of(second)
                for server, answer in ((first, ""), (second, "2")):
                    with HTTPTalk(server) as client:
                        assert client.ask() == answer

    def test_its_own_port_again_after_a_restart(self) -> None:
        with HTTPServer() as server:
            port = server.port
            for _ in range(5):
                server.restart()
                assert server.port == port
                with HTTPTalk(server) as client:
                    assert client.ask() == ""


class TestAnotherServer:
    """One that is not like the last starts as ever, and what was bound for it is given up."""

    def check(self, server: Server[Any], talk: type[Talk], pid: int, ahead: set[int]) -> None:
        assert len(ahead) == 1
        with server:
            if talk is not UDPTalk:
                assert listening(pid_of(server)) == {server.port}
            assert server.port not in ahead
            server.handler = talk.handler(7)
            with talk(server) as client:
                assert client.ask() == "7"
            if pid_of(server) == pid:
                assert all(map(refuses, ahead))

    @pytest.mark.parametrize("talk", TALKS)
    def test_with_another_option(self, talk: type[Talk]) -> None:
        pid, _ = served(HTTPServer)
        ahead = listening(pid)
        self.check(talk.kind(handler_timeout=7.5), talk, pid, ahead)

    def test_with_another_option_of_its_own(self) -> None:
        pid, _ = served(HTTPServer)
        ahead = listening(pid)
        self.check(HTTPServer(head_limit=12_345), HTTPTalk, pid, ahead)

    def test_at_a_fixed_port(self) -> None:
        pid, _ = served(HTTPServer)
        ahead = listening(pid)
        self.check(HTTPServer(("127.0.0.1", port_of_nobody())), HTTPTalk, pid, ahead)

    def test_at_the_port_that_is_bound_ahead(self) -> None:
        pid, _ = served(HTTPServer)
        (port,) = listening(pid)
        with HTTPServer(("127.0.0.1", port)) as server, HTTPTalk(server) as client:
            assert client.ask() == ""

    def test_at_a_path(self, tmp_path: Path) -> None:
        pid, _ = served(HTTPServer)
        ahead = listening(pid)
        path = tmp_path / "socket"
        with HTTPServer(str(path)), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert read_all(client).startswith(b"HTTP/1.1 200 ")
            assert all(map(refuses, ahead))
        with HTTPServer(str(path)):
            assert path.is_socket()
        assert not path.exists()

    def test_a_fresh_one(self) -> None:
        pid, _ = served(HTTPServer)
        ahead = listening(pid)
        with HTTPServer(fresh=True) as server, HTTPTalk(server) as client:
            assert pid_of(server) != pid
            assert client.ask() == ""
        assert listening(pid) == ahead

    def test_udp_is_not_bound_ahead(self) -> None:
        for number in range(5):
            with UDPServer(handler=UDPTalk.handler(number)) as server, UDPTalk(server) as client:
                pid = pid_of(server)
                assert client.ask() == str(number)
            assert [c.laddr for c in psutil.Process(pid).net_connections("udp")] == []


class TestHearing:
    def test_what_was_said_together_with_the_stop_is_known_at_the_next_start(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        receive = Channel.receive_into

        def receive_late(channel: Channel, events: Any) -> bool:
            if server.state is State.STOPPING:
                eventually(lambda: bool(listening(pid) - {port}))
            return receive(channel, events)

        with HTTPServer(backlog=77) as server:
            pid, port = pid_of(server), server.port
            monkeypatch.setattr(Channel, "receive_into", receive_late)
        monkeypatch.undo()
        (ahead,) = listening(pid)
        server = HTTPServer(backlog=77, start_timeout=AT_ONCE)
        with suspended(pid), at_once():
            server.start()
        assert (pid_of(server), server.port) == (pid, ahead)
        server.stop()


class TestTheIdleProcess:
    def test_that_was_killed_is_not_taken(self) -> None:
        for _ in range(5):
            pid, _ = served(HTTPServer)
            os.kill(pid, signal.SIGKILL)
            assert all_gone([pid])
            with HTTPServer(handler=HTTPTalk.handler(1)) as server, HTTPTalk(server) as client:
                assert pid_of(server) != pid
                assert client.ask() == "1"

    def test_that_is_killed_once_it_is_taken_fails_the_test(self) -> None:
        pid, _ = served(HTTPServer)
        server = HTTPServer()
        os.kill(pid, signal.SIGSTOP)
        server.start()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ServerDied, match="killed by SIGKILL"):
            server.wait_for(1, LONG)
        with pytest.raises(ServerDied, match="killed by SIGKILL"):
            server.stop()
        with server, HTTPTalk(server) as client:
            assert client.ask() == ""

    def test_ends_with_the_test_and_leaves_nothing_bound(self) -> None:
        pid, port = run_script("""
            import psutil
            from sidestage import HTTPServer

            with HTTPServer() as server:
                pid = server.pid

            def ports():
                found = psutil.Process(pid).net_connections("inet")
                return [one.laddr.port for one in found if one.status == psutil.CONN_LISTEN]

            while not ports():
                pass
            print(pid, *ports())
        """).split()
        assert all_gone([int(pid)])
        assert refuses(int(port))

    def test_without_a_pool_there_is_none(self) -> None:
        assert (
            run_script("""
            import os, psutil
            os.environ["SIDESTAGE_POOL"] = "0"
            from sidestage import HTTPServer, TCPServer

            for kind in (HTTPServer, TCPServer, HTTPServer):
                with kind() as server:
                    pid = server.pid
                assert not psutil.pid_exists(pid), pid
                me = psutil.Process()
                for process in (me, *me.children(recursive=True)):
                    assert not process.net_connections("inet"), process
            print("nothing")
        """)
            == "nothing\n"
        )

    def test_is_not_taken_by_a_forked_copy(self) -> None:
        printed = run_script("""
            import os, urllib.request, warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            from sidestage import HTTPServer

            def serve(text):
                with HTTPServer(handler=lambda request: text) as server:
                    with urllib.request.urlopen(server.url, timeout=20) as answer:
                        assert answer.read().decode() == text
                    return server.pid, server.port

            first, _ = serve("first")
            for _ in range(3):
                copy = os.fork()
                if not copy:
                    mine = {serve("copy")[0] for _ in range(3)}
                    os._exit(first in mine or len(mine) != 1)
                own, _ = serve("original")
                assert own == first
                assert os.waitpid(copy, 0)[1] == 0
                assert serve("original again")[0] == first
            print("done")
        """)
        assert printed == "done\n"


class TestALookThatAsks:
    def test_a_look_that_was_too_late_is_made_up_for(self) -> None:
        """More waits in the child than the pipe holds, and the child is suspended meanwhile."""
        count = 20_000
        server = HTTPServer().start()
        server._sync_seconds = 0.3
        request = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
        with connect(server.port) as client:
            client.settimeout(LONG)
            sender = threading.Thread(target=client.sendall, args=[request * count])
            sender.start()
            answers, came, status = 0, b"", b"HTTP/1.1 200"
            while answers < count:
                came += client.recv(1 << 20)
                answers += came.count(status)
                came = came[1 - len(status) :]  # the beginning of one, perhaps
            sender.join()
        with suspended(pid_of(server)):
            assert len(server.received) < count
        server._sync_seconds = LONG
        assert len(server.received) == count
        server.stop()

    def test_all_datagrams_that_were_sent_before_are_seen(self) -> None:
        with UDPServer() as server:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                for _ in range(300):
                    client.sendto(b"x", server.server_address)
            assert len(server.received) == 300

    def test_all_connections_that_were_closed_before_are_seen(self) -> None:
        with TCPServer() as server:
            for number in range(1, 50):
                with connect(server.port) as client:
                    client.sendall(b"x")
                assert len(server.received) == number

    def test_what_an_earlier_server_has_left_to_ask_is_not_asked_by_the_next(self) -> None:
        pool.close()  # so that both have the same process
        with HTTPServer(handler=lambda request: "hello") as first:
            with HTTPTalk(first) as client:
                client.connection.request("POST", "/", b"x" * 50_000)
                client.connection.getresponse().read()
            pid = pid_of(first)
        with HTTPServer(handler=HTTPTalk.handler(1)) as second, HTTPTalk(second) as client:
            assert pid_of(second) == pid
            assert client.ask() == "1"
            with suspended(pid), at_once():
                assert len(second.received) == 1
