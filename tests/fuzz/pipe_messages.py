"""Makes messages of the pipe, of the types in their annotations, and frames of them."""

from __future__ import annotations

import functools
import random
import types
from collections.abc import Callable, Hashable
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from fuzz.mutations import mutate
from sidestage.wire.frames import encode

_INTEGERS = (0, 0, 1, 1, 2, 3, 255, 65536, -1, 1 << 31, (1 << 64) - 1, -(1 << 63))
_FLOATS = (0.0, 0.5, -1.0, 1e300, float("inf"))
_TEXTS = ("", "x", "http", "GET", "127.0.0.1", "\0", "\xe9\u2028\U0001f40d", "\r\nX: y", "a" * 300)

Make = Callable[[random.Random], Any]


def message(dice: random.Random, kind: type[Any]) -> Any:
    """A message of this class."""
    return kind(**{name: make(dice) for name, make in _fields(cast(Hashable, kind))})


def frames(dice: random.Random, kinds: tuple[type[Any], ...]) -> tuple[bytes, ...]:
    """Frames of messages of these classes; each frame is a part."""
    made = []
    for _ in range(dice.choice((1, 1, 2, 4))):
        messages = [message(dice, dice.choice(kinds)) for _ in range(dice.choice((0, 1, 1, 3)))]
        made.append(bytes(encode(*messages)))
    return tuple(made)


def hostile(dice: random.Random, parts: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Frames of which one is changed; its length is made right again, mostly."""
    at = dice.randrange(len(parts))
    if dice.random() < 0.15:
        return (*parts[:at], mutate(parts[at], dice), *parts[at + 1 :])
    content = dice.choice(_BOMBS) if dice.random() < 0.05 else mutate(parts[at][4:], dice)
    return (*parts[:at], len(content).to_bytes(4, "big") + content, *parts[at + 1 :])


# Contents that promise much or nest deeply.
_BOMBS = (
    b"\xdd\xff\xff\xff\xff",
    b"\xdd\x7f\xff\xff\xff" + b"\xc0" * 10,
    b"\xdc\xff\xff",
    b"\x91\xdd\xff\xff\xff\xff\x01",
    b"\x91\x93\x01\x01\xc6\xff\xff\xff\xff",
    b"\x91\x93\x01\x01\xdb\xff\xff\xff\xff",
    b"\x91" * 100_000,
    b"\x81" * 100_000,
    b"\x91\x93\x1f" + b"\x91" * 100_000,
    b"\xdf\xff\xff\xff\xff",
    b"\x90" * 1000,
    b"\x90\x90",
    b"",
)


@functools.cache
def _fields(kind: Hashable) -> tuple[tuple[str, Make], ...]:
    return tuple((name, _of_type(hint)) for name, hint in get_type_hints(cast(type, kind)).items())


_PLAIN: dict[Any, Make] = {
    bool: lambda dice: dice.random() < 0.5,
    int: lambda dice: dice.choice(_INTEGERS),
    float: lambda dice: dice.choice(_FLOATS),
    str: lambda dice: dice.choice(_TEXTS),
    bytes: lambda dice: dice.randbytes(dice.choice((0, 1, 30, 300))),
    type(None): lambda dice: None,
}


def _of_type(hint: Any) -> Make:
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return lambda dice: dice.choice(arguments)
    if origin in (Union, types.UnionType):
        makes = [_of_type(argument) for argument in arguments]
        return lambda dice: dice.choice(makes)(dice)
    if origin in (list, tuple):
        make_all = origin
        if origin is tuple and arguments[-1] is not Ellipsis:
            members = [_of_type(argument) for argument in arguments]
            return lambda dice: tuple(make(dice) for make in members)
        member = _of_type(arguments[0])
        return lambda dice: make_all(member(dice) for _ in range(dice.choice((0, 1, 2, 20))))
    return lambda dice: message(dice, hint)
