"""The settings and messages of TCP, which both processes know."""

from __future__ import annotations

from ...wire.messages import Address, Message, Seen, Vocabulary


class TCPSettings(Message, frozen=True, kw_only=True):
    """A TCP server has only the settings of every server."""


class Opened(Message, frozen=True, kw_only=True, tag=71):
    """A client connected."""

    call: int
    peer: Address
    local: Address
    at: float  # seconds on the monotonic clock
    connection: int  # its number in this run
    tls: Seen | None = None


class TranscriptIn(Message, frozen=True, kw_only=True, tag=72):
    """A connection that the child has recorded without a handler."""

    peer: Address
    local: Address
    at: float  # seconds on the monotonic clock, when it was opened
    connection: int  # its number in this run
    seconds: float  # from open to end
    data: bytes
    cut: int
    ended: str
    tls: Seen | None = None


VOCABULARY = Vocabulary(settings=TCPSettings, commands=(), events=(Opened, TranscriptIn))
