"""Unix sockets, stream and datagram: their paths and their clients."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidestage import Datagram, HTTPServer, ServerDied, SMTPServer, StartError, TCPServer, UDPServer
from sidestage.child.service import service_of

LONG = 30.0  # seconds; a bound for what ends at once unless it is broken
STREAMS: list[Any] = [TCPServer, SMTPServer, HTTPServer]
SERVERS: list[Any] = [*STREAMS, UDPServer]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    """A datagram socket that has no address yet."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(LONG)
        yield sock


def kind(server: Any) -> int:
    return socket.SOCK_DGRAM if server is UDPServer else socket.SOCK_STREAM


def bind(path: Path, kind: int) -> socket.socket:
    """Bind, and listen if the socket is a stream."""
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(str(path))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    return sock


def read_all(client: socket.socket) -> bytes:
    data = b""
    while part := client.recv(1 << 16):
        data += part
    return data


# Paths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
def test_the_path_is_there_while_the_server_runs(server: Any, path: Path) -> None:
    with server(path) as running:
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert running.server_address == str(path)
        assert "unix" in running.url
        with socket.socket(socket.AF_UNIX, kind(server)) as client:
            client.connect(str(path))
    assert not path.exists()


@pytest.mark.parametrize("server", [TCPServer, UDPServer])
@pytest.mark.parametrize("abandoned", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_an_abandoned_path_is_no_obstacle(server: Any, abandoned: int, path: Path) -> None:
    bind(path, abandoned).close()
    with server(path) as running:
        assert running.ready.is_set()
    assert not path.exists()


@pytest.mark.parametrize("server", [TCPServer, UDPServer])
@pytest.mark.parametrize("live", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_live_path_is_a_start_error(server: Any, live: int, path: Path) -> None:
    with bind(path, live) as other:
        with pytest.raises(StartError) as caught:
            server(path).start()
        assert caught.value.errno == errno.EADDRINUSE
        with socket.socket(socket.AF_UNIX, live) as client:
            client.connect(str(path))
        other.setblocking(False)
        if live == socket.SOCK_STREAM:
            other.accept()[0].close()  # this client's


@pytest.mark.parametrize("server", [TCPServer, UDPServer])
def test_a_server_never_notices_that_another_wanted_its_path(server: Any, path: Path) -> None:
    with server(path) as running:
        for other in (TCPServer, UDPServer):
            with pytest.raises(StartError):
                other(path).start()
        assert running.received == []


@pytest.mark.parametrize("make", ["file", "directory", "dangling link", "link to a socket"])
def test_what_is_no_socket_is_left_alone(make: str, path: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    if make == "file":
        path.write_text("precious")
    elif make == "directory":
        path.mkdir()
    else:
        path.symlink_to(target)
    if make == "link to a socket":
        bind(target, socket.SOCK_STREAM).close()
    before = path.lstat()
    with pytest.raises(StartError) as caught:
        TCPServer(path).start()
    assert caught.value.errno == errno.EADDRINUSE
    assert path.lstat() == before


@pytest.mark.parametrize(
    "name, number", [("none/s", errno.ENOENT), ("file/s", errno.ENOTDIR)], ids=["no", "file"]
)
def test_a_directory_that_is_none_is_a_start_error(name: str, number: int, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError) as caught:
        TCPServer(tmp_path / name).start()
    assert caught.value.errno == number


@pytest.mark.parametrize("server", [TCPServer, UDPServer])
def test_a_relative_path_is_relative_to_the_tests_directory(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with server("s") as running:
        assert running.server_address == "s"
        assert (tmp_path / "s").exists()
        os.chdir("/")
    assert not (tmp_path / "s").exists()


def test_a_path_that_another_process_has_taken_over_is_left_alone(path: Path) -> None:
    with TCPServer(path):
        path.unlink()
        path.write_text("precious")
    assert path.read_text() == "precious"


def test_a_path_that_is_gone_already_is_no_error(path: Path) -> None:
    with TCPServer(path):
        path.unlink()


@pytest.mark.parametrize("server", [TCPServer, UDPServer])
def test_a_server_restarts_on_its_path(server: Any, path: Path) -> None:
    with server(path) as running:
        running.restart()
        assert path.exists()
    assert not path.exists()


def test_the_path_of_a_process_that_was_killed_is_used_again(path: Path) -> None:
    server = TCPServer(path).start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(ServerDied):
        server.restart()
    assert path.exists()
    server.stop()
    assert not path.exists()


def test_an_abstract_name_needs_no_file() -> None:
    name = f"\0sidestage-test-{os.getpid()}"
    with (
        TCPServer(name, lambda connection: b"hello") as server,
        socket.socket(socket.AF_UNIX) as client,
    ):
        assert server.server_address == name
        client.connect(name)
        assert read_all(client) == b"hello"


# Clients ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["reply", "reset", "half-close"])
def test_a_stream_serves_like_tcp(how: str, path: Path) -> None:
    def handler(connection: Any) -> bytes | None:
        said = connection.rfile.read() if how == "half-close" else connection.recv(10)
        return connection.reset() if how == "reset" else said.upper()

    with TCPServer(path, handler) as server, socket.socket(socket.AF_UNIX) as client:
        client.connect(server.server_address)
        client.sendall(b"hello")
        if how == "half-close":
            client.shutdown(socket.SHUT_WR)
        assert read_all(client) == (b"" if how == "reset" else b"HELLO")


def test_a_transcript_of_a_stream_knows_the_path(path: Path) -> None:
    with TCPServer(path) as server:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"hello")
        transcript = server.wait_for(1)[0]
    assert (transcript.data, transcript.client_address) == (b"hello", "")
    assert transcript.server_address == str(path)


@pytest.mark.parametrize("name", ["client", "", b"cl\xffient"], ids=["path", "autobind", "bytes"])
def test_a_datagram_client_with_an_address_gets_the_reply(
    name: str | bytes, path: Path, tmp_path: Path, sender: socket.socket
) -> None:
    sender.bind(os.fsencode(tmp_path / os.fsdecode(name)) if name else "")
    with UDPServer(path, lambda datagram: datagram.packet.upper()) as server:
        sender.sendto(b"hello", server.server_address)
        if isinstance(name, bytes):
            assert server.wait_for(1)[0].data == b"hello"
        else:
            assert sender.recv(10) == b"HELLO"


def test_a_datagram_client_without_an_address_cannot_be_replied_to(
    path: Path, sender: socket.socket
) -> None:
    server = UDPServer(path, lambda datagram: b"reply").start()
    sender.sendto(b"hello", server.server_address)
    assert server.wait_for(1)[0].client_address == ""
    with pytest.raises(ValueError, match="the sender has no address to reply to"):
        server.stop()


def test_a_datagram_larger_than_udp_allows_is_taken_whole(
    path: Path, tmp_path: Path, sender: socket.socket
) -> None:
    sender.bind(str(tmp_path / "client"))
    with UDPServer(path, lambda datagram: datagram.packet) as server:
        sender.sendto(b"x" * 100_000, server.server_address)
        assert sender.recv(1 << 20) == b"x" * 100_000


def test_replies_wait_for_a_client_whose_queue_is_full(
    path: Path, tmp_path: Path, sender: socket.socket
) -> None:
    def handler(datagram: Datagram) -> list[bytes]:
        return [b"%d" % number for number in range(2000)]

    sender.bind(str(tmp_path / "client"))
    with UDPServer(path, handler) as server:
        sender.sendto(b"go", server.server_address)
        server.wait_for(1)
        assert [int(sender.recv(10)) for _ in range(2000)] == list(range(2000))


def test_a_datagram_client_that_has_left_appears_in_the_diagnostics(
    path: Path, tmp_path: Path
) -> None:
    def handler(datagram: Datagram) -> bytes:
        (tmp_path / "client").unlink()
        return b"reply"

    server = UDPServer(path, handler)
    with server:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(str(tmp_path / "client"))
            sock.sendto(b"hello", server.server_address)
            server.wait_for(1)
    assert "a reply could not be sent: No such file" in server.diagnostics[0].text


@pytest.mark.parametrize("server", SERVERS)
def test_a_stop_removes_the_path_before_another_could_take_it_for_abandoned(
    server: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At that time the socket is still open, so nobody else has got its inode."""
    service = service_of(server.protocol)
    removed: list[bool] = []

    class Service(service):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            self._acceptors = [Listener()]
            self._sockets = [Listener()]
            self.loop = self.iteration = Loop()
            self.remove_file = lambda: removed.append(True)

    class Listener:
        def close(self) -> None:
            assert removed == [True]

        def fileno(self) -> int:
            return -1

    class Loop:
        def remove_reader(self, sock: object) -> None: ...

        remove_writer = remove_reader

    Service().close_listeners()
    assert removed == [True]
