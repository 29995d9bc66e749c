"""Bytes in, messages out, however the bytes are split."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.messages import COMMANDS, EVENTS, SETTINGS, any_command, any_event, of_class
from sidestage.protocols.udp.messages import Packet
from sidestage.wire import frames
from sidestage.wire.frames import (
    HEAD,
    MAX_FRAME,
    FrameBuffer,
    Repeated,
    TooLarge,
    Undecoded,
    WireError,
    encode,
)
from sidestage.wire.messages import Ack, Data, End, Hello, Message, Misread, Sync

some_events = st.lists(any_event, max_size=6)


def head(size: int) -> bytes:
    return size.to_bytes(HEAD, "big")


def fed(parts: list[bytes]) -> list[Message]:
    buffer = FrameBuffer(EVENTS)
    return [message for part in parts for message in buffer.feed(part)]


def cut(whole: bytes, points: list[int]) -> list[bytes]:
    ends = sorted(point % (len(whole) + 1) for point in points)
    return [whole[a:b] for a, b in zip([0, *ends], [*ends, len(whole)], strict=True)]


@settings(max_examples=40)
@given(some_events, st.lists(st.integers(0, 1 << 16), max_size=10))
def test_any_cuts_give_the_same_messages(messages: list[Any], points: list[int]) -> None:
    assert fed(cut(bytes(encode(*messages)), points)) == messages


@settings(max_examples=40)
@given(st.lists(any_event, max_size=3))
def test_byte_by_byte_gives_the_same_messages(messages: list[Any]) -> None:
    assert fed([bytes([byte]) for byte in encode(*messages)]) == messages


@settings(max_examples=40)
@given(st.lists(any_command, max_size=4))
def test_commands_cross_as_well(messages: list[Any]) -> None:
    assert FrameBuffer(COMMANDS).feed(bytes(encode(*messages))) == messages


@settings(max_examples=40)
@given(st.lists(any_event, min_size=1, max_size=4))
def test_messages_are_the_same_one_by_one_and_together(messages: list[Any]) -> None:
    one_by_one = b"".join(encode(message) for message in messages)
    assert fed([one_by_one]) == fed([bytes(encode(*messages))]) == messages


def test_a_message_comes_with_its_last_byte_and_not_before() -> None:
    frame = bytes(encode(End(call=7)))
    buffer = FrameBuffer(EVENTS)
    assert [buffer.feed(frame[at : at + 1]) for at in range(len(frame))] == [
        *([[]] * (len(frame) - 1)),
        [End(call=7)],
    ]


def test_what_was_given_does_not_change_when_more_comes() -> None:
    buffer = FrameBuffer(EVENTS)
    first = encode(Data(call=1, data=b"first"))
    (message,) = buffer.feed(bytes(first))
    buffer.feed(bytes(encode(Data(call=2, data=b"XXXXX")))[:-1])
    assert message == Data(call=1, data=b"first")


def test_a_large_message_in_many_pieces() -> None:
    message = Data(call=1, data=bytes(range(256)) * 8192)
    whole = bytes(encode(message, End(call=1)))
    size = len(whole) // 97
    parts = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert fed(parts) == [message, End(call=1)]


@pytest.mark.parametrize("size", [MAX_FRAME + 1, (1 << 32) - 1])
def test_an_oversized_frame_is_refused_by_its_head(size: int) -> None:
    with pytest.raises(WireError, match=f"a frame of {size} bytes"):
        FrameBuffer(EVENTS).feed(head(size))


def test_an_oversized_frame_after_good_ones() -> None:
    buffer = FrameBuffer(EVENTS)
    assert buffer.feed(bytes(encode(End(call=1)))) == [End(call=1)]
    with pytest.raises(WireError):
        buffer.feed(head(MAX_FRAME + 1))


def test_the_largest_frame_is_waited_for() -> None:
    assert FrameBuffer(EVENTS).feed(head(MAX_FRAME)) == []


GARBAGE = {
    "nothing": b"",
    "no code of MessagePack": b"\xc1",
    "a map": b"\x80",
    "an array that lacks all of its items": b"\xdd\xff\xff\xff\xff",
    "a message that lacks its last item": b"\x91\x93\x01\x01",
    "arrays that are nested too deep": b"\x91" * 100_000 + b"\x01",
}


@pytest.mark.parametrize("payload", GARBAGE.values(), ids=GARBAGE)
def test_a_frame_that_is_none_is_skipped(payload: bytes) -> None:
    buffer = FrameBuffer(EVENTS)
    (skipped,) = buffer.feed(head(len(payload)) + payload)
    assert isinstance(skipped, Undecoded)
    assert skipped.kind is None
    assert buffer.feed(bytes(encode(End(call=1)))) == [End(call=1)]


@pytest.mark.parametrize(
    "item, kind, call, text",
    [
        (b"\x92\x01\x07", Data, 7, "Data"),  # without its bytes
        (b"\x93\x01\xa1x\xc4\x00", Data, 0, "Data"),  # its call is a text
        (b"\x93\x02\x07\xc3", Ack, 7, "Expected `int`, got `bool`"),
        (b"\x93\x02\x07\xa1\xff", Ack, 7, "Ack"),  # with text that is no UTF-8
        (b"\x91\x63", None, 0, "the unknown tag 99"),
        (b"\x80", None, 0, "no message"),
        (b"\x03", None, 0, "no message"),
    ],
)
def test_a_message_that_cannot_be_decoded_is_named_and_the_others_come(
    item: bytes, kind: Any, call: int, text: str
) -> None:
    """A list of three: the second cannot be decoded."""
    end = bytes(encode(End(call=1)))[HEAD + 1 :]
    payload = b"\x93" + end + item + end
    buffer = FrameBuffer(EVENTS)
    first, skipped, last = buffer.feed(head(len(payload)) + payload)
    assert first == last == End(call=1)
    assert (skipped.kind, skipped.call) == (kind, call)
    assert text in skipped.text
    assert buffer.feed(bytes(encode(End(call=2)))) == [End(call=2)]


@pytest.mark.parametrize(
    "buffer, message",
    [(FrameBuffer(EVENTS), Sync(token=1)), (FrameBuffer(COMMANDS), Hello(pid=1, version=1))],
    ids=["a command among events", "an event among commands"],
)
def test_neither_side_accepts_its_own_messages(buffer: Any, message: Message) -> None:
    (skipped,) = buffer.feed(bytes(encode(message)))
    assert isinstance(skipped, Undecoded)


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_are_skipped_or_break_the_stream(garbage: bytes) -> None:
    buffer = FrameBuffer(EVENTS)
    try:
        messages = buffer.feed(garbage)
    except WireError:
        with pytest.raises(WireError):
            buffer.feed(bytes(encode(End(call=1))))
        return
    assert all(isinstance(message, (*EVENTS, Undecoded)) for message in messages)


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_whole_frames_of_any_bytes_leave_the_stream_as_it_was(payloads: list[bytes]) -> None:
    buffer = FrameBuffer(EVENTS)
    buffer.feed(b"".join(head(len(payload)) + payload for payload in payloads))
    assert buffer.feed(bytes(encode(End(call=1)))) == [End(call=1)]


def test_what_came_before_a_broken_length_is_not_lost() -> None:
    with pytest.raises(WireError) as caught:
        FrameBuffer(EVENTS).feed(bytes(encode(End(call=1))) + head(MAX_FRAME + 1))
    assert caught.value.before == [End(call=1)]


def test_nothing_is_no_message() -> None:
    assert FrameBuffer(EVENTS).feed(b"") == []
    assert FrameBuffer(EVENTS).feed(bytes(encode())) == []


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_frame_may_grow_message_by_message(count: int) -> None:
    frame = bytearray(frames.START)
    message = Data(call=1, data=bytes(1000))
    for added in range(1, count + 1):
        frames.add_to(frame, message)
        assert added * 1000 < len(frame) - len(frames.START) < added * 1020
    frames.finish(frame, count)
    assert FrameBuffer(EVENTS).feed(bytes(frame)) == [message] * count


def test_streams_cross_in_both_directions() -> None:
    stream = [Data(call=1, data=b"x"), Ack(call=1, size=1), End(call=1)]
    whole = bytes(encode(*stream))
    assert FrameBuffer(EVENTS).feed(whole) == FrameBuffer(COMMANDS).feed(whole) == stream


@pytest.mark.parametrize("call", [0, 1, 200, 1 << 40])
@pytest.mark.parametrize("size", [0, 1, frames.LARGE, frames.CHUNK])
def test_data_may_be_written_behind_its_head(call: int, size: int) -> None:
    data = bytes(size)
    whole = frames.head_of_data(call, size) + data
    assert FrameBuffer(EVENTS).feed(whole + whole) == [Data(call=call, data=data)] * 2


def put(buffer: FrameBuffer, part: bytes) -> list[Message]:
    """Have ``buffer`` take ``part`` in the memory that it gives, as far as it does."""
    came: list[Message] = []
    while part:
        space = buffer.space()
        if space is None:
            return came + buffer.feed(part)
        count = min(len(part), len(space))
        space[:count] = part[:count]
        came += buffer.fill(count)
        part = part[count:]
    return came


@given(some_events, st.lists(st.integers(0, 1 << 20), max_size=8), st.integers(0, 255))
def test_parts_may_come_in_given_memory_too(
    messages: list[Any], points: list[int], choice: int
) -> None:
    buffer = FrameBuffer(EVENTS)
    came: list[Message] = []
    for index, part in enumerate(cut(bytes(encode(*messages)), points)):
        came += put(buffer, part) if choice >> index & 1 else buffer.feed(part)
    assert came == messages


@pytest.mark.parametrize("size", [frames.CHUNK, frames.LARGE_PIPE_SIZE, 1 << 22])
@pytest.mark.parametrize("piece", [frames.PIPE_SIZE, frames.LARGE_PIPE_SIZE])
def test_frames_that_given_memory_has_no_room_for_come_too(size: int, piece: int) -> None:
    messages = [Data(call=n, data=bytes([n]) * size) for n in range(4)]
    whole = b"".join(encode(message) for message in messages)
    buffer = FrameBuffer(EVENTS)
    parts = [whole[at : at + piece] for at in range(0, len(whole), piece)]
    assert [message for part in parts for message in put(buffer, part)] == messages


def test_what_came_in_given_memory_does_not_change_when_more_comes() -> None:
    first, second = Data(call=1, data=b"1" * frames.LARGE), Data(call=1, data=b"2" * frames.LARGE)
    buffer = FrameBuffer(EVENTS)
    came = put(buffer, bytes(encode(first)))
    assert put(buffer, bytes(encode(second))) == [second]
    assert came == [first]


def test_more_is_asked_of_a_pipe_as_long_as_it_gives_a_pipeful() -> None:
    size = frames.ReadSize()
    assert not size.got(100)
    assert size.bytes == frames.PIPE_SIZE
    assert size.got(frames.PIPE_SIZE)
    assert size.bytes == frames.LARGE_PIPE_SIZE
    assert not size.got(frames.PIPE_SIZE)
    assert size.bytes == frames.LARGE_PIPE_SIZE
    assert not size.got(100)
    assert size.bytes == frames.PIPE_SIZE


def test_a_buffer_learns_the_messages_of_a_protocol_and_forgets_none() -> None:
    """A late message of the previous server's protocol is no error."""
    one, other = Packet(call=0, listener=0, peer="", at=0.0, data=b""), Hello(pid=1, version=1)
    buffer = FrameBuffer([Hello])
    assert isinstance(buffer.feed(bytes(encode(one)))[0], Undecoded)
    buffer.learn([Packet])
    buffer.learn([Sync])
    assert buffer.feed(bytes(encode(one, other))) == [one, other]


