"""Frames: a length of four bytes, big-endian, then an array of messages in MessagePack.

No I/O here. Messages sent together share a frame and are decoded in one msgspec call. A frame that
is too long or cannot be decoded raises WireError, and nothing after it on its stream can be read.
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
MAX_FRAME = 1 << 28  # bytes; senders split streams into far smaller frames
PIPE_SIZE = 1 << 16  # bytes; the default capacity of a pipe
LARGE_PIPE_SIZE = 1 << 20  # bytes; the largest capacity without privileges on Linux
CHUNK = 1 << 18  # bytes of a stream in one Data message
MAX_RECORD = 1 << 26  # bytes of one record's body
WINDOW = 1 << 22  # bytes of a stream that may be sent before they are acknowledged

_LENGTH = struct.Struct(">I")
_START = struct.Struct(">IBI")  # the length, and the head of an array with a length of 32 bits
START = bytes(_START.size)
_ARRAY = 0xDD
_encode_into = msgspec.msgpack.Encoder().encode_into
_APPEND = -1  # the offset that encode_into takes for the end

pack: Callable[[Message], bytes] = msgspec.msgpack.Encoder().encode  # one inside another message


class WireError(Exception):
    """The other side has sent bytes that are not a valid frame."""


def add_to(frame: bytearray, message: Message) -> None:
    """Append ``message`` to a frame that was begun with ``START``."""
    _encode_into(message, frame, _APPEND)


def finish(frame: bytearray, count: int) -> None:
    """Complete a frame with ``count`` messages."""
    _START.pack_into(frame, 0, len(frame) - HEAD, _ARRAY, count)


def encode(*messages: Message) -> bytearray:
    """Encode ``messages`` as one frame."""
    frame = bytearray(HEAD)
    _encode_into(messages, frame, _APPEND)
    _LENGTH.pack_into(frame, 0, len(frame) - HEAD)
    return frame


class ReadSize:
    """How many bytes to read from a pipe next.

    ``os.read`` allocates as many bytes as it is asked for, so ask for more only after a full read.
    """

    def __init__(self) -> None:
        self.bytes = PIPE_SIZE

    def got(self, size: int) -> bool:
        """Note that a read has returned ``size`` bytes; returns whether there may be more."""
        full = size == self.bytes
        self.bytes = LARGE_PIPE_SIZE if size >= PIPE_SIZE else PIPE_SIZE
        return full


def unpack(kind: type[S], data: bytes) -> S:
    """Decode the result of ``pack`` for a message of this kind; raises WireError."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise WireError(f"not {kind.__name__}: {error}") from error


@functools.lru_cache(maxsize=64)  # building one takes as long as decoding twenty messages
def _decoder(kinds: frozenset[type[Message]]) -> Callable[[memoryview], list[Any]]:
    return msgspec.msgpack.Decoder(list[Union[tuple(kinds)]]).decode  # type: ignore[misc]  # noqa: UP007 - built at run time


class FrameBuffer:
    """Collects bytes and decodes the frames that are complete.

    It decodes the kinds of messages that it has learned, for good: a message of an earlier run may
    come late.
    """

    def __init__(self, kinds: Iterable[type[Message]]) -> None:
        self._kinds: frozenset[type[Message]] = frozenset(kinds)
        self._decode = _decoder(self._kinds)
        self._rest = bytearray()
        self._needed = 0  # bytes to collect until a frame is complete

    def learn(self, kinds: Iterable[type[Message]]) -> None:
        """Decode messages of these kinds too, starting with the next ``feed``."""
        known = self._kinds.union(kinds)
        if known != self._kinds:
            self._kinds, self._decode = known, _decoder(known)

    # Not split: it runs for each read from a pipe.
    def feed(self, data: bytes) -> list[Any]:
        """Return the messages of the frames that ``data`` completes, in order.

        Raises WireError.
        """
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
