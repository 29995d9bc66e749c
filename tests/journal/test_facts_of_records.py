"""What a record of each protocol knows of its connection and its answer, on real servers."""

from __future__ import annotations

import http.client
import smtplib
import socket
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from sidestage import HTTPServer, SMTPServer, TCPServer, UDPServer

WAIT = 10.0  # seconds at most for what comes at once


def ask_http(server: HTTPServer, path: str = "/") -> int:
    try:
        with urllib.request.urlopen(server.url + path, timeout=WAIT) as response:
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def send_mail(server: SMTPServer) -> None:
    with smtplib.SMTP(server.host, server.port, timeout=WAIT) as client:
        client.sendmail("me@example.org", ["you@example.org"], "Subject: x\r\n\r\nhi\r\n")


class TestHTTP:
    @pytest.mark.parametrize(
        "handler, status, size",
        [
            (None, 200, 0),
            (lambda request: ("nothing here", 404), 404, 12),
            (lambda request: iter([b"one", b"two"]), 200, 6),
        ],
    )
    def test_status_and_size(self, handler: Any, status: int, size: int) -> None:
        with HTTPServer(handler=handler) as server:
            before = time.monotonic()
            assert ask_http(server) == status
            (request,) = server.received
            assert before <= request.received_at <= time.monotonic()
            assert (request.answer.status, request.answer.size) == (status, size)
            assert 0 <= request.answer.seconds < WAIT

    @pytest.mark.parametrize("method, result", [("HEAD", "hello"), ("GET", ("gone", 204))])
    def test_a_response_without_a_body_has_no_size(self, method: str, result: Any) -> None:
        with HTTPServer(handler=lambda request: result) as server:
            client = http.client.HTTPConnection(server.host, server.port, timeout=WAIT)
            client.request(method, "/")
            assert client.getresponse().read() == b""
            client.close()
            assert server.received[0].answer.size == 0

    def test_one_that_failed(self) -> None:
        server = HTTPServer(handler=lambda request: {}[1]).start()
        assert ask_http(server) == 500
        assert server.received[0].answer.status == 500
        with pytest.raises(KeyError):
            server.stop()

    def test_one_that_took_too_long(self) -> None:
        with HTTPServer(handler=lambda request: request.body and None) as server:
            server.handler_timeout = 0.05
            server.stop()
            server.start()
            client = http.client.HTTPConnection(server.host, server.port, timeout=WAIT)
            client.putrequest("POST", "/late")
            client.putheader("Content-Length", "5")
            client.endheaders()  # and the handler waits for a body that does not come
            response = client.getresponse()
            assert response.status == 504
            (request,) = server.received
            assert (request.answer.status, request.answer.size) == (504, len(response.read()))
            client.close()

    def test_requests_of_one_connection_have_its_number(self) -> None:
        with HTTPServer(handler=lambda request: request.path) as server:
            first = http.client.HTTPConnection(server.host, server.port, timeout=WAIT)
            for path in ("/1", "/2"):
                first.request("GET", path)
                first.getresponse().read()
            ask_http(server, "/3")
            first.close()
            numbers = {request.path: request.connection_number for request in server.received}
            assert numbers == {"/1": 1, "/2": 1, "/3": 2}
            server.restart()
            ask_http(server, "/4")
            assert server.received[-1].connection_number == 1  # counted from 1 in each run

    def test_what_went_wrong_names_the_connection(self) -> None:
        with HTTPServer() as server:
            ask_http(server)
            with socket.create_connection(server.server_address, WAIT) as client:
                client.sendall(b"nonsense\r\n\r\n")
                client.recv(1000)
            assert server.diagnostics
            kinds = {entry.kind: entry.connection for entry in server._journal.entries()}
            assert kinds == {"received": 1, "answered": 1, "diagnosed": 2}


@pytest.mark.parametrize(
    "handler, code", [(None, 250), (lambda mail: "250 filed", 250), (lambda mail: None, 250)]
)
def test_a_mail(handler: Any, code: int) -> None:
    with SMTPServer(handler=handler) as server:
        send_mail(server)
        (mail,) = server.received
        assert (mail.answer.status, mail.connection_number) == (code, 1)
        assert mail.answer.size >= len("250 OK")


def test_a_refused_mail() -> None:
    with SMTPServer(handler=lambda mail: "550 no such user") as server:
        with pytest.raises(smtplib.SMTPDataError):
            send_mail(server)
        assert server.received[0].answer.status == 550


def test_a_connection() -> None:
    with TCPServer(handler=lambda connection: connection.recv(10).upper()) as server:
        with socket.create_connection(server.server_address, WAIT) as client:
            client.sendall(b"shout")
            assert client.recv(10) == b"SHOUT"
        (transcript,) = server.wait_for(1)
        assert (transcript.answer.status, transcript.answer.size) == (None, 5)
        assert transcript.connection_number == 1


def test_a_connection_that_is_answered_after_its_client_has_stopped_sending() -> None:
    def handler(connection: Any) -> None:
        whole = connection.rfile.read()  # to the end that the client sends
        connection.sendall(whole * 2)

    with TCPServer(handler=handler) as server:
        with socket.create_connection(server.server_address, WAIT) as client:
            client.sendall(b"abc")
            client.shutdown(socket.SHUT_WR)
            assert client.makefile("rb").read() == b"abcabc"
        (transcript,) = server.wait_for(1)
        assert transcript.ended == "closed by the client"
        assert transcript.answer.size == 6


def test_a_datagram() -> None:
    with (
        UDPServer(handler=lambda datagram: [b"one", b"three"]) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(WAIT)
        client.sendto(b"x", server.server_address)
        assert [client.recv(10), client.recv(10)] == [b"one", b"three"]
        (datagram,) = server.received
        assert (datagram.answer.size, datagram.connection_number) == (8, 0)


def test_diagnostics_are_bounded_by_keep() -> None:
    with HTTPServer(keep=4096) as server:
        for _ in range(40):
            with socket.create_connection(server.server_address, WAIT) as client:
                client.sendall(b"nonsense\r\n\r\n")
                client.recv(1000)
        first, *others = server.diagnostics
        assert len(others) < 10
        assert first.text == f"{40 - len(others)} older diagnostics dropped, to keep 4096 bytes"
