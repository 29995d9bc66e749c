"""The journal of a server: what it received and what went wrong, in order, across all its runs.

It has the records and their answers, diagnostics, handlers' errors, log lines of the child and its
death. Beyond ``keep`` bytes the oldest entries are dropped and counted, except errors and deaths.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, Protocol, TypeVar

from ..errors import NotOneRecord, ServerDied, shown
from ..pristine.system import RLock
from ..pristine.waits import Clock
from .facts import Diagnostic
from .failures import MOST, Failures
from .frames import Place, trimmed

if TYPE_CHECKING:
    from .causes import Cause
    from .record import Answer

OVERHEAD = 512  # bytes that each entry counts beyond its content, so that empty ones count too

OURS = "sidestage"  # in place of a client's address, where a diagnostic is of none

Kind = Literal["received", "answered", "diagnosed", "failed", "logged", "died"]


class RecordLike(Protocol):
    """What the records of all protocols have in common."""

    @property
    def received_at(self) -> float:
        """When it came, in seconds on the monotonic clock."""
        ...

    @property
    def connection_number(self) -> int:
        """The number of its connection in its run of the server, from 1; 0 if there is none."""
        ...

    @property
    def answer(self) -> Answer | None:
        """How it was answered; ``None`` if it was not (yet)."""
        ...


R = TypeVar("R")


Matching = Callable[..., Callable[[Any], bool]]  # from the fields wanted to a test of a record

SHOWN = 10  # records in a message


def by_address(client_address: Any = "*") -> Callable[[Any], bool]:
    """Whether a record came from ``client_address``: ``(host, port)``, or the path of a socket."""
    if isinstance(client_address, str):
        return lambda record: client_address in ("*", record.client_address)
    if not isinstance(client_address, (tuple, list)) or len(client_address) < 2:
        raise TypeError(f"a client's address is (host, port) or text, not {shown(client_address)}")
    host, port, *_ = client_address
    if host in ("0.0.0.0", "::"):  # noqa: S104 - what a UDP socket gives that nobody has bound
        return lambda record: record.client_address[1:2] == (port,)
    return lambda record: record.client_address[:2] == (host, port)


class Received(list[R]):
    """A snapshot of what was received, oldest first.

    ``dropped`` is the number of older records that were dropped beyond ``keep`` bytes.
    """

    dropped: int = 0
    _matching: Matching = staticmethod(by_address)

    @trimmed
    def of(self, *fields: Any, **named: Any) -> Received[R]:
        """Return the records with these fields; ``"*"`` is any value, as is a field not given.

        Of HTTP: ``of(method, path)``, where ``method`` may be a tuple of several. Of SMTP:
        ``of(mail_from, rcpt_to)``, the sender and one of the recipients. Of TCP and UDP:
        ``of(client_address)``. Raises TypeError for other fields, ValueError for what cannot be.
        """
        found: Received[R] = Received(filter(self._matching(*fields, **named), self))
        found.dropped, found._matching = self.dropped, self._matching
        return found

    @trimmed
    def one(self, *fields: Any, **named: Any) -> R:
        """Return the only record with these fields, as ``of`` takes them.

        Raises NotOneRecord, an AssertionError that lists what came, if there is none or another.
        """
        __tracebackhide__ = True
        found = self.of(*fields, **named)
        if len(found) == 1:
            return found[0]
        wanted = [*map(shown, fields), *(f"{name}={shown(value)}" for name, value in named.items())]
        what = f"of({', '.join(wanted)})"
        gone = f" ({self.dropped:,} older ones were dropped)" if self.dropped else ""
        if found:
            text = f"{len(found):,} records are {what}, not one{gone}:{listed(found)}"
        else:
            text = f"no record is {what}{gone}, among {len(self):,}:{listed(self)}"
        raise NotOneRecord(text, found=tuple(found), received=tuple(self))

    def clear(self) -> NoReturn:
        """Raise TypeError: this is a snapshot, and the server would keep what it has."""
        raise TypeError(
            "received is a snapshot: to clear it leaves the server with all that it has; "
            "server.clear() forgets what came, and server.during() sees only what comes"
        )

    if not TYPE_CHECKING:  # they report an ``await`` of a list by themselves

        def __await__(self) -> NoReturn:
            raise TypeError(
                "what was received is here already and cannot be awaited: wait_for blocks until "
                "it has come; in a coroutine, write `await server.wait_for_async(1)`"
            )


def listed(records: list[Any]) -> str:
    """The last of ``records``, a line each, and how many more there are."""
    last = [one if isinstance(one, str) else shown(one) for one in records[-SHOWN:]]
    lines = [f"  {record:.200}" for record in last]
    if more := len(records) - len(lines):
        lines.insert(0, f"  {more:,} more, and then")
    return "".join(f"\n{line}" for line in lines) or " nothing"


class Entry:
    """One entry of the journal."""

    __slots__ = ("at", "connection", "kind", "value")

    def __init__(self, at: float, kind: Kind, connection: int, value: Any) -> None:
        self.at = at  # seconds on the monotonic clock
        self.kind = kind
        self.connection = connection  # its number in its run; 0 if there is none
        self.value = value  # a record (received, answered), a Diagnostic, an exception, or text


class Journal(Generic[R]):
    """The journal of one server."""

    # Here, because most of these are never set in the short life of a test's server.
    dropped = 0  # records
    cleared = 0  # records that came before ``clear``
    diagnostics_dropped = 0
    _size = 0  # bytes, of records and notes, and what is held
    _held = 0  # bytes, of records that are not complete

    def __init__(self, keep: int, matching: Matching = by_address) -> None:
        self.keep = keep  # bytes
        self._matching = matching
        self.failures = Failures()
        self._records: deque[Any] = deque()
        self._sizes: deque[int] = deque()  # bytes, of each record
        self._notes: deque[Entry] = deque()
        self._lasting: list[Entry] = []  # errors, deaths and diagnostics of ours
        self._guard = RLock()  # handlers' threads let records grow while others are added

    # Writing -----------------------------------------------------------------------------------

    def received(self, record: R, size: int) -> None:
        """Keep ``record``, which counts as ``size`` bytes."""
        with self._guard:
            self._records.append(record)
            self._sizes.append(size)
            self._size += size
            if self._size > self.keep:
                self._trim()

    def hold(self, size: int) -> int:
        """Count up to ``size`` bytes of a record that is not complete; returns how many fit.

        Such records have ``keep`` bytes together, each until ``settle`` or ``let_go``.
        """
        with self._guard:
            room = self.keep - self._held
            taken = size if size <= room else room  # ``min`` takes as long as all of this
            self._held += taken
            self._size += taken
            if self._size > self.keep:
                self._trim()
        return taken

    def let_go(self, size: int) -> None:
        """No longer count ``size`` bytes that were held."""
        with self._guard:
            self._held -= size
            self._size -= size

    def settle(self, record: R, held: int, more: int = 0) -> None:
        """``record`` is complete: count ``held`` bytes, and ``more``, as its own if it is kept."""
        with self._guard:
            self._held -= held
            self._size -= held
            for at in reversed(range(len(self._records))):
                if self._records[at] is record:
                    self._sizes[at] += held + more
                    self._size += held + more
                    break
            self._trim()

    def diagnosed(self, diagnostic: Diagnostic, *, at: float = 0.0, connection: int = 0) -> None:
        """Keep a diagnostic; ``at`` is its time on the monotonic clock, by default now.

        One of a limit of ours lasts, since what it tells of may well fill the journal.
        """
        entry = Entry(at or Clock.monotonic(), "diagnosed", connection, diagnostic)
        if diagnostic.client_address == OURS:
            self._keep_lasting(entry)
        else:
            self._note(entry)

    def logged(self, text: str, *, at: float = 0.0) -> None:
        """Keep a line that the server's process has logged."""
        self._note(Entry(at or Clock.monotonic(), "logged", 0, text))

    def failed(
        self,
        error: BaseException,
        why: str = "",
        *,
        connection: int = 0,
        came: float = 0.0,
        place: Place | None = None,
    ) -> Cause | None:
        """Keep an error that a handler has raised, and note ``why`` on it.

        ``came`` is when its request came, on the monotonic clock, by default now; ``place`` is
        where the handler is. Returns ``None`` if there is no room for it.
        """
        if (cause := self.failures.add(error, why, came, place)) is not None:
            self._keep_lasting(Entry(Clock.monotonic(), "failed", connection, error))
        return cause

    def _keep_lasting(self, entry: Entry) -> None:
        with self._guard:
            self._lasting.append(entry)
            if len(self._lasting) > MOST:
                del self._lasting[0]

    def died(self, death: ServerDied) -> None:
        """Keep the news that the server's process has ended on its own."""
        self._keep_lasting(Entry(Clock.monotonic(), "died", 0, death))
        self.failures.death = death

    def dropped_elsewhere(self, count: int, diagnostics: int = 0) -> None:
        """Count records and diagnostics that were dropped before they came here."""
        with self._guard:
            self.dropped += count
            self.diagnostics_dropped += diagnostics

    def _note(self, entry: Entry) -> None:
        with self._guard:
            self._notes.append(entry)
            self._size += _size_of(entry)
            self._trim()

    def _trim(self) -> None:
        while self._size > self.keep and len(self._records) + len(self._notes) > 1:
            if self._notes and (
                len(self._records) < 2 or self._notes[0].at <= self._records[0].received_at
            ):
                note = self._notes.popleft()
                self._size -= _size_of(note)
                self.diagnostics_dropped += note.kind == "diagnosed"
            else:
                self._records.popleft()
                self._size -= self._sizes.popleft()
                self.dropped += 1

    def clear(self) -> int:
        """Forget everything but a death; returns how many errors were never raised.

        What is held of records that are not complete goes on counting.
        """
        with self._guard:
            self.cleared += self.total
            self.dropped = self.diagnostics_dropped = 0
            self._records.clear()
            self._sizes.clear()
            self._notes.clear()
            self._lasting = [entry for entry in self._lasting if entry.kind == "died"]
            self._size = self._held
            return self.failures.clear()

    def set_keep(self, keep: int) -> None:
        """Keep as many bytes from now on."""
        with self._guard:
            self.keep = keep
            self._trim()

    # Reading -----------------------------------------------------------------------------------

    @property
    def total(self) -> int:
        """The number of records, including those that were dropped."""
        return len(self._records) + self.dropped

    @property
    def position(self) -> int:
        """The number of all records that ever came: where the next one will be."""
        return self.cleared + self.total

    def records(self, since: int = 0) -> Received[R]:
        """Return a snapshot of the records that are kept, from the position ``since`` on."""
        with self._guard:
            records = self._records.copy()
            came = self.position - max(since, self.cleared)
        received = self.selection(records)
        if came < len(records):
            del received[: len(records) - max(came, 0)]
        received.dropped = max(0, came - len(records))
        return received

    def selection(self, records: Iterable[R]) -> Received[R]:
        """Return ``records`` as a snapshot in which none is missing."""
        received: Received[R] = Received(records)
        received._matching = self._matching
        return received

    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """Return the diagnostics that are kept; if some are not, the first one says how many."""
        notes = [note for note in self._notes.copy() if note.kind == "diagnosed"]
        if lasting := [entry for entry in self._lasting if entry.kind == "diagnosed"]:
            notes = sorted([*notes, *lasting], key=lambda note: note.at)
        kept = tuple(note.value for note in notes)
        if not self.diagnostics_dropped:
            return kept
        text = f"{self.diagnostics_dropped} older diagnostics dropped, to keep {self.keep} bytes"
        return (Diagnostic(client_address=OURS, text=text), *kept)

    def began(self) -> float | None:
        """The time of the first entry that is kept; ``None`` if there is none."""
        record, note, lasting = map(_first, (self._records, self._notes, self._lasting))
        firsts = [entry.at for entry in (note, lasting) if entry is not None]
        if record is not None:
            firsts.append(record.received_at)
        return min(firsts, default=None)

    def latest(self, most: int | None) -> tuple[list[Entry], int]:
        """The last ``most`` entries in order of time, and how many there are before them.

        A record is one entry here, at the time when it came. It takes no lock, and as long however
        much there is.
        """
        kept = (self._records, self._notes, self._lasting)
        total = sum(map(len, kept)) + self.dropped + self.diagnostics_dropped
        records, notes, lasting = (_last(entries, most) for entries in kept)
        found = [*_came(records), *notes, *lasting]
        found.sort(key=lambda entry: entry.at)
        shown = _last(found, most)
        return shown, max(0, total - len(shown))

    def entries(self) -> list[Entry]:
        """Return everything that is kept, in order of time."""
        with self._guard:
            records, notes = list(self._records), list(self._notes)
        entries = [*_came(records), *_answered(records), *notes, *self._lasting]
        return sorted(entries, key=lambda entry: entry.at)


def _size_of(note: Entry) -> int:
    text = note.value if isinstance(note.value, str) else note.value.text
    return OVERHEAD + len(text)


def _first(items: Sequence[Any]) -> Any:
    """The first of ``items``; ``None`` if there is none, or none any more."""
    try:
        return items[0]
    except IndexError:
        return None


def _last(items: Any, most: int | None) -> list[Any]:
    """The last ``most`` of ``items``, in order; others may be added by another thread meanwhile."""
    if most is None:
        return list(items.copy())
    while True:
        with contextlib.suppress(RuntimeError):  # changed meanwhile: in C, which is rare
            last = list(itertools.islice(reversed(items), most))
            last.reverse()
            return last


def _came(records: list[RecordLike]) -> Iterator[Entry]:
    for record in records:
        yield Entry(record.received_at, "received", record.connection_number, record)


def _answered(records: list[RecordLike]) -> Iterator[Entry]:
    for record in records:
        if record.answer is not None:
            yield Entry(record.answer.at, "answered", record.connection_number, record)
