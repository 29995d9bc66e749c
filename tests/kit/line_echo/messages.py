"""What the line-echo protocol adds to the pipe."""

from __future__ import annotations

from sidestage.wire.messages import Address, Message, Vocabulary


class LineEchoSettings(Message, frozen=True, kw_only=True):
    """What a line-echo server is to be, beside what every server is."""

    longest: int  # bytes of a line


class LineOut(Message, frozen=True, kw_only=True, tag=190):
    """The line that answers ``call``."""

    call: int
    line: bytes


class LineIn(Message, frozen=True, kw_only=True, tag=191):
    """A line came; ``call`` 0 is a record that the child has answered with the same line."""

    call: int
    peer: Address
    at: float  # seconds on the monotonic clock
    connection: int  # its number in this run
    line: bytes


VOCABULARY = Vocabulary(settings=LineEchoSettings, commands=(LineOut,), events=(LineIn,))
