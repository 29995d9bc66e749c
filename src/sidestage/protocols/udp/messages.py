"""What UDP adds to the pipe."""

from __future__ import annotations

from ...wire.messages import Address, Message, Vocabulary


class UDPSettings(Message, frozen=True, kw_only=True):
    """A UDP server is what every server is."""


class SendTo(Message, frozen=True, kw_only=True, tag=80):
    """A datagram to send from the ``listener``-th socket."""

    listener: int
    address: Address
    data: bytes


class Packet(Message, frozen=True, kw_only=True, tag=81):
    """A datagram came; ``call`` 0 is a record."""

    call: int
    listener: int
    peer: Address
    at: float  # seconds on the monotonic clock
    data: bytes


VOCABULARY = Vocabulary(settings=UDPSettings, commands=(SendTo,), events=(Packet,))
