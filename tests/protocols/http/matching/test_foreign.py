from __future__ import annotations

import re

import pytest

from kit.views import matchers, view
from sidestage.protocols.http.matching.distance import compare
from sidestage.protocols.http.matching.slips import hints


@pytest.mark.parametrize(
    "path, right",
    [
        (r"/a/\d+", r're.compile(r"/a/\d+")'),
        (r"/a/(?P<id>\d+)", r're.compile(r"/a/(?P<id>\d+)")'),
        (r"/a\.json", r're.compile(r"/a\.json")'),
        ("/a/[0-9]+", 're.compile(r"/a/[0-9]+")'),
        ("/a/[^/]+", 're.compile(r"/a/[^/]+")'),
        ("/a/<int:id>", 'write "/a/{id:int}"'),
        ("/a/<id>/b", 'write "/a/{id}/b"'),
        ("/a/<path:rest>", 'write "/a/{rest:path}"'),
        ("/a/<uuid:id>", 'write "/a/{id}"'),
    ],
)
def test_a_path_of_another_tool_that_no_client_sends(path: str, right: str) -> None:
    with pytest.raises(ValueError, match=re.escape(right)):
        matchers("GET", path)


@pytest.mark.parametrize(
    "path", ["/a/:id", "/a/*", "/a/.*", r"/files\docs", "/a[1]", "/a/%3Cint:id%3E", "/a/(b)+"]
)
def test_a_path_that_a_client_may_send_is_itself(path: str) -> None:
    assert matchers("GET", path).verdict(view(f"GET {path}")) is True


@pytest.mark.parametrize(
    "path, hint",
    [
        ("/a/:id", '":id" is only itself in a path: a parameter is {id}'),
        ("/a/*", '"*" is only itself in a path: {name} is any segment, {name:path} any rest'),
    ],
)
def test_it_has_a_hint(path: str, hint: str) -> None:
    found, seen = matchers("GET", path), view("GET /a/7")
    assert hints(seen, found, compare(seen, found)) == [hint]
