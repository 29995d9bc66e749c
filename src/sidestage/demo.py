"""Runs all four servers, hits each with a real client, and tells what happened: ``make demo``."""

from __future__ import annotations

import logging.handlers
import os
import smtplib
import socket
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


def _telling(handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
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


def main() -> None:
    """The demonstration."""
    servers = ServerManager(
        http=HTTPServer(handler=_telling(_greet)),
        smtp=SMTPServer(handler=_telling(_file)),
        tcp=TCPServer(handler=_telling(_shout)),
        udp=UDPServer(handler=_telling(_ignore)),
    )
    _say(f"the test process is pid {os.getpid()}")
    with servers:
        for name, server in servers.items():
            _say(f"  {name}: {server.url} served by pid {server.pid}")
        _say("HTTP, by urllib:")
        with urllib.request.urlopen(f"{servers['http'].url}/greet") as response:
            _say(f"    the client got {response.status} {response.read().decode()}")
        _say("SMTP, by smtplib:")
        with smtplib.SMTP(servers["smtp"].host, servers["smtp"].port) as client:
            client.sendmail("me@example.org", ["you@example.org"], "Subject: hello\r\n\r\nhi\r\n")
        _say(f"    the mail's subject is {servers['smtp'].wait_for(1)[0].message['Subject']!r}")
        _say("TCP, by a socket:")
        with socket.create_connection(servers["tcp"].server_address) as client_socket:
            client_socket.sendall(b"shout")
            _say(f"    the client got {client_socket.recv(100)!r}")
        _say("UDP, by logging.handlers.SysLogHandler:")
        syslog = logging.handlers.SysLogHandler(servers["udp"].server_address)
        syslog.emit(logging.makeLogRecord({"msg": "disk full", "levelno": logging.ERROR}))
        syslog.close()
        servers["udp"].wait_for(1)
        reports = servers.stop()
    _say("stopped:")
    for name, report in reports.items():
        _say(f"  {name}: {report}")
    for name, server in servers.items():
        _say(f"  {name} had received {server.received}")


if __name__ == "__main__":
    main()
