"""A request in a report: what matters of it, and not too much."""

from __future__ import annotations

from typing import Any

import pytest

from sidestage.journal.record import Shown
from sidestage.protocols.http.messages import Request
from sidestage.protocols.http.request import HTTPRequest
from sidestage.protocols.http.shown import shown


def show(fields: str = "Host: x", body: bytes = b"", **facts: Any) -> Shown:
    message: dict[str, Any] = {
        "call": 0,
        "peer": "",
        "at": 1.0,
        "connection": 1,
        "method": "GET",
        "target": "/",
        "http_version": "1.1",
        "more": False,
        "cut": 0,
    }
    made = Request(fields=fields.encode("latin-1"), body=body, **(message | facts))
    return shown(HTTPRequest(made))


@pytest.mark.parametrize(
    "fields, details",
    [
        ("Host: x\r\nUser-Agent: curl\r\nAccept: */*\r\nSec-Fetch-Mode: cors", ()),
        ("Accept: text/csv\r\nX-Id: 7", ("Accept: text/csv; X-Id: 7",)),
        ("Authorization: Bearer s3cret", ("Authorization: Bearer (6 characters)",)),
        ("Authorization: s3cret", ("Authorization: (6 characters)",)),
        ("X: \x1b[2J", ("X: \\x1b[2J",)),
        ("X: " + "x" * 61, (f"X: {'x' * 60}...",)),
        (
            "\r\n".join(f"X{number}: {number}" for number in range(9)),
            ("X0: 0; X1: 1; X2: 2; X3: 3; X4: 4; X5: 5; 3 more",),
        ),
    ],
)
def test_the_header_fields_that_not_every_client_sends(
    fields: str, details: tuple[str, ...]
) -> None:
    assert show(fields).details == details


def test_a_body_with_its_type_and_how_much_is_missing() -> None:
    assert show("Content-Type: text/plain\r\nContent-Length: 9", b"abc", cut=2).details == (
        "body (text/plain): 5 bytes 'abc'..., of 9 announced",
    )


def test_a_head_of_any_size_is_shown_in_a_few_lines() -> None:
    told = show(
        "\r\n".join(f"X{number}: {'x' * 1000}" for number in range(5000)), target="/" * 9999
    )
    assert len(told.line) < 130
    assert sum(map(len, told.details)) < 600
