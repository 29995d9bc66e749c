"""Values of JSON and what users may write for them, for hypothesis, and a plain model of both."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

from sidestage import absent, containing, matching, one_of
from sidestage.patterns.words import AbsentType, Containing, Matching, OneOf

names = st.sampled_from(["a", "b", "sku", "A", "x y", ""])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([0.0, 1.0, 1.5, -1e300, 1 << 64, 10**400])
    | st.sampled_from(["", "a", "ab", "1", "ü", "\n"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
_leaves = (
    scalars
    | st.sampled_from([int, float, str, bool, list, dict, type(None)])
    | st.sampled_from([matching("a"), matching(re.compile("B", re.IGNORECASE)), containing("a")])
)


def _wider(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    items = st.lists(inner, max_size=3)
    keys = st.dictionaries(names, inner | st.just(absent), max_size=3)
    return (
        items
        | keys
        | items.map(containing)
        | keys.map(containing)
        | st.lists(inner, min_size=2, max_size=3).map(lambda some: one_of(*some))
    )


written = st.recursive(_leaves, _wider, max_leaves=8)
"""What a user may write."""

MISSING = object()
_TYPES: dict[type, tuple[type, ...]] = {
    int: (int,),
    float: (int, float),
    str: (str,),
    bool: (bool,),
    list: (list,),
    dict: (dict,),
    type(None): (type(None),),
}


def fits(wanted: Any, value: Any, *, some: bool = False) -> bool:
    """Whether a value is as a user has written, in as few words as it can be said."""
    match wanted:
        case AbsentType():
            return value is MISSING
        case OneOf(choices=choices):
            return any(fits(one, value, some=some) for one in choices)
        case _ if value is MISSING:
            return False
        case Matching(regex=regex):
            found: re.Pattern[Any] = regex
            return isinstance(value, str) and found.search(value) is not None
        case Containing(part=str() as part):
            return isinstance(value, str) and part in value
        case Containing(part=part):
            return fits(part, value, some=True)
        case type():
            return type(value) in _TYPES[wanted]
        case _:
            return _equal(wanted, value, some)


def _equal(wanted: Any, value: Any, some: bool) -> bool:
    if isinstance(wanted, dict):
        return (
            isinstance(value, dict)
            and (some or set(value) <= set(wanted))
            and all(fits(one, value.get(key, MISSING), some=some) for key, one in wanted.items())
        )
    if isinstance(wanted, list) and some:
        return isinstance(value, list) and all(
            any(fits(one, item, some=True) for item in value) for one in wanted
        )
    if isinstance(wanted, list):
        return (
            isinstance(value, list) and len(value) == len(wanted) and all(map(fits, wanted, value))
        )
    booleans = isinstance(wanted, bool) == isinstance(value, bool)
    return booleans and not isinstance(value, (list, dict)) and bool(wanted == value)
