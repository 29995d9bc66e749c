"""What a test expects of its clients: declared, met, waited for, held and verified."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from kit.http_calls import later, request
from sidestage import (
    HTTPRequest,
    HTTPResponse,
    HTTPServer,
    ServerDied,
    StateError,
    UnexpectedRequest,
    UnmetExpectation,
    WaitTimeout,
)
from sidestage.journal import causes, owners

WAIT = 10.0  # seconds at most for what comes at once


@pytest.fixture
def no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else verifies."""
    monkeypatch.setattr(causes, "current", lambda: None)
    monkeypatch.setattr(owners, "current", owners.Owner)


@pytest.fixture
def server(no_plugin: None) -> Iterator[HTTPServer]:
    with HTTPServer(name="shop") as server:
        yield server
        server.clear()


class TestReplies:
    def test_are_given_in_order_and_the_last_repeats(self, server: HTTPServer) -> None:
        server.expect("GET", "/a").reply("one").reply("two", 503)
        got = [request(server, "GET", "/a") for _ in range(3)]
        assert [(one.status, one.text) for one in got] == [(200, "one"), (503, "two"), (503, "two")]

    def test_without_one_it_is_plain_success(self, server: HTTPServer) -> None:
        server.expect("POST", "/a")
        assert request(server, "POST", "/a", b"x")[0] == 200

    def test_take_what_a_handler_may_return(self, server: HTTPServer) -> None:
        server.expect("GET", "/a").reply({"a": [1]}).reply(204).reply(("no", 403, {"X-A": "1"}))
        first, second, third = (request(server, "GET", "/a") for _ in range(3))
        assert (first.text, first.headers["Content-Type"]) == ('{"a": [1]}', "application/json")
        assert second.status == 204
        assert (third.text, third.status, third.headers["X-A"]) == ("no", 403, "1")

    def test_what_is_given_beside_the_result_counts(self, server: HTTPServer) -> None:
        server.expect("GET", "/a").reply({"a": 1}, 202, {"X-A": "1"}, content_type="a/b")
        server.expect("GET", "/b").reply(HTTPResponse("x", 500, {"X-A": "1"}), headers={"x-a": "2"})
        first, second = request(server, "GET", "/a"), request(server, "GET", "/b")
        assert (first.status, first.headers["X-A"], first.headers["Content-Type"]) == (
            202,
            "1",
            "a/b",
        )
        assert (second.status, second.headers["x-a"]) == (500, "2")

    def test_a_text_is_sent_in_the_charset_that_is_declared(self, server: HTTPServer) -> None:
        latin = "text/plain; charset=latin-1"
        server.expect("GET", "/a").reply("\xe9", content_type=latin).reply(
            ("\xe9", 201, {"content-type": latin})
        ).reply("\xe9", headers={"Content-Type": latin}).reply(HTTPResponse("\xe9"), 200)
        got = []
        for _ in range(4):
            with urllib.request.urlopen(f"{server.url}/a", timeout=WAIT) as answer:
                got.append(answer.read())
        assert got == [b"\xe9", b"\xe9", b"\xe9", "\xe9".encode()]

    @pytest.mark.parametrize(
        "kind, wrong",
        [
            ("text/plain; charset=ascii", "cannot be sent as ascii"),
            ("a/b; charset=no", "not known"),
        ],
    )
    def test_a_charset_that_cannot_be_is_refused(
        self, server: HTTPServer, kind: str, wrong: str
    ) -> None:
        with pytest.raises(ValueError, match=wrong):
            server.expect("GET", "/a").reply("\xe9", content_type=kind)
        with pytest.raises(ValueError, match=wrong):
            server.expect("GET", "/a").reply(("\xe9", 200, {"Content-Type": kind}))

    @pytest.mark.parametrize("wrong", [{"a": "b"}, 1.5, object()])
    def test_a_content_type_that_is_no_text_is_refused(
        self, server: HTTPServer, wrong: Any
    ) -> None:
        with pytest.raises(TypeError, match="the value of Content-Type must be str, bytes"):
            server.expect("GET", "/a").reply("a", content_type=wrong)
        server.clear()

    def test_a_callable_is_called_here_with_the_request(self, server: HTTPServer) -> None:
        server.expect("GET", "/a/{n:int}").reply(lambda request: {"n": request.params["n"] + 1})
        assert request(server, "GET", "/a/7").text == '{"n": 8}'
        assert server.received[0].answer.status == 200  # type: ignore[union-attr] # it is answered

    def test_a_coroutine_is_called_as_well(self, server: HTTPServer) -> None:
        async def reply(request: Any) -> str:
            await asyncio.sleep(0)
            return "awaited"

        server.expect("GET", "/a").reply(reply)
        assert request(server, "GET", "/a").text == "awaited"

    def test_what_a_callable_raises_is_the_tests(self, server: HTTPServer) -> None:
        def fail(request: Any) -> None:
            raise LookupError("none")

        server.expect("GET", "/a").reply(fail)
        got = request(server, "GET", "/a")
        assert (got.status, got.reason) == (500, "LookupError: none")
        with pytest.raises(LookupError) as caught:
            server.raise_errors()
        assert "raised by the answer to expect GET /a at test_expecting.py:" in str(
            caught.value.__notes__
        )

    def test_delay_one_and_not_the_others(self, server: HTTPServer) -> None:
        server.expect("GET", "/slow").reply("late", delay=0.3)
        server.expect("GET", "/quick").reply("now")
        slow = later(request, server, "GET", "/slow")
        assert request(server, "GET", "/quick").text == "now"
        assert slow.result(WAIT).text == "late"
        answer = server.received.one("GET", "/slow").answer
        assert answer is not None
        assert answer.seconds >= 0.3

    def test_early_ones_come_before_the_body(self, server: HTTPServer) -> None:
        server.expect("PUT", "/a").reply("no", 413, early=True)
        with socket.create_connection((server.host, server.port), timeout=WAIT) as client:
            client.sendall(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 413")

    @pytest.mark.parametrize(
        "reply, wrong",
        [
            (lambda one: one.reply(iter([b"a"])), "pass a callable"),
            (lambda one: one.reply(object()), "no response can be made"),
            (lambda one: one.reply({1, 2}), r"set \{1, 2\}; reply takes str"),
            (lambda one: one.reply({"a": {1}}), "as JSON: .*; reply takes str"),
            (lambda one: one.reply(lambda: "x"), r"reply is given is called with one argument"),
            (lambda one: one.reply(print, 201), "status would have no effect"),
            (lambda one: one.reply("a", delay=-1), "delay"),
            (lambda one: one.reply(("a", 200), 201), "apart"),
            (lambda one: one.reply("a", 99), "status"),
        ],
    )
    def test_refuse_what_is_none_at_the_line_of_the_test(
        self, server: HTTPServer, reply: Any, wrong: str
    ) -> None:
        with pytest.raises((TypeError, ValueError), match=wrong) as caught:
            reply(server.expect("GET", "/a"))
        ours = [one for one in caught.traceback if "/src/sidestage/" in str(one.path)]
        assert len(ours) == 1

    def test_refuse_one_that_would_never_be_given(self, server: HTTPServer) -> None:
        expectation = server.expect("GET", "/a", times=1).reply("a")
        with pytest.raises(ValueError, match="answer 2 would never be given"):
            expectation.reply("b")

    def test_refuse_early_with_a_part_of_the_body(self, server: HTTPServer) -> None:
        with pytest.raises(ValueError, match="json= can be looked at"):
            server.expect("GET", "/a", json=1).reply("a", early=True)


class TestDeclaring:
    def test_where_takes_the_request(self, server: HTTPServer) -> None:
        nothing: Any = lambda: True  # noqa: E731 - as users write it
        with pytest.raises(TypeError, match="where is called with one argument"):
            server.expect("GET", "/a", where=nothing)

    @pytest.mark.parametrize("times", [True, "2", 1.5, range(1, 9, 2), range(0), -1])
    def test_times_that_are_none(self, server: HTTPServer, times: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="times"):
            server.expect("GET", "/a", times=times)
        assert request(server, "GET", "/").status == 200  # it is not strict

    def test_a_quota_that_allows_nothing(self, server: HTTPServer) -> None:
        with pytest.raises(ValueError, match=r"expect\(..., times=0\)"):
            server.allow("GET", "/a", times=0)

    def test_allow_is_in_no_order(self, server: HTTPServer) -> None:
        with server.in_order(), pytest.raises(ValueError, match="in_order"):
            server.allow("GET", "/a")

    def test_one_order_is_not_in_another(self, server: HTTPServer) -> None:
        with (
            server.in_order(),
            pytest.raises(StateError, match="in_order is open"),
            server.in_order(),
        ):
            pass

    def test_a_where_must_say_at_once(self, server: HTTPServer) -> None:
        async def where(request: Any) -> bool:
            return True

        with pytest.raises(TypeError, match="plain function"):
            server.expect("GET", "/a", where=where)
        with pytest.raises(TypeError, match="where is called with the request"):
            server.expect("GET", "/a", where="yes")  # type: ignore[arg-type] # refused

    def test_wrong_paths_are_told_at_the_line_of_the_test(self, server: HTTPServer) -> None:
        with pytest.raises(ValueError, match="query") as caught:
            server.expect("GET", "/a?b=1")
        ours = [one for one in caught.traceback if "/src/sidestage/" in str(one.path)]
        assert len(ours) == 1

    def test_before_the_start_and_from_a_handler(self, no_plugin: None) -> None:
        server = HTTPServer()
        server.expect("GET", "/a").reply("a")

        def handle(request: Any) -> str:
            server.allow("GET", "/b").reply("allowed")
            return "handled"

        server.handler = handle
        with server:
            assert request(server, "GET", "/a").text == "a"
            assert request(server, "GET", "/b").text == "handled"
            assert request(server, "GET", "/b").text == "allowed"

    def test_its_repr_says_where(self, server: HTTPServer) -> None:
        text = repr(server.expect("GET", "/a"))
        assert re.fullmatch(
            r"<Expectation: expect GET /a at test_expecting.py:\d+, met 0 times>", text
        )


class TestChoice:
    def test_who_is_not_expected_goes_to_the_handler(self, server: HTTPServer) -> None:
        server.handler = lambda request: "handler"
        server.expect("GET", "/a").reply("a")
        assert [request(server, "GET", path).text for path in ("/a", "/b")] == ["a", "handler"]
        server.verify()

    def test_an_order_is_kept(self, server: HTTPServer) -> None:
        with server.in_order():
            server.expect("GET", "/a")
            server.expect("GET", "/b")
        assert request(server, "GET", "/b").status == 404
        assert [request(server, "GET", path).status for path in ("/a", "/b", "/a")] == [
            200,
            200,
            404,
        ]
        with pytest.raises(ExceptionGroup) as caught:
            server.verify()
        assert [type(one) for one in caught.value.exceptions] == [UnexpectedRequest] * 2

    def test_where_decides_with_the_params(self, server: HTTPServer) -> None:
        server.allow("GET", "/a/{n:int}").reply("any")
        server.expect("GET", "/a/{n:int}", where=lambda request: request.params["n"] > 5).reply(
            "big"
        )
        assert [request(server, "GET", f"/a/{n}").text for n in (4, 6)] == ["any", "big"]

    def test_an_object_with_its_own_equality_decides(self, server: HTTPServer) -> None:
        class Even:
            def __eq__(self, other: object) -> bool:
                return isinstance(other, int) and other % 2 == 0

            __hash__ = None  # type: ignore[assignment] # it is no key

        server.expect("POST", "/a", json={"n": Even()}).reply("even")
        assert request(server, "POST", "/a", {"n": 2}).text == "even"
        assert request(server, "POST", "/a", {"n": 3}).status == 404
        with pytest.raises(UnexpectedRequest):
            server.verify()

    def test_a_where_that_raises_is_a_500_and_ends_the_choice(self, server: HTTPServer) -> None:
        server.allow("GET", "/a").reply("allowed")
        expectation = server.expect("GET", "/a", where=lambda request: request.nothing, times=0)
        got = request(server, "GET", "/a")
        assert (got.status, got.reason[:14]) == (500, "AttributeError")
        assert expectation.count == 0
        with pytest.raises(AttributeError) as caught:
            server.raise_errors()
        assert "raised by `where` of expect GET /a" in str(caught.value.__notes__)
        assert request(server, "GET", "/b").status == 404  # the next question goes on
        server.clear()

    def test_a_where_is_not_called_for_what_another_takes(self, server: HTTPServer) -> None:
        def never(request: Any) -> bool:
            raise AssertionError("it is not asked")

        server.allow("GET", "/a", where=never)
        server.expect("GET", "/a", where=lambda request: "x" in request.query).reply("x")
        server.expect("GET", "/a", where=never, times=range(2))
        server.expect("GET", "/a", times=1).reply("any")
        assert [request(server, "GET", path).text for path in ("/a", "/a?x=1")] == ["any", "x"]
        server.verify()

    def test_a_where_may_send_requests_to_its_server(self, server: HTTPServer) -> None:
        def where(got: HTTPRequest) -> bool:
            return request(server, "GET", "/b").text == "b"

        server.expect("GET", "/a", where=where).reply("a")
        server.expect("GET", "/b", where=lambda got: True).reply("b")
        assert request(server, "GET", "/a").text == "a"

    def test_requests_go_on_while_where_waits(self, server: HTTPServer) -> None:
        go_on = threading.Event()
        server.expect("GET", "/a", where=lambda request: go_on.wait(WAIT)).reply("a")
        server.expect("GET", "/b").reply("b")
        waits = later(request, server, "GET", "/a")
        assert request(server, "GET", "/b").text == "b"
        go_on.set()
        assert waits.result(WAIT).text == "a"

    def test_a_client_that_leaves_while_where_runs_holds_up_nobody(
        self, server: HTTPServer
    ) -> None:
        def where(request: Any) -> bool:
            return bool(request.client_gone.wait(WAIT))

        left = server.allow("GET", "/a", where=where)
        server.allow("GET", "/b", where=lambda request: True).reply("b")
        with socket.create_connection((server.host, server.port), timeout=WAIT) as client:
            client.sendall(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
            server.wait_for(1, WAIT)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert request(server, "GET", "/b").text == "b"
        server.wait_idle(WAIT)
        assert left.count == 0

    def test_a_where_that_takes_too_long_is_a_504(self, no_plugin: None) -> None:
        go_on = threading.Event()
        with HTTPServer(handler_timeout=0.1) as server:
            server.allow("GET", "/a", where=lambda request: go_on.wait(WAIT))
            assert request(server, "GET", "/a").status == 504
            go_on.set()
            server.wait_idle(WAIT)
            assert server.received[0].answer.status == 504  # type: ignore[union-attr] # answered


class TestMet:
    def test_are_counted_and_kept(self, server: HTTPServer) -> None:
        expectation = server.expect("GET", "/a/{n}").reply("a")
        request(server, "GET", "/a/1")
        request(server, "GET", "/a/2")
        assert expectation.count == 2
        assert [one.params for one in expectation.requests] == [{"n": "1"}, {"n": "2"}]
        assert expectation.requests.one("GET", "/a/2").path == "/a/2"

    def test_are_waited_for(self, server: HTTPServer) -> None:
        expectation = server.expect("GET", "/a")
        later(request, server, "GET", "/a")
        assert [one.path for one in expectation.wait(timeout=WAIT)] == ["/a"]

    def test_are_waited_for_on_a_loop(self, server: HTTPServer) -> None:
        expectation = server.expect("GET", "/a")

        async def main() -> int:
            with pytest.raises(StateError, match=r"await expectation.wait_async"):
                expectation.wait(timeout=WAIT)
            later(request, server, "GET", "/a")
            return len(await expectation.wait_async(timeout=WAIT))

        assert asyncio.run(main()) == 1

    def test_a_wait_in_vain_says_what_came(self, server: HTTPServer) -> None:
        expectation = server.expect("GET", "/a")
        server.allow("GET", "/b")
        request(server, "GET", "/b")
        with pytest.raises(WaitTimeout, match=r"was met 0 of 1 times within 0 s(.|\n)*GET /b"):
            expectation.wait(timeout=0)

    def test_after_a_removal_count_no_more(self, server: HTTPServer) -> None:
        expectation = server.expect("GET", "/a")
        expectation.remove()
        assert request(server, "GET", "/a").status == 404  # it is strict until clear()
        server.clear()
        assert request(server, "GET", "/a").status == 200
        with pytest.raises(StateError, match="was removed"):
            expectation.reply("a")

    def test_outlive_a_restart(self, no_plugin: None) -> None:
        with HTTPServer() as server:
            expectation = server.expect("GET", "/a", times=2).reply("a")
            removed = server.expect("GET", "/b")
            removed.remove()
            request(server, "GET", "/a")
            server.restart()
            assert expectation.count == 1
            assert request(server, "GET", "/a").text == "a"
            assert request(server, "GET", "/a").status == 404
            assert expectation.count == 2
            with pytest.raises(UnexpectedRequest):
                server.verify()

    def test_a_restart_stays_strict_without_expectations(self, server: HTTPServer) -> None:
        server.expect("GET", "/a").remove()
        server.restart()
        assert request(server, "GET", "/a").status == 404
        server.clear()

    def test_are_counted_when_their_records_are_not_kept(self, no_plugin: None) -> None:
        with HTTPServer(keep=2000) as server:
            expectation = server.expect("GET", "/a")
            for _ in range(20):
                request(server, "GET", "/a")
            assert expectation.count == 20
            assert len(expectation.requests) + expectation.requests.dropped == 20


class TestHeld:
    def test_wait_until_the_test_answers(self, server: HTTPServer) -> None:
        expectation = server.expect("GET", "/a/{n:int}").hold()
        first = later(request, server, "GET", "/a/1")
        expectation.wait(1, WAIT)
        second = later(request, server, "GET", "/a/2")
        calls = [expectation.take(WAIT), expectation.take(WAIT)]
        assert [call.request.params["n"] for call in calls] == [1, 2]
        assert "held for" in server.explain()
        calls[1].reply({"n": 2}, 201)
        calls[0].reply("x" * 300_000)
        assert (second.result(WAIT).status, len(first.result(WAIT).text)) == (201, 300_000)
        assert "answered" in repr(calls[0])
        server.verify()

    def test_are_taken_from_the_server_by_path(self, server: HTTPServer) -> None:
        server.expect("GET", "/a").hold()
        server.expect("POST", "/b").hold()
        answers = [later(request, server, "GET", "/a"), later(request, server, "POST", "/b")]
        server.take("POST", "/b", WAIT).reply("b")
        server.take(timeout=WAIT).reply("a")
        assert [one.result(WAIT).text for one in answers] == ["a", "b"]

    def test_are_taken_on_a_loop(self, server: HTTPServer) -> None:
        expectation = server.expect("GET", "/a").hold()

        async def main() -> None:
            answer = later(request, server, "GET", "/a")
            (await expectation.take_async(WAIT)).reply("a")
            assert (await asyncio.wrap_future(answer)).text == "a"

        asyncio.run(main())

    def test_are_reset(self, server: HTTPServer) -> None:
        expectation = server.expect("GET", "/a").hold()
        answer = later(request, server, "GET", "/a")
        expectation.take(WAIT).reset()
        with pytest.raises(ConnectionError):
            answer.result(WAIT)
        assert "reset" in server.explain()

    def test_are_answered_once(self, server: HTTPServer) -> None:
        expectation = server.expect("GET", "/a").hold()
        answer = later(request, server, "GET", "/a")
        call = expectation.take(WAIT)
        with pytest.raises(TypeError, match="no response can be made"):
            call.reply(object())
        call.reply("a")
        with pytest.raises(StateError, match="answered once"):
            call.reply("b")
        assert answer.result(WAIT).text == "a"

    def test_are_sent_piece_by_piece_and_a_piece_that_is_none_is_a_500(
        self, server: HTTPServer
    ) -> None:
        expectation = server.expect("GET", "/a").hold()
        answers = [later(request, server, "GET", "/a") for _ in range(2)]
        expectation.take(WAIT).reply(iter([b"a", b"b"]))
        with pytest.raises(TypeError, match="must give bytes"):
            expectation.take(WAIT).reply(iter(["a"]))
        assert sorted(one.result(WAIT).status for one in answers) == [200, 500]

    def test_a_client_that_leaves_is_no_failure(self, server: HTTPServer) -> None:
        expectation = server.expect("GET", "/a").hold()
        with socket.create_connection((server.host, server.port), timeout=WAIT) as client:
            client.sendall(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
            call = expectation.take(WAIT)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert call.request.client_gone.wait(WAIT)
        with pytest.raises(ConnectionError, match="has left"):
            call.reply("late")
        server.verify()

    def test_nothing_held_is_a_time_out_that_says_what_came(self, server: HTTPServer) -> None:
        expectation = server.expect("GET", "/a").hold()
        server.allow("GET", "/b")
        request(server, "GET", "/b")
        with pytest.raises(WaitTimeout, match=r"nothing is held for expect GET /a(.|\n)*GET /b"):
            expectation.take(timeout=0)
        server.clear()

    def test_a_time_out_tells_apart_what_is_taken_already(self, server: HTTPServer) -> None:
        expectation = server.expect("GET", "/a").hold()
        with socket.create_connection(server.server_address) as client:
            client.sendall(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
            call = expectation.take(WAIT)
            with pytest.raises(WaitTimeout, match=r"nothing else is held .*\(1 taken already\)"):
                expectation.take(timeout=0)
            call.reply(200)

    def test_a_slip_in_a_method_to_take_is_told(self, server: HTTPServer) -> None:
        server.allow("GET", "/a").hold()
        with pytest.raises(ValueError, match='case counts in methods; write "GET"'):
            server.take("get", "/a")
        with pytest.raises(ValueError, match='a path is "/items"'):
            server.take("GET", "a")
        with pytest.raises(WaitTimeout, match=r"held that is 'GTE' \(is it GET\?\), '/a'"):
            server.take("GTE", "/a", timeout=0)
        with pytest.raises(WaitTimeout, match="held that is 'PROPFIND', '/a'"):
            server.take("PROPFIND", "/a", timeout=0)

    def test_never_taken_and_never_answered_are_told(self, no_plugin: None) -> None:
        with HTTPServer() as server:
            expectation = server.expect("GET", "/a").hold()
            answers = [later(request, server, "GET", "/a") for _ in range(2)]
            expectation.take(WAIT)
            expectation.wait(2, WAIT)
            with pytest.raises(UnmetExpectation, match=r"1 never taken(.|\n)*never answered"):
                server.verify()
        for answer in answers:  # the stop has let them go, and was quick
            with pytest.raises(ConnectionError):
                answer.result(WAIT)
        assert server.stop_report.seconds < server.stop_timeout / 2

    @pytest.mark.parametrize("taken", [False, True])
    def test_a_client_that_has_closed_its_side_is_no_failure(
        self, server: HTTPServer, taken: bool
    ) -> None:
        expectation = server.expect("GET", "/a").hold()
        with socket.create_connection((server.host, server.port), timeout=WAIT) as client:
            client.sendall(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
            expectation.wait(1, WAIT)
            calls = [expectation.take(WAIT)] if taken else []
        server.verify()
        assert "closed its side" in server.explain()
        for call in calls:
            assert "closed its side" in repr(call)

    def test_one_that_has_closed_its_side_before_is_still_answered(
        self, server: HTTPServer
    ) -> None:
        expectation = server.expect("GET", "/a", where=lambda _: True).hold()
        with socket.create_connection((server.host, server.port), timeout=WAIT) as client:
            client.sendall(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            with expectation.take(WAIT) as call:
                server.verify()
                assert not call.request.client_gone.is_set()
                call.reply("a")
            assert client.makefile("rb").read().endswith(b"a")

    def test_a_with_that_fails_leaves_no_client_waiting(self, server: HTTPServer) -> None:
        expectation = server.expect("GET", "/a").hold()
        answer = later(request, server, "GET", "/a")
        with pytest.raises(AssertionError, match="mine"), expectation.take(WAIT):
            raise AssertionError("mine")
        with pytest.raises(ConnectionError):
            answer.result(WAIT)
        server.verify()  # it has failed for its own reason

    def test_a_with_that_answers_nothing_resets_and_is_told(self, server: HTTPServer) -> None:
        expectation = server.expect("GET", "/a").hold()
        answer = later(request, server, "GET", "/a")
        with expectation.take(WAIT) as call:
            pass
        with pytest.raises(ConnectionError):
            answer.result(WAIT)
        with pytest.raises(StateError, match="inside of the `with`"):
            call.reply("late")
        with pytest.raises(UnmetExpectation, match=r"never answered(.|\n)*reset, as its `with`"):
            server.verify()

    def test_a_with_that_answers_changes_nothing(self, server: HTTPServer) -> None:
        expectation = server.expect("GET", "/a").hold()
        answer = later(request, server, "GET", "/a")
        with expectation.take(WAIT) as call:
            call.reply("a")
        assert answer.result(WAIT).text == "a"
        server.verify()

    def test_are_answered_by_the_test_alone(self, server: HTTPServer) -> None:
        with pytest.raises(StateError, match="is held"):
            server.expect("GET", "/a").hold().reply("a")
        with pytest.raises(StateError, match="has a reply"):
            server.expect("GET", "/a").reply("a").hold()

    def test_nobody_waits_for_what_the_test_holds(self, server: HTTPServer) -> None:
        expectation = server.expect("GET", "/a").hold()
        with server.during() as calls:
            answer = later(request, server, "GET", "/a")
            call = expectation.take(WAIT)
            server.wait_idle(WAIT)
        assert len(calls.received) == 1
        call.reply("a")
        assert answer.result(WAIT).text == "a"

    def test_no_handler_timeout_counts(self, no_plugin: None) -> None:
        with HTTPServer(handler_timeout=0.05) as server:
            expectation = server.expect("GET", "/a").hold()
            answer = later(request, server, "GET", "/a")
            call = expectation.take(WAIT)
            assert not call.request.client_gone.wait(0.3)
            call.reply("a")
            assert answer.result(WAIT).text == "a"


class TestAdvice:
    def test_once_too_often_is_no_matter_of_another_expectation(self, server: HTTPServer) -> None:
        server.expect("GET", "/a", times=1)
        request(server, "GET", "/a")
        text = request(server, "GET", "/a").text
        assert "write times=2" in text
        assert "to expect this request" not in text
        server.clear()

    def test_a_handler_gets_nothing_that_an_expect_matches(self, no_plugin: None) -> None:
        with HTTPServer(handler=lambda _: "mine", unexpected="reply") as server:
            server.expect("GET", "/a", times=1)
            texts = [request(server, "GET", "/a").text for _ in range(2)]
            assert "the handler does not get what an expect matches" in texts[1]


class TestVerify:
    def test_raises_what_is_unmet_once(self, server: HTTPServer) -> None:
        server.expect("GET", "/a")
        with pytest.raises(UnmetExpectation) as caught:
            server.verify()
        error = caught.value
        told = f"expect GET /a ({error.place}) was met 0 of 1 times at HTTPServer 'shop'"
        assert str(error) == f"{told}\nno request came"
        assert (error.count, error.expected, error.expectation) == (0, 1, "expect GET /a")
        assert error.place.startswith("test_expecting.py:")
        server.verify()

    @pytest.mark.parametrize(
        "times, came, wanted",
        [
            (None, 0, "met 0 of 1 times at"),
            (2, 1, "met 1 of 2 times at"),
            (range(2, 4), 1, "met 1 of 2 to 3 times at"),
            (1, 0, "met 0 of 1 times at"),
        ],
    )
    def test_says_how_often(self, server: HTTPServer, times: Any, came: int, wanted: str) -> None:
        server.expect("GET", "/a", times=times)
        for _ in range(came):
            request(server, "GET", "/a")
        with pytest.raises(UnmetExpectation, match=wanted):
            server.verify()

    def test_as_many_as_there_are_replies(self, server: HTTPServer) -> None:
        server.expect("GET", "/a").reply(503).reply(503)
        request(server, "GET", "/a")
        with pytest.raises(UnmetExpectation, match=r"met 1 of 2 times .*, as it has 2 replies"):
            server.verify()

    def test_does_not_name_the_requests_that_have_met_it(self, server: HTTPServer) -> None:
        expectation = server.expect("GET", "/a", times=2)
        assert request(server, "GET", "/a").status == 200
        with pytest.raises(WaitTimeout, match=r"met 1 of 2 times .*\nno other request came"):
            expectation.wait(2, timeout=0.1)
        with pytest.raises(UnmetExpectation, match=r"met 1 of 2 times .*\nno other request came$"):
            server.verify()

    def test_raises_what_was_unexpected_once(self, server: HTTPServer) -> None:
        server.expect("GET", "/orders", times=range(2))
        got = request(server, "GET", "/orders/")
        assert got.status == 404
        with pytest.raises(UnexpectedRequest) as caught:
            server.verify()
        error = caught.value
        first = str(error).splitlines()[0]
        assert first.startswith("GET /orders/: path: /orders expected (test_expecting.py:")
        assert first.endswith(") at HTTPServer 'shop'")
        assert "expect GET /orders (test_expecting.py:" in str(error)
        assert error.request.target == "/orders/"
        server.verify()
        assert server.errors == (error,)

    def test_equal_ones_are_told_once(self, server: HTTPServer) -> None:
        server.allow("GET", "/a")
        for _ in range(3):
            request(server, "GET", "/b")
        with pytest.raises(UnexpectedRequest) as caught:
            server.verify()
        assert caught.value.__notes__[0] == "raised 3 times"

    def test_neither_a_stop_nor_raise_errors_raises_it(self, no_plugin: None) -> None:
        server = HTTPServer().start()
        server.expect("GET", "/a")
        request(server, "GET", "/b")
        server.raise_errors()
        server.stop()
        with pytest.raises(ExceptionGroup, match="2 errors at HTTPServer"):
            server.verify()

    def test_unexpected_may_only_be_replied_to(self, no_plugin: None) -> None:
        with HTTPServer(unexpected="reply") as server:
            server.allow("GET", "/a")
            assert request(server, "GET", "/b").status == 404
            server.verify()
            assert "404," in server.explain()
            server.unexpected = "fail"
            request(server, "GET", "/b")
            with pytest.raises(UnexpectedRequest):
                server.verify()
        with pytest.raises(ValueError, match='"fail" or "reply"'):
            HTTPServer(unexpected="no")  # type: ignore[arg-type] # refused

    def test_expected_errors_take_them(self, server: HTTPServer) -> None:
        server.allow("GET", "/a")
        with server.expected_errors(UnexpectedRequest) as taken:
            request(server, "GET", "/b")
        assert [type(one) for one in taken] == [UnexpectedRequest]
        server.verify()

    def test_at_the_end_of_with(self, no_plugin: None) -> None:
        with pytest.raises(UnmetExpectation), HTTPServer() as server:
            server.expect("GET", "/a")
        server.verify()  # it was raised

    def test_at_the_end_of_async_with(self, no_plugin: None) -> None:
        async def main() -> None:
            async with HTTPServer() as server:
                server.expect("GET", "/a")

        with pytest.raises(UnmetExpectation):
            asyncio.run(main())

    def test_what_the_body_raised_gets_a_note(self, no_plugin: None) -> None:
        with pytest.raises(KeyError) as caught, HTTPServer() as server:
            server.expect("GET", "/a")
            raise KeyError("mine")
        assert "expect GET /a" in str(caught.value.__notes__)

    def test_not_after_ctrl_c(self, no_plugin: None) -> None:
        with pytest.raises(KeyboardInterrupt) as caught, HTTPServer() as server:
            server.expect("GET", "/a")
            raise KeyboardInterrupt
        assert not hasattr(caught.value, "__notes__")
        server.verify()  # nor later: nothing is left to be told at the end of the run

    def test_a_handlers_error_goes_first(self, no_plugin: None) -> None:
        def handle(request: Any) -> None:
            raise LookupError("mine")

        with pytest.raises(LookupError) as caught, HTTPServer(handler=handle) as server:
            server.expect("GET", "/a")
            request(server, "GET", "/b")
        assert "expect GET /a" in str(caught.value.__notes__)

    @pytest.mark.filterwarnings("ignore::sidestage.ForcedStopWarning")
    def test_after_a_death_only_that_is_told(self, no_plugin: None) -> None:
        with pytest.raises(ServerDied) as caught, HTTPServer() as server:
            server.expect("GET", "/a")
            assert server.pid is not None
            os.kill(server.pid, 9)
        assert not hasattr(caught.value, "__notes__")
        server.verify()

    def test_of_a_manager(self, no_plugin: None) -> None:
        from sidestage import ServerManager

        with pytest.raises(UnmetExpectation), ServerManager(api=HTTPServer()) as manager:
            server: Any = manager["api"]
            server.expect("GET", "/a")

    def test_during_verifies_and_removes_what_was_declared_inside(self, server: HTTPServer) -> None:
        outside = server.expect("GET", "/outside")
        with pytest.raises(UnmetExpectation, match="/inside"), server.during():
            server.expect("GET", "/inside")
        assert request(server, "GET", "/inside").status == 404
        server.clear()
        assert outside.count == 0

    def test_during_raises_what_was_unexpected_inside(self, server: HTTPServer) -> None:
        server.allow("GET", "/a")
        with pytest.raises(UnexpectedRequest), server.during():
            request(server, "GET", "/b")
        server.verify()

    def test_clear_counts_what_nobody_has_seen(self, server: HTTPServer) -> None:
        server.expect("GET", "/a")
        request(server, "GET", "/b")
        assert server.clear() == 1
        assert request(server, "GET", "/b").status == 200
        server.verify()


class TestForkedCopies:
    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_declare_nothing_and_verify_nothing(self, server: HTTPServer) -> None:
        server.expect("GET", "/a")
        child = os.fork()
        if not child:
            wrong = 1
            try:
                server.verify()
                server.expect("GET", "/b")
            except StateError:
                wrong = 0
            finally:
                os._exit(wrong)
        assert os.waitpid(child, 0)[1] == 0
        server.clear()


class TestUrlFor:
    def test_escapes_what_is_not_escaped(self, server: HTTPServer) -> None:
        url = server.url_for("/a b/ü%2F", q="x y", tag=["1", 2])
        assert url == f"{server.url}/a%20b/%C3%BC%2F?q=x+y&tag=1&tag=2"
        server.expect("GET", "/a b/ü%2F", query={"q": "x y", "tag": ["1", 2]}).reply("a")
        assert request(server, "GET", url.removeprefix(server.url)).text == "a"

    @pytest.mark.parametrize("path", ["a", "/a?b", "/a#b", ""])
    def test_refuses_what_is_no_path(self, server: HTTPServer, path: str) -> None:
        with pytest.raises(ValueError, match="a path begins with a slash"):
            server.url_for(path)

    @pytest.mark.parametrize("value", [True, None, b"x", {"a": 1}])
    def test_refuses_what_is_no_value(self, server: HTTPServer, value: Any) -> None:
        with pytest.raises(TypeError, match="the value of q"):
            server.url_for("/", q=value)
