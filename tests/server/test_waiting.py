"""Waiting for records: a number, or one that a function accepts; on a loop, too."""

from __future__ import annotations

import asyncio
import re
import smtplib
import socket
import threading
import time
from typing import Any

import pytest

from kit.web import fetch, fetch_quietly
from sidestage import HTTPServer, SMTPServer, StateError, TCPServer, UDPServer, WaitTimeout
from sidestage.journal.journal import SHOWN

WAIT = 10.0  # seconds at most for what comes at once


def send(server: UDPServer, *packets: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for packet in packets:
            client.sendto(packet, server.server_address)


class TestPredicate:
    def test_gives_the_records_that_it_accepts(self) -> None:
        with UDPServer() as server:
            send(server, b"a1", b"b1", b"a2")
            server.wait_for(3)
            found = server.wait_for(lambda datagram: datagram.packet.startswith(b"a"))
        assert [datagram.packet for datagram in found] == [b"a1", b"a2"]

    def test_waits_for_one_that_comes_later(self) -> None:
        with UDPServer() as server:
            send(server, b"early")
            later = threading.Thread(target=send, args=(server, b"late"))
            later.start()
            found = server.wait_for(lambda datagram: datagram.packet == b"late", WAIT)
            later.join()
        assert [datagram.packet for datagram in found] == [b"late"]

    def test_sees_a_record_again_once_it_is_answered(self) -> None:
        go_on = threading.Event()
        with HTTPServer(handler=lambda request: go_on.wait(WAIT) and "done") as server:
            client = threading.Thread(target=fetch, args=(server.url,))
            client.start()
            server.wait_for(1)
            threading.Timer(0.05, go_on.set).start()
            began = time.monotonic()
            (request,) = server.wait_for(lambda request: request.answer is not None, WAIT)
            assert time.monotonic() - began < WAIT / 2
            client.join()
        assert request.answer is not None
        assert request.answer.status == 200

    def test_may_read_the_body(self) -> None:
        with HTTPServer() as server:
            with socket.create_connection(server.server_address) as client:
                client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n")
                client.sendall(b'{"a":1}')
                assert server.wait_for(lambda request: request.json()["a"] == 1, WAIT)

    def test_that_raises_is_raised(self) -> None:
        with HTTPServer() as server:
            fetch(server.url)
            with pytest.raises(KeyError, match="missing"):
                server.wait_for(lambda request: request.query["missing"])

    def test_in_vain_says_which_and_what_came(self) -> None:
        def is_an_order(request: Any) -> bool:
            return bool(request.path == "/orders")

        with HTTPServer(name="shop") as server:
            fetch(server.url + "/items")
            with pytest.raises(WaitTimeout) as caught:
                server.wait_for(is_an_order, 0.01)
        text = str(caught.value)
        assert text.startswith("HTTPServer 'shop' received nothing that ")
        assert "is_an_order accepts within 0.01 s, among 1:\n  <HTTPRequest GET /items" in text


class TestMessage:
    def test_is_short_and_made_in_time_whatever_came(self) -> None:
        with UDPServer() as server:
            server._journal.keep = 1 << 30
            for number in range(20):
                send(server, *(b"%d" % (500 * number + sent) for sent in range(500)))
                server.wait_for(500 * (number + 1), WAIT)
            (record,) = server.received[-1:]
            for _ in range(90_000):
                server._journal.received(record, 1)
            began = time.monotonic()
            with pytest.raises(WaitTimeout) as caught:
                server.wait_for(100_001, timeout=0.1)
            took = time.monotonic() - began
        text = str(caught.value)
        assert "received 100000 of 100001 within 0.1 s:\n  99,990 more, and then\n" in text
        assert text.count("<Datagram") == SHOWN
        assert len(text) < 2000
        assert took < 1

    def test_of_mails_does_not_parse_them(self) -> None:
        large = "Subject: large\r\n\r\n" + 100_000 * "forty characters and a number of words\r\n"
        with SMTPServer() as server:
            with smtplib.SMTP(server.host, server.port) as client:
                for _ in range(3):
                    client.sendmail("me@example.org", ["you@example.org"], large)
            server.wait_for(3, WAIT)
            with pytest.raises(WaitTimeout, match=r"(?s)3 of 4.*(large>.*){3}"):
                server.wait_for(4, timeout=0)
            assert all(mail._parsed is None for mail in server.received)


class TestOnALoop:
    def test_raises_only_where_it_would_have_to_wait(self) -> None:
        async def main() -> None:
            async with HTTPServer() as server:
                await asyncio.to_thread(fetch, server.url)
                assert len(server.wait_for(1)) == 1
                with pytest.raises(WaitTimeout):
                    server.wait_for(2, timeout=0)
                with pytest.raises(StateError, match=r"await server\.wait_for_async"):
                    server.wait_for(2)

        asyncio.run(main())

    def test_a_wait_for_lets_the_loop_go_on(self) -> None:
        async def main() -> None:
            async with TCPServer() as server:
                waiting = asyncio.create_task(server.wait_for_async(1, WAIT))
                _, writer = await asyncio.open_connection(*server.server_address)
                writer.write(b"hello")
                writer.close()
                (transcript,) = await waiting
                assert transcript.data == b"hello"
                assert await server.wait_for_async(lambda one: one.data == b"hello")

        asyncio.run(main())

    def test_that_is_in_vain_raises(self) -> None:
        async def main() -> None:
            async with HTTPServer() as server:
                with pytest.raises(WaitTimeout, match="0 of 1"):
                    await server.wait_for_async(1, timeout=0.01)

        asyncio.run(main())

    @pytest.mark.parametrize("handler", [None, lambda request: None])
    def test_that_is_cancelled_ends_at_once(self, handler: Any) -> None:
        async def main() -> float:
            async with HTTPServer(handler=handler) as server:
                began = time.monotonic()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(server.wait_for_async(1, timeout=60), 0.05)
                return time.monotonic() - began

        assert asyncio.run(main()) < 5

    def test_outside_of_one_says_what_to_write(self) -> None:
        with HTTPServer() as server:
            waiting = server.wait_for_async(1)
            with pytest.raises(StateError, match=re.escape("call `wait_for`")):
                waiting.send(None)


class TestIdle:
    def test_is_once_the_handlers_have_returned(self) -> None:
        go_on, done = threading.Event(), []

        def handler(request: Any) -> None:
            go_on.wait(WAIT)
            done.append(request.path)

        with HTTPServer(handler=handler) as server:
            with socket.create_connection(server.server_address) as client:
                client.sendall(2 * b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
                threading.Timer(0.05, go_on.set).start()
                server.wait_idle(WAIT)
                assert done == ["/a", "/a"]
            server.wait_idle(timeout=0)
        server.wait_idle()

    def test_in_vain_says_for_what_a_handler_runs(self) -> None:
        go_on = threading.Event()
        with HTTPServer(handler=lambda request: go_on.wait(WAIT) and "done") as server:
            client = threading.Thread(target=fetch, args=(server.url + "/slow",))
            client.start()
            server.wait_for(1)
            with pytest.raises(WaitTimeout, match=r"still runs for\n  GET /slow$"):
                server.wait_idle(0.01)
            go_on.set()
            client.join()

    def test_does_not_block_a_loop(self) -> None:
        async def main() -> None:
            async with HTTPServer(handler=lambda request: go_on.wait(WAIT) and "") as server:
                client = asyncio.create_task(asyncio.to_thread(fetch, server.url))
                await server.wait_for_async(1)
                with pytest.raises(StateError, match=r"await asyncio\.to_thread"):
                    server.wait_idle()
                go_on.set()
                await asyncio.to_thread(server.wait_idle)
                await client
                server.wait_idle()

        go_on = threading.Event()
        asyncio.run(main())

    def test_a_handler_does_not_wait_for_itself(self) -> None:
        def handler(request: Any) -> str:
            server.wait_idle(WAIT)
            return "idle"

        with HTTPServer(handler=handler) as server:
            assert fetch(server.url) == b"idle"


class TestClear:
    def test_forgets_records_diagnostics_and_errors(self) -> None:
        def handler(request: Any) -> None:
            raise KeyError(request.path)

        with HTTPServer(handler=handler) as server:
            for path in ("/a", "/b"):
                fetch_quietly(server.url + path)
            with socket.create_connection(server.server_address) as client:
                client.sendall(b"nonsense\r\n\r\n")
                while client.recv(1000):
                    pass
            assert server.diagnostics
            assert server.clear() == 2
            assert (server.received, server.errors, server.diagnostics) == ([], (), ())
            assert server.clear() == 0
            server.handler = None
            fetch(server.url + "/c")
            assert [request.path for request in server.wait_for(1)] == ["/c"]
            with pytest.raises(WaitTimeout, match="received 1 of 2"):
                server.wait_for(2, timeout=0)

    def test_drops_no_error_that_was_raised_already(self) -> None:
        with HTTPServer(handler=lambda request: 1 / 0) as server:
            fetch_quietly(server.url)
            with pytest.raises(ZeroDivisionError):
                server.raise_errors()
            assert server.clear() == 0

    def test_lets_a_request_under_way_go_on(self) -> None:
        go_on = threading.Event()
        body = b"x" * 300_000

        def handler(request: Any) -> str:
            assert go_on.wait(WAIT)
            return str(len(request.body))

        with HTTPServer(handler=handler, keep=1 << 20) as server:
            with socket.create_connection(server.server_address) as client:
                client.sendall(
                    b"POST / HTTP/1.0\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + body
                )
                server.wait_for(1)
                server.clear()
                go_on.set()
                with client.makefile("rb") as answer:
                    assert answer.read().endswith(b"300000")
            server.wait_idle(WAIT)
            assert (server.received, server._journal._size) == ([], 0)
