"""The tests that a newcomer writes for the client of a shop, with Sidestage."""

import re
import threading

import pytest
from shop import Shop

from sidestage import UnexpectedRequest


@pytest.fixture
def shop(http_server):
    with Shop(http_server) as shop:
        yield shop


def test_text(http_server, shop):
    http_server.expect("GET", "/tea").reply("hot")
    assert shop.ask("GET", "/tea") == (200, "hot")


def test_json(http_server, shop):
    http_server.expect("GET", "/tea").reply({"price": 3})
    assert shop.ask("GET", "/tea") == (200, {"price": 3})


def test_status(http_server, shop):
    http_server.expect("DELETE", "/tea").reply(204)
    assert shop.ask("DELETE", "/tea") == (204, "")


def test_query(http_server, shop):
    http_server.expect("GET", "/items", query={"page": 2}).reply([])
    assert shop.ask("GET", "/items?page=2") == (200, [])


def test_header(http_server, shop):
    http_server.expect("GET", "/tea", headers={"Accept": "text/plain"}).reply("hot")
    assert shop.ask("GET", "/tea", Accept="text/plain") == (200, "hot")


def test_json_body(http_server, shop):
    http_server.expect("POST", "/orders", json={"sku": 7}).reply({"id": 1}, 201)
    assert shop.ask("POST", "/orders", {"sku": 7}) == (201, {"id": 1})


def test_text_body(http_server, shop):
    http_server.expect("PUT", "/notes", text="milk").reply("noted")
    assert shop.ask("PUT", "/notes", "milk") == (200, "noted")


def test_form(http_server, shop):
    fields = {"user": "me", "password": "pw"}
    http_server.expect("POST", "/login", form=fields).reply("welcome")
    assert shop.post_form("/login", user="me", password="pw") == (200, "welcome")


def test_basic_auth(http_server, shop):
    http_server.expect("GET", "/me", auth=("me", "pw")).reply("you")
    assert shop.log_in("me", "pw") == (200, "you")


def test_pattern(http_server, shop):
    http_server.expect("GET", re.compile("/items/[0-9]+")).reply("tea")
    assert shop.ask("GET", "/items/7") == (200, "tea")


def test_handler(http_server, shop):
    http_server.expect("POST", "/double").reply(lambda request: str(2 * request.json()["n"]))
    assert shop.ask("POST", "/double", {"n": 21}) == (200, "42")


def test_oneshot(http_server, shop):
    http_server.expect("GET", "/token", times=1).reply("t1")
    assert shop.ask("GET", "/token") == (200, "t1")
    with http_server.expected_errors(UnexpectedRequest):
        assert shop.ask("GET", "/token")[0] == 404


def test_two_oneshots(http_server, shop):
    http_server.expect("GET", "/token", times=2).reply("t1").reply("t2")
    assert [shop.ask("GET", "/token")[1] for _ in range(2)] == ["t1", "t2"]


def test_ordered(http_server, shop):
    with http_server.in_order():
        http_server.expect("GET", "/login").reply("in")
        http_server.expect("GET", "/items").reply("tea")
    assert shop.ask("GET", "/login") == (200, "in")
    assert shop.ask("GET", "/items") == (200, "tea")


def test_out_of_order(http_server, shop):
    with http_server.in_order():
        http_server.expect("GET", "/login").reply("in")
        http_server.expect("GET", "/items").reply("tea")
    with http_server.expected_errors(UnexpectedRequest):
        assert shop.ask("GET", "/items")[0] == 404
    http_server.clear()


def test_not_expected(http_server, shop):
    http_server.allow("GET", "/tea").reply("hot")
    with http_server.expected_errors(UnexpectedRequest):
        assert shop.ask("GET", "/coffee")[0] == 404


def test_tries_again(http_server, shop):
    http_server.expect("GET", "/tea").reply(503).reply("hot")
    assert shop.persist("/tea") == (200, "hot")


def test_slow(http_server, shop):
    http_server.expect("GET", "/slow").reply("at last", delay=0.02)
    assert shop.ask("GET", "/slow") == (200, "at last")


def test_wait(http_server, shop):
    hook = http_server.expect("POST", "/hook").reply("ok")
    sender = threading.Thread(target=shop.ask, args=["POST", "/hook", "paid"])
    sender.start()
    assert hook.wait()[0].text == "paid"
    sender.join()


def test_log(http_server, shop):
    items = http_server.expect("GET", "/items").reply([])
    shop.ask("GET", "/items?page=1")
    shop.ask("GET", "/items?page=2")
    assert [request.query["page"] for request in items.requests] == ["1", "2"]


def test_made_twice(http_server, shop):
    http_server.expect("GET", "/ping", times=2).reply("pong")
    shop.ask("GET", "/ping")
    shop.ask("GET", "/ping")


def test_never_made(http_server, shop):
    http_server.expect("GET", "/tea").reply("hot")
    http_server.expect("GET", "/admin", times=0)
    shop.ask("GET", "/tea")


def test_handler_fails(http_server, shop):
    def fails(request):
        raise LookupError("no tea")

    http_server.expect("GET", "/tea").reply(fails)
    with http_server.expected_errors(LookupError):
        assert shop.ask("GET", "/tea")[0] == 500


def test_response_headers(http_server, shop):
    http_server.expect("POST", "/orders").reply("made", 201, {"Location": "/orders/1"})
    assert shop.ask("POST", "/orders") == (201, "made")


def test_every_method(http_server, shop):
    http_server.expect("*", "/any", times=3).reply("ok")
    assert [shop.ask(method, "/any")[0] for method in ("GET", "PUT", "PATCH")] == 3 * [200]
