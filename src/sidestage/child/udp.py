"""UDP in the child: read as fast as they come, answered from the socket they came to."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from ..wire.messages import Address, Close, Configure, OpenConnection, Packet, SendTo
from .listen import wire_address
from .outbox import Outbox
from .service import CallCommand, Flag, Service, next_call_id

_BATCH = 64  # datagrams read before the loop looks at anything else
_MAX_DATAGRAM = 1 << 16  # bytes


class UDPService(Service):
    """Passes each datagram on, as a call or as a record."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outbox: Outbox, config: Configure) -> None:
        super().__init__(loop, outbox, config)
        self._sockets: list[socket.socket] = []
        self._unsent: list[deque[SendTo]] = []
        self._replied = Flag()

    async def serve(self, sockets: list[socket.socket]) -> None:
        for index, sock in enumerate(sockets):
            self._sockets.append(sock)
            self._unsent.append(deque())
            self.loop.add_reader(sock, self._read, index)

    def _read(self, index: int) -> bool:
        """Read a batch; returns whether the socket had that much."""
        packets: list[Packet] = []
        receive = self._sockets[index].recvfrom
        try:
            while len(packets) < _BATCH:
                data, peer = receive(_MAX_DATAGRAM)
                call = next_call_id() if self.handled else 0
                packets.append(
                    Packet(call=call, listener=index, peer=wire_address(peer), data=data)
                )
        except BlockingIOError:
            pass
        except OSError as error:  # an ICMP answer to something that was sent
            self.diagnose("", f"a datagram could not be delivered: {os.strerror(error.errno or 0)}")
        if packets:
            self.outbox.record(*packets)
        return len(packets) == _BATCH

    def command(self, message: CallCommand) -> None:
        if isinstance(message, Close):
            self._replied.set()
        elif isinstance(message, SendTo):
            unsent = self._unsent[message.listener]
            unsent.append(message)
            if len(unsent) == 1:
                self._write(message.listener)

    def _write(self, index: int) -> None:
        sock, unsent = self._sockets[index], self._unsent[index]
        while unsent:
            message = unsent[0]
            try:
                sock.sendto(message.data, _socket_address(message.address))
            except BlockingIOError:
                self.loop.add_writer(sock, self._write, index)
                return
            except OSError as error:
                self.diagnose(message.address, f"a reply could not be sent: {error.strerror}")
            unsent.popleft()
        self.loop.remove_writer(sock)

    async def drain(
        self, seconds: float, spare: int, announce: Callable[[], None]
    ) -> list[OpenConnection]:
        end_of_reading = self.loop.time() + seconds / 4  # a sender may go on without end
        for index in range(len(self._sockets)):
            while self._read(index) and self.loop.time() < end_of_reading:  # noqa: ASYNC110 - yields, waits for nothing
                await asyncio.sleep(0)
            self.loop.remove_reader(self._sockets[index])
        announce()
        if self.handled:  # handlers may still reply; the parent knows when the last has returned
            await self._replied.wait(seconds)
        self.close_listeners()
        return []

    def close_listeners(self) -> None:
        for sock in self._sockets:
            self.loop.remove_reader(sock)
            self.loop.remove_writer(sock)
            sock.close()
        self._sockets.clear()


def _socket_address(address: Address) -> tuple[Any, ...] | str:
    return address if isinstance(address, str) else tuple(address)
