"""What users write; type checkers report nothing here. It is never run."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from sidestage import (
    TLS,
    Connection,
    Datagram,
    HTTPRequest,
    HTTPResponse,
    HTTPServer,
    Mail,
    Received,
    Server,
    ServerManager,
    SMTPServer,
    TCPServer,
    Transcript,
    UDPServer,
    classic,
)

# TLS ------------------------------------------------------------------------------------------


def greet(request: HTTPRequest) -> str:
    tls = request.tls
    certificate = None if tls is None else tls.client_certificate
    return "stranger" if certificate is None else certificate.common_name or certificate.pem


secured = HTTPServer(
    handler=greet, tls=TLS(client_auth="required", hosts=["a.example", "b.example"])
)
secured.tls = True
secured.tls = None
secured.tls = TLS.expired(alpn="h2", clock=lambda: 1e9)
SMTPServer(tls=False)
TCPServer(tls=TLS(cert=Path("cert.pem"), key=b"key", ca="ca.pem"))
TCPServer(tls=TLS(cert=memoryview(b"cert"), minimum_version=ssl.TLSVersion.TLSv1_3))


def cut(connection: Connection) -> None:
    if connection.tls is None:
        connection.close()
    else:
        connection.close_without_notify()


paths: tuple[str, str] = TLS().client_certificate("alice")
secured.client_context().load_cert_chain(*paths)
environment: dict[str, str] = {**secured.client_env(), "CA": secured.ca_file}

# Addresses ------------------------------------------------------------------------------------

HTTPServer()
HTTPServer(("127.0.0.1", 0))
HTTPServer(("::1", 0, 0, 0))
HTTPServer(["localhost", 8080])
HTTPServer("/tmp/x/sock")
HTTPServer(b"/tmp/x/sock")
SMTPServer(Path("sock"))
host, port = "localhost", 0
UDPServer((host, port), name="clock", keep=1 << 20)
TCPServer(HTTPServer().server_address)


# Handlers -------------------------------------------------------------------------------------


def shop(request: HTTPRequest) -> HTTPResponse | str | tuple[dict[str, int], int]:
    if request.path == "/":
        return HTTPResponse("hello", HTTPStatus.OK, {"A": "b"})
    return "nothing" if request.method == "GET" else ({"id": 1}, 201)


def chunks(request: HTTPRequest) -> Iterator[bytes]:
    yield request.body


async def later(request: HTTPRequest) -> dict[str, Any]:
    return {"form": request.form["x"]}


def untyped(request):  # type: ignore[no-untyped-def]
    return request.path


HTTPServer(handler=shop)
HTTPServer(("127.0.0.1", 0), later, 0.01, head_limit=100)
HTTPServer(handler=lambda request: request.headers["Host"])
HTTPServer(handler=untyped)
http_server = HTTPServer(handler=chunks)
http_server.handler = later
http_server.handler = lambda request: 404
http_server.handler = None

mails: list[Mail] = []


def deliver(mail: Mail) -> str | None:
    return None if mail.mail_from else "550 who are you"


async def deliver_later(mail: Mail) -> None:
    mails.append(mail)


SMTPServer(handler=deliver)
SMTPServer(handler=deliver_later, size_limit=1000)
SMTPServer(handler=untyped)
smtp_server = SMTPServer(handler=lambda mail: "250 OK")
smtp_server.handler = lambda mail: mails.append(mail)
smtp_server.handler = mails.append
smtp_server.handler = deliver_later
smtp_server.handler = None


def talk(connection: Connection) -> bytes:
    connection.sendall(connection.rfile.readline())
    return b"bye"


TCPServer(handler=talk)
UDPServer(handler=lambda datagram: datagram.packet)


def hear(datagram: Datagram) -> list[bytes]:
    return [datagram.packet, b"more"]


UDPServer(handler=hear)

# The life of a server -------------------------------------------------------------------------


def use(server: Server[Any]) -> str:
    return server.start().url


def test(tcp_server: TCPServer) -> None:
    with HTTPServer(name="api") as server, ServerManager() as manager:
        server.stop_timeout = 1.0
        server.handler_timeout = None
        requests: Received[HTTPRequest] = server.wait_for(1)
        assert requests[0].query["q"] == "x"
        assert [request.path for request in server.received] == ["/"]
        manager.add("mail", SMTPServer())
    transcript: Transcript = tcp_server.received[-1]
    assert transcript.data == b""
    use(tcp_server)


async def test_async() -> AsyncIterator[str]:
    async with SMTPServer() as server:
        yield f"{server.host}:{server.port}"


class Shop(HTTPServer):
    """A server of the user's own, with attributes of its own."""

    def __init__(self) -> None:
        super().__init__(handler=shop)
        self.prices: dict[str, int] = {}


Shop().prices["x"] = 1


def as_in_the_proposal(peer: Any, mail_from: str, rcpt_tos: list[str], data: str) -> None:
    assert rcpt_tos


classic.TestSMTPServer(("localhost", 0), as_in_the_proposal, 0.01)
