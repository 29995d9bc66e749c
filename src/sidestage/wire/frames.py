"""Frames: a length of four bytes, big-endian, then an array of messages in MessagePack.

Pure: bytes in, values out. What is sent together is one frame, so that a burst of messages is
taken apart by one call of msgspec. A frame that is too long or does not decode is a WireError, and
the stream that it came from is of no use any more.
"""

from __future__ import annotations

import struct
from typing import Generic, TypeVar

import msgspec

from .messages import Command, Event, Message

M = TypeVar("M")

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


class FrameBuffer(Generic[M]):
    """Collects bytes as they come and gives the messages of the frames that are complete."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[list[M]]) -> None:
        self._decode = decoder.decode
        self._rest = bytearray()
        self._needed = 0  # bytes in the rest before it is worth a look

    def feed(self, data: bytes) -> list[M]:
        """The messages of the frames that ``data`` completes, in order."""
        whole: bytes | bytearray = data
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            whole, self._rest = self._rest, bytearray()
        messages: list[M] = []
        view = memoryview(whole)
        at, size = 0, len(whole)
        self._needed = HEAD
        while size - at >= HEAD:
            end = at + HEAD + self._length(view[at : at + HEAD])
            if end > size:
                self._needed = end - at
                break
            messages += self._messages(view[at + HEAD : end])
            at = end
        if at < size:
            self._rest += view[at:]
        return messages

    @staticmethod
    def _length(head: memoryview) -> int:
        length = int.from_bytes(head, "big")
        if length > MAX_FRAME:
            raise WireError(f"a frame of {length} bytes, {MAX_FRAME} are allowed")
        return length

    def _messages(self, payload: memoryview) -> list[M]:
        try:
            return self._decode(payload)
        except msgspec.DecodeError as error:
            raise WireError(f"not messages: {error}") from error


def commands() -> FrameBuffer[Command]:
    """A buffer for the child's side."""
    return FrameBuffer(msgspec.msgpack.Decoder(list[Command]))


def events() -> FrameBuffer[Event]:
    """A buffer for the parent's side."""
    return FrameBuffer(msgspec.msgpack.Decoder(list[Event]))
