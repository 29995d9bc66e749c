"""What a strict service does with a request: expectations, its handler, a 404, a question."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kit.choices import Declared, Model
from kit.http_child import Server, declare, head, reply
from kit.views import matchers, view
from sidestage.protocols.http.messages import Request, Respond
from sidestage.wire.messages import (
    Chosen,
    Data,
    Diagnostic,
    End,
    Lost,
    Met,
    Overdue,
    Verdict,
    Withdraw,
)


def strict(*messages: Any, handled: bool = False, **options: Any) -> Server:
    server = Server(handled=handled, **options)
    server.command(*messages)
    return server


def post(target: str, body: bytes, *fields: str) -> bytes:
    return head("POST", target, f"Content-Length: {len(body)}", *fields) + body


def answers(server: Server) -> list[bytes]:
    """The bodies of the answers, which are one line each, and their statuses."""
    parts = bytes(server.transport.out).split(b"HTTP/1.1 ")[1:]
    return [part[:3] + b" " + part.partition(b"\r\n\r\n")[2] for part in parts]


def test_a_service_that_is_not_strict_has_imported_nothing_for_it() -> None:
    script = """
import sys
from sidestage.protocols.http.child.service import SERVICE
assert not [name for name in sys.modules if "patterns" in name or "expectations" in name]
SERVICE.preload()
assert "sidestage.child.expectations" in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


# The choice ----------------------------------------------------------------------------------

_query = st.sampled_from([None, {"a": "1"}, {"a": "2"}])
_fields = st.sampled_from([None, {"X-Id": "1"}, {"X-Id": "2"}, {"X-Id": str}])
_json = st.sampled_from([None, {"id": 1}, {"id": 2}, {"id": int}, [1]])
looking = st.tuples(
    st.booleans(), st.integers(0, 1), st.none() | st.integers(1, 2), _query, _fields, _json
)
asking = st.tuples(
    st.sampled_from(["/a?a=1", "/a?a=2", "/a"]),
    st.sampled_from(["X-Id: 1", "X-Id: 2", "Y: 1"]),
    st.sampled_from([b'{"id": 1}', b'{"id": 2}', b"[1]", b"no JSON", b""]),
)


@given(st.lists(looking, min_size=1, max_size=9), st.lists(asking, max_size=8), st.booleans())
def test_the_choice_is_that_of_the_model_whatever_is_looked_at(
    looks: list[Any], asks: list[Any], in_pieces: bool
) -> None:
    server, model, every = Server(handled=False), Model(), {}
    for number, (allow, least, most, *parts) in enumerate(looks, 1):
        named = zip(("query", "headers", "json"), parts, strict=True)
        spec = {"allow": allow, "least": least, "most": most}
        wanted = {name: part for name, part in named if part is not None}
        server.command(declare(number, "POST", "/a", **spec, **wanted), reply(number, least=least))
        model.entries.append(Declared(number=number, **spec))
        every[number] = matchers("POST", "/a", **wanted)
    for target, field, body in asks:
        came = post(target, body, field)
        server.feed(*([came[:-1], came[-1:]] if in_pieces else [came]))
        seen = view(f"POST {target}", field, body=body)
        _, chosen = model.choose(lambda one: every[one.number].verdict(seen) is True)  # noqa: B023 - called at once
        if chosen:
            model.entries[chosen - 1].met += 1
        met = server.mets[-1]
        assert met is not None
        assert (met.entry, bool(met.unexpected)) == (chosen, not chosen)
    assert len(server.mets) == len(asks)


def test_the_answer_to_a_head_has_no_body_whatever_was_asked_before() -> None:
    server = strict(declare(1, "*", "/a", allow=True), reply(1, b"one"))
    server.feed(head("GET", "/a"), head("HEAD", "/a"), head("GET", "/a"))
    assert answers(server) == [b"200 one", b"200 ", b"200 one"]
    assert [(met.size, met.done) for met in server.mets if met] == [(3, True), (0, True), (3, True)]


def test_the_head_is_enough_for_a_handler_if_no_expectation_fits_it() -> None:
    server = strict(
        *(declare(number, "POST", "/a", json={"id": number}) for number in range(9)), handled=True
    )
    server.feed(head("POST", "/b", "Content-Length: 100000"))
    assert [request.more for request in server.requests] == [True]
    server.feed(bytes(100_000))


