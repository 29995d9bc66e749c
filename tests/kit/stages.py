"""A reader and handler threads on a pipe that the test writes to."""

from __future__ import annotations

import os
from collections.abc import Callable

from kit.scripts import eventually
from sidestage.dispatch.reader import Job, Reader
from sidestage.dispatch.threads import HandlerThreads
from sidestage.pristine.waits import Deadline
from sidestage.process.channel import Channel
from sidestage.wire.frames import encode
from sidestage.wire.messages import Message, Synced

WAIT = 10.0  # seconds at most for what comes at once


def soon() -> Deadline:
    """A deadline that is never reached unless something hangs."""
    return Deadline(30)


class Recorder:
    """A sink whose jobs call ``before`` with their event's token, then record it."""

    def __init__(self, before: Callable[[int], None]) -> None:
        self.done: list[int] = []
        self.seen: list[int] = []
        self.defects: list[BaseException] = []
        self.ends = 0
        self._before = before
        self._after: dict[int, Callable[[], None]] = {}

    def after_seeing(self, token: int, act: Callable[[], None]) -> None:
        """Call ``act`` before the next event with this token becomes a job."""
        self._after[token] = act

    def event(self, message: Message) -> Job | None:
        assert isinstance(message, Synced)
        if message.token < 0:
            raise ValueError(message.token)
        self.seen.append(message.token)
        self._after.pop(message.token, lambda: None)()
        return lambda: self._run(message.token)

    def _run(self, token: int) -> None:
        self._before(token)
        self.done.append(token)

    def defect(self, error: BaseException) -> None:
        self.defects.append(error)

    def disconnected(self, why: str) -> None:
        self.ends += 1
        self.why = why


class Stage:
    """A reader and its threads, and the pipe that the test writes to."""

    def __init__(self, before: Callable[[int], None] = lambda token: None, most: int = 100) -> None:
        self.full: list[int] = []  # what the threads have told
        events_fd, self.writer = os.pipe()
        reader, commands_fd = os.pipe()
        self._fds = [events_fd, reader, commands_fd]
        self.sink = Recorder(before)
        self.reader = Reader(Channel(events_fd, commands_fd), self.sink)
        self.threads = HandlerThreads(self.reader, most, self.full.append)

    def threaded(self) -> Stage:
        self.threads.start(lambda: None)  # nobody else reads
        return self

    def say(self, *tokens: int) -> None:
        os.write(self.writer, encode(*(Synced(token=token) for token in tokens)))

    def say_raw(self, data: bytes) -> None:
        os.write(self.writer, data)

    def hang_up(self) -> None:
        os.close(self.writer)
        self.writer = -1

    def is_done(self, *tokens: int) -> bool:
        return eventually(lambda: sorted(self.sink.done) == sorted(tokens), WAIT)

    def close(self) -> None:
        self.threads.close()
        for fd in {self.writer, *self._fds} - {-1}:
            os.close(fd)
