"""Runs all four servers, uses each with a real client, prints what happens: ``make demo``."""

from __future__ import annotations

import json
import logging.handlers
import os
import smtplib
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from . import (
    TLS,
    Connection,
    Datagram,
    HTTPRequest,
    HTTPServer,
    Mail,
    ServerManager,
    SMTPServer,
    TCPServer,
    UDPServer,
    UnexpectedRequest,
    faults,
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
        _use_https()
        _fail(servers["http"])
        _expect()
        _surprise()
        reports = servers.stop()
    _say("stopped:")
    for name, report in reports.items():
        _say(f"  {name}: {report}")
    for name, server in servers.items():
        _say(f"  {name} had received {server.received}")


def _use_http(server: Any) -> None:
    _say("HTTP, by urllib:")
    _ask(server, "/greet")


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


def _use_https() -> None:
    _say("HTTPS, by urllib, with a certificate made for this run:")
    try:
        with HTTPServer(handler=_reporting(_greet), tls=True) as server:
            _ask(server, "/greet")
            (request,) = server.received
            _say(f"    they agreed on {request.tls.version if request.tls else 'nothing'}")
        _say("A server with a certificate that has expired, which your client must refuse:")
        with HTTPServer(tls=TLS.expired()) as server:
            _ask(server, "/greet")
    except ImportError as error:
        _say(f"    not shown: {error}")


def _fail(server: Any) -> None:
    _say("A handler that fails, which would fail your test:")
    server.handler = _demand
    with server.expected_errors(AssertionError):
        _ask(server, "/report?fmt=csv")
    _say("    the server explains:")
    for line in server.explain().splitlines():
        _say(f"      {line}")


def _expect() -> None:
    _say("Expectations, which the server's process answers by itself:")
    with HTTPServer() as server:
        server.expect("POST", "/orders", json={"sku": int}).reply({"id": 1}, 201)
        server.expect("GET", "/orders/{id:int}").reply(faults.reset()).reply({"state": "paid"})
        order = json.dumps({"sku": 7}).encode()
        _ask(server, "/orders", order)
        _ask(server, "/orders/1")
        _ask(server, "/orders/1")


def _surprise() -> None:
    _say("A request that nothing expects, which would fail your test:")
    with HTTPServer() as server:
        server.allow("GET", "/orders/{id:int}").reply({"state": "paid"})
        _ask(server, "/order/1")
        try:
            server.verify()
        except UnexpectedRequest as error:
            _say("    the test fails with UnexpectedRequest:")
            for line in str(error).splitlines():
                _say(f"      {line}")


def _ask(server: HTTPServer, path: str, body: bytes | None = None) -> None:
    context = None if server.tls is None else server.client_context()
    try:
        with urllib.request.urlopen(f"{server.url}{path}", body, context=context) as response:
            _say(f"    the client got {response.status} {response.read().decode()}")
    except urllib.error.HTTPError as error:
        _say(f"    the client got {error.code} {error.reason}")
        error.close()
    except urllib.error.URLError as error:
        _say(f"    the client got {error.reason}")
    except ConnectionError as error:
        _say(f"    the client got {error!r}")


if __name__ == "__main__":
    main()