# Answers of the child ------------------------------------------------------------------------


def test_the_answers_come_in_order_and_the_last_repeats() -> None:
    server = strict(declare(1, "GET", "/a"), reply(1, b"one", status=201), reply(1, b"two"))
    server.feed(head("GET", "/a") * 3)
    assert answers(server) == [b"201 one", b"200 two", b"200 two"]
    assert server.mets == [
        Met(entry=1, reply=0, status=201, size=3, done=True),
        Met(entry=1, reply=1, status=200, size=3, done=True),
        Met(entry=1, reply=1, status=200, size=3, done=True),
    ]
    assert [request.call for request in server.requests] == [0, 0, 0]


def test_a_repeated_request_is_answered_by_what_is_declared_by_now() -> None:
    server = strict(declare(1, "GET", "/a", allow=True, least=0), reply(1, b"old"), handled=True)
    asked = head("GET", "/a")
    server.feed(asked)
    server.command(declare(2, "GET", "/a", allow=True, least=0), reply(2, b"new"))
    server.feed(asked)
    server.command(Withdraw(entries=[2], strict=True))
    server.feed(asked)
    server.command(Withdraw(entries=[1], strict=True))
    server.feed(asked)
    assert answers(server) == [b"200 old", b"200 new", b"200 old"]
    assert server.requests[-1].call  # the handler's


def test_a_repeated_request_gets_an_answer_that_was_added_meanwhile() -> None:
    server = strict(declare(1, "GET", "/a", allow=True, least=0))
    asked = head("GET", "/a")
    server.feed(asked)
    server.command(reply(1, b"made", status=201))
    server.feed(asked)
    assert answers(server) == [b"200 ", b"201 made"]
    assert [(met.status, met.size) for met in server.mets if met] == [(200, 0), (201, 4)]


def test_a_repeated_request_line_does_not_hide_what_else_is_looked_at() -> None:
    server = strict(
        declare(1, "POST", "/a", allow=True, least=0, query={"x": 1}, headers={"X-A": "b"}),
        reply(1, b"header"),
        declare(2, "POST", "/a", allow=True, least=0, json={"n": 1}),
        reply(2, b"body"),
    )
    server.feed(post("/a?x=1", b"{}", "X-A: b"), post("/a?x=1", b'{"n": 1}', "X-A: c"))
    server.feed(post("/a?x=2", b"{}", "X-A: b"), post("/a?x=1", b"{}", "X-A: b"))
    assert [answer[:10] for answer in answers(server)] == [
        b"200 header",
        b"200 body",
        b"404 unexpe",
        b"200 header",
    ]


def test_more_different_requests_than_are_remembered_are_answered_right() -> None:
    server = strict(
        declare(1, "GET", "/{number:int}", allow=True, least=0),
        reply(1, b"any"),
        declare(2, "GET", "/{name}", allow=True, least=0, query={"x": "1" * 300}),
        reply(2, b"long"),
    )
    for number in range(1500):
        server.feed(head("GET", f"/{number}"))
    for _ in range(2):
        server.feed(head("GET", f"/0?x={'1' * 300}"), head("GET", "/0"))
    found = answers(server)
    assert found[:1500] == [b"200 any"] * 1500
    assert found[1500:] == [b"200 long", b"200 any"] * 2


def test_without_an_answer_it_is_plain_success() -> None:
    server = strict(declare(1, "GET", "/a"))
    server.feed(head("GET", "/a"))
    assert answers(server) == [b"200 "]


def test_an_unexpected_request_gets_a_404_and_the_connection_goes_on() -> None:
    server = strict(declare(1, "GET", "/a"), reply(1, b"one"))
    server.feed(head("GET", "/b"), head("GET", "/a"))
    refused, met = answers(server)
    assert refused.startswith(b"404 ")
    assert met == b"200 one"
    first = server.requests[0].met
    assert first is not None
    assert first.unexpected
    assert refused[4:].decode() == first.unexpected + "\n"
    assert (first.entry, first.status, first.size) == (0, 404, len(refused) - 4)
    assert not server.transport.closed


