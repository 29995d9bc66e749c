"""A call of a UDP server's handler: a datagram in, any number of replies out."""

from __future__ import annotations

from typing import Any

from ...dispatch.calls import Call, Protocol
from ...dispatch.refused import Refused
from ...dispatch.run import Run
from ...errors import shown
from ...journal.journal import OVERHEAD, Journal
from ...wire.credit import LEAST_ROOM
from ...wire.values import is_buffer
from .datagram import Datagram
from .messages import VOCABULARY, Packet

_AT_ONCE = 512  # handlers; nothing but memory limits how many datagrams may come


class UDPCall(Call):
    """A datagram and its replies."""

    known_to_child = False
    request: Datagram

    def __init__(self, run: Run, message: Packet, request: Datagram, size: int) -> None:
        self.run = run
        self.id = message.call
        self.client_address = message.peer
        self.request = request
        self.holds = size

    def complete(self, result: object) -> None:
        replies: list[Any]
        checked: list[memoryview] = []
        if result is None:
            replies = []
        elif isinstance(result, (list, tuple)):
            replies = list(result)
        else:
            replies = [result]
        try:  # all are checked before the first is sent
            for reply in replies:
                if not is_buffer(reply):
                    raise TypeError(
                        "the handler of a UDP server may return None, bytes (one reply) or a list "
                        f"of bytes, not {type(result).__name__}: {shown(result)}"
                    )
                checked.append(self.request._check_reply(reply))
        except (TypeError, ValueError) as error:
            raise Refused(error, result) from None
        if written := self.request._written():
            checked.insert(0, self.request._check_reply(written))
        for view in checked:
            self.request._send(view)
        self.request._note_answer(None, 0)

    def fail(self, error: BaseException) -> None:
        """Send nothing: UDP has no way to report a failure."""

    def describe(self) -> str:
        return f"a datagram of {len(self.request.packet)} bytes"


def open_call(run: Run, message: Packet, journal: Journal[Any]) -> UDPCall | None:
    """Record a datagram; returns its call if a handler is to run.

    Drop it if those whose handlers have not returned have taken all the room.
    """
    size = OVERHEAD + len(message.data)
    if not message.call:
        journal.received(Datagram(message), size)
        return None
    if not run.hold(size, max(journal.keep, LEAST_ROOM)):
        run.drop_request("datagrams wait for handlers: new ones are dropped")
        return None
    datagram = Datagram(message, run)
    journal.received(datagram, size)
    return UDPCall(run, message, datagram, size)


PROTOCOL = Protocol(VOCABULARY, open_call, at_once=_AT_ONCE)
