"""A response that is encoded once is the same as one that is encoded each time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidestage.protocols.http.child.exchange import Exchange
from sidestage.protocols.http.child.framing import head_of, http_date, ready
from sidestage.protocols.http.child.head import parse_head
from sidestage.protocols.http.messages import Fault, Respond

headers = st.lists(
    st.sampled_from(
        [
            ("X-A", "1"),
            ("Content-Type", "text/plain"),
            ("Date", "today"),
            ("Content-Length", "2"),
            ("Transfer-Encoding", "chunked"),
            ("Connection", "close"),
        ]
    ),
    max_size=2,
).map(tuple)


@given(
    st.sampled_from(["GET", "POST", "HEAD", "CONNECT"]),
    st.sampled_from([200, 201, 204, 205, 304, 404, 500]),
    headers,
    st.sampled_from([b"", b"ab", bytes(1 << 13)]),
)
def test_it_is_what_is_made_each_time(
    method: str, status: int, fields: tuple[tuple[str, str], ...], body: bytes
) -> None:
    response = Respond(
        call=0, status=status, reason="R", headers=fields, body=body, length=len(body), more=False
    )
    made = ready(method, response)
    if made is None:
        return
    target = b"x:1" if method == "CONNECT" else b"/"
    exchange = Exchange(None)  # type: ignore[arg-type]  # nothing is sent
    exchange.head = parse_head(b"%b %b HTTP/1.1\r\nHost: x\r\n\r\n" % (method.encode(), target))
    head = head_of(exchange, response)
    assert made.before + http_date() + made.after == head + body
    assert exchange.keep_alive
    assert not any((exchange.bodiless, exchange.chunked, exchange.mismatch))


def test_an_ordinary_answer_is_made_once() -> None:
    response = Respond(
        call=0, status=200, reason="OK", headers=(), body=b"ab", length=2, more=False
    )
    assert ready("GET", response) is not None
    assert ready("HEAD", response) is None


def test_what_goes_wrong_on_purpose_is_not() -> None:
    response = Respond(
        call=0, status=200, reason="OK", headers=(), body=b"ab", length=2, more=False,
        fault=Fault(kind="reset"),
    )  # fmt: skip
    assert ready("GET", response) is None
