"""All expectations of one server: a child is told each change, in order, and everything at a start.

What is declared outlives a run. So each change has a position; a run notes up to which it has told
its child. The child counts, and its counts come back with each request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..dispatch.declared import NOTHING_KNOWN, AnswerNote
from ..errors import StateError
from ..journal import owners
from ..pristine import system
from ..pristine.waits import Clock
from ..wire.frames import MAX_MESSAGE
from ..wire.messages import Declare, Hold, Met, Reply, Withdraw
from .entry import Answer, Entry, Given, Spec, Terms, Times
from .held import HeldCall, Responses

if TYPE_CHECKING:
    from ..dispatch.calls import Call
    from ..dispatch.declared import Messages
    from ..wire.messages import Message


_ROOM = 1 << 16  # bytes of a message that are neither a reply nor a pattern
_WITHDRAWN = 100  # expectations that are known for calls under way when they were removed


class Replies(NamedTuple):
    """How a protocol takes what ``reply`` is given: result, status, headers, content type."""

    answer: Callable[[Any, Any, Any, Any], Given]
    response: Responses  # what a call's ``complete`` takes


class Table:
    """The expectations of a server, in the order in which they were declared."""

    def __init__(self, replies: Replies) -> None:
        self.replies = replies
        self.fails = True  # an unexpected request fails the test
        self.strict = False
        self.asks = False  # the test's process has, or had, a part in an answer
        self._order = (0, 0)  # the ``in_order`` that is open, and whose it is; 0 is none
        self._entries: dict[int, Entry] = {}
        self._numbers = 0  # that were given
        self._groups = 0
        self._held = 0  # calls so far
        self._log: list[Message] = []  # the last changes
        self._first = 0  # the position of the first of these
        self._withdrawn: dict[int, Entry] = {}  # in this run, which calls under way may name
        self._guard = system.RLock()

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def __contains__(self, entry: Entry) -> bool:
        return entry.spec.number in self._entries

    # Declaring -----------------------------------------------------------------------------------

    def declare(self, terms: Terms, times: Times, *, allow: bool, place: str) -> Entry:
        """Add an expectation; the server is strict from now on.

        Raises ValueError for one that is too large, or cannot be in an order.
        """
        _check_size("what it looks at", terms.matchers, "write where=...")
        with self._guard:
            group = self._group()
            if allow and group:
                raise ValueError(
                    "allow(...) is not in an order, as it need not be met: write it before "
                    "`with server.in_order():`, or expect(...)"
                )
            self._numbers = number = self._numbers + 1
            owner, began = owners.current(), Clock.monotonic()
            spec = Spec(number, allow, times, group, terms, place, owner, began)
            entry = self._entries[number] = Entry(spec)
            self.strict = True
            self.asks |= terms.test is not None
            self._log.append(_declaration(entry))
        return entry

    def add_answer(self, entry: Entry, answer: Answer, *, early: bool) -> None:
        """Add an answer; raises ValueError, StateError for one that would never be given."""
        if answer.given.encoded is not None:
            _check_size("the reply", answer.given.encoded, "pass a callable that returns it")
        with self._guard:
            self._check(entry)
            most = entry.spec.times.most
            if entry.holds:
                raise StateError(f"{entry.spec} is held: the test answers, so it has no reply")
            if most is not None and len(entry.answers) >= most:
                raise ValueError(
                    f"{entry.spec} is met {most} times at most, so answer "
                    f"{len(entry.answers) + 1} would never be given"
                )
            entry.answers.append(answer)
            entry.early |= early
            self.asks |= answer.call is not None
            self._log.append(_reply(entry, answer, early=early))

    def have_held(self, entry: Entry) -> None:
        """Have what meets an expectation wait for the test; raises StateError with an answer."""
        with self._guard:
            self._check(entry)
            if entry.answers:
                raise StateError(f"{entry.spec} has a reply already, so it cannot be held")
            if entry.spec.times.most == 0:
                raise ValueError(f"{entry.spec} is never to be met, so nothing would be held")
            if not entry.holds:
                entry.holds = self.asks = True
                self._log.append(Hold(entry=entry.spec.number))

    def _check(self, entry: Entry) -> None:
        if entry not in self:
            raise StateError(f"{entry.spec} was removed: declare it again")

    def remove(self, entries: Iterable[Entry], *, strict: bool = True) -> None:
        """Remove expectations; without ``strict``, the server is strict only if some are left."""
        with self._guard:
            removed = [entry for entry in entries if entry in self]
            for entry in removed:
                del self._entries[entry.spec.number]
                self._withdrawn[entry.spec.number] = entry
            for number in list(self._withdrawn)[:-_WITHDRAWN]:
                del self._withdrawn[number]
            was, self.strict = self.strict, self.strict and (strict or bool(self._entries))
            if removed or was is not self.strict:
                numbers = [entry.spec.number for entry in removed]
                self._log.append(Withdraw(entries=numbers, strict=self.strict))
        for entry in removed:  # nobody takes them any more
            for call in [held for held in entry.left if not held._taken]:
                call._let_go()

    def open_order(self) -> None:
        """Have what is declared from now on be met in order; raises StateError inside of one."""
        with self._guard:
            if self._order[0]:
                raise StateError("an in_order is open already: one is not in another")
            self._groups += 1
            self._order = (self._groups, system.caller_id())

    def close_order(self) -> None:
        """End the order."""
        self._order = (0, 0)

    def _group(self) -> int:
        """The order that the caller has opened; what others declare meanwhile is in none."""
        group, caller = self._order
        return group if caller == system.caller_id() else 0

    # For a run -----------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """The number of changes so far."""
        return self._first + len(self._log)

    def whole(self) -> Messages:
        """What says everything, to a run that begins."""
        with self._guard:
            self._first, self._log = self.position, []
            self._withdrawn.clear()
            messages: list[Message] = []
            for entry in self._entries.values():
                entry.before, entry.now = entry.count, 0
                messages.append(_declaration(entry))
                messages += [_reply(entry, one, early=entry.early) for one in entry.answers]
            if self.strict and not messages:
                messages.append(Withdraw(entries=[], strict=True))
            return messages, self._first

    def since(self, position: int) -> Messages:
        """What says the changes since ``position``; those before it are forgotten."""
        with self._guard:
            self.forget(position)
            return list(self._log), self.position

    def forget(self, position: int) -> None:
        """Forget the changes before ``position``: whoever asks again knows them."""
        with self._guard:
            if position > self._first:
                del self._log[: position - self._first]
                self._first = position

    def described(self, entry: int) -> tuple[str, Any]:
        """The expectation as messages name it, and what it looks at, as plain data."""
        found = self._find(entry)
        return ("", None) if found is None else (str(found.spec), found.spec.terms.pattern)

    def test_of(self, entry: int) -> Callable[[Any], object] | None:
        """Whether a request meets the parts that the test's process judges."""
        found = self._find(entry)
        return None if found is None else found.spec.terms.test

    def answer_of(self, met: Met) -> Callable[[Any], Any] | None:
        """What is to be called for the answer; ``None`` if the child has one."""
        answer = self._answer(met)
        return None if answer is None else answer.call

    def answer_note(self, met: Met) -> AnswerNote:
        """What is known of the answer that the child has."""
        answer = self._answer(met)
        return NOTHING_KNOWN if answer is None else AnswerNote(answer.delay, answer.given.fault)

    def _answer(self, met: Met) -> Answer | None:
        found = self._find(met.entry)
        return found.answers[met.reply] if found and met.reply < len(found.answers) else None

    def _find(self, entry: int) -> Entry | None:
        return self._entries.get(entry) or self._withdrawn.get(entry)

    def met(self, entry: int) -> None:
        """Count that an expectation was met."""
        if (found := self._find(entry)) is not None:
            found.now += 1

    def counted(self, counts: Iterable[tuple[int, int]]) -> None:
        """Take over how often expectations were met in this run so far."""
        for entry, times in counts:
            if (found := self._find(entry)) is not None:
                found.now = times

    def is_failure(self) -> bool:
        """Whether an unexpected request fails the test."""
        return self.fails

    # Held calls ----------------------------------------------------------------------------------

    def hold(self, entry: int, call: Call) -> bool:
        """Keep a call until the test answers it; ``False`` if its expectation was removed."""
        with self._guard:
            found = self._entries.get(entry)
            if found is None:  # so ``remove`` has let go of what was held before
                return False
            self._held += 1
            held: HeldCall[Any] = HeldCall(call, found, self.replies.response, self._held)
            for one in found.left.copy():
                if one._client_left:
                    one._done()
            found.left.append(held)
        return True

    def take(self, wanted: Callable[[HeldCall[Any]], bool]) -> HeldCall[Any] | None:
        """The first call that waits and is ``wanted``; it is taken then."""
        with self._guard:
            held = next(self._waiting(wanted), None)
            if held is not None:
                held._taken = True
            return held

    def put_back(self, held: HeldCall[Any]) -> None:
        """Have it wait again: nobody has got it."""
        with self._guard:
            held._taken = False

    def has_waiting(self, wanted: Callable[[HeldCall[Any]], bool]) -> bool:
        """Whether ``take`` would find one."""
        return next(self._waiting(wanted), None) is not None

    def taken(self, wanted: Callable[[HeldCall[Any]], bool]) -> int:
        """How many such calls the test has taken and not answered."""
        left = [held for entry in self for held in entry.left.copy() if held._taken]
        return sum(held._is_open and wanted(held) for held in left)

    def _waiting(self, wanted: Callable[[HeldCall[Any]], bool]) -> Iterator[HeldCall[Any]]:
        left = [held for entry in self for held in entry.left.copy() if not held._taken]
        left.sort(key=lambda held: held._number)
        return (held for held in left if held._is_open and wanted(held))


def _check_size(what: str, encoded: bytes, instead: str) -> None:
    """Refuse what no message carries: it would be in the way of all that is declared after it."""
    if len(encoded) > MAX_MESSAGE - _ROOM:
        raise ValueError(
            f"{what} has {len(encoded):,} bytes, and the server's process takes "
            f"{MAX_MESSAGE - _ROOM:,} at once: {instead}"
        )


def _declaration(entry: Entry) -> Declare:
    spec, terms = entry.spec, entry.spec.terms
    return Declare(
        entry=spec.number,
        allow=spec.allow,
        least=entry.least,
        most=spec.times.most,
        group=spec.group,
        label=f"{'allow' if spec.allow else 'expect'} {terms.label}",
        place=spec.place,
        asked=terms.test is not None,
        held=entry.holds,
        early=entry.early,
        met=entry.before,
        matchers=terms.matchers,
    )


def _reply(entry: Entry, answer: Answer, *, early: bool) -> Reply:
    return Reply(
        entry=entry.spec.number,
        least=entry.least,
        delay=answer.delay,
        answer=answer.given.encoded,
        early=early,
    )
