"""Runs all four servers, uses each with a real client, prints what happens: ``make demo``."""

from __future__ import annotations

import logging.handlers
import os
import smtplib
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from . import (
    Connection,
    Datagram,
    HTTPRequest,
    HTTPServer,
    Mail,
    ServerManager,
    SMTPServer,
    TCPServer,
    UDPServer,
)


def _say(text: str) -> None:
    print(text, flush=True)


def _reporting(handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def handle(request: Any) -> Any:
        _say(f"    handled in pid {os.getpid()}: {request!r}")
        return handler(request)

    return handle


def _greet(request: HTTPRequest) -> dict[str, str]:
    return {"you asked for": request.path}


def _file(mail: Mail) -> str:
    return f"250 filed for {len(mail.rcpt_tos)}"


def _shout(connection: Connection) -> bytes:
    return connection.recv(100).upper()


def _ignore(datagram: Datagram) -> None:
    return


def _demand(request: HTTPRequest) -> str:
    assert request.query.get("format") == "csv", "want csv"
    return "id,total"


def main() -> None:
    """Start the servers, use each, stop them, and print every step."""
    servers = ServerManager(
        http=HTTPServer(handler=_reporting(_greet)),
        smtp=SMTPServer(handler=_reporting(_file)),
        tcp=TCPServer(handler=_reporting(_shout)),
        udp=UDPServer(handler=_reporting(_ignore)),
    )
    _say(f"the test process is pid {os.getpid()}")
    with servers:
        for name, server in servers.items():
            _say(f"  {name}: {server.url} served by pid {server.pid}")
        _use_http(servers["http"])
        _use_smtp(servers["smtp"])
        _use_tcp(servers["tcp"])
        _use_udp(servers["udp"])
        _fail(servers["http"])
        reports = servers.stop()
    _say("stopped:")
    for name, report in reports.items():
        _say(f"  {name}: {report}")
    for name, server in servers.items():
        _say(f"  {name} had received {server.received}")


def _use_http(server: Any) -> None:
    _say("HTTP, by urllib:")
    with urllib.request.urlopen(f"{server.url}/greet") as response:
        _say(f"    the client got {response.status} {response.read().decode()}")


def _use_smtp(server: Any) -> None:
    _say("SMTP, by smtplib:")
    with smtplib.SMTP(server.host, server.port) as client:
        client.sendmail("me@example.org", ["you@example.org"], "Subject: hello\r\n\r\nhi\r\n")
    _say(f"    the mail's subject is {server.wait_for(1)[0].message['Subject']!r}")


def _use_tcp(server: Any) -> None:
    _say("TCP, by a socket:")
    with socket.create_connection(server.server_address) as client:
        client.sendall(b"shout")
        _say(f"    the client got {client.recv(100)!r}")


def _use_udp(server: Any) -> None:
    _say("UDP, by logging.handlers.SysLogHandler:")
    client = logging.handlers.SysLogHandler(server.server_address)
    client.emit(logging.makeLogRecord({"msg": "disk full", "levelno": logging.ERROR}))
    client.close()
    server.wait_for(1)


def _fail(server: Any) -> None:
    _say("A handler that fails, which would fail your test:")
    server.handler = _demand
    with server.expected_errors(AssertionError):
        try:
            urllib.request.urlopen(f"{server.url}/report?fmt=csv").close()
        except urllib.error.HTTPError as error:
            _say(f"    the client got {error.code} {error.reason}")
            error.close()
    _say("    the server explains:")
    for line in server.explain().splitlines():
        _say(f"      {line}")


if __name__ == "__main__":
    main()
