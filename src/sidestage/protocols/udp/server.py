"""The UDP server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from ...errors import shown
from ...server.names import closed
from ...server.server import KEEP, Server

if TYPE_CHECKING:
    from ...server.address import AddressLike
    from .datagram import Datagram  # noqa: F401 - the base class's parameter


@closed
class UDPServer(Server["Datagram"]):
    """A UDP (or Unix datagram) server.

    The handler gets a :class:`Datagram`, and may return bytes or a list of bytes to reply.
    Bursts are recorded without loss up to the size of the kernel's receive buffer: the server asks
    for 8 MiB, and without privileges gets at most ``net.core.rmem_max``. A datagram over a Unix
    socket may have up to 1 MiB. It speaks no TLS: ``tls`` is there to say so.
    """

    protocol = "udp"
    scheme = "udp"

    # Over thirty lines: every option, a line each.
    def __init__(
        self,
        address: AddressLike = ("127.0.0.1", 0),
        handler: Callable[..., Any] | None = None,
        poll_interval: float = 0.5,
        *,
        tls: Literal[False] | None = None,
        name: str | None = None,
        handler_timeout: float | None = 30.0,
        start_timeout: float = 10.0,
        stop_timeout: float = 5.0,
        keep: int = KEEP,
        fresh: bool = False,
        backlog: int = 1024,
    ) -> None:
        if tls is not None and tls is not False:  # pyright: ignore[reportUnnecessaryComparison]
            raise TypeError(
                f"a UDPServer speaks no TLS, which needs a stream: leave out tls={shown(tls)}, or "
                "make a TCPServer; DTLS is not there"
            )
        super().__init__(
            address,
            handler,
            poll_interval,
            name=name,
            handler_timeout=handler_timeout,
            start_timeout=start_timeout,
            stop_timeout=stop_timeout,
            keep=keep,
            fresh=fresh,
            backlog=backlog,
        )
