"""The settings and messages of UDP, which both processes know."""

from __future__ import annotations

from ...wire.messages import Address, Message, Vocabulary


class UDPSettings(Message, frozen=True, kw_only=True):
    """A UDP server has only the settings of every server."""


class SendTo(Message, frozen=True, kw_only=True, tag=80):
    """Send a datagram from the socket with index ``listener``."""

    listener: int
    address: Address
    data: bytes


class Packet(Message, frozen=True, kw_only=True, tag=81):
    """A datagram has come. With ``call`` 0 it is only recorded."""

    call: int
    listener: int
    peer: Address
    at: float  # seconds on the monotonic clock
    data: bytes


VOCABULARY = Vocabulary(settings=UDPSettings, commands=(SendTo,), events=(Packet,))
