"""How a report shows a datagram."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...journal.record import Shown
from ...reports.text import line, quoted

if TYPE_CHECKING:
    from .datagram import Datagram


def shown(datagram: Datagram) -> Shown:
    """The sender and the beginning of the bytes."""
    message = datagram._message
    peer = message.peer
    sender = peer if isinstance(peer, str) else ":".join(str(part) for part in peer[:2])
    return Shown(
        f"datagram from {line(sender) or 'an unnamed client'}: {quoted(message.data)}",
        handled=bool(message.call),
    )
