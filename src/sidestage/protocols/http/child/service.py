"""The HTTP service in the child."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....child.iteration import Iteration
from ....child.net.stream import Receiver
from ....child.service import Peer, Service
from ....wire.credit import Backpressure
from ....wire.messages import Configure, Declare, Draining, Hold, Reply, Withdraw
from ..messages import VOCABULARY, HTTPSettings
from .answerers import Handler, Recorder
from .exchange import Exchange
from .h1 import HTTPConnection

if TYPE_CHECKING:
    from .router import Router


class HTTPService(Service):
    """Listeners whose connections speak HTTP/1.1."""

    vocabulary = VOCABULARY
    clients_begin = True
    settings: HTTPSettings

    def __init__(self, iteration: Iteration, config: Configure, settings: HTTPSettings) -> None:
        super().__init__(iteration, config, settings)
        self.handler = Handler(self)  # answers while ``handled``
        self.recorder = Recorder(self)
        self.router: Router | None = None  # answers while the service is strict
        self._router: Router | None = None  # once there was an expectation

    def receiver(self) -> Receiver:
        return HTTPConnection(self)

    def plain_refusal(self, local: object) -> bytes:
        where = "https"
        if isinstance(local, tuple):
            host = f"[{local[0]}]" if ":" in local[0] else local[0]
            where = f"https://{host}:{local[1]}"
        body = f"400 Bad Request: this server speaks TLS, ask {where}\n".encode()
        return (
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)
        )

    @classmethod
    def preload(cls) -> None:
        _import_router()

    def expect(self, message: Declare | Reply | Hold | Withdraw) -> None:
        if self._router is None:
            self._router = _import_router()(self)
        self._router.command(message)
        self.router = self._router if self._router.strict else None

    def counts(self) -> list[tuple[int, int]]:
        return [] if self._router is None else self._router.table.counts()

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
        if self._router is not None and self._router.questions.are_open:
            self.send(Draining(waits=True))  # ask again: the parent did not know of these calls
            return
        # Connections that still wait for a response will get none.
        for peer in list(self.peers):
            if isinstance(peer, HTTPConnection):
                peer.abandon()


def _import_router() -> type[Router]:
    from .router import Router  # late: it takes as long as all else to import

    return Router


SERVICE = HTTPService
