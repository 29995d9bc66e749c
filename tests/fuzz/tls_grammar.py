"""ClientHello messages (RFC 8446 4.1.2), good and hostile, in records however they are cut."""

from __future__ import annotations

import random
from typing import NamedTuple

from fuzz.mutations import mutate

HOSTS = (None, "localhost", "a.example", "LOCALHOST.", "x" * 63 + ".example", "127.0.0.1", "ü", "")
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_GREASE = 0x0A0A  # values that mean nothing (RFC 8701)


class Hello(NamedTuple):
    """A ClientHello that OpenSSL takes, and the host it asks for."""

    message: bytes
    host: str | None


def _vector(size: int, *items: bytes) -> bytes:
    content = b"".join(items)
    return len(content).to_bytes(size) + content


def _numbers(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(2) for number in numbers)


def _extension(kind: int, content: bytes) -> bytes:
    return _numbers(kind) + _vector(2, content)


def hello(dice: random.Random, *, host: str | None) -> bytes:
    """The message, with its head; TLS 1.3 or 1.2, with what clients add in any order."""
    newest = dice.random() < 0.7
    versions = (_GREASE, 0x0304, 0x0303) if newest else (0x0303,)
    extensions = [
        _extension(43, _vector(1, _numbers(*versions))),
        _extension(10, _vector(2, _numbers(29, 23, 24))),  # groups
        _extension(13, _vector(2, _numbers(0x0403, 0x0804, 0x0401, 0x0503, 0x0603))),
        _extension(51, _vector(2, _numbers(29), _vector(2, dice.randbytes(32)))),  # key share
        _extension(45, _vector(1, b"\1")),
        _extension(11, _vector(1, b"\0")),
        _extension(23, b""),
    ]
    if host is not None:
        extensions.append(_extension(0, _vector(2, b"\0" + _vector(2, host.encode()))))
    if dice.random() < 0.5:
        names = dice.sample((b"http/1.1", b"h2", b"http/1.0", b"x"), dice.randrange(1, 4))
        extensions.append(_extension(16, _vector(2, *(_vector(1, name) for name in names))))
    if dice.random() < 0.3:
        extensions.append(_extension(_GREASE, dice.randbytes(dice.randrange(3))))
    if dice.random() < 0.1:
        extensions.append(_extension(21, bytes(dice.randrange(40_000))))  # padding
    dice.shuffle(extensions)
    body = (
        _numbers(0x0303)
        + dice.randbytes(32)
        + _vector(1, dice.randbytes(dice.choice((0, 32))))
        + _vector(2, _numbers(0x1301, 0x1302, 0x1303, 0xC02B, 0xC02C))
        + _vector(1, b"\0")
        + _vector(2, *extensions)
    )
    return bytes([_CLIENT_HELLO]) + _vector(3, body)


def records(message: bytes, dice: random.Random) -> tuple[bytes, ...]:
    """A message in one record, or in several."""
    most = dice.choice((1 << 14, 1 << 14, 1000, 100, 1 if len(message) < 600 else 7))
    return tuple(record(_HANDSHAKE, message[at : at + most]) for at in range(0, len(message), most))


def record(kind: int, content: bytes, version: int = 0x0301) -> bytes:
    """A record that is not encrypted."""
    return bytes([kind]) + _numbers(version) + _vector(2, content[:0xFFFF])


def good(dice: random.Random) -> tuple[tuple[bytes, ...], Hello]:
    """A ClientHello in records, and what it is."""
    host = dice.choice(HOSTS[:5])
    message = hello(dice, host=host)
    return records(message, dice), Hello(message, host)


def hostile(dice: random.Random) -> tuple[bytes, ...]:
    """What is nearly a ClientHello: changed inside, in its records, or something else."""
    message = hello(dice, host=dice.choice(HOSTS))
    match dice.randrange(6):
        case 0:
            return records(mutate(message, dice), dice)
        case 1:
            return tuple(mutate(part, dice) for part in records(message, dice))
        case 2:
            parts = list(records(message, dice))
            parts.insert(dice.randrange(len(parts) + 1), _odd(dice))
            return tuple(parts)
        case 3:
            return (*records(message, dice), _odd(dice), dice.randbytes(dice.randrange(100)))
        case 4:  # a length that does not fit
            size = dice.choice((0, 1, len(message), 0xFFFF, 0x10001, 0xFFFFFF))
            return records(message[:1] + size.to_bytes(3) + message[4:], dice)
        case _:
            return (_odd(dice),)


def _odd(dice: random.Random) -> bytes:
    kind = dice.choice((0, 20, 21, 22, 23, 24, 0x80, dice.randrange(256)))
    content = dice.randbytes(dice.choice((0, 1, 2, 3, 200, 1 << 14, 20_000)))
    return dice.choice(
        (
            record(kind, content),
            record(kind, content, dice.choice((0x0300, 0x0303, 0x0304, 0x0200, 0x0505))),
            bytes([kind, 3, 1, 255, 255]),
            b"GET / HTTP/1.1\r\nHost: t\r\n\r\n",
            b"\x80\x2e\1\0\2" + content,  # as SSL 2 has it
            content,
        )
    )
