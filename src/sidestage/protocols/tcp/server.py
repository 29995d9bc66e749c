"""The TCP server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...server.server import Server

if TYPE_CHECKING:
    from .connection import Transcript  # noqa: F401 - the base class's parameter


class TCPServer(Server["Transcript"]):
    """A TCP (or Unix stream) server.

    The handler gets a :class:`Connection`; the connection closes when it returns, after the
    bytes that it returned, if any, have gone out. ``received`` holds a :class:`Transcript` of
    each connection that has ended. Without a handler, a connection is read until the client
    ends it.
    """

    protocol = "tcp"
    scheme = "tcp"
