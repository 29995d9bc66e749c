"""UDP in the child: reads datagrams in batches, and sends replies from the same socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any

from ....child.calls import next_call_id
from ....child.iteration import Flag, Iteration
from ....child.net.listener import wire_address
from ....child.service import Service
from ....wire.credit import CALL, LEAST_ROOM
from ....wire.messages import Address, Configure, OpenConnection
from ..messages import VOCABULARY, Packet, SendTo, UDPSettings

_BATCH = 64  # datagrams read in one iteration of the loop
_MAX_DATAGRAM = 1 << 16  # bytes
_MAX_UNIX_DATAGRAM = 1 << 20  # bytes; the sender's SO_SNDBUF, by default 208 KiB, limits it too
_RETRY_SECONDS = 0.005
_UNSENT = 1 << 20  # bytes of replies that may wait for one client, which does not read


class _Unsent:
    """The replies that wait to be sent from one socket, a bounded number for each client."""

    def __init__(self) -> None:
        self.waiting: deque[SendTo] = deque()
        self.dropped = 0  # since none waited
        self._sizes: Counter[Address] = Counter()  # bytes, by client
        self._size = 0  # bytes in all

    def add(self, message: SendTo) -> bool:
        """Have a reply wait; returns ``False`` if it is dropped."""
        size = CALL + len(message.data)
        if self._sizes[message.address] + size > _UNSENT or self._size > LEAST_ROOM:
            self.dropped += 1
            return False
        self._sizes[message.address] += size
        self._size += size
        self.waiting.append(message)
        return True

    def take(self) -> SendTo:
        """Take the next one."""
        message = self.waiting.popleft()
        size = CALL + len(message.data)
        self._sizes[message.address] -= size
        self._size -= size
        if not self.waiting:
            self._sizes.clear()
        return message


class UDPService(Service):
    """Sends each datagram to the parent, as a call or as a record."""

    vocabulary = VOCABULARY
    settings: UDPSettings
    socket_kind = socket.SOCK_DGRAM

    def __init__(self, iteration: Iteration, config: Configure, settings: UDPSettings) -> None:
        super().__init__(iteration, config, settings)
        self._sockets: list[socket.socket] = []
        self._unsent: list[_Unsent] = []
        self._calls = 0
        self._replied = Flag()
        self._sent = Flag()
        self._size = _MAX_DATAGRAM if config.path is None else _MAX_UNIX_DATAGRAM

    def serve(self, sockets: list[socket.socket]) -> None:
        for index, sock in enumerate(sockets):
            self._sockets.append(sock)
            self._unsent.append(_Unsent())
            self.iteration.add_reader(sock.fileno(), partial(self._read, index))

    def _read(self, index: int) -> bool:
        """Read a batch of datagrams; returns whether there may be more."""
        receive, now = self._sockets[index].recvfrom, self.loop.time
        batch: list[tuple[float, bytes, object]] = []
        try:
            for _ in range(_BATCH):
                data, peer = receive(self._size)
                batch.append((now(), data, peer))
        except BlockingIOError:
            return False
        except OSError as error:  # the ICMP error for an earlier reply
            self.diagnose("", f"a datagram could not be delivered: {os.strerror(error.errno or 0)}")
            return False
        finally:
            if batch:
                self.iteration.taken += len(batch)
                self.iteration.received.append((self._take, (index, batch)))
        return True

    def _take(self, received: tuple[int, list[tuple[float, bytes, object]]]) -> None:
        """Pass a batch on, as calls or as records."""
        index, batch = received
        record, handled = self.outbox.record, self.handled
        for at, data, peer in batch:
            call = next_call_id() if handled else 0
            record(Packet(call=call, listener=index, peer=wire_address(peer), at=at, data=data))
        self._calls += handled * len(batch)

    def idle(self) -> None:
        self._replied.set()

    def command(self, message: Any) -> None:
        if isinstance(message, SendTo) and message.listener < len(self._sockets):
            unsent = self._unsent[message.listener]
            begins = not unsent.waiting
            if begins and self._send_to(self._sockets[message.listener], message):
                return  # as mostly
            if unsent.add(message):
                if begins:
                    self._write_later(message.listener)
            elif unsent.dropped == 1:
                text = "replies wait for this client, which does not read: new ones are dropped"
                self.diagnose(message.address, text)

    def _write(self, index: int) -> None:
        if not self._sockets:
            return
        sock, unsent = self._sockets[index], self._unsent[index]
        kept: list[SendTo] = []
        full: set[Address] = set()  # clients that take no more; the others need not wait for them
        while unsent.waiting:
            message = unsent.take()
            if message.address in full or not self._send_to(sock, message):
                full.add(message.address)
                kept.append(message)
        for message in kept:
            unsent.add(message)
        if kept:
            self._write_later(index)
            return
        if unsent.dropped:
            self.diagnose("", f"{unsent.dropped} replies were dropped: their clients did not read")
            unsent.dropped = 0
        self.loop.remove_writer(sock)
        self._sent.set()

    def _send_to(self, sock: socket.socket, message: SendTo) -> bool:
        """Send a reply; returns ``False`` if that would block."""
        try:
            sock.sendto(message.data, _socket_address(message.address))
        except BlockingIOError:
            return False
        except OSError as error:
            self.diagnose(message.address, f"a reply could not be sent: {error.strerror}")
        return True

    def _write_later(self, index: int) -> None:
        if self.config.path is None:
            self.loop.add_writer(self._sockets[index], self._write, index)
        else:  # the client's queue is full, and nothing reports when it has space
            self.loop.call_later(_RETRY_SECONDS, self._write, index)

    async def drain(
        self, seconds: float, caller: int, announce: Callable[[bool], None]
    ) -> list[OpenConnection]:
        end = self.loop.time() + seconds
        end_of_reading = self.loop.time() + seconds / 4  # a client may send without end
        for index in range(len(self._sockets)):
            while self._read(index) and self.loop.time() < end_of_reading:  # noqa: ASYNC110 - yields, waits for nothing
                await asyncio.sleep(0)
            self.iteration.act_now()
            self.iteration.remove_reader(self._sockets[index].fileno())
        # Handlers may still reply; the parent reports when the last has returned. A handler that
        # stops its own server cannot return before the stop, so do not wait then.
        waits = self._calls > self.finished and not caller
        announce(waits)
        if waits:
            await self._replied.wait(end - self.loop.time())
            while not self._replied.is_set() and await self.calls.postpones():
                end = self.loop.time() + seconds
                await self._replied.wait(seconds)
        while any(unsent.waiting for unsent in self._unsent) and self.loop.time() < end:
            self._sent.clear()
            await self._sent.wait(end - self.loop.time())
        self.close_listeners()
        return []

    def close_listeners(self) -> None:
        self.remove_file()
        for sock in self._sockets:
            self.iteration.remove_reader(sock.fileno())
            self.loop.remove_writer(sock)
            sock.close()
        self._sockets.clear()


def _socket_address(address: Address) -> tuple[Any, ...] | str:
    return address if isinstance(address, str) else tuple(address)


SERVICE = UDPService
