"""A call of a line-echo server's handler: a line in, a line out."""

from __future__ import annotations

from typing import Any

from sidestage.dispatch.calls import Call, Protocol
from sidestage.dispatch.run import Run
from sidestage.journal.facts import Address
from sidestage.journal.journal import OVERHEAD, Journal
from sidestage.journal.record import Answer
from sidestage.pristine.waits import Clock
from sidestage.wire.messages import Lost, Message

from .messages import VOCABULARY, LineIn, LineOut


class Line:
    """A line that came, as a handler has it and as it is kept in ``received``."""

    def __init__(self, message: LineIn) -> None:
        self.line = message.line
        self.client_address: Address = message.peer
        self.received_at = message.at
        self.connection_number = message.connection
        self.answer: Answer | None = None
        if not message.call:  # the server's process has sent it back
            self.answered(message.at, len(message.line))

    def answered(self, at: float, size: int) -> None:
        """Note when it was answered, with how many bytes."""
        if self.answer is None:
            self.answer = Answer(at=at, status=None, size=size, seconds=at - self.received_at)

    def __repr__(self) -> str:
        return f"<Line {self.line!r}>"


class LineCall(Call):
    """A line and its answer."""

    request: Line

    def __init__(self, run: Run, message: LineIn, request: Line) -> None:
        super().__init__(run, message.call, message.peer)
        self.connection = message.connection
        self.request = request

    def event(self, message: Message) -> None:
        if isinstance(message, Lost) and message.answered:  # without the handler
            self.request.answered(Clock.monotonic(), 0)

    def complete(self, result: object) -> None:
        line = self.request.line if result is None else result
        if not isinstance(line, bytes):
            raise TypeError(f"the handler may return None or bytes, not {type(line).__name__}")
        self._send(line)

    def fail(self, error: BaseException) -> None:
        self._send(f"! {type(error).__name__}".encode())

    def _send(self, line: bytes) -> None:
        self.request.answered(Clock.monotonic(), len(line))
        self.run.send(LineOut(call=self.id, line=line))

    def describe(self) -> str:
        return f"the line {self.request.line!r}"


def open_call(run: Run, message: LineIn, journal: Journal[Any]) -> LineCall | None:
    """Record a line; returns its call if a handler is to run."""
    line = Line(message)
    journal.received(line, OVERHEAD + len(message.line))
    return LineCall(run, message, line) if message.call else None


PROTOCOL = Protocol(VOCABULARY, open_call)
