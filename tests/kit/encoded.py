"""Reads a message that a child has encoded already."""

from __future__ import annotations

from typing import Any

from sidestage.protocols.http.messages import VOCABULARY
from sidestage.wire.frames import HEAD, FrameBuffer

_ARRAY_OF_ONE = b"\x91"


def decoded(message: bytes) -> Any:
    """The event of HTTP that ``message`` is in a frame."""
    frame = _ARRAY_OF_ONE + message
    [event] = FrameBuffer(VOCABULARY.events).feed(len(frame).to_bytes(HEAD, "big") + frame)
    return event
