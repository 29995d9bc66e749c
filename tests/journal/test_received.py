"""What was received: the records of some fields, and the only one of them."""

from __future__ import annotations

import copy
import pickle
import smtplib
import socket
from collections.abc import Iterator

import pytest

from kit.web import fetch
from sidestage import HTTPServer, NotOneRecord, SMTPServer, TCPServer, UDPServer
from sidestage.journal.journal import SHOWN


@pytest.fixture(scope="module")
def shop() -> Iterator[HTTPServer]:
    with HTTPServer() as server:
        for path in ("/items", "/items?page=2", "/orders"):
            fetch(server.url + path)
        yield server


class TestHTTP:
    def test_by_method_and_path(self, shop: HTTPServer) -> None:
        received = shop.received
        assert [request.target for request in received.of("GET", "/items")] == [
            "/items",
            "/items?page=2",
        ]
        assert received.of("POST", "/items") == []
        assert len(received.of("GET")) == len(received.of(("GET", "HEAD"))) == 3
        assert len(received.of(path="/orders")) == len(received.of("*", "/orders")) == 1

    def test_the_only_one(self, shop: HTTPServer) -> None:
        assert shop.received.one("GET", "/orders").path == "/orders"
        second = shop.wait_for(lambda request: request.query.get("page") == "2")
        assert second.of("GET").one(path="/items") is second[0]

    def test_none_says_what_came(self, shop: HTTPServer) -> None:
        with pytest.raises(NotOneRecord, match=r"no record is of.*, among 3:") as caught:
            shop.received.one("GET", "/itms")
        assert "of('GET', '/itms')" in str(caught.value)
        assert "\n  <HTTPRequest GET /items from" in str(caught.value)
        assert caught.value.found == ()
        assert len(caught.value.received) == 3

    def test_several_are_listed(self, shop: HTTPServer) -> None:
        with pytest.raises(AssertionError, match=r"2 records are of.*, not one:") as caught:
            shop.received.one(path="/items")
        assert "of(path='/items')" in str(caught.value)
        assert "/orders" not in str(caught.value)

    def test_what_cannot_be_says_the_right_form(self, shop: HTTPServer) -> None:
        received = shop.received
        for wrong in (("/items", "GET"), ("/items",), ("GET /items",)):
            with pytest.raises(ValueError, match='as in "GET", "/items"'):
                received.of(*wrong)
        for path in ("items", "/items?page=2", "http://x/items"):
            with pytest.raises(ValueError, match='a path is "/items", without'):
                received.of("GET", path)
        with pytest.raises(ValueError, match='case counts in methods; write "GET"'):
            received.of(("POST", "get"))
        with pytest.raises(TypeError, match="unexpected keyword argument 'pth'"):
            received.of(pth="/items")
        for kind in ([], (), {"GET": 1}, b"GET", ("GET", 1), None):
            with pytest.raises(TypeError, match='a method is text, such as "GET", or a tuple, not'):
                received.of(kind, "/items")


def test_mails_by_sender_and_recipient() -> None:
    with SMTPServer() as server:
        with smtplib.SMTP(server.host, server.port) as client:
            client.sendmail("me@a", ["you@b", "her@b"], "1")
            client.sendmail("me@a", ["him@b"], "2")
        received = server.received
    assert len(received.of("me@a")) == 2
    assert received.one("me@a", "her@b").data.startswith(b"1")
    assert received.one(rcpt_to="him@b").data.startswith(b"2")
    assert received.of("you@b") == []
    for wrong in (5, ["her@b"], None):
        with pytest.raises(TypeError, match='an address is text, such as "me@here", not'):
            received.of(rcpt_to=wrong)


def test_datagrams_and_transcripts_by_address() -> None:
    with UDPServer() as udp, TCPServer() as tcp:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(b"other", udp.server_address)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"mine", udp.server_address)
            assert udp.wait_for(2).one(client.getsockname()).packet == b"mine"
        with socket.create_connection(tcp.server_address) as connection:
            mine = connection.getsockname()
        assert tcp.wait_for(1).one(client_address=mine).data == b""
        assert tcp.received.of(("127.0.0.1", 1)) == []
    for wrong in (5, ("127.0.0.1",), None):
        with pytest.raises(TypeError, match=r"a client's address is \(host, port\) or text, not"):
            udp.received.of(wrong)


def test_a_message_is_short_whatever_came() -> None:
    with UDPServer() as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for _ in range(30):
                client.sendto(b"x", server.server_address)
        server.wait_for(30)
        with pytest.raises(NotOneRecord) as caught:
            server.received.one()
    assert "30 records are of(), not one:\n  20 more, and then\n" in str(caught.value)
    assert str(caught.value).count("<Datagram") == SHOWN


def test_the_error_can_be_copied_and_pickled() -> None:
    error = NotOneRecord("none", found=(), received=(1,))
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (str(other), other.found, other.received) == ("none", (), (1,))
