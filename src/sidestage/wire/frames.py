"""Frames: a length of four bytes, big-endian, then an array of messages in MessagePack.

Pure: bytes in, values out. Messages sent together share a frame and are decoded in one msgspec
call. A frame that is too long or does not decode is a WireError, and nothing after it on its
stream can be read.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, Union

import msgspec

from .messages import Message

S = TypeVar("S", bound=Message)

HEAD = 4  # bytes
MAX_FRAME = 1 << 28  # bytes; every sender cuts streams far below it
PIPE_SIZE = 1 << 16  # bytes that a pipe holds, unless it was made larger
LARGE_PIPE_SIZE = 1 << 20  # bytes; what Linux grants everybody
CHUNK = 1 << 18  # bytes of a stream in one Data
MAX_RECORD = 1 << 26  # bytes of one record's body
WINDOW = 1 << 22  # bytes of a stream that may be under way unacknowledged

_LENGTH = struct.Struct(">I")
_START = struct.Struct(">IBI")  # the length, and the head of an array with a length of 32 bits
_ARRAY = 0xDD
_encode_into = msgspec.msgpack.Encoder().encode_into
_AT_THE_END = -1

pack: Callable[[Message], bytes] = msgspec.msgpack.Encoder().encode  # one inside another message


class WireError(Exception):
    """The other side sent what is not a frame of ours."""


class Frame:
    """A frame that grows until it is sent; ``len`` is that of its messages, in bytes."""

    def __init__(self) -> None:
        self._bytes = bytearray(_START.size)
        self._count = 0

    def __len__(self) -> int:
        return len(self._bytes) - _START.size

    def add(self, message: Message) -> None:
        """Put ``message`` behind the others."""
        _encode_into(message, self._bytes, _AT_THE_END)
        self._count += 1

    def whole(self) -> bytearray:
        """The frame as it is sent; nothing is added to it any more."""
        _START.pack_into(self._bytes, 0, len(self._bytes) - HEAD, _ARRAY, self._count)
        return self._bytes


def encode(*messages: Message) -> bytearray:
    """The frame of ``messages``."""
    frame = bytearray(HEAD)
    _encode_into(messages, frame, _AT_THE_END)
    _LENGTH.pack_into(frame, 0, len(frame) - HEAD)
    return frame


class ReadSize:
    """How many bytes to ask of a pipe: more as long as it gives all, since to ask costs memory."""

    def __init__(self) -> None:
        self.bytes = PIPE_SIZE

    def got(self, size: int) -> bool:
        """Note that so many have come; returns whether there may be more at once."""
        full = size == self.bytes
        self.bytes = LARGE_PIPE_SIZE if size >= PIPE_SIZE else PIPE_SIZE
        return full


def unpack(kind: type[S], data: bytes) -> S:
    """What ``pack`` has made of a message of this kind; raises WireError."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise WireError(f"not {kind.__name__}: {error}") from error


@functools.lru_cache(maxsize=64)  # to build one takes as long as to decode twenty messages
def _decoder(kinds: frozenset[type[Message]]) -> Callable[[memoryview], list[Any]]:
    return msgspec.msgpack.Decoder(list[Union[tuple(kinds)]]).decode  # type: ignore[misc]  # noqa: UP007 - made at run time


class FrameBuffer:
    """Collects bytes as they come and gives the messages of the frames that are complete.

    It decodes the kinds of messages that it has learnt, and forgets none: a message of an earlier
    run may be late.
    """

    def __init__(self, kinds: Iterable[type[Message]]) -> None:
        self._kinds: frozenset[type[Message]] = frozenset(kinds)
        self._decode = _decoder(self._kinds)
        self._rest = bytearray()
        self._needed = 0  # bytes in the rest before it is worth a look

    def learn(self, kinds: Iterable[type[Message]]) -> None:
        """Decode messages of these kinds too, from the next ``feed`` on."""
        known = self._kinds.union(kinds)
        if known != self._kinds:
            self._kinds, self._decode = known, _decoder(known)

    def feed(self, data: bytes) -> list[Any]:
        """The messages of the frames that ``data`` completes, in order; raises WireError."""
        whole: bytes | bytearray = data
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            whole, self._rest = self._rest, bytearray()
        messages: list[Any] = []
        view = memoryview(whole)
        at, size = 0, len(whole)
        self._needed = HEAD
        try:
            while size - at >= HEAD:
                (length,) = _LENGTH.unpack_from(view, at)
                if length > MAX_FRAME:
                    raise WireError(f"a frame of {length} bytes, {MAX_FRAME} are allowed")
                end = at + HEAD + length
                if end > size:
                    self._needed = end - at
                    break
                messages += self._decode(view[at + HEAD : end])
                at = end
        except msgspec.DecodeError as error:
            raise WireError(f"not messages: {error}") from error
        if at < size:
            self._rest += view[at:]
        return messages