def test_the_body_is_matched_once_it_has_come() -> None:
    server = strict(
        declare(1, "POST", "/a", json={"n": 1}),
        reply(1, b"one"),
        declare(2, "POST", "/a", json={"n": 2}),
        reply(2, b"two"),
    )
    server.feed(head("POST", "/a", "Content-Length: 8"), b'{"n"')
    assert not server.requests
    server.feed(b": 2}")
    assert answers(server) == [b"200 two"]


def test_a_client_that_waits_for_100_is_told_to_send_the_body() -> None:
    server = strict(declare(1, "POST", "/a", json=1), reply(1, b"one"))
    server.feed(head("POST", "/a", "Content-Length: 1", "Expect: 100-continue"))
    assert server.transport.out == b"HTTP/1.1 100 Continue\r\n\r\n"
    server.feed(b"1")
    assert answers(server)[1:] == [b"200 one"]


def test_an_early_answer_needs_no_body_and_no_100() -> None:
    server = strict(declare(1, "POST", "/a"), reply(1, b"one", early=True))
    server.feed(head("POST", "/a", "Content-Length: 5", "Expect: 100-continue"))
    assert answers(server) == [b"200 one"]
    (request,) = server.requests
    assert (request.more, request.cut, request.body) == (False, 5, b"")


def test_an_early_one_waits_if_another_decides_by_the_body() -> None:
    server = strict(
        declare(1, "POST", "/a", json=1), reply(1, b"one"), declare(2, "POST", "/a", early=True)
    )
    server.feed(head("POST", "/a", "Content-Length: 1"))
    assert not server.requests
    server.feed(b"1")
    assert answers(server) == [b"200 one"]


def test_a_body_beyond_the_limit_matches_nothing() -> None:
    server = strict(declare(1, "POST", "/a", body=b"x" * 300), keep=1024)
    server.feed(post("/a", b"x" * 300))
    assert answers(server)[0].startswith(b"404 ")
    assert server.requests[0].cut == 300 - 256
    server.feed(post("/a", b"x"))
    assert server.requests[1].cut == 0


def test_head_has_no_body_and_the_record_says_so() -> None:
    server = strict(declare(1, "HEAD", "/a"), reply(1, b"one"))
    server.feed(head("HEAD", "/a"))
    assert answers(server) == [b"200 "]
    assert server.mets == [Met(entry=1, status=200, done=True)]


def test_browsers_ask_for_an_icon_by_themselves() -> None:
    server = strict(declare(1, "GET", "/a"))
    server.feed(head("GET", "/favicon.ico"))
    assert answers(server) == [b"404 404 Not Found\n"]
    assert server.mets == [Met(status=404, size=14, done=True)]
    server.command(declare(2, "GET", "/favicon.ico", most=0, least=0))
    server.feed(head("GET", "/favicon.ico"))
    (_, last) = server.mets
    assert last is not None
    assert last.unexpected


def test_a_withdrawn_one_is_met_no_more_and_the_service_may_be_strict_or_not() -> None:
    server = strict(declare(1, "GET", "/a"))
    server.command(Withdraw(entries=[1], strict=True))
    server.feed(head("GET", "/a"))
    server.command(Withdraw(entries=[], strict=False))
    server.feed(head("GET", "/a"))
    assert [answer[:3] for answer in answers(server)] == [b"404", b"200"]
    assert server.requests[1].met is None


def test_counts_are_those_of_this_run() -> None:
    server = strict(declare(1, "GET", "/a", met=5), declare(2, "GET", "/b"))
    server.feed(head("GET", "/a"), head("GET", "/a"))
    assert server.service.counts() == [(1, 2)]


BODIES = [b"", b"1", b"x" * 300]
EXPECTED = [
    declare(1, "POST", "/a", json=1, most=1),
    reply(1, b"one"),
    declare(2, "POST", "/a", body=b"x" * 300, group=1),
    reply(2, b"two"),
    declare(3, "POST", "/{name}", group=1),
    reply(3, b"three"),
    declare(4, "POST", "/b", allow=True),
    reply(4, b"four"),
]


