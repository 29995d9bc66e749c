"""Requests as matchers see them, and expectations for them."""

from __future__ import annotations

from typing import Any

from sidestage.protocols.http.matching.declared import matchers_of
from sidestage.protocols.http.matching.matchers import Matchers, decode, encode
from sidestage.protocols.http.matching.nearest import Candidate, describe
from sidestage.protocols.http.matching.view import RequestView

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


def view(line: str, *fields: str, body: bytes = b"", cut: int = 0) -> RequestView:
    """A request from its line, such as ``GET /orders``, and lines of fields."""
    method, _, target = line.partition(" ")
    return RequestView(method, target, "\r\n".join(fields).encode("latin-1"), body, cut)


def matchers(*args: Any, **given: Any) -> Matchers:
    """Matchers as the child has them."""
    return decode(encode(matchers_of(*args, **given)[0]))


def candidate(
    *args: Any, note: str = "", place: str = "test_shop.py:12", **given: Any
) -> Candidate:
    """An expectation as the child knows it."""
    found = matchers(*args, **given)
    return Candidate(f"expect {describe(found)}", place, found, lambda: note)
