"""The parent's end of the pipes: no call exceeds its deadline."""

from __future__ import annotations

import gc
import os
import threading
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest

from kit.interruptions import CallTracer
from kit.scripts import eventually
from sidestage.pristine.waits import Deadline
from sidestage.process.channel import Channel, ChannelClosed
from sidestage.wire.frames import (
    CHUNK,
    LARGE,
    LARGE_PIPE_SIZE,
    MAX_FRAME,
    PIPE_SIZE,
    FrameBuffer,
    WireError,
    encode,
    head_of_data,
)
from sidestage.wire.messages import COMMANDS, Data, End, Message, Sync

NOW = Deadline(0)
BIG = Data(call=1, data=bytes(1 << 20))  # no pipe takes that much at once


def soon() -> Deadline:
    """A deadline that is never reached unless something hangs."""
    return Deadline(30)


class Interruption(BaseException):
    """Like KeyboardInterrupt, but it does not end pytest if it escapes."""


class Pipes:
    """A channel, and the other ends of its pipes."""

    def __init__(self) -> None:
        events_fd, self.events = os.pipe()
        self.commands, commands_fd = os.pipe()
        self.channel = Channel(events_fd, commands_fd)
        self._open = {events_fd, commands_fd, self.events, self.commands}
        self._buffer = FrameBuffer(COMMANDS)

    def commands_read(self) -> list[Message]:
        """Read once at the other end; returns the complete messages."""
        return list(self._buffer.feed(os.read(self.commands, 1 << 20)))

    def drain(self) -> list[Message]:
        """Read until a whole message has arrived."""
        while not (messages := self.commands_read()):
            pass
        return messages

    def close(self, fd: int) -> None:
        self._open.remove(fd)
        os.close(fd)

    def close_all(self) -> None:
        for fd in list(self._open):
            self.close(fd)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    pipes = Pipes()
    yield pipes
    pipes.close_all()