@given(
    st.lists(st.tuples(st.sampled_from(["/a", "/b"]), st.sampled_from(BODIES)), max_size=5),
    st.data(),
    st.sampled_from([1024, 1 << 20]),
)
def test_the_choice_is_the_same_however_the_stream_is_split(
    requests: list[tuple[str, bytes]], data: st.DataObject, keep: int
) -> None:
    stream = b"".join(post(target, body) for target, body in requests)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    whole, split = strict(*EXPECTED, keep=keep), strict(*EXPECTED, keep=keep)
    whole.feed(stream)
    split.feed(*(stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)))
    assert len(whole.requests) == len(requests)
    assert split.mets == whole.mets
    assert answers(split) == answers(whole)


# The handler, and callables --------------------------------------------------------------------


def test_what_no_expectation_takes_is_the_handlers_and_streams() -> None:
    server = strict(declare(1, "POST", "/a", json=1), handled=True)
    server.feed(head("POST", "/b", "Content-Length: 100000"), b"x" * 70_000)
    (request,) = server.requests
    assert (request.met, request.more) == (Met(), True)
    assert request.call
    server.feed(b"x" * 30_000)
    assert sum(len(data.data) for data in server.outbox.of(Data)) == 100_000 - len(request.body)
    assert server.outbox.of(End)


def test_what_matches_no_body_is_the_handlers_with_all_of_its_body() -> None:
    server = strict(declare(1, "POST", "/a", body=b"no"), handled=True)
    server.feed(head("POST", "/a", "Content-Length: 100000"))
    for _ in range(10):
        server.feed(b"x" * 10_000)
        assert server.transport.reading
    (request,) = server.requests
    assert (request.body, request.more, request.cut) == (b"x" * 100_000, False, 0)


def test_a_body_that_is_too_large_for_expectations_is_the_handlers_as_it_comes() -> None:
    server = strict(declare(1, "POST", "/a", body=b"no"), handled=True, keep=1024)
    server.feed(head("POST", "/a", "Content-Length: 1000"), b"x" * 200)
    assert not server.requests
    server.feed(b"x" * 200)
    (request,) = server.requests
    assert (request.body, request.more, request.cut) == (b"x" * 400, True, 0)
    server.feed(b"x" * 600)
    assert b"".join(data.data for data in server.outbox.of(Data)) == b"x" * 600


def test_a_large_body_that_only_a_head_decides_is_cut_beside_a_handler() -> None:
    server = strict(
        declare(1, "POST", "/a", body=b"no"), declare(2, "POST", "/a"), handled=True, keep=1024
    )
    server.feed(post("/a", b"x" * 1000))
    server.feed(head("POST", "/a", "Content-Length: 1000"), b"x" * 700, b"x" * 300)
    for request in server.requests:
        assert (request.met, request.call) == (Met(entry=2, status=200, done=True), 0)
        assert len(request.body) + request.cut == 1000
        assert len(request.body) == 256


def test_a_callable_gets_a_call() -> None:
    server = strict(declare(1, "GET", "/a"), reply(1, b"one"), reply(1, None))
    server.feed(head("GET", "/a"), head("GET", "/a"))
    assert server.mets[1] == Met(entry=1, reply=1)
    server.respond(server.requests[1], b"called")
    assert answers(server) == [b"200 one", b"200 called"]


def test_what_is_held_has_no_time() -> None:
    server = strict(declare(1, "GET", "/a", held=True))
    server.feed(head("GET", "/a"))
    server.loop.fire()
    assert server.mets == [Met(entry=1, held=True)]
    assert not server.outbox.of(Lost)
    server.respond(server.requests[0], b"taken")
    assert answers(server) == [b"200 taken"]


