"""HTTP in the child: listeners whose connections speak HTTP/1.1."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from ....child.calls import Timeouts
from ....child.channel import Outbox
from ....child.net.stream import Receiver
from ....child.net.writes import Writes
from ....child.service import CallCommand, Service
from ....wire.messages import Close, Configure, OpenConnection
from .exchange import Exchange
from .h1 import HTTPConnection


class HTTPService(Service):
    """Listeners whose connections speak HTTP/1.1."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outbox: Outbox, config: Configure) -> None:
        super().__init__(loop, outbox, config)
        self.timeouts = Timeouts(loop, config.handler_timeout, self._exchanges)
        self.writes = Writes(loop)

    def receiver(self) -> Receiver:
        return HTTPConnection(self)

    def _exchanges(self) -> Iterable[Exchange]:
        return (target for target in self.calls.values() if isinstance(target, Exchange))

    def pass_ends(self) -> None:
        self.writes.begin_pass()

    async def drain(
        self, seconds: float, spare: int, announce: Callable[[], None]
    ) -> list[OpenConnection]:
        try:
            return await super().drain(seconds, spare, announce)
        finally:
            self.timeouts.close()

    def command(self, message: CallCommand) -> None:
        if isinstance(message, Close) and not message.call:
            # In a drain: no handler is at work any more, so nobody will answer what is open.
            for peer in list(self.peers):
                if isinstance(peer, HTTPConnection):
                    peer.abandon()
            return
        super().command(message)


SERVICE = HTTPService