def outcome_of(work: Callable[[], Any]) -> list[Any]:
    """A list that gets what ``work`` returns or raises in a thread of its own."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except (ChannelClosed, TimeoutError) as error:
            outcome.append(error)

    threading.Thread(target=run).start()
    return outcome


class TestSend:
    def test_messages_arrive_in_order(self, pipes: Pipes) -> None:
        pipes.channel.send(Sync(token=1), Sync(token=2))
        pipes.channel.send(Sync(token=3))
        assert pipes.commands_read() == [Sync(token=n) for n in (1, 2, 3)]

    def test_what_the_pipe_cannot_take_at_once_arrives_too(self, pipes: Pipes) -> None:
        outcome = outcome_of(lambda: pipes.channel.send(BIG, deadline=soon()))
        assert pipes.drain() == [BIG]
        assert eventually(lambda: outcome == [None])

    @pytest.mark.parametrize("size", [LARGE - 1, LARGE, PIPE_SIZE - 20, PIPE_SIZE, CHUNK])
    def test_data_of_any_size_arrives(self, pipes: Pipes, size: int) -> None:
        data = Data(call=1 << 40, data=b"x" * size)
        outcome = outcome_of(lambda: pipes.channel.send(data, deadline=soon()))
        assert pipes.drain() == [data]
        assert eventually(lambda: outcome == [None])

    @pytest.mark.parametrize("left", [1, 20, 21, 22, 4096])
    def test_data_arrives_whole_behind_what_fills_the_pipe(self, pipes: Pipes, left: int) -> None:
        before = Data(call=1, data=bytes(PIPE_SIZE - left - len(head_of_data(1, 0))))
        pipes.channel.send(before)
        after = Data(call=2, data=b"x" * CHUNK)
        outcome = outcome_of(lambda: pipes.channel.send(after, deadline=soon()))
        came: list[Message] = []
        while len(came) < 2:
            came += pipes.commands_read()
        assert came == [before, after]
        assert eventually(lambda: outcome == [None])

    def test_a_full_pipe_is_a_timeout(self, pipes: Pipes) -> None:
        with pytest.raises(TimeoutError):
            pipes.channel.send(BIG, deadline=Deadline(0.02))

    def test_after_half_a_frame_nothing_more_is_said(self, pipes: Pipes) -> None:
        with pytest.raises(TimeoutError):
            pipes.channel.send(BIG, deadline=NOW)
        assert pipes.channel.closed
        with pytest.raises(ChannelClosed):
            pipes.channel.send(Sync(token=1))

    def test_a_timeout_before_the_first_byte_loses_nothing(self, pipes: Pipes) -> None:
        with suppress(BlockingIOError):
            while os.write(pipes.channel.commands_fd, encode(End(call=1))):
                pass
        filled = False
        while not filled:  # fill the last bytes frame by frame, until no more fits
            try:
                pipes.channel.send(Sync(token=1), deadline=NOW)
            except TimeoutError:
                filled = True
        assert not pipes.channel.closed

    def test_an_interruption_in_the_middle_closes_it(
        self, pipes: Pipes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(*arguments: Any) -> int:
            raise Interruption

        monkeypatch.setattr("sidestage.pristine.waits.poll_fd", interrupt)
        with pytest.raises(Interruption):
            pipes.channel.send(BIG)
        with pytest.raises(ChannelClosed):
            pipes.channel.send(Sync(token=1))

    def test_a_closed_other_end(self, pipes: Pipes) -> None:
        pipes.close(pipes.commands)
        with pytest.raises(ChannelClosed):
            pipes.channel.send(Sync(token=1))

    def test_an_other_end_that_closes_while_it_waits(self, pipes: Pipes) -> None:
        outcome = outcome_of(lambda: pipes.channel.send(BIG))
        os.read(pipes.commands, 1)
        pipes.close(pipes.commands)
        assert eventually(lambda: bool(outcome))
        assert isinstance(outcome[0], ChannelClosed)

    def test_a_channel_marked_closed(self, pipes: Pipes) -> None:
        pipes.channel.closed = True
        with pytest.raises(ChannelClosed):
            pipes.channel.send(Sync(token=1))

    def test_a_timeout_does_not_open_a_closed_one(
        self, pipes: Pipes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another thread closed it while this one waited to write its first byte."""

        def full(*arguments: Any) -> int:
            raise BlockingIOError

        def close_meanwhile(*arguments: Any) -> int:
            pipes.channel.closed = True
            return 0

        monkeypatch.setattr("sidestage.pristine.system.write", full)
        monkeypatch.setattr("sidestage.pristine.waits.poll_fd", close_meanwhile)
        with pytest.raises(TimeoutError):
            pipes.channel.send(Sync(token=1), deadline=NOW)
        assert pipes.channel.closed

    def test_a_second_writer_waits_no_longer_than_its_deadline(self, pipes: Pipes) -> None:
        first = outcome_of(lambda: pipes.channel.send(BIG))
        os.read(pipes.commands, 1)
        with pytest.raises(TimeoutError, match="another thread"):
            pipes.channel.send(Sync(token=1), deadline=Deadline(0.02))
        pipes.close(pipes.commands)
        assert eventually(lambda: bool(first))

    def test_a_writer_that_was_woken_and_gives_up_wakes_the_next(
        self, pipes: Pipes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        channel = pipes.channel
        channel._writing.holder = ("another thread", 1, [])
        next_one = outcome_of(lambda: channel.send(Sync(token=2)))
        assert eventually(lambda: bool(channel._written._waiters))

        def give_up(*arguments: Any) -> None:
            channel._writing.holder = None  # the other has woken this one, and no more
            raise Interruption

        monkeypatch.setattr(channel, "_wait_for_turn", give_up)
        with pytest.raises(Interruption):
            channel.send(Sync(token=1))
        assert eventually(lambda: next_one == [None])
        assert pipes.commands_read() == [Sync(token=2)]

    def test_frames_of_many_writers_do_not_mix(self, pipes: Pipes) -> None:
        bodies = [Data(call=n, data=bytes([n]) * 100_000) for n in range(8)]
        outcomes = [outcome_of(lambda body=body: pipes.channel.send(body)) for body in bodies]
        came: list[Message] = []
        while len(came) < len(bodies):
            came += pipes.commands_read()
        assert sorted(came, key=lambda message: message.call) == bodies  # type: ignore[attr-defined]
        assert eventually(lambda: outcomes == [[None]] * len(bodies))


class TestUsers:
    def test_one_that_was_retired_sends_nothing_more(self, pipes: Pipes) -> None:
        channel, user = pipes.channel, pipes.channel.user
        channel.send(Sync(token=1), user=user)
        assert channel.retire(NOW)
        with pytest.raises(ChannelClosed):
            channel.send(Sync(token=2), user=user)
        channel.send(Sync(token=3), user=channel.user)
        assert pipes.commands_read() == [Sync(token=1), Sync(token=3)]

    def test_what_is_being_written_is_waited_for(self, pipes: Pipes) -> None:
        first = outcome_of(lambda: pipes.channel.send(BIG))
        os.read(pipes.commands, 1)
        assert not pipes.channel.retire(Deadline(0.02))
        pipes.close(pipes.commands)
        assert eventually(lambda: bool(first))
        assert pipes.channel.retire(NOW)


class Final:
    """Garbage that only the collector finds, and that does something then."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act, self._me = act, self

    def __del__(self) -> None:
        self._act()


@contextmanager
def collected_at(moment: int, act: Callable[[], object]) -> Iterator[None]:
    """Have ``act`` called by the collector at an allocation of the body; else at its end."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.disable()
    Final(act)
    gc.set_threshold(gc.get_count()[0] + moment, 1000, 1000)
    gc.enable()
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.collect()


def receive_another(pipes: Pipes, event: Message, came: list[Message]) -> None:
    os.write(pipes.events, encode(event))
    pipes.channel.receive_into(came)


class TestACallInsideOfAnother:
    """A signal handler, or a finalizer, comes into a call and uses the same channel."""

    def each_moment(
        self, work: Callable[[Pipes], object], act: Callable[[Pipes], object]
    ) -> Iterator[Pipes]:
        at, ended = 0, False
        while not ended:
            pipes = Pipes()
            tracer = CallTracer(at, lambda pipes=pipes: act(pipes))  # type: ignore[misc]
            tracer.run(lambda pipes=pipes: work(pipes))  # type: ignore[misc]
            at, ended = at + 1, tracer.ended
            if not ended:
                yield pipes
            pipes.close_all()
        assert at > 5

    def test_sends_whole_frames(self) -> None:
        def send(token: int) -> Callable[[Pipes], None]:
            return lambda pipes: pipes.channel.send(Sync(token=token), deadline=soon())

        for pipes in self.each_moment(send(1), send(2)):
            came = pipes.commands_read()
            assert came in ([Sync(token=1), Sync(token=2)], [Sync(token=2), Sync(token=1)])

    def test_receives_everything_once_and_in_order(self) -> None:
        events: list[Message] = [End(call=1), End(call=2), End(call=3)]
        frames = bytes(encode(events[0]) + encode(events[1]) + encode(events[2]))
        for cut in (len(frames), 9, 3):
            came: deque[Message] = deque()

            def read(pipes: Pipes, cut: int = cut, came: deque[Message] = came) -> None:
                came.clear()
                os.write(pipes.events, frames[:cut])
                pipes.channel.receive_into(came)

            def read_rest(pipes: Pipes, cut: int = cut, came: deque[Message] = came) -> None:
                os.write(pipes.events, frames[cut:])
                pipes.channel.receive_into(came)

            for pipes in self.each_moment(read, read_rest):
                while pipes.channel.poll(NOW):
                    pipes.channel.receive_into(came)
                assert list(came) == events

    @pytest.mark.parametrize("much", [False, True])
    def test_receives_in_order_though_the_collector_runs_in_it(self, much: bool) -> None:
        """Python 3.11 may run it at any allocation, and with it a ``__del__`` of the test."""
        first, second = Data(call=1, data=b"a" * 60_000), Data(call=2, data=b"b" * 300)
        for moment in range(1, 30):
            pipes = Pipes()
            came: list[Message] = []
            if much:
                pipes.channel._read_size.bytes = LARGE_PIPE_SIZE
            os.write(pipes.events, encode(first))
            with collected_at(moment, partial(receive_another, pipes, second, came)):
                pipes.channel.receive_into(came)
            while pipes.channel.poll(NOW):
                pipes.channel.receive_into(came)
            assert came == [first, second], moment
            pipes.close_all()

    def test_receives_much_once_and_in_order(self) -> None:
        events: list[Message] = [Data(call=n, data=bytes([n]) * 3000) for n in range(1, 4)]
        frames = b"".join(encode(event) for event in events)
        for cut in (len(frames), 5000, 3002, 3):
            came: deque[Message] = deque()

            def read(pipes: Pipes, cut: int = cut, came: deque[Message] = came) -> None:
                came.clear()
                os.write(pipes.events, frames[:cut])
                pipes.channel._read_size.got(PIPE_SIZE)
                pipes.channel.receive_into(came)

            def read_rest(pipes: Pipes, cut: int = cut, came: deque[Message] = came) -> None:
                os.write(pipes.events, frames[cut:])
                pipes.channel._read_size.got(PIPE_SIZE)
                pipes.channel.receive_into(came)

            for pipes in self.each_moment(read, read_rest):
                while pipes.channel.poll(NOW):
                    pipes.channel.receive_into(came)
                assert list(came) == events

    def test_that_raises_loses_nothing_that_was_read(self) -> None:
        events: list[Message] = [End(call=1), End(call=2)]

        def interrupt(pipes: Pipes) -> None:
            raise Interruption

        frames = encode(events[0]) + encode(events[1])
        came: deque[Message] = deque()

        def read(pipes: Pipes) -> None:
            came.clear()
            os.write(pipes.events, frames)
            with suppress(Interruption):
                pipes.channel.receive_into(came)

        for pipes in self.each_moment(read, interrupt):
            pipes.channel.receive_into(came)  # what is left, if nothing new has come
            assert list(came) == events

    def test_cannot_send_after_half_a_frame(
        self, pipes: Pipes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        raised: list[BaseException] = []

        def come_in(*arguments: Any) -> int:
            try:
                pipes.channel.send(Sync(token=2))
            except TimeoutError as error:
                raised.append(error)
            return 0

        monkeypatch.setattr("sidestage.pristine.waits.poll_fd", come_in)
        with pytest.raises(TimeoutError, match="does not read"):
            pipes.channel.send(BIG, deadline=soon())
        assert "half a frame" in str(raised[0])


class TestReceive:
    def test_what_has_come_so_far(self, pipes: Pipes) -> None:
        frames = bytes(encode(End(call=1)) + encode(End(call=2)))
        os.write(pipes.events, frames[:-1])
        assert pipes.channel.receive() == [End(call=1)]
        os.write(pipes.events, frames[-1:])
        assert pipes.channel.receive() == [End(call=2)]

    def test_nothing_has_come(self, pipes: Pipes) -> None:
        assert not pipes.channel.receive()

    def test_the_end(self, pipes: Pipes) -> None:
        os.write(pipes.events, encode(End(call=1)))
        pipes.close(pipes.events)
        assert pipes.channel.receive() == [End(call=1)]
        with pytest.raises(ChannelClosed):
            pipes.channel.receive()

    def test_the_end_in_the_middle_of_a_frame(self, pipes: Pipes) -> None:
        os.write(pipes.events, encode(End(call=1))[:-1])
        pipes.close(pipes.events)
        assert not pipes.channel.receive()
        with pytest.raises(ChannelClosed):
            pipes.channel.receive()

    def test_a_descriptor_that_is_gone(self, pipes: Pipes) -> None:
        pipes.close(pipes.channel.events_fd)
        with pytest.raises(ChannelClosed):
            pipes.channel.receive()

    def test_what_is_no_frame(self, pipes: Pipes) -> None:
        os.write(pipes.events, (MAX_FRAME + 1).to_bytes(4, "big"))
        with pytest.raises(WireError):
            pipes.channel.receive()

    @pytest.mark.parametrize("size", [100, LARGE, CHUNK, LARGE_PIPE_SIZE + 1])
    @pytest.mark.parametrize("piece", [PIPE_SIZE, 50_000])
    def test_frames_of_any_size_in_pieces(self, pipes: Pipes, size: int, piece: int) -> None:
        events = [Data(call=n, data=bytes([n]) * size) for n in range(1, 20)]
        frames = b"".join(encode(event) for event in events)
        came: list[Message] = []
        for at in range(0, len(frames), piece):
            os.write(pipes.events, frames[at : at + piece])
            came += pipes.channel.receive()
        assert came == events

    def test_what_came_before_a_broken_length_that_follows_much(self, pipes: Pipes) -> None:
        frames = encode(Data(call=1, data=bytes(PIPE_SIZE))) + encode(End(call=1))
        os.write(pipes.events, frames[:PIPE_SIZE])
        came: list[Message] = []
        pipes.channel.receive_into(came)
        os.write(pipes.events, frames[PIPE_SIZE:] + (MAX_FRAME + 1).to_bytes(4, "big"))
        with pytest.raises(WireError):
            pipes.channel.receive_into(came)
        assert came == [Data(call=1, data=bytes(PIPE_SIZE)), End(call=1)]

    def test_a_frame_that_never_ends_takes_little_more_than_its_bytes(self, pipes: Pipes) -> None:
        """However it comes: a little after each pipeful, say."""
        os.write(pipes.events, MAX_FRAME.to_bytes(4, "big"))
        pipes.channel.receive()
        tracemalloc.start()
        try:
            for _ in range(50):
                for size in (PIPE_SIZE, 1):
                    os.write(pipes.events, bytes(size))
                    pipes.channel.receive()
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert size < 50 * PIPE_SIZE + 2 * LARGE_PIPE_SIZE


class TestPoll:
    def test_nothing_by_the_deadline(self, pipes: Pipes) -> None:
        assert not pipes.channel.poll(Deadline(0.01))

    def test_something_to_receive(self, pipes: Pipes) -> None:
        os.write(pipes.events, encode(End(call=1)))
        assert pipes.channel.poll(soon())

    def test_the_end_is_something(self, pipes: Pipes) -> None:
        pipes.close(pipes.events)
        assert pipes.channel.poll(soon())
