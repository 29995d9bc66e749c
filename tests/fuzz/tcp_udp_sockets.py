"""TCP and UDP servers over sockets: what comes back, and what is recorded, is what was sent."""

from __future__ import annotations

import random
import socket
from typing import Any

from fuzz.cases import Case, Fault, cut
from fuzz.sockets import WAIT, Sockets, connect, read_all, reset, send_all, sizes
from sidestage import TCPServer, UDPServer

_GOOD = b"a good one"
_MOST_BYTES = 200_000
_MOST_DATAGRAM = 65_507  # bytes; RFC 768, less the heads


def _echo(connection: Any) -> None:
    try:
        while data := connection.recv(1 << 16):
            connection.sendall(data)
    except ConnectionError:  # the client has reset
        return


def _first(connection: Any) -> bytes:
    """Answer the first piece, and leave the rest unread."""
    try:
        data: bytes = connection.recv(100)
    except ConnectionError:
        return b""
    return data


class TCPSockets(Sockets):
    """Random bytes, half-closed, closed and reset at any moment."""

    name = "tcp-sockets"
    what = "connections to a TCP server"
    kind = TCPServer
    handlers = (_echo, None, _first)

    def __init__(self) -> None:
        super().__init__()
        self._sent: list[bytes | None] = []  # None: it is not known how much has come

    def make(self, dice: random.Random) -> Case:
        size = sizes(dice, _MOST_BYTES if dice.random() < 0.1 else 2000)
        return Case((dice.randbytes(size),), dice.getrandbits(32))

    def begin_batch(self) -> None:
        super().begin_batch()
        self._sent = []

    def check(self, case: Case) -> None:
        dice, data = case.dice(), case.data
        resets = dice.random() < 0.15
        with connect(self.server) as client:
            whole = send_all(client, cut(data, dice))
            self._sent.append(data if whole and not resets else None)
            if resets:
                reset(client)
                return
            if whole and self.handler is not _first:
                client.shutdown(socket.SHUT_WR)
            self._compare_echo(
                read_all(client) if data or self.handler is not _first else b"", data
            )

    def _compare_echo(self, came: bytes, data: bytes) -> None:
        if self.handler is None and came:
            raise Fault(f"{came[:60]!r} came, without a handler")
        if self.handler is _echo and came != data:
            raise Fault(f"{len(data)} bytes were sent, {len(came)} came back, or others")
        if self.handler is _first and not data.startswith(came):
            raise Fault(f"{came[:60]!r} came back of {data[:60]!r}")
        self.seen["bytes"] += len(data)

    def ask(self) -> None:
        with connect(self.server) as client:
            client.sendall(_GOOD)
            client.shutdown(socket.SHUT_WR)
            came = read_all(client)
        if came != (b"" if self.handler is None else _GOOD):
            raise Fault(f"a good client got {came!r}")
        self._sent.append(_GOOD)

    def compare(self) -> None:
        self.server.wait_for(len(self._sent), timeout=WAIT)
        records = {record.connection_number: record for record in self.server.received}
        if len(records) != len(self._sent):
            raise Fault(f"{len(self._sent)} connections, {len(records)} records")
        for number, data in enumerate(self._sent, 1):
            if self.handler is not _first and data is not None and records[number].data != data:
                raise Fault(f"connection {number} is recorded with other bytes than it sent")


class UDPSockets(Sockets):
    """Datagrams of every size."""

    name = "udp-sockets"
    what = "datagrams to a UDP server"
    kind = UDPServer
    handlers = (lambda datagram: datagram.packet, None)

    def __init__(self) -> None:
        super().__init__()
        self._sent: list[bytes] = []
        self._client: Any = None

    def make(self, dice: random.Random) -> Case:
        size = sizes(dice, _MOST_DATAGRAM if dice.random() < 0.1 else 1500)
        return Case((dice.randbytes(size),), dice.getrandbits(32))

    def begin_batch(self) -> None:
        super().begin_batch()
        self._sent = []
        self._client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._client.settimeout(WAIT)

    def check(self, case: Case) -> None:
        self._send(case.data)

    def _send(self, data: bytes) -> None:
        self._client.sendto(data, self.server.server_address)
        self._sent.append(data)
        if self.handler is None:
            self.server.wait_for(len(self._sent), timeout=WAIT)  # or the kernel may drop some
            return
        try:
            came = self._client.recv(1 << 16)
        except TimeoutError:
            raise Fault(f"no reply to a datagram of {len(data)} bytes") from None
        if came != data:
            raise Fault(f"another reply than the datagram of {len(data)} bytes")

    def ask(self) -> None:
        self._send(_GOOD)
        self._client.close()

    def compare(self) -> None:
        self.server.wait_for(len(self._sent), timeout=WAIT)
        if [record.packet for record in self.server.received] != self._sent:
            raise Fault("the records are not what was sent")
