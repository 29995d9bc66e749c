"""The index finds each entry whose path matches, in the order of declaration."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kit.http_child import declare
from sidestage.child.expectations import Entry
from sidestage.protocols.http.child.index import PathIndex
from sidestage.protocols.http.matching.matchers import decode
from sidestage.protocols.http.matching.view import RequestView

_PIECES = ["a", "b", "%2F", "{x}", "v{x:int}", "{y:path}", ""]
segments = st.lists(st.sampled_from(_PIECES), min_size=1, max_size=3)
templates = segments.map(lambda found: "/" + "/".join(found)).filter(
    lambda path: path.count("{x") < 2 and path.count("{y") < 2
)
paths: st.SearchStrategy[Any] = templates | st.sampled_from(["*", re.compile("/a/.*")])
targets = st.lists(st.sampled_from(["a", "b", "%2f", "v7", "z", ""]), min_size=1, max_size=4).map(
    lambda found: "/" + "/".join(found)
)


def entry(number: int, path: Any) -> Entry[Any, Any]:
    spec = declare(number, "GET", path)
    return Entry(spec, decode(spec.matchers), None)


@given(st.lists(paths, max_size=8), st.lists(targets, max_size=5), st.data())
def test_nothing_that_matches_is_left_out(
    declared: list[Any], targets: list[str], data: st.DataObject
) -> None:
    index, every = PathIndex(), [entry(number, path) for number, path in enumerate(declared, 1)]
    for one in every:
        index.add(one)
    for one in data.draw(st.lists(st.sampled_from(every), unique=True)) if every else []:
        index.remove(one)
        every.remove(one)
    for target in targets:
        view = RequestView("GET", target, b"")
        found = [one.number for one in index.find(view)]
        assert found == sorted(found)
        matching = [one.number for one in every if one.matchers.head_fits(view)]
        assert set(matching) <= set(found)
        assert found == [number for number in found if number in {one.number for one in every}]


def test_nothing_stays_behind() -> None:
    index = PathIndex()
    every = [entry(1, "/a/{x}/b"), entry(2, "/a/{y:path}"), entry(3, "/a"), entry(4, "*")]
    for one in every:
        index.add(one)
    assert not index._tree.is_empty()
    for one in every:
        index.remove(one)
    assert index._tree.is_empty()
    assert not index._literal


def test_others_are_not_looked_at() -> None:
    index = PathIndex()
    for number in range(100):
        index.add(entry(number + 1, f"/orders/{number}"))
        index.add(entry(number + 200, f"/things/{number}/{{name}}"))
    found = index.find(RequestView("GET", "/orders/7", b""))
    assert [one.number for one in found] == [8]
    found = index.find(RequestView("GET", "/things/7/x", b""))
    assert [one.number for one in found] == [207]
