"""The tests that a newcomer writes for the client of a shop, with pytest-httpserver."""

import re
import threading
import time

import pytest
from pytest_httpserver import RequestMatcher
from shop import Shop
from werkzeug import Response


@pytest.fixture
def shop(httpserver):
    with Shop(httpserver) as shop:
        yield shop


def test_text(httpserver, shop):
    httpserver.expect_request("/tea", method="GET").respond_with_data("hot")
    assert shop.ask("GET", "/tea") == (200, "hot")


def test_json(httpserver, shop):
    httpserver.expect_request("/tea", method="GET").respond_with_json({"price": 3})
    assert shop.ask("GET", "/tea") == (200, {"price": 3})


def test_status(httpserver, shop):
    httpserver.expect_request("/tea", method="DELETE").respond_with_data(status=204)
    assert shop.ask("DELETE", "/tea") == (204, "")


def test_query(httpserver, shop):
    httpserver.expect_request("/items", query_string={"page": "2"}).respond_with_json([])
    assert shop.ask("GET", "/items?page=2") == (200, [])


def test_header(httpserver, shop):
    httpserver.expect_request("/tea", headers={"Accept": "text/plain"}).respond_with_data("hot")
    assert shop.ask("GET", "/tea", Accept="text/plain") == (200, "hot")


def test_json_body(httpserver, shop):
    httpserver.expect_request("/orders", method="POST", json={"sku": 7}).respond_with_json(
        {"id": 1}, status=201
    )
    assert shop.ask("POST", "/orders", {"sku": 7}) == (201, {"id": 1})


def test_text_body(httpserver, shop):
    httpserver.expect_request("/notes", method="PUT", data="milk").respond_with_data("noted")
    assert shop.ask("PUT", "/notes", "milk") == (200, "noted")


def test_form(httpserver, shop):
    def log_in(request):
        assert request.form.to_dict() == {"user": "me", "password": "pw"}
        return Response("welcome")

    httpserver.expect_request("/login", method="POST").respond_with_handler(log_in)
    assert shop.post_form("/login", user="me", password="pw") == (200, "welcome")
    httpserver.check()


def test_basic_auth(httpserver, shop):
    headers = {"Authorization": "Basic bWU6cHc="}
    httpserver.expect_request("/me", headers=headers).respond_with_data("you")
    assert shop.log_in("me", "pw") == (200, "you")


def test_pattern(httpserver, shop):
    httpserver.expect_request(re.compile("/items/[0-9]+")).respond_with_data("tea")
    assert shop.ask("GET", "/items/7") == (200, "tea")


def test_handler(httpserver, shop):
    def double(request):
        return Response(str(2 * request.json["n"]))

    httpserver.expect_request("/double").respond_with_handler(double)
    assert shop.ask("POST", "/double", {"n": 21}) == (200, "42")
    httpserver.check()


def test_oneshot(httpserver, shop):
    httpserver.expect_oneshot_request("/token").respond_with_data("t1")
    assert shop.ask("GET", "/token") == (200, "t1")
    assert shop.ask("GET", "/token")[0] == 500
    with pytest.raises(AssertionError):
        httpserver.check()
    httpserver.clear()


def test_two_oneshots(httpserver, shop):
    httpserver.expect_oneshot_request("/token").respond_with_data("t1")
    httpserver.expect_oneshot_request("/token").respond_with_data("t2")
    assert [shop.ask("GET", "/token")[1] for _ in range(2)] == ["t1", "t2"]
    httpserver.check()


def test_ordered(httpserver, shop):
    httpserver.expect_ordered_request("/login").respond_with_data("in")
    httpserver.expect_ordered_request("/items").respond_with_data("tea")
    assert shop.ask("GET", "/login") == (200, "in")
    assert shop.ask("GET", "/items") == (200, "tea")
    httpserver.check()


def test_out_of_order(httpserver, shop):
    httpserver.expect_ordered_request("/login").respond_with_data("in")
    httpserver.expect_ordered_request("/items").respond_with_data("tea")
    assert shop.ask("GET", "/items")[0] == 500
    with pytest.raises(AssertionError):
        httpserver.check()
    httpserver.clear()


def test_not_expected(httpserver, shop):
    httpserver.expect_request("/tea").respond_with_data("hot")
    assert shop.ask("GET", "/coffee")[0] == 500
    with pytest.raises(AssertionError):
        httpserver.check()
    httpserver.clear()


def test_tries_again(httpserver, shop):
    httpserver.expect_oneshot_request("/tea").respond_with_data(status=503)
    httpserver.expect_oneshot_request("/tea").respond_with_data("hot")
    assert shop.persist("/tea") == (200, "hot")
    httpserver.check()


def test_slow(httpserver, shop):
    def slow(request):
        time.sleep(0.02)
        return Response("at last")

    httpserver.expect_request("/slow").respond_with_handler(slow)
    assert shop.ask("GET", "/slow") == (200, "at last")


def test_wait(httpserver, shop):
    httpserver.expect_oneshot_request("/hook", method="POST").respond_with_data("ok")
    sender = threading.Thread(target=shop.ask, args=["POST", "/hook", "paid"])
    with httpserver.wait(timeout=5) as waiting:
        sender.start()
    assert waiting.result
    sender.join()
    assert httpserver.log[0][0].data == b"paid"


def test_log(httpserver, shop):
    httpserver.expect_request("/items").respond_with_json([])
    shop.ask("GET", "/items?page=1")
    shop.ask("GET", "/items?page=2")
    assert [request.args["page"] for request, _ in httpserver.log] == ["1", "2"]


def test_made_twice(httpserver, shop):
    httpserver.expect_request("/ping").respond_with_data("pong")
    shop.ask("GET", "/ping")
    shop.ask("GET", "/ping")
    httpserver.assert_request_made(RequestMatcher("/ping"), count=2)


def test_never_made(httpserver, shop):
    httpserver.expect_request("/tea").respond_with_data("hot")
    shop.ask("GET", "/tea")
    httpserver.assert_request_made(RequestMatcher("/admin"), count=0)


def test_handler_fails(httpserver, shop):
    def fails(request):
        raise LookupError("no tea")

    httpserver.expect_request("/tea").respond_with_handler(fails)
    assert shop.ask("GET", "/tea")[0] == 500
    with pytest.raises(LookupError):
        httpserver.check()
    httpserver.clear()


def test_response_headers(httpserver, shop):
    headers = {"Location": "/orders/1"}
    httpserver.expect_request("/orders").respond_with_data("made", 201, headers)
    assert shop.ask("POST", "/orders") == (201, "made")


def test_every_method(httpserver, shop):
    httpserver.expect_request("/any").respond_with_data("ok")
    assert [shop.ask(method, "/any")[0] for method in ("GET", "PUT", "PATCH")] == 3 * [200]
