"""What a handler gives as status, reason and fields is sent as it is, or refused by name."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest

from kit.raw_http import RawClient
from sidestage import Headers, HTTPRequest, HTTPServer
from sidestage import HTTPResponse as Reply

GET = "GET / HTTP/1.1\r\nHost: t\r\nA: 1\r\nA: 2\r\n\r\n"


class Kind(str, enum.Enum):  # noqa: UP042 - what the test is about
    """Its ``str`` is "Kind.PLAIN"."""

    PLAIN = "text/plain"


class Number(enum.IntEnum):
    """Its ``repr`` is "<Number.FIVE: 5>"."""

    FIVE = 5


class Text(str):
    """Its ``str`` is not its text."""

    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


VALUES: dict[str, tuple[Any, list[bytes]]] = {
    "text": ("a", [b"a"]),
    "text in Latin-1": ("é", [b"\xe9"]),
    "no text": ("", [b""]),
    "a list": (["a=1", "b=2"], [b"a=1", b"b=2"]),
    "a tuple": (("a=1", b"b=2", 3), [b"a=1", b"b=2", b"3"]),
    "an empty list": ([], []),
    "bytes": (b'"x"', [b'"x"']),
    "bytes beyond ASCII": ("☃".encode(), ["☃".encode()]),
    "a bytearray": (bytearray(b"x"), [b"x"]),
    "a memoryview": (memoryview(b"x"), [b"x"]),
    "an int": (5, [b"5"]),
    "zero": (0, [b"0"]),
    "an enumeration of text": (Kind.PLAIN, [b"text/plain"]),
    "an enumeration of numbers": (Number.FIVE, [b"5"]),
    "a class of text": (Text("x"), [b"x"]),
}
WRONG: dict[str, Any] = {
    "None": None,
    "a bool": True,
    "a float": 1.5,
    "a dict": {"a": "b"},
    "a set": {"a"},
    "an object": object(),
    "a date": dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
    "a list of lists": [["a"]],
    "None in a list": ["a", None],
    "a generator": (value for value in "ab"),
}
Way = Callable[[HTTPRequest, Any], Any]


def in_a_tuple(request: HTTPRequest, value: Any) -> Any:
    return b"x", 200, {"X-Field": value}


def in_pairs(request: HTTPRequest, value: Any) -> Any:
    return b"x", 200, [("X-Field", value)]


def in_a_response(request: HTTPRequest, value: Any) -> Any:
    return Reply(b"x", headers={"X-Field": value})


def by_hand(request: HTTPRequest, value: Any) -> None:
    request.send_response(200)
    request.send_header("X-Field", value)
    request.end_headers()


def as_information(request: HTTPRequest, value: Any) -> bytes:
    request.send_informational(103, {"X-Field": value})
    return b"x"


def as_trailers(request: HTTPRequest, value: Any) -> Any:
    return Reply(iter([b"x"]), trailers={"X-Field": value})


def as_late_trailers(request: HTTPRequest, value: Any) -> Any:
    return Reply(iter([b"x"]), trailers=lambda: [("X-Field", value)])


def as_a_trailer_by_hand(request: HTTPRequest, value: Any) -> None:
    request.send_response(200)
    request.end_headers()
    request.send_trailer("X-Field", value)


WAYS: list[Way] = [in_a_tuple, in_pairs, in_a_response, by_hand, as_information]
WAYS += [as_trailers, as_late_trailers, as_a_trailer_by_hand]
with_each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@with_each_way
@pytest.mark.parametrize("value, sent", VALUES.values(), ids=VALUES)
def test_a_value_is_sent_as_it_is(way: Way, value: Any, sent: list[bytes]) -> None:
    with HTTPServer(handler=lambda request: way(request, value)) as server:
        with RawClient(server) as client:
            client.send(GET.replace("A: 1", "Connection: close"))
            lines = client.rest().split(b"\r\n")
    found = [line.removeprefix(b"X-Field: ") for line in lines if line.startswith(b"X-Field: ")]
    assert found == sent


@with_each_way
@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG)
def test_another_value_is_a_type_error_that_names_its_field(way: Way, value: Any) -> None:
    with (
        pytest.raises(TypeError, match="the value of X-Field must be str, bytes or an int, not"),
        HTTPServer(handler=lambda request: way(request, value)) as server,
        RawClient(server) as client,
    ):
        client.send(GET)
        client.end()
        client.rest()


@with_each_way
@pytest.mark.parametrize("value", ["a\r\nB: c", b"a\r\nB: c", ["x", "a\nb"], "\0", b"\0", "☃"])
def test_a_value_that_would_break_the_head_is_a_value_error(way: Way, value: Any) -> None:
    with (
        pytest.raises(ValueError, match="the value of X-Field must"),
        HTTPServer(handler=lambda request: way(request, value)) as server,
        RawClient(server) as client,
    ):
        client.send(GET)
        client.end()
        assert b"\r\nB: c" not in client.rest()


@pytest.mark.parametrize("name", [b"X", 1, None, ("X",)])
def test_a_name_is_text(name: Any) -> None:
    with pytest.raises(TypeError, match="name of a header field must be str"):
        Reply(headers=[(name, "x")])


@pytest.mark.parametrize("headers", ["X: y", ["ab"], [b"ab"], [("a",)], [("a", "b", "c")], 1, [1]])
def test_headers_are_pairs(headers: Any) -> None:
    """Text of two characters is no pair."""
    with pytest.raises(TypeError, match="mapping or pairs"):
        Reply(headers=headers)
    with pytest.raises(TypeError, match="mapping or pairs"):
        Reply.of((b"x", 200, headers))


def test_headers_may_be_those_of_a_request() -> None:
    """With all values of a name."""
    with HTTPServer(handler=lambda r: (b"x", 200, r.headers)) as server:
        with RawClient(server) as client:
            client.send(GET)
            assert [field for field in client.head() if field[:2] == "A:"] == ["A: 1", "A: 2"]
    assert Reply(headers=Headers([("A", "1"), ("A", "2")])).headers == (("A", "1"), ("A", "2"))


def test_headers_may_be_anything_that_has_items() -> None:
    class Items:
        def items(self) -> list[tuple[str, str]]:
            return [("A", "1"), ("A", "2")]

    found: Any = Items()
    assert Reply(headers=found).headers == (("A", "1"), ("A", "2"))


# Reasons, statuses, explanations ---------------------------------------------------------------


@pytest.mark.parametrize(
    "reason, sent",
    [("Fine", "Fine"), (b"Fine", "Fine"), ("", ""), (b"\xe9", "é"), (Text("x"), "x"), (7, "7")],
)
@pytest.mark.parametrize("by_hand", [True, False])
def test_a_reason_is_sent_as_it_is(reason: Any, sent: str, by_hand: bool) -> None:
    def handler(request: HTTPRequest) -> Any:
        if not by_hand:
            return Reply(reason=reason)
        request.send_response(200, reason)
        return None

    with HTTPServer(handler=handler) as server, RawClient(server) as client:
        client.send(GET)
        assert client.head()[0] == f"HTTP/1.1 200 {sent}"


@pytest.mark.parametrize("reason", [1.5, ["a"], object(), True])
def test_another_reason_is_a_type_error(reason: Any) -> None:
    with pytest.raises(TypeError, match="the reason must be str"):
        Reply(reason=reason)

    def handler(request: HTTPRequest) -> None:
        for send in (request.send_response, request.send_error):
            with pytest.raises(TypeError, match="the reason must be str"):
                send(500, reason)
        request.send_response(200)

    with HTTPServer(handler=handler) as server, RawClient(server) as client:
        client.send(GET)
        assert client.answer() == (200, b"")


@pytest.mark.parametrize("status", ["200", b"200", 200.0, None, True, [200]])
def test_a_status_is_an_int(status: Any) -> None:
    with pytest.raises(TypeError, match="status"):
        Reply(status=status)

    def handler(request: HTTPRequest) -> None:
        for send in (request.send_response, request.send_error, request.send_informational):
            with pytest.raises(TypeError, match="the status must be an int"):
                send(status)
        request.send_response(HTTPStatus.OK)

    with HTTPServer(handler=handler) as server, RawClient(server) as client:
        client.send(GET)
        assert client.answer() == (200, b"")


@pytest.mark.parametrize("explain", [b"why", 1, ["why"]])
def test_an_explanation_is_text(explain: Any) -> None:
    def handler(request: HTTPRequest) -> None:
        with pytest.raises(TypeError, match="explain must be str"):
            request.send_error(500, None, explain)
        request.send_error(400, None, "why")

    with HTTPServer(handler=handler) as server, RawClient(server) as client:
        client.send(GET)
        assert client.answer() == (400, b"400 Bad Request\nwhy\n")
