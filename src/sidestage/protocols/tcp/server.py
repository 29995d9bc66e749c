"""The TCP server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...server.names import closed
from ...server.securing import Secured

if TYPE_CHECKING:
    from .transcript import Transcript  # noqa: F401 - the base class's parameter


@closed
class TCPServer(Secured["Transcript"]):
    """A TCP (or Unix stream) server.

    The handler gets a :class:`Connection` and may return bytes to send last; the connection closes
    when it returns. ``received`` has a :class:`Transcript` of each connection that has ended.
    Without a handler, connections are read until the client ends them.
    ``tls`` has it speak TLS: ``True``, or a :class:`TLS`.
    """

    protocol = "tcp"
    scheme = "tcp"
    secure_scheme = "tls"
