"""One HTTP exchange in the child: a request and its response, each with its state.

No I/O here, and no framing: ``h1`` frames what comes and goes, and an answerer answers. What may
follow what is in two tables. An event that comes too late changes nothing; one that cannot come is
an error.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ....wire.credit import CALL
from ....wire.messages import Address, Message, Met, Seen
from ....wire.values import printable
from ..messages import Request, Respond
from ..rules import Refusal

if TYPE_CHECKING:
    from ....wire.credit import Backpressure
    from .framing import OwnChunks, Ready
    from .head import Head
    from .repeats import Repeats


_MAX_LINE = 1000  # characters


class Asked(enum.IntEnum):
    """How much of the request has come."""

    HEAD = 0  # not all of its head
    BODY = 1
    DONE = 2


class Answered(enum.IntEnum):
    """How far the response is."""

    QUEUED = 0  # the request waits for its turn, or for its body
    PASSED = 1  # an answerer has the request
    HEAD_SENT = 2  # the body follows
    DONE = 3
    ABANDONED = 4  # nothing more will be sent


class Event(enum.IntEnum):
    """What happens to an exchange."""

    WHOLE = 0  # the head of a request without a body has come
    BEGUN = 1  # the head of one with a body
    PIECE = 2  # a piece of the body
    COMPLETE = 3  # the end of the body
    TURN = 4  # an answerer gets it
    INFORM = 5  # an informational response
    RESPOND = 6  # the whole response
    RESPOND_HEAD = 7  # its head, and the first piece of its body
    DATA = 8  # the next piece
    END = 9  # the end of the response's body
    REFUSE = 10  # the child answers with an error, in place of the answerer
    ABANDON = 11  # the client is gone, or the answerer gives up


# What every request passes has a name of its own: on 3.11, to look a member up in its class takes
# as long as all the rest of an event.
WHOLE, TURN = Event.WHOLE, Event.TURN
RESPOND, RESPOND_HEAD = Event.RESPOND, Event.RESPOND_HEAD
QUEUED, PASSED, ANSWERED_ALL = Answered.QUEUED, Answered.PASSED, Answered.DONE
ASKED_HEAD, ASKED_ALL = Asked.HEAD, Asked.DONE

ASKED: dict[tuple[Asked, Event], Asked] = {
    (Asked.HEAD, Event.WHOLE): Asked.DONE,
    (Asked.HEAD, Event.BEGUN): Asked.BODY,
    (Asked.BODY, Event.PIECE): Asked.BODY,
    (Asked.BODY, Event.COMPLETE): Asked.DONE,
}
ANSWERED: dict[tuple[Answered, Event], Answered] = {
    (Answered.QUEUED, Event.TURN): Answered.PASSED,
    (Answered.QUEUED, Event.REFUSE): Answered.DONE,
    (Answered.QUEUED, Event.ABANDON): Answered.ABANDONED,
    (Answered.PASSED, Event.INFORM): Answered.PASSED,
    (Answered.PASSED, Event.RESPOND): Answered.DONE,
    (Answered.PASSED, Event.RESPOND_HEAD): Answered.HEAD_SENT,
    (Answered.PASSED, Event.REFUSE): Answered.DONE,
    (Answered.PASSED, Event.ABANDON): Answered.ABANDONED,
    (Answered.HEAD_SENT, Event.DATA): Answered.HEAD_SENT,
    (Answered.HEAD_SENT, Event.END): Answered.DONE,
    (Answered.HEAD_SENT, Event.REFUSE): Answered.ABANDONED,  # too late to say so
    (Answered.HEAD_SENT, Event.ABANDON): Answered.ABANDONED,
}
# Answers that are under way when an exchange ends, and what can no longer be said before a head.
TOO_LATE: frozenset[tuple[Answered, Event]] = frozenset(
    {
        (Answered.HEAD_SENT, Event.INFORM),
        *(
            (state, event)
            for state in (Answered.DONE, Answered.ABANDONED)
            for event in Event
            if event > Event.TURN
        ),
    }
)


class IllegalEvent(AssertionError):
    """An event that cannot come in this state: a defect of the child or of the parent."""


class Framing(Protocol):
    """What frames the messages of an exchange: a connection of one version of HTTP."""

    COMMANDS: ClassVar[dict[type, Callable[[Any, Exchange, Any], None]]]  # what carries them out
    peer: Address
    tls: Seen | None
    number: int
    repeats: Repeats

    def local(self) -> Address:
        """The address that the client has connected to."""
        ...

    def respond(self, exchange: Exchange, response: Respond, made: Ready | None = None) -> None:
        """Send a response, or its beginning; ``made`` is the whole one, if it was encoded."""

    def timed_out(self, exchange: Exchange) -> None:
        """The answerer's time has ended."""

    def hold(self, wanted: bool) -> None:
        """Pause reading the request's body, or resume it."""

    def want_body(self, exchange: Exchange) -> None:
        """Have the client send the body, and read it, whatever the parent consumes."""

    def delayed(self) -> None:
        """The answer to the first exchange has come, and waits for its time."""


class Faulty(Protocol):
    """What sends the body of a response that goes wrong on purpose."""

    def write(self, data: bytes) -> None:
        """Take a piece of the body, as the handler gave it."""

    def end(self) -> None:
        """Take the end of the body."""

    def go_on(self) -> None:
        """The client takes more again."""

    def cancel(self) -> None:
        """Send nothing more: the connection ends."""

    def stage(self) -> str:
        """What it does, for messages to people."""
        ...


