"""The HTTP service in the child."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from ....child.calls import Timeouts
from ....child.channel import Outbox
from ....child.net.stream import Receiver, Writes
from ....child.service import Service
from ....wire.messages import Configure, OpenConnection
from ..messages import VOCABULARY, HTTPSettings
from .exchange import Exchange
from .h1 import HTTPConnection


class HTTPService(Service):
    """Listeners whose connections speak HTTP/1.1."""

    vocabulary = VOCABULARY
    settings: HTTPSettings

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        outbox: Outbox,
        config: Configure,
        settings: HTTPSettings,
    ) -> None:
        super().__init__(loop, outbox, config, settings)
        self.timeouts = Timeouts(loop, config.handler_timeout, self._exchanges)
        self.writes = Writes(loop)

    def receiver(self) -> Receiver:
        return HTTPConnection(self)

    def _exchanges(self) -> Iterable[Exchange]:
        return (call for call in self.calls if isinstance(call, Exchange))

    def iteration_ends(self) -> None:
        self.writes.begin_iteration()

    async def drain(
        self, seconds: float, caller: int, announce: Callable[[bool], None]
    ) -> list[OpenConnection]:
        try:
            return await super().drain(seconds, caller, announce)
        finally:
            self.timeouts.close()

    def idle(self) -> None:
        # Connections that still wait for a response will get none.
        for peer in list(self.peers):
            if isinstance(peer, HTTPConnection):
                peer.abandon()


SERVICE = HTTPService
