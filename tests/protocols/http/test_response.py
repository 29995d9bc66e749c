from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestage.protocols.http.response import HTTPResponse, header_fields, reason_of


@pytest.mark.parametrize(
    "result, status",
    [
        (204, 204),
        (HTTPStatus.NOT_FOUND, 404),
        (("", HTTPStatus.GONE), 410),
        (None, 200),
        (999, 999),
    ],
)
def test_a_status_may_be_any_int(result: Any, status: int) -> None:
    response = HTTPResponse.of(result)
    assert response.status == status
    assert type(response.status) is int or isinstance(response.status, HTTPStatus)


def test_a_status_without_a_body_says_nothing_of_its_type() -> None:
    assert HTTPResponse.of((None, 201)) == HTTPResponse.of(201)
    assert HTTPResponse.of((None, 201, {"A": "1"})).headers == (("A", "1"),)


def test_headers_of_a_tuple_replace_what_is_added_by_default() -> None:
    response = HTTPResponse.of(({"a": 1}, 200, [("content-type", "x/y"), ("A", "1"), ("A", "2")]))
    assert response.headers == (("content-type", "x/y"), ("A", "1"), ("A", "2"))


def test_an_asynchronous_generator_is_refused_by_name() -> None:
    async def pieces() -> Any:
        yield b"x"

    with pytest.raises(TypeError, match="asynchronous generator"):
        HTTPResponse.of(pieces())


def test_a_response_says_how_json_is_sent() -> None:
    with pytest.raises(TypeError, match=r"\(\{'a': 1\}, status, headers\)"):
        HTTPResponse({"a": 1})


@pytest.mark.parametrize("body", [1, None, object()])
def test_a_response_cannot_have_just_any_body(body: Any) -> None:
    with pytest.raises(TypeError, match="body must be"):
        HTTPResponse(body)


def test_a_status_that_is_no_int_is_refused() -> None:
    with pytest.raises(TypeError, match="must be an int"):
        HTTPResponse(status="200")  # type: ignore[arg-type]


@pytest.mark.parametrize("reason", ["a\r\nb", "\u2603"])
def test_a_reason_that_cannot_be_sent_is_refused(reason: str) -> None:
    with pytest.raises(ValueError, match="reason"):
        HTTPResponse(reason=reason)


def test_an_unknown_status_has_no_reason() -> None:
    assert (reason_of(404), reason_of(599)) == ("Not Found", "")


@given(st.text(), st.text())
def test_no_header_can_begin_another_line(name: str, value: str) -> None:
    """Whatever is accepted is one line of Latin-1, with one name."""
    try:
        [field] = header_fields(name, value)
    except ValueError:
        return
    line = ": ".join(field).encode("latin-1")
    assert not set(b"\r\n\0") & set(line)
    assert line.split(b":")[0].decode() == name


@pytest.mark.parametrize(
    "result, says",
    [
        (("a", 200, "text/plain"), "mapping or pairs"),
        (("a", 200, ["x"]), "mapping or pairs"),
        ((404, "x"), "int as the status"),
        ({"when": object()}, "sent as JSON"),
    ],
)
def test_an_error_says_what_would_be_right(result: object, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        HTTPResponse.of(result)


def test_no_headers_may_be_none() -> None:
    assert HTTPResponse.of((b"x", 200, None)).status == 200