class Answerer(Protocol):
    """What answers requests: a handler in the test's process, or the child itself."""

    early: bool  # takes a request before its body has come, if that is large or slow
    calls: bool  # opens a call for each

    def take(self, exchange: Exchange) -> None:
        """Answer ``exchange`` by ``exchange.framing``, now or later."""

    def piece(self, exchange: Exchange, data: bytes | memoryview) -> None:
        """Take a piece of the body of a request that was taken early."""

    def complete(self, exchange: Exchange) -> None:
        """Take the end of that body."""

    def lose(
        self, exchange: Exchange, *, reset: bool, answered: tuple[int, int] | None = None
    ) -> None:
        """The exchange ended without its answer; ``answered`` is what the child has sent."""


class Gate(Protocol):
    """What the commands for an exchange come to before they are carried out."""

    stage: str  # what the exchange waits for, for messages to people
    told: bool  # the test's process knows the call, if there is one
    answer_begun: bool  # an answer has come, and waits
    answer_complete: bool  # all of it has

    def keeps(self, exchange: Exchange, message: Message) -> bool:
        """Take a command, or return ``False`` to have it carried out."""
        ...

    def cancel(self) -> None:
        """Keep nothing any more: the exchange has ended."""


class Exchange:
    """A request and its response, while they come in and go out; a call in ``child/calls.py``."""

    head: Head | None = None
    body: bytes | bytearray = b""
    stored = 0  # bytes of the body that count as unfinished
    size = 0  # bytes that the parent holds while its handler runs
    cut = 0  # bytes of the request's body that were received and not recorded
    trailers = b""  # of the request, as they came
    trailers_out = b""  # of the response, each with its line end
    early = False  # not to wait for the rest of the body
    continued = False  # whether the client that waits for 100 Continue was told to go on
    awaits = False  # the body is stored for the expectations, whatever its size is
    large = False  # it is too large for them, and they do without it
    met: Met | None = None  # what they have made of the request
    gate: Gate | None = None
    answerer: Answerer | None = None
    call = 0  # its id, if a handler answers
    flow: Backpressure | None = None  # if the bodies come in pieces
    since: float | None = None  # when an answerer got it
    due: float | None = None  # when the answerer's time ends, on the loop's clock
    timer: asyncio.TimerHandle | None = None  # until a slow body is taken as it comes
    patience: asyncio.TimerHandle | None = None  # until it is refused, as no handler is free
    keep_alive = True
    chunked = False  # the response's body
    bodiless = False  # the response has no body, whatever the handler writes
    tunnel = False  # a CONNECT that was answered 2xx
    half_closed = False  # the client ended before it was
    declared: int | None = None  # Content-Length of a streamed response, from the handler
    own_chunks: OwnChunks | None = None  # of a response in chunks that the handler makes
    mismatch = ""  # what the handler said of the framing that the response does not fit
    sent = 0  # bytes of the response's body
    refusal: Refusal | None = None
    faulty: Faulty | None = None  # what sends a response that goes wrong on purpose

    def __init__(self, framing: Framing) -> None:
        self.framing = framing
        self.asked = ASKED_HEAD
        self.answered = QUEUED

    def on(self, event: Event) -> bool:
        """Move as the tables say; returns ``False``, and does nothing, if it is too late for that.

        Raises IllegalEvent.
        """
        if event < TURN:
            asked = ASKED.get((self.asked, event))
            if asked is not None:
                self.asked = asked
                return True
        elif self.asked is not ASKED_HEAD or event is Event.REFUSE or event is Event.ABANDON:
            answered = ANSWERED.get((self.answered, event))
            if answered is not None:
                self.answered = answered
                return True
            if (self.answered, event) in TOO_LATE:
                return False
        raise IllegalEvent(f"{event.name} when {self.asked.name} and {self.answered.name}")

    @property
    def received(self) -> bool:
        """Whether the whole request has come."""
        return self.asked is ASKED_ALL

    @property
    def ended(self) -> bool:
        """Whether nothing more will be sent."""
        return self.answered >= ANSWERED_ALL

    @property
    def is_old(self) -> bool:
        """Whether the client speaks HTTP/1.0."""
        return self.head is not None and self.head.http_version == "1.0"

    # As a call -----------------------------------------------------------------------------------

    def command(self, message: Message) -> None:
        if self.gate is not None and self.gate.keeps(self, message):
            return
        self.framing.COMMANDS[type(message)](self.framing, self, message)

    def timed_out(self) -> None:
        self.framing.timed_out(self)

    def sized(self) -> Exchange:
        """Count what the parent holds for this while its handler runs."""
        assert self.head is not None
        self.size = CALL + self.head.size + len(self.body)
        return self

    # For messages --------------------------------------------------------------------------------

    def line(self) -> str:
        """Method and target, for messages to people."""
        if self.head is None:
            return "request"
        return printable(f"{self.head.method} {self.head.target}", _MAX_LINE)

    def request(self) -> Request:
        """The message to the parent."""
        head, framing = self.head, self.framing
        assert head is not None
        assert self.since is not None
        cut, body, more = self.cut, self.body, self.asked is not ASKED_ALL
        if more and not self.call:  # answered early: nobody takes the rest, of unknown size
            cut, more = cut + max(1, (head.length or 0) - len(body) - cut), False
        return Request(
            call=self.call,
            peer=framing.peer,
            at=self.since,
            connection=framing.number,
            method=head.method,
            target=head.target,
            http_version=head.http_version,
            fields=head.fields,
            body=body if type(body) is bytes else bytes(body),
            more=more,
            cut=cut,
            trailers=self.trailers,
            expects=head.expects,
            local=framing.local() if head.method == "CONNECT" else "",
            met=self.met,
            tls=framing.tls,
        )
