"""The HTTP service in the child."""

from __future__ import annotations

from ....child.iteration import Iteration
from ....child.net.stream import Receiver
from ....child.service import Peer, Service
from ....wire.credit import Backpressure
from ....wire.messages import Configure
from ..messages import VOCABULARY, HTTPSettings
from .answerers import Handler, Recorder
from .exchange import Exchange
from .h1 import HTTPConnection


class HTTPService(Service):
    """Listeners whose connections speak HTTP/1.1."""

    vocabulary = VOCABULARY
    settings: HTTPSettings

    def __init__(self, iteration: Iteration, config: Configure, settings: HTTPSettings) -> None:
        super().__init__(iteration, config, settings)
        self.handler = Handler(self)  # answers while ``handled``
        self.recorder = Recorder(self)

    def receiver(self) -> Receiver:
        return HTTPConnection(self)

    def new_flow(self, exchange: Exchange, *, blocked: bool = False) -> Backpressure:
        """Count the bodies of an exchange from now on; most exchanges need no credit."""
        flow = exchange.flow = Backpressure(
            exchange.call, self.send, exchange.framing.hold, self.transit, blocked=blocked
        )
        return flow

    def read_on(self, peer: Peer) -> None:
        if isinstance(peer, HTTPConnection):
            peer.read_on()

    def idle(self) -> None:
        # Connections that still wait for a response will get none.
        for peer in list(self.peers):
            if isinstance(peer, HTTPConnection):
                peer.abandon()


SERVICE = HTTPService