def test_one_that_is_declared_while_a_body_comes_waits_for_all_of_it() -> None:
    server = strict(declare(1, "POST", "/a", body=b"no"), handled=True)
    server.feed(head("POST", "/b", "Transfer-Encoding: chunked"))
    server.feed(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
    server.command(declare(2, "POST", "/b", body=b"x" * 100_000))
    server.feed(b"15f90\r\n", b"x" * 60_000)
    assert server.transport.reading
    server.feed(b"x" * 30_000, b"\r\n0\r\n\r\n")
    assert server.mets == [Met(entry=2, status=200, done=True)]


# Delays ----------------------------------------------------------------------------------------


def test_a_delayed_answer_holds_up_only_its_connection() -> None:
    server = strict(declare(1, "GET", "/a"), reply(1, b"one", delay=5.0), declare(2, "GET", "/b"))
    server.feed(head("GET", "/a"), head("GET", "/b"))
    assert server.mets == [Met(entry=1, status=200, size=3, done=True)]
    assert not server.transport.out
    server.loop.fire()
    assert answers(server) == [b"200 one", b"200 "]


def test_a_callables_answer_is_delayed_and_has_no_time_then() -> None:
    server = strict(declare(1, "GET", "/a"), reply(1, None, delay=5.0))
    server.feed(head("GET", "/a"))
    (request,) = server.requests
    server.command(
        Respond(
            call=request.call, status=200, reason="OK", headers=(), body=b"so", length=4, more=True
        ),
        Data(call=request.call, data=b"on"),
        End(call=request.call),
    )
    assert not server.transport.out
    server.loop.fire()
    assert answers(server) == [b"200 soon"]
    assert not server.outbox.of(Overdue)


def test_an_answer_that_is_delayed_is_in_time() -> None:
    server = strict(declare(1, "GET", "/a"), reply(1, None, delay=5.0))
    server.feed(head("GET", "/a"))
    server.loop.fire()
    assert server.outbox.of(Overdue)  # may its time be postponed?
    server.respond(server.requests[0], b"late")
    server.loop.fire()
    assert answers(server) == [b"200 late"]


def test_a_client_that_leaves_cancels_the_delay() -> None:
    server = strict(declare(1, "GET", "/a"), reply(1, b"one", delay=5.0), reply(1, None, delay=5.0))
    server.feed(head("GET", "/a"))
    server.connection.connection_lost(None)
    server.loop.fire()
    assert not server.transport.out
    (told,) = server.outbox.of(Diagnostic)
    assert told.text == "the connection ended before the delayed answer to GET /a"


def test_a_call_whose_delayed_answer_is_not_sent_is_over() -> None:
    server = strict(declare(1, "GET", "/a"), reply(1, None, delay=5.0))
    server.feed(head("GET", "/a"))
    server.respond(server.requests[0], b"late")
    server.connection.connection_lost(None)
    server.loop.fire()
    assert not server.outbox.of(Lost)
    assert not len(server.service.calls)


def test_a_stop_does_not_wait_for_a_delay() -> None:
    server = strict(declare(1, "GET", "/a"), reply(1, b"one", delay=5.0))
    server.feed(head("GET", "/a"))
    server.connection.close_if_idle()
    assert server.transport.closed


def test_a_delay_that_begins_in_a_stop_ends_the_connection() -> None:
    server = strict(declare(1, "GET", "/a"), reply(1, None, delay=5.0))
    server.feed(head("GET", "/a"))
    server.service.draining = True
    server.connection.close_if_idle()
    assert not server.transport.closed
    server.respond(server.requests[0], b"late")
    assert server.transport.closed


# Questions -------------------------------------------------------------------------------------


def asking(server: Server, at: int = -1) -> tuple[Request, tuple[int, ...]]:
    request = server.requests[at]
    assert request.met is not None
    return request, request.met.asks


def test_the_test_is_asked_and_the_child_answers() -> None:
    server = strict(declare(1, "GET", "/a", where=True), reply(1, b"one"))
    server.feed(head("GET", "/a"))
    request, asks = asking(server)
    assert asks == (1,)
    server.command(Verdict(call=request.call, entry=1))
    assert answers(server) == [b"200 one"]
    assert server.outbox.of(Chosen) == [
        Chosen(call=request.call, met=Met(entry=1, status=200, size=3, done=True))
    ]
    assert not len(server.service.calls)
    assert not server.service.calls._left


def test_a_no_makes_it_unexpected_or_the_handlers() -> None:
    server = strict(declare(1, "GET", "/a", where=True))
    server.feed(head("GET", "/a"))
    request, _ = asking(server)
    server.command(Verdict(call=request.call, entry=0))
    assert server.outbox.of(Chosen)[0].met.unexpected
    assert answers(server)[0].startswith(b"404 ")
    server.service.handled = True
    server.feed(head("GET", "/a"))
    request, _ = asking(server)
    server.command(Verdict(call=request.call, entry=0))
    assert server.outbox.of(Chosen)[1] == Chosen(call=request.call, met=Met())
    server.respond(request, b"handled")
    assert answers(server)[1] == b"200 handled"


def test_callables_and_what_is_held_are_chosen_after_a_verdict() -> None:
    server = strict(declare(1, "GET", "/a", where=True), reply(1, None))
    server.feed(head("GET", "/a"))
    request, _ = asking(server)
    server.command(Verdict(call=request.call, entry=1))
    assert server.outbox.of(Chosen) == [Chosen(call=request.call, met=Met(entry=1))]
    server.respond(request, b"called")
    assert answers(server) == [b"200 called"]


def test_what_plain_data_decides_is_not_asked() -> None:
    server = strict(declare(1, "GET", "/a"), declare(2, "GET", "/a", where=True))
    server.feed(head("GET", "/a"))
    assert server.mets == [Met(entry=1, status=200, done=True)]


def test_those_are_asked_that_go_before_the_first_that_is_sure() -> None:
    server = strict(
        declare(1, "GET", "/a", where=True, allow=True),
        declare(2, "GET", "/a", where=True),
        declare(3, "GET", "/a", where=True, least=0),
        declare(4, "GET", "/a", least=0),
        declare(5, "GET", "/a", where=True, least=0),
        declare(6, "GET", "/a", where=True),
    )
    server.feed(head("GET", "/a"))
    request, asks = asking(server)
    assert asks == (2, 6, 5)
    server.command(Verdict(call=request.call, entry=6))
    assert [chosen.met.entry for chosen in server.outbox.of(Chosen)] == [6]


def test_those_after_one_that_was_full_meanwhile_are_asked_then() -> None:
    server = strict(
        declare(1, "GET", "/{any}", where=True, most=1),
        declare(2, "GET", "/a", where=True),
        declare(3, "GET", "/a", where=True),
        declare(4, "GET", "/b", most=1),
    )
    other = server.connect()
    server.feed(head("GET", "/a"))
    request, asks = asking(server)
    assert asks == (1, 2, 3)
    server.command(Withdraw(entries=[1], strict=True))
    other.feed(head("GET", "/a"))
    server.command(Verdict(call=request.call, entry=1))
    assert server.outbox.of(Chosen) == [Chosen(call=request.call, met=Met(asks=(2, 3)))]
    assert len(server.requests) == 1  # the other waits until this has its choice
    server.command(Verdict(call=request.call, entry=3))
    assert [chosen.met.entry for chosen in server.outbox.of(Chosen)] == [0, 3]
    assert asking(server) == (server.requests[1], (2, 3))


def test_what_waits_for_a_slow_answer_is_asked_after_a_while() -> None:
    server = strict(declare(1, "GET", "/a", where=True, least=0), handler_timeout=None)
    other = server.connect()
    server.feed(head("GET", "/a"))
    other.feed(head("GET", "/a"))
    server.loop.fire()
    assert [asking(server, at)[1] for at in (0, 1)] == [(1,), (1,)]
    for request in reversed(server.requests):
        server.command(Verdict(call=request.call, entry=1))
    assert [bytes(one.transport.out[9:12]) for one in (server, other)] == [b"200"] * 2


def test_one_question_is_out_and_the_others_follow() -> None:
    server = strict(declare(1, "GET", "/a", where=True), declare(2, "GET", "/b"))
    others = [server.connect() for _ in range(3)]
    server.feed(head("GET", "/a"))
    for other in others[:2]:
        other.feed(head("GET", "/a"))
    others[2].feed(head("GET", "/b"))
    assert len(server.requests) == 2  # the first question, and what needs none
    assert others[2].transport.out
    request = server.requests[0]
    server.command(Verdict(call=request.call, entry=1))
    assert len(server.requests) == 3
    others[0].connection.connection_lost(ConnectionResetError())
    assert len(server.requests) == 4
    request, _ = asking(server)
    server.command(Verdict(call=request.call, entry=0))
    assert [bytes(one.transport.out[9:12]) for one in others] == [b"", b"404", b"200"]


def test_a_question_that_is_decided_when_its_turn_comes_is_not_asked() -> None:
    server = strict(
        declare(1, "GET", "/a", where=True),
        declare(2, "GET", "/b", where=True),
        declare(3, "GET", "/b", allow=True),
    )
    other = server.connect()
    server.feed(head("GET", "/a"))
    other.feed(head("GET", "/b"))
    server.command(Withdraw(entries=[2], strict=True))
    server.command(Verdict(call=server.requests[0].call, entry=1))
    assert server.mets[1] == Met(entry=3, status=200, done=True)
    assert bytes(other.transport.out[9:12]) == b"200"


def test_one_that_is_the_handlers_when_its_turn_comes_has_one_call() -> None:
    server = strict(declare(1, "GET", "/a", where=True), declare(2, "GET", "/b", where=True))
    server.service.handled = True
    other = server.connect()
    server.feed(head("GET", "/a"))
    other.feed(head("GET", "/b"))
    server.command(Withdraw(entries=[2], strict=True))
    server.command(Verdict(call=server.requests[0].call, entry=1))
    assert server.mets[1] == Met()
    server.respond(server.requests[1], b"handled")
    assert other.transport.out.endswith(b"handled")
    assert not len(server.service.calls)


def test_what_was_withdrawn_meanwhile_is_not_chosen() -> None:
    server = strict(declare(1, "GET", "/a", where=True))
    server.feed(head("GET", "/a"))
    server.command(Withdraw(entries=[1], strict=True))
    server.command(Verdict(call=server.requests[0].call, entry=1))
    assert answers(server)[0].startswith(b"404 ")


def test_after_a_verdict_what_is_held_has_no_time_and_a_callable_has_all_of_it() -> None:
    for held in (True, False):
        server = strict(declare(1, "GET", "/a", where=True, held=held), reply(1, None))
        server.feed(head("GET", "/a"))
        server.loop.now += 29.0
        server.command(Verdict(call=server.requests[0].call, entry=1))
        (exchange,) = server.connection.queue
        assert exchange.due == (None if held else 59.0)


def test_a_body_beyond_the_limit_is_no_match_and_nothing_is_asked() -> None:
    server = strict(declare(1, "POST", "/a", where=True), keep=1024)
    server.feed(post("/a", b"x" * 1000))
    assert answers(server)[0].startswith(b"404 ")


def test_after_a_verdict_a_delayed_answer_has_no_call() -> None:
    server = strict(declare(1, "GET", "/a", where=True), reply(1, b"one", delay=1.0))
    server.feed(head("GET", "/a"))
    server.command(Verdict(call=server.requests[0].call, entry=1))
    assert not len(server.service.calls)
    assert list(server.connection.call_ids()) == [0]
    server.loop.fire()
    assert answers(server) == [b"200 one"]


def test_the_counts_of_the_moment_decide() -> None:
    server = strict(
        declare(1, "GET", "/a", where=True, most=1), declare(2, "GET", "/a", allow=True)
    )
    other = server.connect()
    server.feed(head("GET", "/a"))
    other.feed(head("GET", "/a"))
    server.command(Verdict(call=server.requests[0].call, entry=1))
    assert asking(server) == (server.requests[1], (1,))
    server.command(Verdict(call=server.requests[1].call, entry=1))
    assert [chosen.met.entry for chosen in server.outbox.of(Chosen)] == [1, 0]
    assert server.outbox.of(Chosen)[1].met.unexpected


def test_an_answer_in_place_of_a_verdict_settles_the_question() -> None:
    server = strict(declare(1, "GET", "/a", where=True))
    other = server.connect()
    server.feed(head("GET", "/a"))
    other.feed(head("GET", "/a"))
    server.respond(server.requests[0], b"raised")
    assert answers(server) == [b"200 raised"]
    assert len(server.requests) == 2
    assert server.service.counts() == []


def test_a_verdict_comes_in_time_or_it_is_a_504_and_the_next_is_asked() -> None:
    server = strict(declare(1, "GET", "/a", where=True))
    server.feed(head("GET", "/a"))
    server.loop.fire()  # its time is over: may it be postponed?
    other = server.connect()
    other.feed(head("GET", "/a"))
    assert len(server.requests) == 1
    server.loop.fire()
    assert answers(server) == [b"504 504 Gateway Timeout\n"]
    (lost,) = server.outbox.of(Lost)
    assert (lost.call, lost.answered) == (server.requests[0].call, (504, 20))
    assert asking(server) == (server.requests[1], (1,))


def test_a_client_that_leaves_before_its_question_is_recorded() -> None:
    server = strict(declare(1, "GET", "/a", where=True))
    server.feed(head("GET", "/a"))
    other = server.connect()
    other.feed(head("GET", "/a"))
    other.connection.connection_lost(None)
    assert [(request.call, request.met) for request in server.requests[1:]] == [(0, Met())]
    assert len(server.service.calls) == 1


def test_what_waits_is_described_unless_the_test_knows_its_call() -> None:
    server = strict(
        declare(1, "GET", "/a", where=True), declare(2, "GET", "/b"), reply(2, delay=2.5)
    )
    others = [server.connect() for _ in range(2)]
    for client, path in zip([server, *others], ("/a", "/a", "/b"), strict=True):
        client.feed(head("GET", path))
    found, more = server.service.describe()
    assert [(one.state, one.call, more) for one in found] == [
        ("GET /a: waits for the test to judge it for 0.0 s", 0, 0),
        ("GET /b: its answer is delayed by 2.5 s for 0.0 s", 0, 0),
    ]


def test_an_early_question_is_asked_at_the_head_and_the_body_follows() -> None:
    server = strict(
        declare(1, "POST", "/a", where=True, early=True),
        reply(1, b"one"),
        declare(2, "POST", "/a", json=1),
        reply(2, b"two"),
    )
    server.feed(head("POST", "/a", "Content-Length: 1"))
    request, asks = asking(server)
    assert (asks, request.more) == ((1,), True)
    server.command(Verdict(call=request.call, entry=0))
    assert not server.outbox.of(Chosen)
    server.feed(b"1")
    assert server.outbox.of(Data) == [Data(call=request.call, data=b"1")]
    assert answers(server) == [b"200 two"]
    server.feed(head("POST", "/a", "Content-Length: 1"))
    request, _ = asking(server)
    server.command(Verdict(call=request.call, entry=1))
    assert answers(server)[1:] == [b"200 one"]


def test_a_question_that_needs_the_body_is_asked_when_it_is_there() -> None:
    server = strict(
        declare(1, "POST", "/a", where=True, early=True),
        declare(2, "POST", "/a", json=1, where=True),
        reply(2, b"two"),
    )
    server.feed(head("POST", "/a", "Content-Length: 1"))
    request, asks = asking(server)
    assert asks == (1,)
    server.command(Verdict(call=request.call, entry=0))
    assert not server.outbox.of(Chosen)
    server.feed(b"1")
    assert server.outbox.of(Chosen) == [Chosen(call=request.call, met=Met(asks=(2,)))]
    server.command(Verdict(call=request.call, entry=2))
    assert answers(server) == [b"200 two"]


def test_one_of_which_nothing_can_be_asked_at_its_turn_waits_for_its_body() -> None:
    server = strict(
        declare(1, "POST", "/a", where=True, early=True),
        declare(2, "POST", "/a", json=1, where=True),
        reply(2, b"two"),
        declare(3, "GET", "/a", where=True),
    )
    other = server.connect()
    server.feed(head("GET", "/a"))
    other.feed(head("POST", "/a", "Content-Length: 1"))
    server.command(Withdraw(entries=[1], strict=True))
    server.command(Verdict(call=server.requests[0].call, entry=3))
    assert len(server.requests) == 1
    other.feed(b"1")
    request, asks = asking(server)
    assert (asks, request.body, request.more) == ((2,), b"1", False)
    server.command(Verdict(call=request.call, entry=2))
    assert other.transport.out.endswith(b"two")
    assert not len(server.service.calls)


def test_the_rest_of_a_body_after_an_early_answer_goes_to_nobody() -> None:
    server = strict(declare(1, "POST", "/a", where=True, early=True), reply(1, b"one"))
    server.feed(head("POST", "/a", "Content-Length: 2"))
    request, _ = asking(server)
    server.command(Verdict(call=request.call, entry=1))
    assert answers(server) == [b"200 one"]
    server.feed(b"1", b"2")
    assert not server.outbox.of(Data) + server.outbox.of(End)
    server.feed(head("GET", "/b"))
    assert answers(server)[1][:3] == b"404"
