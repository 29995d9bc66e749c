"""Frames: a length of four bytes, big-endian, then one message in MessagePack.

Pure: bytes in, values out. A frame that is too long or does not decode is a WireError, and the
stream that it came from is of no use any more.
"""

from __future__ import annotations

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

_encoder = msgspec.msgpack.Encoder()


class WireError(Exception):
    """The other side sent what is not a frame of ours."""


def encode(*messages: Message) -> bytearray:
    """The frames of ``messages``, one after another."""
    frames = bytearray()
    append(frames, *messages)
    return frames


def append(frames: bytearray, *messages: Message) -> None:
    """Add the frames of ``messages`` to ``frames``."""
    for message in messages:
        start = len(frames)
        _encoder.encode_into(message, frames, start + HEAD)
        frames[start : start + HEAD] = (len(frames) - start - HEAD).to_bytes(HEAD, "big")


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
    """Collects bytes as they come and gives the messages that are complete."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[M]) -> None:
        self._decode = decoder.decode
        self._rest = bytearray()
        self._needed = 0  # bytes in the rest before it is worth a look

    def feed(self, data: bytes) -> list[M]:
        """The messages that ``data`` completes, in order."""
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
            messages.append(self._message(view[at + HEAD : end]))
            at = end
        self._rest += view[at:]
        return messages

    @staticmethod
    def _length(head: memoryview) -> int:
        length = int.from_bytes(head, "big")
        if length > MAX_FRAME:
            raise WireError(f"a frame of {length} bytes, {MAX_FRAME} are allowed")
        return length

    def _message(self, payload: memoryview) -> M:
        try:
            return self._decode(payload)
        except msgspec.DecodeError as error:
            raise WireError(f"not a message: {error}") from error


def commands() -> FrameBuffer[Command]:
    """A buffer for the child's side."""
    return FrameBuffer(msgspec.msgpack.Decoder(Command))


def events() -> FrameBuffer[Event]:
    """A buffer for the parent's side."""
    return FrameBuffer(msgspec.msgpack.Decoder(Event))
