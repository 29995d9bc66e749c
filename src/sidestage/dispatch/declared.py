"""What expectations make of requests, as a run sees it: counts, verdicts, callables, held calls.

The child chooses. Here is what it cannot do: judge what only the test's process can, call what the
test has given as an answer, and keep a call until the test answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import UnexpectedRequest
from ..wire.messages import Chosen, Close, Met, Verdict
from ..wire.values import printable

if TYPE_CHECKING:
    from ..wire.messages import Message
    from .calls import Call
    from .run import Run

_WHAT = 160  # characters of what came

Messages = tuple[list["Message"], int]  # and the position after them


class AnswerNote(NamedTuple):
    """What the test's process knows of an answer that the child gives."""

    delay: float = 0.0  # seconds that it is held back
    fault: Any = None  # of the protocol: what goes wrong on purpose


NOTHING_KNOWN = AnswerNote()


class Declared(Protocol):
    """The expectations of one server."""

    @property
    def position(self) -> int:
        """The number of changes so far."""
        ...

    asks: bool  # the test's process has a part in an answer, so handler threads must run

    def whole(self) -> Messages:
        """What says everything to a child that knows nothing; a run begins with it."""
        ...

    def since(self, position: int) -> Messages:
        """What says the changes since ``position``."""
        ...

    def described(self, entry: int) -> tuple[str, Any]:
        """The expectation as messages name it, and what it looks at, as plain data."""
        ...

    def test_of(self, entry: int) -> Callable[[Any], object] | None:
        """Whether a request meets the parts of an expectation that the test's process judges."""
        ...

    def answer_of(self, met: Met) -> Callable[[Any], Any] | None:
        """What is to be called for the answer; ``None`` if the child has one."""
        ...

    def answer_note(self, met: Met) -> AnswerNote:
        """What is known of the answer that the child has."""
        ...

    def met(self, entry: int) -> None:
        """Count that an expectation was met."""

    def counted(self, counts: Iterable[tuple[int, int]]) -> None:
        """Take over how often expectations were met in this run so far."""

    def hold(self, entry: int, call: Call) -> bool:
        """Keep a call until the test answers it; ``False`` if its expectation was removed."""
        ...

    def is_failure(self) -> bool:
        """Whether an unexpected request fails the test."""
        ...


# What came ---------------------------------------------------------------------------------------


def note(run: Run, met: Met, request: Any, what: str) -> None:
    """Take over what the child has made of ``request``, which messages call ``what``."""
    declared = run.slot.declared
    if declared is None:
        return
    if met.entry:
        request._by, request._pattern = declared.described(met.entry)
        request._entry = met.entry
        declared.met(met.entry)
    if met.unexpected:
        request._unexpected = True
        if declared.is_failure():
            _fail(run, met.unexpected, request, what)


def _fail(run: Run, text: str, request: Any, what: str) -> None:
    # Without the client's address: then equal ones are told once.
    first, _, rest = text.partition("\n")
    told = first.removeprefix("unexpected request: ") or printable(what, _WHAT)
    run.journal.failed(
        UnexpectedRequest(
            f"{told} at {run.label}\n{rest}".rstrip(), server=str(run.label), request=request
        ),
        connection=request.connection_number,
        came=request.received_at,
    )


# Calls -------------------------------------------------------------------------------------------


def opened(run: Run, call: Call, met: Met) -> Call | None:
    """A call was opened, of which ``met`` says why; returns it if something is to run for it."""
    declared = run.slot.declared
    if met.held and declared is not None:
        call.idle = call.is_held = True
        # A stop that has begun before this has let go of what was held by then.
        if not declared.hold(met.entry, call) or run.stopping:
            _let_go(run, call)
        return None
    call.met = met
    return call


def chosen(run: Run, message: Chosen) -> Call | None:
    """What was chosen after a verdict; returns the call if something is to run for it."""
    call = run.call(message.call)
    if call is None:  # it was lost meanwhile
        return None
    met = message.met
    note(run, met, call.request, call.describe())
    if met.done:
        call.answered_elsewhere(met, answer_note(run, met))
        run.close_call(call)
        return None
    call.idle = False
    return opened(run, call, met)


def answer_note(run: Run, met: Met) -> AnswerNote:
    """What is known of the answer that the child gives."""
    declared = run.slot.declared
    return NOTHING_KNOWN if declared is None else declared.answer_note(met)


def handler_of(call: Call, met: Met) -> Callable[[Any], Any] | None:
    """What is called for a call: the answer of an expectation, or the server's handler."""
    declared = call.run.slot.declared
    if declared is not None and met.entry and (answer := declared.answer_of(met)) is not None:
        call.on_behalf = f"the answer to {declared.described(met.entry)[0]}"
        return answer
    return call.run.slot.handler


def judge(call: Call, asks: Iterable[int]) -> bool:
    """Tell the child which expectation a request meets first; returns whether Chosen follows.

    Those after it are not asked: what they would raise is no error of this request.
    """
    run, declared = call.run, call.run.slot.declared
    found = 0
    for entry in asks if declared is not None else ():
        assert declared is not None
        test = declared.test_of(entry)
        if test is None:  # it was removed meanwhile
            continue
        name, call.request._pattern = declared.described(entry)
        call.on_behalf, call.handler = f"`where` of {name}", test
        if run.slot.run_handler(call.request, test):
            found = entry
            break
    call.request._pattern = None
    if not run.rest(call):
        call.answered_elsewhere()
        return False
    run.send(Verdict(call=call.id, entry=found))
    return True


def let_go(run: Run) -> None:
    """At a stop: nobody answers what is held any more."""
    for call in run.calls():
        if call.is_held:
            _let_go(run, call)


def _let_go(run: Run, call: Call) -> None:
    """Reset the connection of a held call, unless somebody works at it."""
    if run.take_up(call):
        run.try_send(Close(call=call.id, reset=True, returned=True))
        call.over = run.gone()
        call.broken(call.over)
        call.answered_elsewhere()
        run.close_call(call)
