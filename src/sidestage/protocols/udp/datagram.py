"""A datagram, as handlers get it and as ``received`` keeps it."""

from __future__ import annotations

import io
import weakref
from typing import TYPE_CHECKING

from ...errors import ServerStopped
from ...journal.facts import Address
from ...journal.record import Record
from ...pristine.waits import Clock
from .messages import Packet, SendTo

if TYPE_CHECKING:
    from ...dispatch.run import Run

MAX_DATAGRAM = 65507  # bytes over IPv4: 65535 less the headers of IP and UDP


class Datagram(Record):
    """A datagram. Two are equal if sender and bytes are."""

    _message: Packet

    def __init__(self, message: Packet, run: Run | None = None) -> None:
        self._run = None if run is None else weakref.ref(run)  # a record keeps no run alive
        self._message = message
        self._replied = 0  # bytes
        self.rfile = io.BytesIO(message.data)
        self.wfile = io.BytesIO()

    @property
    def connection_number(self) -> int:
        """Always 0: UDP has no connections."""
        return 0

    @property
    def packet(self) -> bytes:
        """The bytes that came."""
        return self._message.data

    @property
    def client_address(self) -> Address:
        """The sender's address; empty for a Unix socket that is not bound."""
        return self._message.peer

    @property
    def data(self) -> bytes:
        """The bytes that came; another name for ``packet``."""
        return self.packet

    def reply(self, data: bytes) -> None:
        """Send ``data`` to the sender at once.

        Raises ValueError if it is too large, if the sender has no address or if there was no
        handler; TypeError if it is not bytes; and ServerStopped after the server's stop.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a datagram must be bytes, not {type(data).__name__}: {data!r:.200}")
        size = memoryview(data).nbytes
        if size > MAX_DATAGRAM and not isinstance(self.client_address, str):
            raise ValueError(f"a datagram may have {MAX_DATAGRAM} bytes, not {size}")
        if not self.client_address:
            raise ValueError("the sender has no address to reply to; its socket must be bound")
        if self._run is None:
            raise ValueError("this datagram was recorded without a handler: nobody can reply")
        if (run := self._run()) is None:
            raise ServerStopped("the server of this datagram has stopped")
        self._replied += size
        self._answered = (Clock.monotonic(), None, self._replied)
        run.send(
            SendTo(listener=self._message.listener, address=self.client_address, data=bytes(data))
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Datagram):
            return NotImplemented
        return (self.packet, self.client_address) == (other.packet, other.client_address)

    def __hash__(self) -> int:
        return hash((self.packet, self.client_address))

    def __repr__(self) -> str:
        return f"<Datagram from {self.client_address}: {self.packet!r:.80}>"
