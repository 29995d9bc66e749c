"""Hypothesis strategies for the messages between the two processes."""

from __future__ import annotations

import functools
import importlib
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from sidestage.child.service import protocols
from sidestage.wire import messages
from sidestage.wire.messages import Vocabulary

VOCABULARIES: dict[str, Vocabulary] = {
    name: importlib.import_module(f"sidestage.protocols.{name}.messages").VOCABULARY
    for name in protocols()
}
COMMANDS = (*messages.COMMANDS, *(k for v in VOCABULARIES.values() for k in v.commands))
EVENTS = (*messages.EVENTS, *(k for v in VOCABULARIES.values() for k in v.events))
SETTINGS = tuple(vocabulary.settings for vocabulary in VOCABULARIES.values())
CLASSES = tuple(dict.fromkeys((*COMMANDS, *EVENTS)))

_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(-(1 << 63), (1 << 64) - 1),
    float: st.floats(allow_nan=False),
    str: st.text(max_size=8),
    bytes: st.binary(max_size=40),
    type(None): st.none(),
}


def of_type(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(of_type, arguments))
    if origin is list:
        return st.lists(of_type(arguments[0]), max_size=3)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(of_type(arguments[0]), max_size=4).map(tuple)
        return st.tuples(*map(of_type, arguments))
    return of_class(hint)


@functools.cache
def of_class(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Messages of one class."""
    return st.builds(kind, **{n: of_type(hint) for n, hint in get_type_hints(kind).items()})


any_command: st.SearchStrategy[Any] = st.one_of(*map(of_class, COMMANDS))
any_event: st.SearchStrategy[Any] = st.one_of(*map(of_class, EVENTS))