@given(st.sampled_from(SETTINGS).flatmap(of_class))
def test_settings_survive_inside_another_message(settings: Message) -> None:
    assert frames.unpack(type(settings), frames.pack(settings)) == settings


def test_settings_of_another_kind_are_refused() -> None:
    with pytest.raises(WireError, match="not Packet"):
        frames.unpack(Packet, frames.pack(Hello(pid=1, version=1)))


# What cannot be sent ------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """A small limit of a message, in bytes."""
    monkeypatch.setattr(frames, "MAX_MESSAGE", 1000)
    return 1000


def test_a_message_beyond_the_limit_is_never_encoded(small: int) -> None:
    with pytest.raises(TooLarge, match=r"Data has 1\d\d\d bytes, at most 1000"):
        encode(Data(call=1, data=bytes(small)))
    assert encode(Data(call=1, data=bytes(small - 100)))


@pytest.mark.parametrize(
    "message, error",
    [
        (Data(call=1, data=bytes(1000)), TooLarge),
        (Data(call=1, data=object()), TypeError),  # type: ignore[arg-type]
        (Data(call=1 << 70, data=b""), OverflowError),
        (Misread(text="\ud800"), ValueError),
    ],
)
def test_a_message_that_cannot_be_encoded_leaves_the_others(
    message: Message, error: type[Exception], small: int
) -> None:
    frame = bytearray(frames.START)
    frames.add_to(frame, End(call=1))
    with pytest.raises(error):
        frames.add_to(frame, message)
    frames.add_to(frame, End(call=2))
    frames.finish(frame, 2)
    assert FrameBuffer(EVENTS).feed(bytes(frame)) == [End(call=1), End(call=2)]


def _with_call_and_time(kind: type) -> bool:
    return {"call", "at"} <= set(kind.__struct_fields__)


REPEATED = [kind for kind in EVENTS if _with_call_and_time(kind)]


@settings(max_examples=100)
@given(
    st.one_of(*map(of_class, REPEATED)),
    st.integers(0, (1 << 63) - 1),
    st.floats(0, allow_infinity=False),
)
def test_a_message_is_repeated_with_another_call_and_time(
    message: Any, call: int, at: float
) -> None:
    encoded = Repeated(message).encoded(call, at)
    frame = b"\x91" + encoded  # an array of one
    assert FrameBuffer(EVENTS).feed(head(len(frame)) + frame) == [
        msgspec.structs.replace(message, call=call, at=at)
    ]
