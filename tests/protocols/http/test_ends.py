"""Ends in the middle: of a client that stops sending, of a body, of a connection."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from kit.clients import connect, read_all
from kit.raw_http import RawClient
from kit.scripts import eventually
from sidestage import HTTPServer

LONG = 30.0  # seconds; a bound for what ends at once unless it is broken
EXPECTING = b"POST / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"


def test_a_handler_may_read_the_body_after_it_has_begun_to_answer() -> None:
    """A client that waits for 100 Continue gets it before the answer."""

    def handler(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.flush()
        request.wfile.write(request.body.upper())

    with HTTPServer(handler=handler) as server, connect(server.port) as client:
        client.settimeout(LONG)
        client.sendall(EXPECTING)
        assert client.recv(1000).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        assert b"HELLO" in read_all(client)


def test_an_end_in_a_pipelined_request_ends_the_connection_after_the_others() -> None:
    release = threading.Event()

    def handler(request: Any) -> str:
        release.wait(LONG)
        return request.path

    with HTTPServer(handler=handler) as server, connect(server.port) as client:
        client.settimeout(LONG)
        client.sendall(
            b"GET /a HTTP/1.1\r\nHost: t\r\n\r\n"
            b"POST /b HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nabc"
        )
        client.shutdown(socket.SHUT_WR)
        release.set()
        assert read_all(client).endswith(b"/a")
        assert [request.path for request in server.received] == ["/a"]
        assert "in the middle of a request" in server.diagnostics[0].text


def test_a_handler_set_in_the_middle_of_a_cut_body_does_not_get_a_part_of_it() -> None:
    with HTTPServer(keep=40_000) as server, connect(server.port) as client:
        client.settimeout(LONG)
        head = b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 50000\r\nConnection: close\r\n\r\n"
        client.sendall(head + b"x" * 30_000)
        server._sync()  # the child has it
        server.handler = lambda request: "handled"
        client.sendall(b"x" * 20_000)
        assert read_all(client).endswith(b"\r\n\r\n")
        (request,) = server.received
        assert (len(request.body), request.body_cut) == (10_000, 40_000)


def test_a_large_answer_arrives_though_the_client_sends_more() -> None:
    """To close with unread bytes would reset the connection."""
    big = b"x" * 3_000_000
    with HTTPServer(handler=lambda request: big) as server, connect(server.port) as client:
        client.settimeout(LONG)
        client.sendall(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        first = client.recv(1000)
        client.sendall(b"\r\n")
        rest = read_all(client)
    assert (first + rest).endswith(big)


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("leave", ["close", "reset", "stop sending"])
@pytest.mark.parametrize("size", [10, 100_000, 1_000_000])
def test_a_client_that_leaves_in_its_second_request_ends_that(
    size: int, leave: str, answered: bool
) -> None:
    """Whether its handler has it by then or not: nobody waits for the rest of the body."""
    began, release = threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def handler(request: Any) -> bytes:
        if request.path == "/1":
            began.set()
            release.wait(LONG)
            return b"one"
        began.set()
        try:
            return bytes(request.body)
        except BaseException as error:
            raised.append(error)
            raise

    with HTTPServer(handler=handler, handler_timeout=None) as server:
        with RawClient(server) as client:
            client.send(
                b"GET /1 HTTP/1.1\r\nHost: t\r\n\r\n"
                b"POST /2 HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n"
                % (2 * size)
                + bytes(size)
            )
            assert began.wait(LONG)
            if answered:
                began.clear()
                release.set()
                assert began.wait(LONG)
            if leave == "reset":
                client.reset()
            elif leave == "close":
                client.close()
            else:
                client.end()
            server._sync()
            release.set()
            assert eventually(lambda: bool(server.diagnostics), LONG)
        assert "in the middle of a request" in server.diagnostics[0].text
    if answered or raised:
        assert [type(error).__mro__[1] for error in raised] == [ConnectionResetError]
        assert 0 < len(server.received[1].body) <= size  # a reset takes what was not read
    else:
        assert [record.path for record in server.received] == ["/1"]


def test_a_record_whose_client_has_left_has_what_came() -> None:
    """Also in the main thread, while its handler does something else."""
    began, release = threading.Event(), threading.Event()

    def handler(request: Any) -> None:
        began.set()
        release.wait(LONG)

    with HTTPServer(handler=handler, handler_timeout=None) as server:
        with RawClient(server) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhello")
            assert began.wait(LONG)
        with pytest.raises(ConnectionResetError):
            server.received[0].body  # noqa: B018 - reading it is what raises
        assert server.received[0].body == b"hello"
        release.set()
