"""A sieve leaves out what a request cannot meet, and nothing else that matters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kit.http_child import declare
from sidestage import absent, containing
from sidestage.child.expectations import Entry
from sidestage.protocols.http.child.sieve import LINE, REST, Sieve
from sidestage.protocols.http.matching.matchers import decode
from sidestage.protocols.http.matching.view import RequestView

_values = st.sampled_from(["1", "2", "1, 2", ["1", "2"], absent, str, int])
_names = st.dictionaries(st.sampled_from(["a", "B"]), _values, max_size=2)
_bodies = st.sampled_from(
    [{"id": 1}, {"id": True}, {"id": 2, "x": [1]}, {"id": int}, [1, 2], 1, 1.0, None, absent]
)
given_parts = st.fixed_dictionaries(
    {},
    optional={
        "query": _names,
        "headers": _names.filter(lambda found: absent not in found.values()),
        "json": _bodies | _bodies.filter(lambda body: isinstance(body, dict)).map(containing),
    },
)
_pairs = st.lists(st.tuples(st.sampled_from("aB"), st.sampled_from("12")), max_size=3)
_sent = st.sampled_from(
    [{"id": 1}, {"id": 1.0}, {"id": True}, {"id": 2, "x": [1]}, [1, 2], 1, None]
)


def entry(number: int, **parts: Any) -> Entry[Any, Any]:
    spec = declare(number, "POST", "/", **parts)
    return Entry(spec, decode(spec.matchers), None)


def request(
    query: Sequence[tuple[str, str]] = (),
    fields: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
) -> RequestView:
    target = "/?" + "&".join(f"{name}={value}" for name, value in query)
    lines = "\r\n".join(f"{name}: {value}" for name, value in fields)
    return RequestView("POST", target, lines.encode(), body)


def numbers(entries: Sequence[Entry[Any, Any]]) -> list[int]:
    return [one.number for one in entries]


@given(
    st.lists(given_parts, max_size=8),
    st.lists(st.tuples(_pairs, _pairs, _sent.map(json.dumps) | st.just("{")), max_size=4),
    st.data(),
)
def test_nothing_that_fits_is_left_out(
    declared: list[Any], requests: list[Any], data: st.DataObject
) -> None:
    every = [entry(number, **parts) for number, parts in enumerate(declared, 1)]
    sieves = Sieve(LINE, every), Sieve(REST, every)
    for one in data.draw(st.lists(st.sampled_from(every), unique=True)) if every else []:
        every.remove(one)
        for sieve in sieves:
            sieve.remove(one)
    for query, fields, body in requests:
        view = request(query, fields, body.encode())
        for sieve, fits in zip(sieves, ("line_fits", "rest_fits"), strict=True):
            found = numbers(sieve.find(view))
            assert found == sorted(found)
            fitting = [one for one in every if getattr(one.matchers, fits)(view)]
            assert set(numbers(fitting)) <= set(found) <= set(numbers(every))


def test_of_a_thousand_that_differ_in_a_value_it_leaves_one() -> None:
    texts = [str(number) for number in range(1000)]
    wanted: dict[str, Any] = {
        "query": lambda text: {"id": text},
        "headers": lambda text: {"X-Id": text},
        "json": lambda text: {"id": int(text), "name": "x"},
    }
    view = request([("id", "7")], [("X-Id", "7")], b'{"name": "x", "id": 7}')
    for part, written in wanted.items():
        every = [entry(n, **{part: written(text)}) for n, text in enumerate(texts)]
        assert numbers(Sieve((part,), every).find(view)) == [7]


def test_fields_of_one_name_are_one_list() -> None:
    every = [entry(1, headers={"X": "1, 2"}), entry(2, headers={"X": "1"})]
    assert numbers(Sieve(REST, every).find(request(fields=[("x", "1"), ("X", "2")]))) == [1]


def test_those_that_take_several_values_are_always_left() -> None:
    every = [entry(1, json={"id": 1}), entry(2, json={"id": int}), entry(3), entry(4, json=[1])]
    assert numbers(Sieve(REST, every).find(request(body=b'{"id": 1}'))) == [1, 2, 3]
    assert numbers(Sieve(REST, every).find(request(body=b"no JSON"))) == [2, 3]


def test_nothing_stays_behind() -> None:
    every = [entry(1, json={"id": 1}), entry(2, query={"a": "1"}), entry(3)]
    sieve = Sieve(LINE + REST, every)
    for one in every:
        sieve.remove(one)
    assert not sieve._places
