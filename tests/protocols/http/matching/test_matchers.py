from __future__ import annotations

import base64
from typing import Any
from unittest import mock

import pytest

from kit.views import FORM, matchers, view
from sidestage import absent, containing, matching, one_of
from sidestage.protocols.http.matching.declared import matchers_of

BASIC = base64.b64encode(b"me:pw").decode()
FULL = view(
    "POST /orders/7?page=2&tag=a&tag=b",
    "Content-Type: application/json",
    "X-Token: abc",
    f"Authorization: Basic {BASIC}",
    "Cookie: id=5",
    body=b'{"sku": 7}',
)


@pytest.mark.parametrize(
    "method, path, given, wanted",
    [
        ("POST", "/orders/7", {}, True),
        ("*", "*", {}, True),
        (("GET", "POST"), "/orders/{id:int}", {}, True),
        ("GET", "/orders/7", {}, False),
        ("POST", "/orders/8", {}, False),
        ("POST", "*", {"query": {"page": 2, "tag": ["a", "b"]}}, True),
        ("POST", "*", {"query": {"page": 2}}, False),
        ("POST", "*", {"query": containing({"page": int})}, True),
        ("POST", "*", {"query": absent}, False),
        ("POST", "*", {"headers": {"x-token": "abc"}}, True),
        ("POST", "*", {"headers": {"x-token": "ABC"}}, False),
        ("POST", "*", {"headers": {"X-Other": absent}}, True),
        ("POST", "*", {"cookies": {"id": 5}}, True),
        ("POST", "*", {"cookies": {}}, False),
        ("POST", "*", {"auth": ("me", "pw")}, True),
        ("POST", "*", {"auth": ("me", str)}, True),
        ("POST", "*", {"auth": ("me", "PW")}, False),
        ("POST", "*", {"auth": "token"}, False),
        ("POST", "*", {"auth": absent}, False),
        ("POST", "*", {"auth": one_of("token", ("me", "pw"))}, True),
        ("POST", "*", {"json": {"sku": 7}}, True),
        ("POST", "*", {"json": {"sku": str}}, False),
        ("POST", "*", {"json": None}, False),
        ("POST", "*", {"json": absent}, False),
        ("POST", "*", {"text": '{"sku": 7}'}, True),
        ("POST", "*", {"text": matching("sku")}, True),
        ("POST", "*", {"body": b'{"sku": 7}'}, True),
        ("POST", "*", {"body": b""}, False),
        ("POST", "*", {"form": {"sku": 7}}, False),
    ],
)
def test_each_part(method: Any, path: Any, given: dict[str, Any], wanted: bool) -> None:
    found = matchers(method, path, **given)
    assert found.verdict(FULL) is wanted
    assert (found.head_fits(FULL) and found.body_fits(FULL)) is wanted


@pytest.mark.parametrize(
    "given, wanted",
    [
        ({"json": None}, False),
        ({"json": absent}, True),
        ({"form": {}}, True),
        ({"form": absent}, True),
        ({"query": {}}, True),
        ({"cookies": {}}, True),
        ({"auth": absent}, True),
        ({"text": ""}, True),
        ({"body": b""}, True),
    ],
)
def test_a_request_with_nothing(given: dict[str, Any], wanted: bool) -> None:
    assert matchers("GET", "/", **given).verdict(view("GET /")) is wanted


def test_null_is_not_nothing() -> None:
    assert matchers("*", "*", json=None).verdict(view("POST /", body=b"null")) is True
    assert matchers("*", "*").needs_body is False
    assert matchers("*", "*", json=None).needs_body is True


@pytest.mark.parametrize("given", [{"json": {}}, {"form": {}}, {"text": str}, {"body": b""}])
def test_a_body_that_is_not_all_here_fits_nothing_that_looks_at_it(given: dict[str, Any]) -> None:
    long = view("POST /", f"Content-Type: {FORM}", body=b"{}", cut=1)
    assert matchers("*", "*", **given).verdict(long) is False
    assert matchers("*", "*").verdict(long) is True


def test_the_head_is_judged_before_the_body_is_there() -> None:
    early = view("POST /orders")
    found = matchers("POST", "/orders", json={"sku": 7})
    assert found.head_fits(early) is True
    early.body = b'{"sku": 7}'
    assert found.verdict(early) is True


def test_parameters() -> None:
    assert matchers("*", "/orders/{id:int}").params(FULL) == {"id": 7}
    assert matchers("*", "/x").params(FULL) == {}


def test_what_only_the_test_can_say() -> None:
    own = mock.MagicMock()
    own.__eq__.return_value = True
    found, asked = matchers_of("POST", "*", query={"page": own, "tag": containing(["a"])})
    assert found.asks
    assert not found.where
    assert found.head_fits(FULL) is found.verdict(FULL) is None
    assert found.verdict(FULL, asked) is True
    assert found.verdict(view("POST /"), asked) is False
    assert found.verdict(view("POST /")) is False


def test_where_is_asked_last() -> None:
    found = matchers("POST", "*", where_given=True)
    assert (found.asks, found.where) == (True, True)
    assert found.head_fits(FULL) is True
    assert found.verdict(FULL) is None
    assert found.verdict(FULL, []) is True  # and now whoever has it calls it
    assert found.verdict(view("GET /")) is False
