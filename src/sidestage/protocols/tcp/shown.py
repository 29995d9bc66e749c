"""How a report shows a connection that has ended, and one that is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...journal.record import Shown
from ...reports.text import count, over, quoted, took

if TYPE_CHECKING:
    from .transcript import Transcript


def shown(transcript: Transcript) -> Shown:
    """The beginning of what the client has sent, what it was sent, and who ended it."""
    size = len(transcript.data) + transcript.cut
    answer = transcript.answer
    sent, seconds = (0, 0.0) if answer is None else (answer.size, answer.seconds)
    return Shown(
        f"connection{over(transcript.tls)} that sent {quoted(transcript.data, size)}",
        answered=f"sent {count(sent, 'byte')}, {transcript.ended} after {took(seconds)}",
    )


def so_far(data: bytes, size: int, sent: int) -> str:
    """The same of a connection that is open."""
    return f"received {quoted(data, size)}, sent {count(sent, 'byte')}"
