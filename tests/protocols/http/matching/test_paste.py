from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.views import FORM, JSON, matchers, view
from sidestage.protocols.http.matching.paste import line_to_paste
from sidestage.protocols.http.matching.view import RequestView


class Server:
    """Notes what is expected of it."""

    def expect(self, *args: Any, **given: Any) -> Server:
        self.expected = matchers(*args, **given)
        return self

    def reply(self, _: object) -> None:
        """Nothing more to note."""


targets = st.from_regex(r"/[!-~]{0,30}", fullmatch=True) | st.sampled_from(["*", "t:1", "http://t"])
bodies = st.binary(max_size=30) | st.sampled_from(
    [b'{"a": [1, null, 1e400]}', b'"\\ud800"', b"a=1&a=2&%ff=", b"NaN", b"{}", b"[" * 5000]
)
kinds = st.sampled_from(["", JSON, FORM, "text/plain; charset=utf-16", "multipart/form-data"])


@given(st.sampled_from(["GET", "post", "M-SEARCH"]), targets, kinds, bodies, st.integers(0, 1))
def test_the_line_is_python_that_expects_the_request(
    method: str, target: str, kind: str, body: bytes, cut: int
) -> None:
    seen = RequestView(method, target, f"Content-Type: {kind}".encode(), body, cut)
    line = line_to_paste(seen)
    server = Server()
    eval(line, {"server": server})
    assert server.expected.verdict(seen) is True
    assert len(line) <= 200
    assert line.isprintable()


@pytest.mark.parametrize(
    "given, end",
    [
        ({"headers": {"X-Key": "b"}}, ', headers={"X-Key": "a"}).reply(...)'),
        ({"headers": {"Authorization": "b"}}, ").reply(...)  # and Authorization"),
        ({"auth": "b", "cookies": {"id": 1}}, ").reply(...)  # and auth=, cookies="),
        ({"headers": {"X-Other": "b"}}, '"/").reply(...)'),
    ],
)
def test_it_looks_at_what_the_nearest_looks_at(given: dict[str, Any], end: str) -> None:
    seen = view("GET /", "X-Key: a", "Authorization: Bearer s3cret", "Cookie: id=s3cret")
    line = line_to_paste(seen, matchers("GET", "/", **given))
    assert line.endswith(end)
    assert "s3cret" not in line


@pytest.mark.parametrize(
    "seen, line",
    [
        (view("GET /orders/8"), 'server.expect("GET", "/orders/8").reply(...)'),
        (view("GET /a%20b/{x}"), 'server.expect("GET", "/a%20b/{{x}}").reply(...)'),
        (
            view("GET /?page=2&tag=a&tag=b"),
            'server.expect("GET", "/", query={"page": "2", "tag": ["a", "b"]}).reply(...)',
        ),
        (
            view("POST /", body=b'{"sku": 7, "by": null}'),
            'server.expect("POST", "/", json={"sku": 7, "by": None}).reply(...)',
        ),
        (
            view("POST /", f"Content-Type: {FORM}", body=b"a=1"),
            'server.expect("POST", "/", form={"a": "1"}).reply(...)',
        ),
        (view("POST /", body=b"hello"), 'server.expect("POST", "/", text="hello").reply(...)'),
        (view("POST /", body=b"\x00\xff"), 'server.expect("POST", "/").reply(...)'),
        (view("POST /", body=b"[%s1]" % (b"1," * 500)), 'server.expect("POST", "/").reply(...)'),
        (view("GET /?x=" + "y" * 500), 'server.expect("GET", "/").reply(...)'),
        (view("GET /" + "y" * 500), 'server.expect("GET", "*").reply(...)'),
        (view("get /"), 'server.expect("*", "/").reply(...)'),
        (view("OPTIONS *"), 'server.expect("OPTIONS", "*").reply(...)'),
        (view("CONNECT t:1"), 'server.expect("CONNECT", "t:1").reply(...)'),
    ],
)
def test_lines(seen: RequestView, line: str) -> None:
    assert line_to_paste(seen) == line
