"""Frames: a length of four bytes, big-endian, then an array of messages in MessagePack.

No I/O here. Messages sent together share a frame and are decoded in one msgspec call. What cannot
be decoded is skipped, and an Undecoded comes in its place. A frame that is too long raises
WireError: nothing after it on its stream can be read. So ``encode`` and ``add_to`` make none.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar, Union

import msgspec

from .messages import Message
from .values import printable

S = TypeVar("S", bound=Message)

HEAD = 4  # bytes
MAX_FRAME = 1 << 28  # bytes; senders split streams into far smaller frames
MAX_MESSAGE = MAX_FRAME - (1 << 20)  # bytes; a frame may have other messages too
PIPE_SIZE = 1 << 16  # bytes; the default capacity of a pipe
LARGE_PIPE_SIZE = 1 << 20  # bytes; the largest capacity without privileges on Linux
CHUNK = 1 << 18  # bytes of a stream in one Data message
MAX_RECORD = 1 << 26  # bytes of one record's body
WINDOW = 1 << 22  # bytes of a stream that may be sent before they are acknowledged

_LENGTH = struct.Struct(">I")
_START = struct.Struct(">IBI")  # the length, and the head of an array with a length of 32 bits
START = bytes(_START.size)
_ARRAY, _UINT_64, _FLOAT_64 = 0xDD, 0xCF, 0xCB  # formats of MessagePack
# A frame with one Data, up to its bytes: the length; an array of one message, which is an array of
# three, its tag, a call of 64 bits; bytes with a length of 32 bits.
_DATA = struct.Struct(">I4sQBI")
_DATA_START, _BYTES = b"\x91\x93\x01\xcf", 0xC6
LARGE = 1 << 14  # bytes of a Data that are written as they are: a copy would cost more
_encode_into = msgspec.msgpack.Encoder().encode_into
_APPEND = -1  # the offset that encode_into takes for the end

_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
pack: Callable[[Message], bytes] = _encode  # one inside another message


class WireError(Exception):
    """The other side has sent bytes that are not a valid frame; ``before`` came before them."""

    before: list[Any] = []  # noqa: RUF012 - never changed in place


class TooLarge(ValueError):
    """A message is larger than what may go on the pipe."""


class Undecoded(NamedTuple):
    """What comes in place of a message that could not be decoded."""

    text: str  # its name, and why
    kind: type[Message] | None = None
    call: int = 0  # the id of its call, if that could be read


def _too_large(message: Message, size: int) -> TooLarge:
    return TooLarge(
        f"{type(message).__name__} has {size} bytes, at most {MAX_MESSAGE} pass between the "
        "processes at once: send less, or send it in pieces"
    )


def add_to(frame: bytearray, message: Message) -> int:
    """Append ``message`` to a frame that was begun with ``START``; returns the size of that.

    Raises TooLarge, or TypeError, ValueError or OverflowError for what cannot be encoded; the frame
    is as before then.
    """
    before = len(frame)
    try:
        _encode_into(message, frame, _APPEND)
    except BaseException:
        del frame[before:]
        raise
    size = len(frame)
    if size - before > MAX_MESSAGE:
        del frame[before:]
        raise _too_large(message, size - before)
    return size


def finish(frame: bytearray, count: int) -> None:
    """Complete a frame with ``count`` messages."""
    _START.pack_into(frame, 0, len(frame) - HEAD, _ARRAY, count)


def encode(*messages: Message) -> bytearray:
    """Encode ``messages`` as one frame, or several if it were too large.

    Raises what ``add_to`` raises.
    """
    frame = bytearray(HEAD)
    _encode_into(messages, frame, _APPEND)
    if len(frame) > MAX_MESSAGE:
        if len(messages) == 1:
            raise _too_large(messages[0], len(frame))
        half = len(messages) // 2
        return encode(*messages[:half]) + encode(*messages[half:])
    _LENGTH.pack_into(frame, 0, len(frame) - HEAD)
    return frame


class Repeated:
    """A message that is sent again and again, with another ``call`` and another time ``at``.

    All else of it is encoded once.
    """

    def __init__(self, message: Message) -> None:
        names = message.__struct_fields__
        fields = [_encode(getattr(message, name)) for name in names]
        whole = _encode(message)
        begin = whole[: len(whole) - sum(map(len, fields))]
        call, at = names.index("call"), names.index("at")
        self._before = begin + b"".join(fields[:call])
        self._between = b"".join(fields[call + 1 : at])
        self._after = b"".join(fields[at + 1 :])
        sizes = map(len, (self._before, self._between, self._after))
        self._pack = struct.Struct(">{}sBQ{}sBd{}s".format(*sizes)).pack

    def encoded(self, call: int, at: float) -> bytes:
        """The message with these, as one of the messages of a frame."""
        return self._pack(self._before, _UINT_64, call, self._between, _FLOAT_64, at, self._after)


def head_of_data(call: int, size: int) -> bytes:
    """What comes before the bytes of a Data with ``size`` of them, in a frame of its own."""
    return _DATA.pack(_DATA.size - HEAD + size, _DATA_START, call, _BYTES, size)


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


def _field(items: list[msgspec.Raw], at: int) -> int:
    try:
        return msgspec.msgpack.decode(items[at], type=int)
    except (msgspec.DecodeError, IndexError):
        return 0


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
        self._space: memoryview | None = None  # what ``space`` has given
        self._kept = 0  # bytes at its beginning that no frame is complete of
        self._broken: str | None = None  # why nothing more can be read

    def learn(self, kinds: Iterable[type[Message]]) -> None:
        """Decode messages of these kinds too, starting with the next ``feed``."""
        known = self._kinds.union(kinds)
        if known != self._kinds:
            self._kinds, self._decode = known, _decoder(known)

    def feed(self, data: bytes) -> list[Any]:
        """Return the messages of the frames that ``data`` completes, in order.

        An Undecoded is in the place of each that cannot be decoded. Raises WireError.
        """
        whole: bytes | bytearray = data
        if self._kept:
            assert self._space is not None
            self._rest += self._space[: self._kept]
            self._kept = 0
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            whole, self._rest = self._rest, bytearray()
        messages, at, self._needed = self.split(whole)
        if at < len(whole):
            self._rest += memoryview(whole)[at:]
        return messages

    def space(self) -> memoryview | None:
        """Where to read into, for ``fill``; ``None`` if a frame is too large for it.

        It is the same memory each time, because to allocate it takes longer than to read.
        """
        if self._space is None:
            self._space = memoryview(bytearray(LARGE_PIPE_SIZE + CHUNK))
        space, rest = self._space, self._rest
        if self._needed > len(space) or len(rest) > len(space) - PIPE_SIZE:
            return None
        if rest:
            self._kept, self._rest = len(rest), bytearray()
            space[: self._kept] = rest
        return space[self._kept :]

    def fill(self, size: int) -> list[Any]:
        """As ``feed``, with ``size`` bytes that were read into ``space``."""
        assert self._space is not None
        whole = self._space[: self._kept + size]
        if len(whole) < self._needed:
            self._kept = len(whole)
            return []
        messages, at, self._needed = self.split(whole)
        self._kept = len(whole) - at
        if at:
            whole[: self._kept] = whole[at:]
        if self._needed > len(self._space):
            self._rest += whole[: self._kept]
            self._kept = 0
        return messages

    # Not split: it runs for each read from a pipe.
    def split(self, whole: bytes | bytearray | memoryview) -> tuple[list[Any], int, int]:
        """Decode the complete frames at the beginning of ``whole``, and keep nothing.

        Returns their messages, their size, and how many bytes a frame needs that begins there.
        Raises WireError.
        """
        if self._broken is not None:
            raise WireError(self._broken)
        messages: list[Any] = []
        view = memoryview(whole)
        at, size, needed = 0, len(whole), HEAD
        while size - at >= HEAD:
            (length,) = _LENGTH.unpack_from(view, at)
            if length > MAX_FRAME:
                self._broken = f"a frame of {length} bytes, {MAX_FRAME} are allowed"
                error = WireError(self._broken)
                error.before = messages
                raise error
            end = at + HEAD + length
            if end > size:
                needed = end - at
                break
            try:
                messages += self._decode(view[at + HEAD : end])
            except (msgspec.DecodeError, RecursionError):
                messages += self._decode_each(view[at + HEAD : end])
            at = end
        return messages, at, needed

    def _decode_each(self, frame: memoryview) -> list[Any]:
        """Decode what can be decoded of a frame."""
        try:
            parts = msgspec.msgpack.decode(frame, type=list[msgspec.Raw])
        except (msgspec.DecodeError, RecursionError) as error:
            return [Undecoded(printable(f"a frame of {len(frame)} bytes: {error}"))]
        decoded: list[Any] = []
        for part in parts:
            try:
                decoded += self._decode(memoryview(b"\x91" + bytes(part)))  # an array of one
            except (msgspec.DecodeError, RecursionError) as error:
                decoded.append(self._undecoded(part, error))
        return decoded

    def _undecoded(self, part: msgspec.Raw, error: Exception) -> Undecoded:
        try:
            items = msgspec.msgpack.decode(part, type=list[msgspec.Raw])
        except (msgspec.DecodeError, RecursionError):
            return Undecoded(printable(f"no message: {error}"))
        tag = _field(items, 0)
        kind = next((k for k in self._kinds if k.__struct_config__.tag == tag), None)
        if kind is None:
            return Undecoded(printable(f"a message with the unknown tag {tag}: {error}"))
        fields = kind.__struct_fields__
        call = _field(items, fields.index("call") + 1) if "call" in fields else 0
        return Undecoded(printable(f"{kind.__name__}: {error}"), kind, call)
