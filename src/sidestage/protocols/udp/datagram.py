"""A datagram, as handlers get it and as ``received`` keeps it."""

from __future__ import annotations

import io
import weakref
from functools import cached_property
from typing import TYPE_CHECKING

from ...errors import ServerStopped
from ...journal.facts import Address
from ...journal.record import Record, Shown
from ...pristine.imports import importing_once
from ...pristine.waits import Clock
from ...wire.values import buffer
from .messages import Packet, SendTo

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from ...dispatch.run import Run

MAX_DATAGRAM = 65507  # bytes over IPv4: 65535 less the headers of IP and UDP
MAX_IPV6_DATAGRAM = 65527  # bytes: 65535 less the header of UDP (RFC 8200 3, RFC 768)
MAX_UNIX_DATAGRAM = 1 << 20  # bytes; the server's SO_SNDBUF limits it too


class _Reply(io.BytesIO):
    """Takes all bytes-like objects, also those that are not contiguous."""

    def write(self, data: ReadableBuffer, /) -> int:
        return super().write(buffer("what is written", data))


class Datagram(Record):
    """A datagram. Two are equal if sender and bytes are."""

    _message: Packet

    def __init__(self, message: Packet, run: Run | None = None) -> None:
        self._run = None if run is None else weakref.ref(run)  # a record keeps no run alive
        self._message = message
        self._replied = 0  # bytes

    # Made when they are first asked for: few handlers do, and records do without them.
    @cached_property
    def rfile(self) -> io.BytesIO:
        """The bytes that came, as a binary file."""
        return io.BytesIO(self._message.data)

    @cached_property
    def wfile(self) -> io.BytesIO:
        """A binary file: what a handler writes to it is one reply, sent when it returns."""
        return _Reply()

    def _written(self) -> bytes:
        """What the handler has written to ``wfile``."""
        return self.wfile.getvalue() if "wfile" in self.__dict__ else b""

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

    def reply(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data`` to the sender at once.

        Raises ValueError if it is too large, if the sender has no address or if there was no
        handler; TypeError if it is no bytes-like object; and ServerStopped after the server's stop.
        """
        self._send(self._check_reply(data))

    def _send(self, view: memoryview) -> None:
        """Send a reply that was checked."""
        if self._run is None:
            raise ValueError("this datagram was recorded without a handler: nobody can reply")
        if (run := self._run()) is None:
            raise ServerStopped("the server of this datagram has stopped")
        self._replied += len(view)
        self._answered = (Clock.monotonic(), None, self._replied, "")
        run.send(
            SendTo(listener=self._message.listener, address=self._message.peer, data=bytes(view))
        )

    def _check_reply(self, data: object) -> memoryview:
        """The bytes of a reply; raises TypeError or ValueError as ``reply`` does."""
        view, peer = buffer("a datagram", data), self._message.peer
        if isinstance(peer, str):
            most = MAX_UNIX_DATAGRAM
        else:
            most = MAX_DATAGRAM if len(peer) == 2 else MAX_IPV6_DATAGRAM
        if len(view) > most:
            raise ValueError(f"a datagram may have {most} bytes, not {len(view)}")
        if not peer:
            raise ValueError("the sender has no address to reply to; its socket must be bound")
        return view

    def _shown(self) -> Shown:
        with importing_once():
            from .shown import shown
        return shown(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Datagram):
            return NotImplemented
        return (self.packet, self.client_address) == (other.packet, other.client_address)

    def __hash__(self) -> int:
        return hash((self.packet, self.client_address))

    def __repr__(self) -> str:
        return f"<Datagram from {self.client_address}: {self.packet!r:.80}>"
