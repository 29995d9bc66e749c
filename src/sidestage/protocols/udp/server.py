"""The UDP server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...server.names import closed
from ...server.server import Server

if TYPE_CHECKING:
    from .datagram import Datagram  # noqa: F401 - the base class's parameter


@closed
class UDPServer(Server["Datagram"]):
    """A UDP (or Unix datagram) server.

    The handler gets a :class:`Datagram`, and may return bytes or a list of bytes to reply.
    Bursts are recorded without loss up to the size of the kernel's receive buffer: the server asks
    for 8 MiB, and without privileges gets at most ``net.core.rmem_max``. A datagram over a Unix
    socket may have up to 1 MiB.
    """

    protocol = "udp"
    scheme = "udp"
