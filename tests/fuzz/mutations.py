"""Changes inputs: parts dropped, repeated and exchanged, bytes flipped, hostile tokens put in."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

Mutation = Callable[[bytes, random.Random], bytes]

TOKENS = (
    b"\0",
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"\n\r",
    b"\r\r\n",
    b" ",
    b"\t",
    b"\x0b",
    b"\x0c",
    b"\x1b",
    b"\x7f",
    b"\x80",
    b"\x85",
    b"\xa0",
    b"\xff",
    b"\xc3\xa9",
    b"\xe2\x80\xa8",  # a line separator
    b"\xf0\x9f\x90\x8d",
    b"\xed\xa0\x80",  # a lone surrogate
    b"\xc0\xaf",  # an overlong slash
    b"\xef\xbb\xbf",  # a byte order mark
    b"%00",
    b"%0d%0a",
    b"%",
    b":",
    b";",
    b",",
    b"=",
    b'"',
    b"\\",
    b"<",
    b">",
    b"@",
    b"[",
    b"]",
    b"-1",
    b"+1",
    b"0",
    b"00",
    b"1e3",
    b"0x10",
    b"4294967296",
    b"9223372036854775808",
    b"18446744073709551616",
    b"99999999999999999999999999",
    b"1" * 100,
    b"a" * 300,
    b"{}" * 20,
    b"%s%n",
)


def _flip(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]


def _set(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]


def _insert(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.choice(TOKENS) + data[at:]


def _replace(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + dice.choice(TOKENS) + data[at + dice.randrange(1, 6) :]


def _delete(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + data[at + dice.randrange(1, 10) :]


def _repeat(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    end = at + dice.randrange(1, 30)
    return data[:end] + data[at:end] * dice.choice((1, 1, 2, 20)) + data[end:]


def _end(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def _line_ends(data: bytes, dice: random.Random) -> bytes:
    """One line end becomes another kind."""
    count = data.count(b"\r\n")
    if not count:
        return data
    at = -2
    for _ in range(dice.randrange(count) + 1):
        at = data.find(b"\r\n", at + 2)
    return data[:at] + dice.choice((b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"")) + data[at + 2 :]


MUTATIONS: tuple[Mutation, ...] = (
    _flip,
    _set,
    _insert,
    _insert,
    _replace,
    _delete,
    _repeat,
    _end,
    _line_ends,
)


def mutate(data: bytes, dice: random.Random) -> bytes:
    """Change some bytes."""
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        if data:
            data = dice.choice(MUTATIONS)(data, dice)
    return data


def mutate_parts(
    parts: Sequence[bytes], dice: random.Random, others: Sequence[bytes]
) -> tuple[bytes, ...]:
    """Change the order and the content of parts; ``others`` may be put between them."""
    changed = list(parts)
    for _ in range(dice.choice((1, 1, 2, 3))):
        at = dice.randrange(len(changed)) if changed else 0
        match dice.randrange(7):
            case 0:
                del changed[at : at + 1]
            case 1:
                changed[at:at] = changed[at : at + 1] * dice.choice((1, 1, 2, 40))
            case 2 if changed:
                with_ = dice.randrange(len(changed))
                changed[at], changed[with_] = changed[with_], changed[at]
            case 3 | 4:
                changed.insert(at, dice.choice(others))
            case _ if changed:
                changed[at] = mutate(changed[at], dice)
    return tuple(changed)
