"""What answers HTTP requests: the handler in the test's process, or the child by itself.

What expectations answer is in ``turns``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....wire.messages import End
from ..messages import Respond, Trailers
from .exchange import ASKED_ALL, Exchange
from .framing import ready
from .head import LONG

if TYPE_CHECKING:
    from ....wire.credit import Backpressure
    from .service import HTTPService


def plain(status: int, reason: str, text: str = "") -> Respond:
    """A response that the child sends by itself; its body is ``text``, or else says the status."""
    body = b"" if status == 200 else f"{text or f'{status} {reason}'}\n".encode()
    headers = (("Content-Type", "text/plain; charset=utf-8"),) if body else ()
    return Respond(
        call=0,
        status=status,
        reason=reason,
        headers=headers,
        body=body,
        length=len(body),
        more=False,
    )


PLAIN_SUCCESS = plain(200, "OK")
_MADE_SUCCESS = ready("GET", PLAIN_SUCCESS)  # without a body it is that of a HEAD as well


class Handler:
    """Calls the handler in the test's process."""

    early = True
    calls = True

    def __init__(self, service: HTTPService) -> None:
        self._service = service

    def take(self, exchange: Exchange) -> None:
        exchange.call = self._service.calls.open(exchange.sized(), now=exchange.since)
        self.tell(exchange)

    def tell(self, exchange: Exchange) -> None:
        """Send the request of a call that is open."""
        head = exchange.head
        assert head is not None
        exchange.framing.repeats.tell(self._service.outbox, exchange, kept=True)
        if exchange.size > LONG:
            exchange.head = head.without_fields()
        if exchange.asked is not ASKED_ALL:
            self._flow(exchange).sent(len(exchange.body))
            exchange.body = b""

    def _flow(self, exchange: Exchange) -> Backpressure:
        return exchange.flow or self._service.new_flow(exchange)

    def piece(self, exchange: Exchange, data: bytes | memoryview) -> None:
        self._service.outbox.send_data(exchange.call, data)
        self._flow(exchange).sent(len(data))

    def complete(self, exchange: Exchange) -> None:
        if exchange.trailers:
            self._service.send(Trailers(call=exchange.call, fields=exchange.trailers))
        self._service.send(End(call=exchange.call))

    def lose(
        self, exchange: Exchange, *, reset: bool, answered: tuple[int, int] | None = None
    ) -> None:
        self._service.calls.lose(exchange.call, reset=reset, answered=answered)


class Recorder:
    """Records each request, and answers plain success."""

    early = False
    calls = False

    def __init__(self, service: HTTPService) -> None:
        self._service = service

    def take(self, exchange: Exchange) -> None:
        assert exchange.head is not None
        made = None if exchange.head.method == "CONNECT" else _MADE_SUCCESS
        exchange.framing.repeats.tell(self._service.outbox, exchange, kept=False)
        exchange.framing.respond(exchange, PLAIN_SUCCESS, made)

    def piece(self, exchange: Exchange, data: bytes | memoryview) -> None:
        """It takes nothing early."""

    def complete(self, exchange: Exchange) -> None:
        """It takes nothing early."""

    def lose(
        self, exchange: Exchange, *, reset: bool, answered: tuple[int, int] | None = None
    ) -> None:
        """There is no call."""
