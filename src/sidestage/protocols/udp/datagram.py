"""A datagram as a handler has it, and the reply to its sender."""

from __future__ import annotations

import io
from typing import Any

from ...dispatch.calls import Exchange, Link
from ...errors import shown
from ...journal.facts import Address
from ...journal.journal import OVERHEAD, Records
from ...wire import messages as wire

MAX_DATAGRAM = 65507  # bytes over IPv4: 65535 less the headers of IP and UDP


class Datagram:
    """A datagram that came. Datagrams are equal when sender and bytes are."""

    def __init__(self, link: Link | None, message: wire.Packet) -> None:
        self._link = link
        self._message = message
        self.rfile = io.BytesIO(message.data)
        self.wfile = io.BytesIO()

    @property
    def packet(self) -> bytes:
        """The bytes."""
        return self._message.data

    @property
    def client_address(self) -> Address:
        """The sender; empty for a Unix socket that is not bound."""
        return self._message.peer

    @property
    def data(self) -> bytes:
        """The bytes; another name for ``packet``."""
        return self.packet

    def reply(self, data: bytes) -> None:
        """Send ``data`` to the sender, now.

        Raises ValueError if it is too large or the sender has no address, and TypeError for
        what is not bytes.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a datagram must be bytes, not {type(data).__name__}: {data!r:.200}")
        size = memoryview(data).nbytes
        if size > MAX_DATAGRAM and not isinstance(self.client_address, str):
            raise ValueError(f"a datagram may have {MAX_DATAGRAM} bytes, not {size}")
        if not self.client_address:
            raise ValueError("the sender has no address to reply to; its socket must be bound")
        if self._link is None:
            raise ValueError("this datagram was recorded without a handler: nobody can reply")
        self._link.send(
            wire.SendTo(
                listener=self._message.listener, address=self.client_address, data=bytes(data)
            )
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Datagram):
            return NotImplemented
        return (self.packet, self.client_address) == (other.packet, other.client_address)

    def __hash__(self) -> int:
        return hash((self.packet, self.client_address))

    def __repr__(self) -> str:
        return f"<Datagram from {self.client_address}: {self.packet!r:.80}>"


class UDPExchange(Exchange):
    """A datagram and what is replied to it."""

    drained_by_child = False

    request: Datagram

    def __init__(self, link: Link, call: int, request: Datagram) -> None:
        super().__init__(link, call, request.client_address)
        self.request = request

    def complete(self, result: object) -> None:
        replies: list[Any]
        if result is None:
            replies = []
        elif isinstance(result, (list, tuple)):
            replies = list(result)
        else:
            replies = [result]
        for reply in replies:
            if not isinstance(reply, (bytes, bytearray, memoryview)):
                raise TypeError(
                    "the handler of a UDP server may return None, bytes (one reply) or a list "
                    f"of bytes, not {type(result).__name__}: {shown(result)}"
                )
        if written := self.request.wfile.getvalue():
            self.request.reply(written)
        for reply in replies:
            self.request.reply(reply)

    def fail(self, error: BaseException) -> None:
        """UDP has no way to tell a client of a failure: it gets no reply."""

    def describe(self) -> str:
        return f"a datagram of {len(self.request.packet)} bytes"


def open_udp(
    link: Link, message: wire.Packet, records: Records[Datagram], keep: int
) -> Exchange | None:
    """Record a datagram; returns its exchange if a handler is to run."""
    datagram = Datagram(link if message.call else None, message)
    records.add(datagram, OVERHEAD + len(message.data))
    return UDPExchange(link, message.call, datagram) if message.call else None
