from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import json_values
from kit.views import FORM, JSON, candidate, matchers, view
from sidestage import absent, containing, matching
from sidestage.protocols.http.matching.distance import compare
from sidestage.protocols.http.matching.nearest import (
    Candidate,
    describe,
    explain_unexpected,
    explain_unmet,
)
from sidestage.protocols.http.matching.view import RequestView

ORDER = candidate(
    "POST", "/orders", json={"sku": 7, "by": str}, headers={"Content-Type": JSON, "X-Token": "a"}
)

UNEXPECTED: dict[str, tuple[RequestView, list[Candidate], str]] = {
    "nothing is expected": (
        view("GET /orders/8"),
        [],
        """
        unexpected request: GET /orders/8: nothing is expected: no expect or allow is left
        to expect this request: server.expect("GET", "/orders/8").reply(...)
        """,
    ),
    "another path": (
        view("GET /orders/8"),
        [
            candidate("POST", "/orders", place="test_shop.py:10"),
            candidate("GET", "/orders/7"),
            candidate("GET", "/health", place="conftest.py:3"),
        ],
        """
        unexpected request: GET /orders/8: path: /orders/7 expected (test_shop.py:12)
        the nearest of 3: expect GET /orders/7 (test_shop.py:12)
          as expected: method
          path: /orders/7 expected, /orders/8 came
        to expect this request: server.expect("GET", "/orders/8").reply(...)
        """,
    ),
    "a slash at the end": (
        view("GET /orders/"),
        [candidate("GET", "/orders")],
        """
        unexpected request: GET /orders/: path: /orders expected (test_shop.py:12)
        what is expected: expect GET /orders (test_shop.py:12)
          as expected: method
          path: /orders expected, /orders/ came
          hint: a slash at the end counts: with it and without it are two paths
        to expect this request: server.expect("GET", "/orders/").reply(...)
        """,
    ),
    "another method": (
        view("PUT /orders/7"),
        [candidate(("GET", "POST"), "/orders/{id:int}")],
        """
        unexpected request: PUT /orders/7: method: GET|POST expected (test_shop.py:12)
        what is expected: expect GET|POST /orders/{id:int} (test_shop.py:12)
          as expected: path
          method: GET|POST expected, PUT came
        to expect this request: server.expect("PUT", "/orders/7").reply(...)
        """,
    ),
    "a preflight": (
        view("OPTIONS /orders", "Access-Control-Request-Method: POST"),
        [candidate("POST", "/orders", json={})],
        """
        unexpected request: OPTIONS /orders: method: POST expected (test_shop.py:12)
        what is expected: expect POST /orders json={} (test_shop.py:12)
          as expected: path
          method: POST expected, OPTIONS came
          json: {} expected, nothing came
          hint: this is a CORS preflight, which is never answered by itself: \
allow("OPTIONS", "/orders")
        to expect this request: server.expect("OPTIONS", "/orders").reply(...)
        """,
    ),
    "a body and fields": (
        view(
            "POST /orders",
            f"Content-Type: {JSON}; charset=utf-8",
            "X_Token: a",
            body=b'{"sku": "7", "By": "me"}',
        ),
        [ORDER],
        """
        unexpected request: POST /orders: headers Content-Type: "application/json" expected, \
"application/json; charset=utf-8" came (test_shop.py:12)
        what is expected: expect POST /orders headers={"Content-Type": "application/json", "X-... \
json={"sku": 7, "by": str} (test_shop.py:12)
          as expected: method, path
          headers Content-Type: "application/json" expected, "application/json; charset=utf-8" came
          headers X-Token: "a" expected, nothing came
          json at .sku: 7 expected, "7" came: a str, not an int
          json at .by: str expected, nothing came
          json at .By: not expected, "me" came
          hint: the Content-Type has "charset=utf-8" after it: \
containing("application/json") takes both
          hint: headers: "X-Token" is missing, and "x_token" came
          hint: json: "by" is missing, and "By" came
        to expect this request: server.expect("POST", "/orders", \
headers={"Content-Type": "application/json; charset=utf-8"}, \
json={"sku": "7", "By": "me"}).reply(...)
        """,
    ),
    "no Content-Type": (
        view("POST /orders", body=b"a=1"),
        [candidate("POST", "/orders", form={"a": 1})],
        """
        unexpected request: POST /orders: form: {"a": "1"} expected, b'a=1', which is not a form \
(no Content-Type), came (test_shop.py:12)
        what is expected: expect POST /orders form={"a": "1"} (test_shop.py:12)
          as expected: method, path
          form: {"a": "1"} expected, b'a=1', which is not a form (no Content-Type), came
          hint: the request has no Content-Type, and that of a form is \
application/x-www-form-urlencoded or multipart/form-data
        to expect this request: server.expect("POST", "/orders", text="a=1").reply(...)
        """,
    ),
    "a form for JSON": (
        view("POST /orders", f"Content-Type: {FORM}", body=b"sku=7"),
        [candidate("POST", "/orders", json={"sku": 7})],
        """
        unexpected request: POST /orders: json: {"sku": 7} expected, b'sku=7', which is not JSON \
(Expecting value: line 1 column 1 (char 0)), ... (test_shop.py:12)
        what is expected: expect POST /orders json={"sku": 7} (test_shop.py:12)
          as expected: method, path
          json: {"sku": 7} expected, b'sku=7', which is not JSON \
(Expecting value: line 1 column 1 (char 0)), came
          hint: the body is a form: expect form=, or have the client send JSON
        to expect this request: server.expect("POST", "/orders", form={"sku": "7"}).reply(...)
        """,
    ),
    "a query": (
        view("GET /orders?page=3&tag=a&tag=b"),
        [candidate("GET", "/orders", query={"page": 2, "tag": "a"})],
        """
        unexpected request: GET /orders?page=3&tag=a&tag=b: query page: "2" expected, "3" came \
(test_shop.py:12)
        what is expected: expect GET /orders query={"page": "2", "tag": "a"} (test_shop.py:12)
          as expected: method, path
          query page: "2" expected, "3" came
          query tag: "a" expected, it came 2 times: ["a", "b"]
        to expect this request: server.expect("GET", "/orders", \
query={"page": "3", "tag": ["a", "b"]}).reply(...)
        """,
    ),
    "full": (
        view("GET /orders"),
        [
            candidate("GET", "/orders", note="it was met 1 of 1 times")._replace(
                advice=lambda: "if it is to come once more, write times=2"
            ),
            candidate("GET", "/order"),
        ],
        """
        unexpected request: GET /orders: it was met 1 of 1 times (test_shop.py:12)
        the nearest of 2: expect GET /orders (test_shop.py:12)
          as expected: method, path
          all that it looks at holds, but it was met 1 of 1 times
        if it is to come once more, write times=2
        """,
    ),
    "where": (
        view("GET /orders"),
        [candidate("GET", "/orders", where_given=True)],
        """
        unexpected request: GET /orders: where= has not accepted it (test_shop.py:12)
        what is expected: expect GET /orders where=... (test_shop.py:12)
          as expected: method, path
          where= has not accepted it
        to expect this request: server.expect("GET", "/orders").reply(...)
        """,
    ),
    "credentials": (
        view("GET /orders", "Authorization: Bearer s3cret"),
        [candidate("GET", "/orders", auth=("me", "s3cret"), place="")],
        """
        unexpected request: GET /orders: auth: the user "me" with a password expected, a bearer \
token of 6 characters came
        what is expected: expect GET /orders auth=...
          as expected: method, path
          auth: the user "me" with a password expected, a bearer token of 6 characters came
        to expect this request: server.expect("GET", "/orders").reply(...)  # and auth=
        """,
    ),
    "a body that is too large": (
        view("POST /orders", body=b"x" * 100, cut=10_000_000),
        [candidate("POST", "/orders", text=containing("y"))],
        """
        unexpected request: POST /orders: text: containing("y") expected, 10,000,100 bytes, of \
which a record keeps 100 (a quarter of keep), c... (test_shop.py:12)
        what is expected: expect POST /orders text=containing("y") (test_shop.py:12)
          as expected: method, path
          text: containing("y") expected, 10,000,100 bytes, of which a record keeps 100 \
(a quarter of keep), came
        to expect this request: server.expect("POST", "/orders").reply(...)
        """,
    ),
}


