"""The handlers of ``logging.handlers`` that use the network, against each kind of server."""

from __future__ import annotations

import logging
import logging.handlers
import pickle
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kit.scripts import eventually
from sidestage import Connection, HTTPServer, SMTPServer, TCPServer, UDPServer


@contextmanager
def using(handler: logging.Handler) -> Iterator[logging.Logger]:
    """A new logger that has only this handler."""
    logger = logging.getLogger("sidestage.example")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        handler.close()


def unpickled(stream: bytes) -> list[logging.LogRecord]:
    """The records of a SocketHandler: each has four bytes of length before it."""
    records = []
    while stream:
        (size,) = struct.unpack(">L", stream[:4])
        records.append(logging.makeLogRecord(pickle.loads(stream[4 : 4 + size])))
        stream = stream[4 + size :]
    return records


@pytest.mark.parametrize("listen", ["ipv4", "ipv6", "unix"])
def test_a_socket_handler(listen: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    address: Any = {"ipv4": ("127.0.0.1", 0), "ipv6": ("::1", 0), "unix": path}[listen]
    with TCPServer(address) as server:
        where = (str(path), None) if listen == "unix" else (server.host, server.port)
        with using(logging.handlers.SocketHandler(*where)) as logger:
            logger.error("tcp")
            logger.debug("spam %s", "eggs")
        records = unpickled(server.wait_for(1)[0].data)
    assert [record.getMessage() for record in records] == ["tcp", "spam eggs"]


def test_a_socket_handler_connects_again_when_the_server_is_back() -> None:
    heard = bytearray()

    def listen(connection: Connection) -> None:
        while data := connection.recv(1 << 16):
            heard.extend(data)

    with TCPServer(handler=listen) as server:
        handler = logging.handlers.SocketHandler(server.host, server.port)
        handler.retryStart, handler.closeOnError = 0, True
        with using(handler) as logger:
            logger.error("before")
            assert eventually(lambda: b"before" in heard)
            server.restart()
            assert eventually(lambda: logger.error("after") or b"after" in heard)  # type: ignore[func-returns-value]


@pytest.mark.parametrize("listen", ["ipv4", "unix"])
def test_a_datagram_handler(listen: str, tmp_path: Path) -> None:
    with UDPServer(("127.0.0.1", 0) if listen == "ipv4" else tmp_path / "s") as server:
        where = (str(tmp_path / "s"), None) if listen == "unix" else (server.host, server.port)
        with using(logging.handlers.DatagramHandler(*where)) as logger:
            logger.error("one")
            logger.error("two")
        messages = [unpickled(d.packet)[0].getMessage() for d in server.wait_for(2)]
    assert messages == ["one", "two"]


@pytest.mark.parametrize("listen", ["ipv4", "ipv6", "unix"])
def test_a_syslog_handler_over_datagrams(listen: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    address: Any = {"ipv4": ("127.0.0.1", 0), "ipv6": ("::1", 0), "unix": path}[listen]
    with UDPServer(address) as server:
        where: Any = str(path) if listen == "unix" else (server.host, server.port)
        with using(logging.handlers.SysLogHandler(where)) as logger:
            logger.error("sp\xe4m")
        assert server.wait_for(1)[0].data == b"<11>sp\xc3\xa4m\x00"


def test_a_syslog_handler_over_tcp() -> None:
    with TCPServer() as server:
        where = (server.host, server.port)
        handler = logging.handlers.SysLogHandler(where, socktype=socket.SOCK_STREAM)
        handler.append_nul = False
        with using(handler) as logger:
            logger.critical("over tcp")
        assert server.wait_for(1)[0].data == b"<10>over tcp"


def test_an_smtp_handler() -> None:
    with SMTPServer() as server:
        handler = logging.handlers.SMTPHandler(
            (server.host, server.port), "me", ["you", "them"], "Log", timeout=30.0
        )
        with using(handler) as logger:
            logger.error("Hello \u2713")
        mail = server.received[0]
    assert (mail.mail_from, mail.rcpt_tos) == ("me", ["you", "them"])
    assert mail.message["Subject"] == "Log"
    assert mail.message.get_content() == "Hello \u2713\n"


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # HTTPHandler's own
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_http_handler(method: str) -> None:
    with HTTPServer() as server:
        handler = logging.handlers.HTTPHandler(f"{server.host}:{server.port}", "/frob", method)
        with using(handler) as logger:
            logger.error("sp\xe4m")
        request = server.received[0]
    assert (request.method, request.path) == (method, "/frob")
    sent = request.query if method == "GET" else request.form
    assert (sent["name"], sent["msg"]) == ("sidestage.example", "sp\xe4m")


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # SMTPHandler's own
def test_what_a_server_refuses_is_the_handlers_error() -> None:
    errors: list[logging.LogRecord] = []
    with SMTPServer(handler=lambda mail: "550 no") as server:
        handler = logging.handlers.SMTPHandler((server.host, server.port), "me", "you", "Log")
        handler.handleError = errors.append  # type: ignore[method-assign]
        with using(handler) as logger:
            logger.error("unwanted")
    assert [record.getMessage() for record in errors] == ["unwanted"]
