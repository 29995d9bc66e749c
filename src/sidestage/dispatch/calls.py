"""One invocation of a handler, from the parent's side: what it is for, and what becomes of it.

Each protocol has its own kind of exchange; the run that owns them knows no protocols.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..wire.messages import Address, Event, Message


class Link(Protocol):
    """What an exchange needs of its run."""

    def send(self, *messages: Message) -> None:
        """Send to the child; raises ServerStopped when the run is over."""

    def recorded(self) -> None:
        """A record was made outside of an event: wake who waits for it."""


class Exchange:
    """A request and its answer; what a protocol does not need, it leaves as it is here."""

    request: Any
    call: int
    client_address: Address
    drained_by_child = True  # the child knows of it and waits for it when it drains

    def __init__(self, link: Link, call: int, client_address: Address) -> None:
        self.link = link
        self.call = call
        self.client_address = client_address

    def complete(self, result: object) -> None:
        """Answer with what the handler returned; raises TypeError if that is no answer."""
        raise AssertionError("each protocol has its own")

    def fail(self, error: BaseException) -> None:
        """Answer with the protocol's failure."""
        raise AssertionError("each protocol has its own")

    def event(self, message: Event) -> None:
        """An event on this call."""

    def stopping(self, error: Exception) -> None:
        """Wake a handler that waits for its client."""

    def broken(self, error: Exception) -> None:
        """The server is gone: every further I/O of the handler raises ``error``."""
        self.stopping(error)

    def describe(self) -> str:
        """The exchange as a person would name it."""
        return type(self.request).__name__


class ClientLeft(ConnectionResetError):
    """The client closed or reset its connection while the handler was still talking to it."""