@pytest.mark.parametrize("seen, candidates, text", UNEXPECTED.values(), ids=UNEXPECTED)
def test_unexpected(seen: RequestView, candidates: list[Candidate], text: str) -> None:
    assert explain_unexpected(seen, candidates).text == dedent(text).strip()


@pytest.mark.parametrize(
    "name, reason",
    [
        (
            "nothing is expected",
            "unexpected GET /orders/8; nothing is expected: no expect or allow is left",
        ),
        (
            "another path",
            (
                "unexpected GET /orders/8; nearest: expect GET /orders/7 (test_shop.py:12): "
                "path: /orders/7 expected, /orders/8 came"
            ),
        ),
        (
            "full",
            (
                "unexpected GET /orders; nearest: expect GET /orders (test_shop.py:12): "
                "all that it looks at holds, but it was met 1 of 1 times"
            ),
        ),
    ],
)
def test_the_reason(name: str, reason: str) -> None:
    seen, candidates, _ = UNEXPECTED[name]
    assert explain_unexpected(seen, candidates).reason == reason


@pytest.mark.parametrize(
    "line, nearest",
    [
        ("GET /orders/8", "GET /orders/7"),
        ("GET /orders/x", "GET /orders/7"),
        ("POST /orders", "POST /orders"),
        ("POST /order", "POST /orders"),
        ("GET /healthy", "GET /health"),
        ("PUT /health", "GET /health"),
        ("GET /a/b/c/d/e/f", "GET /orders/7"),
    ],
)
def test_the_nearest_is_the_first_of_the_least_distance(line: str, nearest: str) -> None:
    candidates = [
        candidate("GET", "/orders/7", query={}),
        candidate("GET", "/orders/7", query={}, place="other.py:1"),
        candidate("POST", "/orders", json={"a": 1}),
        candidate("GET", "/health"),
    ]
    second = explain_unexpected(view(line), candidates).text.splitlines()[1]
    assert second.startswith(f"the nearest of 4: expect {nearest}")
    assert second.endswith("(test_shop.py:12)")


