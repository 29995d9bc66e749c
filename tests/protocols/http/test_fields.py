from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestage.protocols.http.fields import Fields, Headers

pairs = st.lists(st.tuples(st.sampled_from(["A", "a", "B", "b-c", "B-C"]), st.text(max_size=3)))


@given(pairs)
def test_fields_keep_every_value_in_order(given_pairs: list[tuple[str, str]]) -> None:
    fields = Fields(given_pairs)
    assert list(fields.pairs()) == given_pairs
    for name in fields:
        assert fields.get_all(name) == [value for key, value in given_pairs if key == name]
        assert fields[name] == fields.get_all(name)[0]
    assert len(fields) == len(list(fields)) == len(dict(given_pairs))


@given(pairs)
def test_header_names_have_no_case(given_pairs: list[tuple[str, str]]) -> None:
    headers = Headers(given_pairs)
    for name in ("a", "b", "b-c"):
        assert headers.get_all(name) == headers.get_all(name.upper())
        assert headers.get(name) == headers.get(name.upper())
        assert (name in headers) == (name.upper() in headers)


@given(pairs)
def test_equal_headers_have_equal_hashes(given_pairs: list[tuple[str, str]]) -> None:
    first = Headers(given_pairs)
    swapped = Headers((name.swapcase(), value) for name, value in given_pairs)
    assert first == swapped
    assert hash(first) == hash(swapped)


def test_a_name_that_did_not_come() -> None:
    headers = Headers([("A", "1")])
    assert headers.get("B") is None
    assert headers.get_all("B") == []
    assert 1 not in headers
    with pytest.raises(KeyError):
        headers["B"]


def test_names_of_queries_and_forms_have_case() -> None:
    assert "a" not in Fields([("A", "1")])


def test_headers_compare_with_a_dict() -> None:
    assert Headers([("Content-Type", "a/b")]) == {"content-type": "a/b"}
    assert Headers([("A", "1"), ("A", "2")]) != {"A": "1"}
    assert Headers() != 1


def test_repr_shows_the_pairs() -> None:
    assert repr(Headers([("A", "1")])) == "Headers([('A', '1')])"


@given(pairs)
def test_many_mean_the_same_as_few(given_pairs: list[tuple[str, str]]) -> None:
    """More than some fields have an index."""
    for kind in (Fields, Headers):
        few, many = kind(given_pairs), kind(given_pairs * 65)
        assert dict(many) == dict(few)
        for name in ("A", "a", "b-c", "none"):
            assert many.get_all(name) == few.get_all(name) * 65
            assert (many.get(name), name in many) == (few.get(name), name in few)


def test_thousands_are_looked_at_a_few_times_each() -> None:
    looked = 0

    class Counted(Headers):
        @staticmethod
        def _key(name: str) -> str:
            nonlocal looked
            looked += 1
            return name.lower()

    many = Counted((f"A{number}", "1") for number in range(2000))
    assert dict(many) == dict(many.items()) == many
    assert all(name in many for name in many)
    assert looked < 50 * 2000
