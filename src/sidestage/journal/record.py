"""What a request, mail or datagram knows as a record: when it came, and its answer."""

# No ``from __future__ import annotations``: NamedTuple compiles annotations that are text, which
# took a tenth of a millisecond of each import.
import threading
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..pristine.imports import importing_once
from ..pristine.waits import Clock, Event

if TYPE_CHECKING:
    from .causes import Cause
    from .secured import TLSDetails


class Answer(NamedTuple):
    """How a request was answered.

    ``status`` is the HTTP status or the code of the SMTP reply; ``None`` for other protocols, and
    where a fault has taken the place of a response. ``size`` is the number of bytes in the
    response's body, in the reply, or of everything sent. ``seconds`` is the time from the request
    to the answer. ``fault`` is what has gone wrong with it on purpose, such as
    ``reset after 50,000 bytes``; empty if nothing has.
    """

    at: float  # seconds on the monotonic clock
    status: int | None
    size: int  # bytes
    seconds: float
    fault: str = ""


class Shown(NamedTuple):
    """How a record is shown in a report: a line for what came, and lines for what it carried.

    ``answered`` is what was answered, where that is more than a status and a size; ``handled`` is
    whether a handler was called for it, ``None`` if the record does not know.
    """

    line: str
    details: tuple[str, ...] = ()
    answered: str | None = None
    handled: bool | None = None


def details_or_none(seen: Any) -> "TLSDetails | None":
    """What the child has ``Seen`` of a client's TLS, for users; ``None`` without TLS."""
    if seen is None:
        return None
    with importing_once():
        from .secured import details
    return details(seen)


def certificate_size(seen: Any) -> int:
    """The bytes of the certificate that a client has shown, which its record holds."""
    return 0 if seen is None else len(seen.client_certificate or b"")


class Record:
    """The base of a record that is made of one message of the child."""

    # Status and bytes of what the child answers without a handler; None where it is no answer.
    _plain_success: ClassVar[tuple[int, int] | None] = None

    _message: Any
    # Plain numbers: the collector does not have to visit them.
    _answered: tuple[float, int | None, int, str] | None = None  # when, status, bytes, fault
    _without_handler = False  # the child has answered, after the handler's time
    _cause: "Cause | None" = None  # what its handler has raised
    _entry = 0  # the number of the expectation that it has met; 0 is none
    _by = ""  # that expectation, as messages name it
    _pattern: Any = None  # what that has looked at: plain data
    _unexpected = False  # no expectation has taken it

    @property
    def received_at(self) -> float:
        """When it came, in seconds on the monotonic clock."""
        at: float = self._message.at
        return at

    @property
    def connection_number(self) -> int:
        """The number of its connection among those of this run of the server, from 1."""
        number: int = self._message.connection
        return number

    @property
    def answer(self) -> Answer | None:
        """How it was answered: status, size in bytes, time; ``None`` if it was not (yet)."""
        came: float = self._message.at
        if self._answered is not None:
            at, status, size, fault = self._answered
            return Answer(at=at, status=status, size=size, seconds=at - came, fault=fault)
        if self._plain_success is not None and not (self._message.call or self._entry):
            status, size = self._plain_success
            return Answer(at=came, status=status, size=size, seconds=0.0)
        return None

    @property
    def _is_open(self) -> bool:
        """Whether a handler may still answer it."""
        return self._answered is None and bool(self._message.call)

    def _shown(self) -> Shown:
        """How a report shows it; waits for nothing."""
        return Shown(repr(self))

    def _note_answer(
        self, status: int | None, size: int, fault: str = "", *, delay: float = 0.0
    ) -> None:
        """Note how it is answered now, or in ``delay`` seconds; what was noted first stays."""
        if self._answered is None:
            self._answered = (Clock.monotonic() + delay, status, size, fault)
            if self._cause is not None:
                self._cause.status = status

    def _note_cause(self, cause: "Cause") -> None:
        """Note what its handler has raised, which is to know what the client is told."""
        self._cause = cause
        if self._answered is not None:
            cause.status = self._answered[1]

    def _forget_answer(self) -> None:
        """Forget what was noted: it could not be sent."""
        self._answered = None


class ClientRecord(Record):
    """A record whose client waits for an answer, and may leave before it gets one."""

    _message: Any  # with what was agreed by TLS
    _gone = False
    _client_gone: Event | None = None  # once it is asked for

    @property
    def tls(self) -> "TLSDetails | None":
        """What was agreed with the client by TLS; ``None`` without TLS."""
        return details_or_none(self._message.tls)

    @property
    def client_gone(self) -> threading.Event:
        """Set when nobody is there any more to be answered.

        That is when the client has reset its connection, or a write to it has failed; when it got
        an error because the handler took too long; and at the stop of the server: at once if the
        client has stopped sending, else when the stop waits no longer. A client that has only
        stopped sending may still read, so while the server runs that does not set it.
        """
        event: Event = self.__dict__.setdefault("_client_gone", Event())
        if self._gone:  # looked at last, and set first: so neither side misses the other
            event.set()
        return event

    def _note_gone(self) -> None:
        """Note that the client is gone."""
        self._gone = True
        if (event := self._client_gone) is not None:
            event.set()