def test_a_body_decides_between_equal_lines() -> None:
    candidates = [
        candidate("POST", "/", json={"sku": n, "a": 1}, place=f"{n}:1") for n in range(50)
    ]
    found = explain_unexpected(view("POST /", body=b'{"sku": 31}'), candidates)
    assert "(31:1)" in found.text


def test_what_nothing_of_can_be_told_is_bounded() -> None:
    """Long values are cut, and neither a label nor a place can break a line."""
    huge = {f"name {n}": "x\n" * 1000 for n in range(1000)}
    expected = candidate("POST", "/" + "p" * 5000, json=huge, note="n" * 9000, place="a\nb" * 999)
    seen = view("POST /" + "q" * 5000 + "?" + "&".join(huge), body=b"[" + b"1," * 10000 + b"1]")
    found = explain_unexpected(seen, [expected])
    lines = found.text.splitlines()
    assert len(lines) <= 30
    assert all(len(line) <= 400 for line in lines)
    assert "... (5,001 characters) came" in found.text
    assert len(found.reason) == 200
    assert found.reason.isprintable()


noted = st.sampled_from(["", "it was met 1 of 1 times"])
givens = st.fixed_dictionaries(
    {},
    optional={
        "json": json_values.written,
        "query": st.dictionaries(st.text(max_size=2), st.text(max_size=2), max_size=2),
        "headers": st.just({"X-A": "1", "Content-Type": matching("json")}),
        "form": st.dictionaries(st.sampled_from(["a", "ü"]), st.just(int) | st.just(absent)),
        "auth": st.sampled_from(["x", ("a", "b"), absent]),
        "text": st.just(containing("a")),
        "where_given": st.booleans(),
    },
)
paths = st.sampled_from(["*", "/", "/a", "/a/", "/a/{x:int}", "/{y:path}/b", re.compile("/a+")])


@given(
    st.sampled_from(["GET", "HEAD", "OPTIONS", "x"]),
    st.from_regex(r"[!-~]{1,12}", fullmatch=True) | st.text("/a%2F", max_size=6).map("/".__add__),
    st.binary(max_size=30),
    st.binary(max_size=12) | json_values.values.map(lambda value: repr(value).encode()),
    st.lists(st.tuples(st.sampled_from(["GET", "*"]), paths, givens, noted), max_size=4),
)
def test_every_text_is_bounded_and_fit_for_its_place(
    method: str, target: str, fields: bytes, body: bytes, expected: list[Any]
) -> None:
    seen = RequestView(method, target, fields, body)
    candidates = []
    for name, path, given_parts, note in expected:
        try:
            candidates.append(candidate(name, path, note=note, **given_parts))
        except ValueError:  # half of a surrogate pair
            continue
    found = explain_unexpected(seen, candidates)
    assert found == explain_unexpected(seen, candidates)
    assert len(found.reason) <= 200
    assert found.reason.isascii()
    assert found.reason.isprintable()
    lines = found.text.encode().decode().split("\n")
    assert len(lines) <= 30
    assert all(line.isprintable() for line in lines)
    for one in candidates:
        assert len(explain_unmet(one.matchers, [seen] * 5)) <= 30


