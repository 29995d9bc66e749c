"""What a TCP connection has been, once it has ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...journal.facts import Address
from ...journal.record import Answer, Shown
from ...pristine.imports import importing_once

if TYPE_CHECKING:
    from ...journal.secured import TLSDetails


@dataclass(frozen=True, kw_only=True, repr=False)
class Transcript:
    """A TCP connection that has ended: its addresses, what the client sent, and how it ended.

    ``data`` is what the client sent, at most a quarter of ``keep``; ``cut`` is how many bytes were
    received beyond that. ``ended`` says who closed or reset the connection. ``received_at`` is when
    the client connected, in seconds on the monotonic clock. ``answer`` has the number of bytes sent
    to the client, and the seconds from open to end. ``tls`` is what was agreed with the client by
    TLS, ``None`` without.
    """

    client_address: Address
    server_address: Address
    data: bytes
    ended: str
    cut: int = 0
    received_at: float = field(default=0.0, compare=False)
    connection_number: int = field(default=0, compare=False)
    answer: Answer | None = field(default=None, compare=False)
    tls: TLSDetails | None = field(default=None, compare=False)

    def _shown(self) -> Shown:
        with importing_once():
            from .shown import shown
        return shown(self)

    def __repr__(self) -> str:
        return f"<Transcript from {self.client_address}: {self.data!r:.80}, {self.ended}>"
