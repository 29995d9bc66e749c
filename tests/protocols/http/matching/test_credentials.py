from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestage import absent, matching
from sidestage.patterns.tree import MISSING, Unreadable
from sidestage.protocols.http.matching.credentials import credentials, how_they_differ
from sidestage.protocols.http.matching.declared import matchers_of


def basic(text: bytes) -> str:
    return f"Basic {base64.b64encode(text).decode()}"


@given(st.text(st.characters(exclude_characters=":", exclude_categories=["Cs"])), st.text())
def test_user_and_password(user: str, password: str) -> None:
    pair = f"{user}:{password}".encode("utf-8", "replace")
    assert credentials(basic(pair)) == [user, pair.decode().partition(":")[2]]


@pytest.mark.parametrize(
    "field, found",
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        (basic(b"\xfc:\xdf"), ["ü", "ß"]),  # Latin-1
        (basic(b"a:b:c"), ["a", "b:c"]),
    ],
)
def test_fields(field: str, found: object) -> None:
    assert credentials(field) == found


@pytest.mark.parametrize(
    "field, why",
    [
        ("Digest x=1", 'the scheme "Digest"'),
        ("Basic ???", "credentials that are not in Base64"),
        (basic(b"nobody"), "credentials without a colon"),
        ("", 'the scheme ""'),
    ],
)
def test_what_cannot_be_read_says_why(field: str, why: str) -> None:
    found = credentials(field)
    assert isinstance(found, Unreadable)
    assert found.why == why


def test_no_field_is_nothing() -> None:
    assert credentials(None) is MISSING


@pytest.mark.parametrize(
    "auth, field, text",
    [
        (("me", "pw"), "Bearer s3cret", 'the user "me" with a password expected, a bearer token'),
        (("me", "pw"), basic(b"you:s3cret"), 'the user "me" expected, "you" came'),
        (("me", "pw"), basic(b"me:s3cret"), 'the password of "me" differs'),
        (("me", "pw"), None, 'the user "me" with a password expected, nothing came'),
        ("s3cret1", "Bearer s3cret", "another bearer token expected"),
        (matching("s3cret1"), "Bearer s3cret", "another bearer token expected"),
        ("s3cret1", basic(b"me:s3cret"), 'a bearer token expected, the user "me" with a'),
        (absent, "Bearer s3cret", "none expected, a bearer token of 6 characters came"),
    ],
)
def test_no_secret_is_in_a_text(auth: Any, field: str | None, text: str) -> None:
    matchers, _ = matchers_of("GET", "/", auth=auth)
    assert matchers.auth is not None
    found = how_they_differ(matchers.auth, credentials(field))
    assert found.startswith(text)
    assert "s3cret" not in found