@given(
    st.sampled_from(["/", "/a", "/a/", "/b", "/a/b", "/a%2Fb"]),
    st.sampled_from([b"", b"{}", b'{"a": 1}', b'{"a": 1, "b": [2]}', b"x"]),
    st.lists(
        st.tuples(
            st.sampled_from(["GET", "POST"]),
            st.sampled_from(["/", "/a", "/a/c", "/{x:int}", "*"]),
            st.sampled_from([{}, {"json": {"a": 1}}, {"json": {"b": [1, 2]}}, {"text": "y"}]),
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_no_other_is_nearer_however_few_are_compared(
    target: str, body: bytes, expected: list[tuple[str, str, dict[str, Any]]]
) -> None:
    seen = view(f"GET {target}", body=body)
    every = [
        candidate(method, path, place=f"{place}:1", **given)
        for place, (method, path, given) in enumerate(expected)
    ]
    least = min(range(len(every)), key=lambda at: compare(seen, every[at].matchers).distance)
    assert f"({least}:1)" in explain_unexpected(seen, every).text.splitlines()[1]


def test_nothing_is_asked_of_those_that_are_not_the_nearest() -> None:
    def never() -> str:
        raise AssertionError("nobody reads it")

    others = [
        candidate("GET", path)._replace(note=never, advice=never) for path in ("/b/c", "/d/e")
    ]
    found = explain_unexpected(view("GET /a"), [others[0], candidate("GET", "/ab"), others[1]])
    assert "the nearest of 3: expect GET /ab" in found.text


def test_unmet() -> None:
    seen = [
        view("POST /orders", body=b'{"sku": "7"}'),
        view("GET /orders"),
        view("GET /health"),
        view("POST /order", body=b'{"sku": 7}'),
    ]
    found = explain_unmet(matchers("POST", "/orders", json={"sku": 7}), seen)
    assert found == [
        "what came nearest:",
        "  POST /orders",
        '    json at .sku: 7 expected, "7" came: a str, not an int',
        "  POST /order",
        "    path: /orders expected, /order came",
        '    hint: one character differs: "orders", "order"',
        "  GET /orders",
        "    method: POST expected, GET came",
        '    json: {"sku": 7} expected, nothing came',
        "  and 1 more",
    ]


def test_unmet_where_nothing_came() -> None:
    assert explain_unmet(matchers("GET", "/"), []) == []


def test_unmet_looks_at_the_last_thousand() -> None:
    expected = matchers("GET", "/a")
    found = explain_unmet(expected, [view("GET /b"), *[view("GET /long")] * 1500])
    assert found[1] == "  GET /long"
    assert found[-1] == "  and 1,498 more"


SECRETS = [
    ({"headers": {"Authorization": "Bearer s3cret"}}, "Authorization: Bearer other-s3cret"),
    ({"headers": {"authorization": "Basic bWU6czNjcmV0"}}, "Authorization: Basic b3RoZXI6czNjcmV0"),
    ({"headers": {"Proxy-Authorization": containing("s3cret")}}, "Proxy-Authorization: Digest s3"),
    ({"headers": {"Cookie": "id=s3cret"}}, "Cookie: id=other-s3cret"),
    ({"headers": {"Cookie": absent}}, "Cookie: id=s3cret"),
    ({"cookies": {"id": "s3cret"}}, "Cookie: id=other-s3cret; more=s3cret"),
    ({"cookies": {"id": "s3cret", "more": "s3cret"}}, "Cookie: id=s3cret"),
    ({"cookies": {}}, "Cookie: id=s3cret; id=s3cret"),
]


@pytest.mark.parametrize("given, field", SECRETS)
def test_no_text_has_a_secret(given: dict[str, Any], field: str) -> None:
    found = candidate("GET", "/", **given)
    why = explain_unexpected(view("GET /", field), [found])
    unmet = explain_unmet(found.matchers, [view("GET /", field)])
    told = "\n".join([found.label, why.reason, why.text, *unmet])
    for secret in ("s3", "bWU6", "b3Ro"):
        assert secret not in told
    assert "expected" in why.reason
    assert " came" in why.text


@pytest.mark.parametrize(
    "found, label",
    [
        (matchers("GET", "/orders/{id:int}"), "GET /orders/{id:int}"),
        (matchers("*", "*"), "* *"),
        (matchers(("GET", "PUT"), re.compile("/a")), 'GET|PUT re.compile(r"/a")'),
        (matchers("POST", "/", json={"sku": 7, "by": str}), 'POST / json={"sku": 7, "by": str}'),
        (matchers("GET", "/", auth="s3cret", where_given=True), "GET / auth=... where=..."),
        (matchers("GET", "/a\nb"), "GET /a\\nb"),
        (matchers("GET", "/", text="x" * 1000), 'GET / text="' + "x" * 39 + "..."),
    ],
)
def test_a_label(found: Any, label: str) -> None:
    assert describe(found) == label
